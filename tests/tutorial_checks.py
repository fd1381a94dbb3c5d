"""What must hold after a tutorial has run. A tutorial itself holds only what its reader is to see."""

CHECKS = {
    "01_first_report": """
assert scores["accuracy"].between(0, 1).all() and "majority" in scores.index
assert "report.html" in files and "result.json" in files
try:
    run_report("BTCUSDT", "1h", params={"droput": 0.2}, out="reports")
except CryptolabError:
    pass
else:
    raise AssertionError("the misspelt name was taken")
""",
    "02_own_coin": """
assert mine.index.is_monotonic_increasing and mine.index.is_unique and str(mine.index.tz) == "UTC"
assert gaps["missing"].sum() == 6 and len(mine) == 800 - 6  # five were not in the file, one was impossible
for symbol in ("ODDUSDT", "MYOUSDT"):
    try:
        load_candles(symbol, "1h", source="local", data_dir=".")
    except CryptolabError:
        pass
    else:
        raise AssertionError(f"{symbol} was loaded")
""",
    "03_own_feature": """
assert table["place_48"].iloc[:47].isna().all() and table["place_48"].iloc[47:].between(0, 1).all()
assert certificate.loc["place_48", "verdict"] == "pass"
assert leaky.loc["place_in_day", "verdict"] == "fail"
assert mended.loc["place_in_day_so_far", ["prefix", "future"]].tolist() == ["pass", "pass"]
""",
    "04_own_model": """
import pandas as pd

pd.testing.assert_frame_equal(again.forecast(candles), system.forecast(candles), check_exact=True)
assert (rules["verdict"] == "pass").all()
assert len(found) == 0 and len(leaks) >= 1
assert summary["rejections"] <= 3
assert power.loc[0.15, "found"] == 3
""",
    "05_reading_a_report": """
assert train[-1] < val[0] and val[-1] < test[0]
assert scores.loc["best possible", "roc_auc"] > 0.5
assert (costs["net_bp"] <= costs["gross_bp"] + 1e-9).all()
assert volatility.loc["persistence", "skill"] == 0
assert level > 0.9 and prices.loc["persistence", "mase"] == 1
""",
    "06_colab": """
assert machine["fits"]["profile"] in ("full", "quick", "smoke")
assert "taken from the interrupted run" in lines[0]
assert ("volatility", "model.json") in kept
""",
    "07_from_the_script": """
assert len(feature_table("v9")) == 46 and rows.windows.length * 46 == 2_760
assert rows.counts["labelled"] == 9_940 and rows.counts["parts"]["direction"] == {
    "train": 6_958, "val": 1_491, "test": 1_491,
}
assert published > 0.9 > honest
assert {"direction", "volatility", "price"} <= set(claims["part"])
""",
    "08_trading": """
assert free.equity.iloc[-1] > free.capital > real.equity.iloc[-1]
assert len(stopped.trades) == len(trend.trades) and set(turned.trades["side"]) == {1, -1}
assert agree.all() and len(agree)
""",
    "09_when_things_break": """
assert read_back(exchanged) is None and read_back(two) is None
""",
    "10_ultimate": """
assert ai.get_trading_signal("BTC/USDT", min_confidence=0.999) is None
assert report["num_predictions"] == ai.get_performance_report()["num_predictions"]
""",
    "11_foreign_notebook": """
assert [(f["kind"], f["cell"]) for f in audit.findings] == [("fitted on test rows", 4), ("label overlap", 5)]
assert mended.leaks() == [] and page.exists()
assert {verdict for verdict, _ in audit.verdicts.values()} == {"leak", "nothing", "not judged"}
""",
}
