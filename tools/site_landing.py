"""The first page of the site: one card per kind of reader, with the command to begin with."""
import html
from dataclasses import dataclass

HEAD = """# cryptolab

> A laboratory for machine learning on crypto markets that cannot fool its user

Five published systems, built as their documents describe them and judged by one rule. Every number stands beside what
costs nothing, its interval and its costs. What brings you here?
"""
TAIL = """
The [overview](overview.ipynb) is the README: install, first report, what it stands on. Three pages are worth knowing
early: [the one rule of proof](evaluation/proof.ipynb) that every sentence follows,
[the glossary](studies/glossary.ipynb), and [all commands](commands.md). What was found stands in
[the benchmarks](studies/benchmarks.ipynb) and in [the five documents](studies/documents.ipynb). The
{ref}`index <genindex>` lists every function and class; the search field finds words in all pages. Research only:
nothing here is advice to trade.

"""


@dataclass(frozen=True)
class Card:
    "One reader: what is wanted, what it gives, how to begin, where to read on."

    title: str
    text: str
    command: str  # of a shell; of Python where it begins with `cl.`
    page: str  # page of the site, without suffix
    label: str  # what the link says


CARDS = (
    Card(
        "Explore one coin", "Candles in, one page out: what can be forecast, against what is free, after costs.",
        "cryptolab run BTCUSDT 1h", "tutorials/01_first_report", "A first report",
    ),
    Card(
        "Run all coins", "A report for every coin, timeframe and system, and a leaderboard corrected for their number.",
        "cryptolab batch --symbols BTCUSDT,ETHUSDT --timeframes 1h,1d", "runs/batch", "Batches",
    ),
    Card(
        "Audit my own notebook", "Your features and your model, rerun on altered data: what knows the future is named.",
        "cl.audit_pipeline(mine, candles)", "tutorials/04_own_model", "Does a pipeline leak?",
    ),
    Card(
        "Add a model", "A system that works, to change into yours; it gets every report, test and comparison.",
        "cryptolab new system demo", "tutorials/04_own_model", "Your own model as a system",
    ),
    Card(
        "Deploy", "Forecasts of a saved run as JSON, V3 as one ONNX file, models on a hub. There is no service yet.",
        "cryptolab predict reports/BTCUSDT-1h-v9", "serving/forecast", "Forecasts as they are asked for",
    ),
)


def card(one: Card) -> str:  # HTML
    "One card."
    return (
        f'<div class="reader"><h2>{html.escape(one.title)}</h2><p>{html.escape(one.text)}</p>'
        f'<pre><code>{html.escape(one.command)}</code></pre>'
        f'<p><a href="{one.page}.html">{html.escape(one.label)}</a></p></div>'
    )


def landing_page(chosen: set) -> str:  # markdown
    "The whole page; of a part of the site only the cards whose page is `chosen`."
    cards = "\n".join(card(one) for one in CARDS if one.page in chosen)
    pages = {"overview", "evaluation/proof", "studies/glossary", "studies/benchmarks", "studies/documents"}
    return "\n".join([HEAD, f'<div class="readers">\n{cards}\n</div>', TAIL if pages <= chosen else ""])
