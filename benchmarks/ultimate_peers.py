"""The peers of `benchmarks.ultimate`, each in the peers' own interpreter: PYTHON ultimate_peers.py ORDER.json

An order names a task (`train`, `speed` or `reference`), a network, its sizes, and the files of its arrays. The networks
are taken out of their libraries' data loaders and trainers: they get the same batches in the same order as ours, the
same loss and the same optimizer, so that only the networks differ. Nothing here imports cryptolab.
"""

import json
import sys
import time
from importlib.metadata import version

import numpy as np
import torch


def pytorch_forecasting(sizes):
    "Its network, and a function: windows -> quantiles of the chosen horizons, weights of the variables."
    from pytorch_forecasting import TemporalFusionTransformer
    from pytorch_forecasting.metrics import QuantileLoss

    names, ahead = [f"x{k}" for k in range(sizes["columns"])], max(sizes["horizons"])
    model = TemporalFusionTransformer(
        hidden_size=sizes["hidden"], lstm_layers=sizes["layers"], dropout=sizes["dropout"],
        output_size=len(sizes["quantiles"]), loss=QuantileLoss(list(sizes["quantiles"])),
        attention_head_size=sizes["heads"], max_encoder_length=sizes["window"], time_varying_reals_encoder=names,
        time_varying_reals_decoder=["step"], x_reals=[*names, "step"],
        hidden_continuous_size=sizes["width"] or sizes["hidden"], output_transformer=lambda found: found["prediction"],
        logging_metrics=torch.nn.ModuleList([]),
    )

    def ask(x):
        rows, window, columns = x.shape
        past = torch.cat([x, torch.zeros(rows, window, 1)], -1)
        future = torch.zeros(rows, ahead, columns + 1)
        future[..., -1] = torch.arange(1, ahead + 1) / ahead
        found = model({
            "encoder_cont": past, "decoder_cont": future, "encoder_cat": torch.zeros(rows, window, 0, dtype=torch.long),
            "decoder_cat": torch.zeros(rows, ahead, 0, dtype=torch.long), "target_scale": torch.ones(rows, 2),
            "encoder_lengths": torch.full((rows,), window), "decoder_lengths": torch.full((rows,), ahead),
        })
        return found["prediction"][:, [h - 1 for h in sizes["horizons"]]], found["encoder_variables"][:, :, 0]

    return model, ask


def neuralforecast(sizes):
    "The same for neuralforecast, whose target is the last column; the relative time is a known column for it."
    from neuralforecast.losses.pytorch import MQLoss
    from neuralforecast.models import TFT

    ahead, columns, statics = max(sizes["horizons"]), sizes["columns"], sizes.get("static", 0)
    model = TFT(
        h=ahead, input_size=sizes["window"], hidden_size=sizes["hidden"], n_head=sizes["heads"],
        n_rnn_layers=sizes["layers"], dropout=sizes["dropout"], loss=MQLoss(quantiles=list(sizes["quantiles"])),
        hist_exog_list=[f"x{k}" for k in range(columns - 1)], futr_exog_list=["step"], one_rnn_initial_state=True,
        stat_exog_list=[f"s{k}" for k in range(statics)] or None, max_steps=1, logger=False, enable_checkpointing=False,
    )
    step = torch.arange(1 - sizes["window"], ahead + 1) / ahead

    def ask(x, static=None):
        found = model({
            "insample_y": x[..., -1:], "hist_exog": x[..., :-1], "stat_exog": static,
            "futr_exog": step[None, :, None].repeat(len(x), 1, 1),
        })
        weights = model.interpretability_params["history_vsn_wgts"]
        weights = torch.cat([weights[..., : columns - 1], weights[..., -1:]], -1)  # without the relative time
        return found[:, [h - 1 for h in sizes["horizons"]]], weights / weights.sum(-1, keepdim=True)

    return model, ask


def loss_of(y, forecast, quantiles):
    "Mean pinball loss."
    over = y[..., None] - forecast
    q = torch.tensor(quantiles)
    return torch.maximum(q * over, (q - 1) * over).mean()


def step(model, ask, optimizer, x, y, sizes):
    "One step of training."
    optimizer.zero_grad()
    loss_of(y, ask(x)[0], sizes["quantiles"]).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def train(model, ask, sizes, data):
    "Train on the batches that are given, and ask about the held-out rows."
    optimizer = torch.optim.Adam(model.parameters(), lr=sizes["rate"], eps=1e-7)
    x, y, later = (torch.from_numpy(data[name]) for name in ("x", "y", "later"))
    model.train()
    for rows in torch.from_numpy(data["batches"]):
        step(model, ask, optimizer, x[rows], y[rows], sizes)
    model.eval()
    with torch.no_grad():
        parts = [ask(part) for part in later.split(500)]
    return {"forecast": torch.cat([p for p, _ in parts]).numpy(), "weights": torch.cat([w for _, w in parts]).numpy()}


def speed(model, ask, sizes, data):
    "Seconds of each training step behind the first."
    optimizer = torch.optim.Adam(model.parameters(), lr=sizes["rate"], eps=1e-7)
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    model.train()
    wall, cpu = [], []
    for _ in range(sizes["steps"] + 1):
        start = time.perf_counter(), time.process_time()
        step(model, ask, optimizer, x, y, sizes)
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {"wall": wall[1:], "cpu": cpu[1:]}


def reference(model, ask, sizes, data):
    "Outputs with weights that are drawn by name, in the order of the names: another library can draw the same."
    draw, state, shapes = np.random.default_rng(sizes["draw"]), model.state_dict(), {}
    for name in sorted(state):
        if not name.endswith("_mask"):
            shapes[name] = list(state[name].shape)
            state[name] = torch.from_numpy(draw.normal(0, 0.4, shapes[name]).astype("float32"))
    model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        forecast, weights = ask(torch.from_numpy(data["x"]), torch.from_numpy(data["static"]))
    attention = model.interpretability_params["attn_wts"].mean(1)
    rows = [sizes["window"] + h - 1 for h in sizes["horizons"]]
    shapes = json.dumps(shapes)
    return {"forecast": forecast, "weights": weights, "attention": attention[:, rows], "shapes": shapes}


def main():
    order = json.loads(open(sys.argv[1]).read())
    torch.set_num_threads(1)
    torch.manual_seed(order["sizes"].get("seed", 0))
    model, ask = {"pytorch-forecasting": pytorch_forecasting, "neuralforecast": neuralforecast}[order["network"]](
        order["sizes"]
    )
    work = {"train": train, "speed": speed, "reference": reference}[order["task"]]
    found = work(model, ask, order["sizes"], np.load(order["data"]))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    versions = json.dumps({name: version(name) for name in (order["network"], "torch")})
    np.savez(order["answer"], parameters=parameters, versions=versions, **found)


if __name__ == "__main__":
    main()
