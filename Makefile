# Everything a user or a developer runs. `make help` lists it.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup report check test test-oldest lab export readme screenshot gallery bench-skill bench-features bench-zoo bench-controls bench-batch bench-backtest fuzz docs docs-quarto constraints clean

PYTHON ?= python3
BIN := .venv/bin
SUITE := $(BIN)/python tools/step.py
STYLED := cryptolab nbs tests tools benchmarks colab setup.py
# as a recipe, so that test-oldest runs it with its own environment
TESTS = $(BIN)/pytest tests -n 2 --no-loadscope-reorder

# An option reaches `cryptolab run` only when it was given on make's command line, so that settings.ini decides otherwise.
given = $(if $(findstring command,$(origin $1)),$($1))
option = $(if $(call given,$1),$2 "$($1)")
REPORT = $(call given,SYMBOL) $(call given,TIMEFRAME) $(call option,SOURCE,--source) $(call option,DATA_DIR,--data-dir) \
	$(call option,PROFILE,--profile) $(call option,LIMIT,--limit) $(call option,SEED,--seed) $(call option,OUT,--out)

ifneq ($(and $(call given,TIMEFRAME),$(if $(call given,SYMBOL),,missing)),)
$(error TIMEFRAME needs SYMBOL: make report SYMBOL=BTCUSDT TIMEFRAME=$(TIMEFRAME))
endif

help:  ## show this list
	@echo "cryptolab: make TARGET [VARIABLE=value …]"
	@sed -n 's/^\([a-z-]*\):.*  ## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r t h; do printf '  %-14s %s\n' "$$t" "$$h"; done

setup: .venv/.stamp  ## make .venv with what a report needs (PYTHON=python3.12 chooses another Python)

.venv/.stamp: pyproject.toml constraints.txt tools/make_venv.py
	@$(PYTHON) tools/make_venv.py .venv constraints.txt hub,exchange,serve,lab,excel

# What tests, benchmarks and the site need beside it goes into the same environment; the stamp of a report's packages is older.
.venv/.dev-stamp: .venv/.stamp
	@$(PYTHON) tools/make_venv.py .venv constraints.txt hub,exchange,serve,lab,excel,dev,peers,docs
	@touch $@

.venv-oldest/.stamp: pyproject.toml constraints-oldest.txt tools/make_venv.py
	@$(PYTHON) tools/make_venv.py .venv-oldest constraints-oldest.txt dev

# A server to upload to, of the tests: its packages and ours cannot stand in one environment.
.venv-s3/.stamp: constraints-s3.txt tools/make_venv.py
	@$(PYTHON) tools/make_venv.py .venv-s3 constraints-s3.txt "" "moto[server,s3]"

report: setup  ## one report: SYMBOL= TIMEFRAME= SOURCE= DATA_DIR= PROFILE= LIMIT= SEED= OUT= (defaults: settings.ini)
	@$(BIN)/cryptolab run $(strip $(REPORT))

check: .venv/.dev-stamp  ## two minutes for the daily loop: sync, style, layout, a smoke of every room
	@$(SUITE) --start
	@$(SUITE) "1/4 notebooks clean, library in sync with them" $(BIN)/python tools/check_sync.py
	@$(SUITE) "2/4 layout: every module its notebook, rooms, arrows, private names" $(BIN)/python tools/check_layout.py
	@$(SUITE) "3/4 ruff" $(BIN)/ruff check $(STYLED)
	@$(SUITE) "4/4 a smoke of every room" $(BIN)/python tools/smoke.py
	@$(SUITE) --summary

test: .venv/.dev-stamp .venv-s3/.stamp  ## all checks and tests, in the order of README.md
	@$(SUITE) --start
	@$(SUITE) "1/4 notebooks clean, library in sync with them" $(BIN)/python tools/check_sync.py ++ \
		"2/4 layout: every module its notebook, rooms, arrows, private names" $(BIN)/python tools/check_layout.py ++ \
		"3/4 ruff" $(BIN)/ruff check $(STYLED)
	@$(SUITE) "4/4 examples of all notebooks, whole-program tests, wheel, report templates" $(TESTS) --durations=15
	@$(SUITE) --summary

