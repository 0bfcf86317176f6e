"""Three small tables: npflow beside zuko's masked autoregressive and neural spline flows, test NLL in nats.

The split and the rule are the same for all: fit to the training rows, make every choice on the validation
rows, report the test rows. Each setting below is trained once with zuko, with early stopping. The one with
the best validation loss is trained from more seeds; the table shows the mean over them and their standard
deviation. demos/tabular.py runs first and gives npflow's results, and those of scikit-learn's kernel density
and mixture.

    pip install -e '.[benchmarks]'
    python benchmarks/tabular.py

This takes almost an hour, mostly for zuko's spline flow on digits; `--tables wine` takes minutes. zuko and
PyTorch are optional: without them the table has only the results of the demo.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from npflow.datasets import TABULAR, tabular

COPIES = 4  # as in the demo
DEMO = Path(__file__).parent.parent / "demos" / "tabular.py"

# The settings: first zuko's own defaults, then others that reduce overfitting. `start` scales the initial
# weights, `noise` is added to the rows of each step, `decay` is AdamW's.
COMMON = {
    "transforms": 3,
    "hidden": (64, 64),
    "activation": "ReLU",
    "start": 1.0,
    "noise": 0.0,
    "decay": 0.01,
    "dropout": 0.0,
}
SMOOTH = {"activation": "Tanh", "start": 0.5}
SETTINGS = [
    {},
    {"transforms": 1, "hidden": (128, 128)},
    {"decay": 1.0},
    {"dropout": 0.2},
    {"noise": 0.1},
    {"noise": 0.2},
    SMOOTH,
    SMOOTH | {"noise": 0.05},
    SMOOTH | {"noise": 0.2},
    SMOOTH | {"transforms": 5, "noise": 0.01},
    SMOOTH | {"transforms": 1, "hidden": (128, 128), "noise": 0.05},
]
RATE, BATCH, CLIP = 1e-3, 64, 10.0
STEPS, EVERY, PATIENCE = 4000, 20, 1000  # at most; between two validations; without improvement


def fit_zuko(kind, table, setting, seed):
    """The mean NLL of each part by a flow of zuko at its best step on the validation rows, and the seconds."""
    import torch
    import zuko

    clock = time.perf_counter()
    setting = COMMON | setting
    torch.manual_seed(seed)
    train, validation, test = (torch.tensor(part, dtype=torch.float32) for part in table)
    activation, dropout = getattr(torch.nn, setting["activation"]), torch.nn.Dropout(setting["dropout"])
    flow = getattr(zuko.flows, kind)(
        train.shape[1],
        transforms=setting["transforms"],
        hidden_features=setting["hidden"],
        activation=lambda: torch.nn.Sequential(activation(), dropout),
    )
    for parameter in flow.parameters():
        parameter.data *= setting["start"]
    nll = lambda x: -flow().log_prob(x).mean()
    optimizer = torch.optim.AdamW(flow.parameters(), RATE, weight_decay=setting["decay"])

    best, best_step, state = np.inf, 0, None
    for step in range(1, STEPS + 1):
        x = train[torch.randint(len(train), (BATCH,))]
        optimizer.zero_grad()
        nll(x + setting["noise"] * torch.randn_like(x)).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        optimizer.step()
        if step % EVERY == 0:
            flow.eval()
            with torch.no_grad():
                loss = nll(validation).item()
            flow.train()
            if loss < best:
                best, best_step = loss, step
                state = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
            if step - best_step >= PATIENCE:
                break
    flow.load_state_dict(state)
    flow.eval()
    with torch.no_grad():
        losses = {name: nll(part).item() for name, part in zip(table._fields, (train, validation, test))}
    return losses, time.perf_counter() - clock


def best_of_zuko(kind, name, seeds):
    """The best setting by the validation rows, and its losses from several seeds."""
    table = tabular(name, rng=np.random.default_rng(0), copies=COPIES)
    clock = time.perf_counter()
    tried = [fit_zuko(kind, table, setting, seed=0) for setting in SETTINGS]
    chosen = int(np.argmin([losses["validation"] for losses, _ in tried]))
    runs = [tried[chosen], *(fit_zuko(kind, table, SETTINGS[chosen], seed) for seed in range(1, seeds))]
    losses = {part: np.array([losses[part] for losses, _ in runs]) for part in table._fields}
    return {
        "chosen": ", ".join(f"{option} {value}" for option, value in (COMMON | SETTINGS[chosen]).items()),
        "tried": [{**setting, **losses} for setting, (losses, _) in zip(SETTINGS, tried)],
        "validation_nll": float(np.mean(losses["validation"])),
        "test_nll": float(np.mean(losses["test"])),
        "spread": float(np.std(losses["test"])),
        "seconds": float(np.mean([seconds for _, seconds in runs])),
        "seconds_of_all": time.perf_counter() - clock,
    }


def npflow_figures():
    """The results of demos/tabular.py."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, str(DEMO), "--out", folder], check=True, stdout=subprocess.DEVNULL)
        return json.loads((Path(folder) / "summary.json").read_text())


def print_row(table, estimator, row):
    """Print a line of the table."""
    spread = f"+- {row['spread']:.2f}" if "spread" in row else ""
    figures = f"{row['validation_nll']:12.2f}{row['test_nll']:9.2f} {spread:9}{row['seconds']:9.1f}"
    print(f"{table:15}{estimator:24}{figures}   {row['chosen']}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", choices=TABULAR, default=TABULAR)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of the chosen setting")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/tabular.json"))
    options = parser.parse_args()

    peers = all(importlib.util.find_spec(name) for name in ("torch", "zuko"))
    if not peers:
        print("left out: zuko or PyTorch is not installed (pip install -e '.[benchmarks]')")

    results = npflow_figures()
    print(f"{'':15}{'':24}{'validation':>12}{'test':>9} {'':9}{'seconds':>9}   chosen")
    for name in options.tables:
        for estimator, row in results[name].items():
            print_row(name, estimator, row)
        for kind in ("MAF", "NSF") if peers else ():
            row = results[name][f"zuko {kind}"] = best_of_zuko(kind, name, options.seeds)
            print_row(name, f"zuko {kind}", row)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({name: results[name] for name in options.tables}, indent=2))
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