fuzz: .venv/.dev-stamp  ## ten minutes of damaged files (SECONDS=600), then the whole corpus of altered model folders
	@CRYPTOLAB_FUZZ_SECONDS=$(if $(call given,SECONDS),$(SECONDS),600) $(BIN)/pytest tests/test_fuzz.py -q -s
	@$(BIN)/python -m tests.test_hostile

test-oldest: .venv-oldest/.stamp  ## notebooks, tests and report with the oldest allowed versions (Python 3.11 or 3.12)
	@$(MAKE) --no-print-directory _suite_oldest BIN=.venv-oldest/bin

_suite_oldest:
	@$(SUITE) --start
	@$(SUITE) "1/1 examples, tests and report templates with the oldest versions" $(TESTS) --deselect tests/test_whole.py::test_the_wheel_in_a_clean_environment
	@$(SUITE) --summary

lab: setup  ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab --notebook-dir=nbs

export: .venv/.dev-stamp  ## write cryptolab/ from the notebooks and clean the notebooks
	@$(BIN)/python tools/export.py
	@$(BIN)/python tools/badges.py
	@$(BIN)/nbdev-clean
	@if [ -d colab ]; then $(BIN)/nbdev-clean --fname colab; fi

readme: .venv/.dev-stamp  ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/make_readme.py

screenshot: .venv/.dev-stamp  ## the README picture of the run in reports/BTCUSDT-1h-v9, drawn by the code as it is (needs chromium)
	@$(BIN)/python tools/screenshot.py

gallery: .venv/.dev-stamp  ## pictures of the reports in OUT= (default: reports) for the gallery of the site (needs chromium)
	@$(BIN)/python tools/make_gallery.py $(call given,OUT)

bench-skill: .venv/.dev-stamp  ## V9 on planted and null markets and beside LightGBM; stored in benchmarks/results (DATA_DIR= real candles)
	@$(BIN)/python -m benchmarks.skill $(call option,DATA_DIR,--data-dir)

bench-features: .venv/.dev-stamp  ## speed, memory and latency of the features beside other libraries; stored in benchmarks/results (DATA_DIR= real candles)
	@$(BIN)/python -m benchmarks.features $(call option,DATA_DIR,--data-dir)

bench-zoo: .venv/.dev-stamp  ## sensitivity and false alarms of the leak detectors; stored in benchmarks/results (DATA_DIR= real candles)
	@$(BIN)/python -m benchmarks.zoo $(call option,DATA_DIR,--data-dir)

bench-controls: .venv/.dev-stamp  ## null markets and planted edges; stored in benchmarks/results (DATA_DIR= real candles)
	@$(BIN)/python -m benchmarks.controls null v9 planted $(call option,DATA_DIR,--data-dir)

bench-batch: .venv/.dev-stamp  ## what two workers gain, and what a report costs beyond its work; stored in benchmarks/results (idle machine)
	@$(BIN)/python -m benchmarks.batch

bench-backtest: .venv/.dev-stamp  ## the backtester beside backtesting.py and vectorbt; stored in benchmarks/results (DATA_DIR= real candles)
	@$(BIN)/python -m benchmarks.backtest $(call option,DATA_DIR,--data-dir)

docs: .venv/.dev-stamp  ## build the documentation site into _docs/; opens from the file system, needs no network
	@$(BIN)/python tools/build_docs.py _docs

docs-quarto: .venv/.dev-stamp  ## the same notebooks as a site made by nbdev (needs quarto)
	@command -v quarto >/dev/null || { echo "quarto is not installed, so no site was built; make docs needs none"; exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH="$(CURDIR)/tools" nbdev-docs
	@echo "_docs/index.html"

constraints:  ## resolve constraints.txt, constraints-oldest.txt and constraints-s3.txt anew
	@test -x $(BIN)/uv || $(MAKE) --no-print-directory setup
	@$(BIN)/python tools/make_constraints.py

clean:  ## remove caches and built files; keeps .venv, reports and data
	@rm -rf build dist _docs _proc .cache .pytest_cache .ruff_cache nbs/sidebar.yml
	@find cryptolab tests tools nbs -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +
