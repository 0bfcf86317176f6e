"""A training step of a wide ten-step Glow on two moons on a GPU: npflow beside PyTorch, and the host.

All have the same model (`contenders_moons.py`; couplings of 1-512-512-512-2), parameters, data and batches of
4096, in float32 without TF32, as both libraries do by default. There are three columns: npflow on the GPU,
PyTorch eager on the same GPU, and npflow on the host. Steps do not wait for the GPU. So a block of steps is
timed, from an idle GPU to an idle GPU, and divided by their number; on the host likewise. `side_by_side.py`
says how they are compared. Before this, the log-dets of the GPU are compared with those of the host.

    pip install -e '.[benchmarks,cuda12]'
    python benchmarks/moons_gpu.py

PyTorch is optional and left out if it is not installed or finds no GPU. With `--device cpu` everything runs
on the host, to try this file without a GPU.
"""

import numpy as np
from contender import BATCHES, load_arrays
from contenders_moons import Npflow, Torch, glow, parameters, save
from side_by_side import Column, arrays_file, measure, option_parser, print_table, those_that_run, write

import npflow
from npflow.autodiff import tree
from npflow.autodiff.gpu import devices
from npflow.autodiff.program.threads import available_cores

BLOCKS, BLOCK_SECONDS = 3, 0.3  # of a round, whose result is the median block
BARS = {
    "float32": 1e-5,
    "float64": 1e-12,
}  # the largest difference allowed between log-dets of the GPU and of the host


def pace(worker):
    """Blocks of about the same time for each column."""
    trial = worker.ask(do="time", blocks=1, steps=BATCHES)["median"]
    return BLOCKS, max(2, round(BLOCK_SECONDS / trial))


def log_det_difference(flow, params, x, device, dtype):
    """The largest difference between a device's log-dets and the host's: relative, or absolute below 1."""
    cast = lambda _, leaf: leaf.astype(dtype) if tree.is_trained(leaf) else leaf
    params, x = tree.build(cast, params), x.astype(dtype)
    _, expected = flow.layer.forward(params["layer"], x)
    _, log_det = flow.layer.forward(npflow.to_device(params["layer"], device), npflow.to_device(x, device))
    return float(np.max(np.abs(npflow.to_host(log_det) - expected) / np.maximum(np.abs(expected), 1)))


def main():
    parser = option_parser(__doc__.split("\n")[0], out="out/benchmarks/moons_gpu.json")
    parser.add_argument("--batch", type=int, default=4096, help="rows of a batch")
    parser.add_argument("--hidden", type=int, default=512, help="width of each of the three hidden layers")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where the steps run")
    options = parser.parse_args()
    device, batch, hidden = options.device, options.batch, (options.hidden,) * 3
    try:
        devices.find_device(device)
    except npflow.InputError as error:
        raise SystemExit(str(error)) from None

    on_device = f"npflow on {device}"
    columns = those_that_run(
        [
            Column(Npflow, device=device, name=on_device),
            Column(Torch, options.torch_python, device, f"PyTorch eager on {device}"),
            Column(Npflow, name="npflow on the host"),
        ]
    )
    if device == "cpu":
        print(f"no GPU is used: '{on_device}' is the host once more, and PyTorch runs on the host, too")

    with arrays_file(save, hidden, BATCHES * batch) as file:
        flow, arrays = glow(hidden), load_arrays(file)
        params, x = parameters(flow, arrays), arrays["x"][:batch]
        differences = {dtype: log_det_difference(flow, params, x, device, dtype) for dtype in BARS}
        for dtype, difference in differences.items():
            print(f"log_det, {device} against the host, {dtype}: {difference:.1e} (bar {BARS[dtype]:.0e})")
        measured = measure(columns, file, hidden, batch, options.rounds, pace)

    cores = available_cores()
    for row in measured["libraries"]:
        print(f"{row['name']}, {row['version']}: {row.get('gpu', f'{cores} cores')}")
    result = {
        "batch": batch,
        "hidden": hidden,
        "host_cores": cores,
        "log_det_differences": differences,
        "rounds": options.rounds,
        "blocks": BLOCKS,
        "block_seconds": BLOCK_SECONDS,
        **measured,
    }
    print_table([result])
    write(options.out, result)
    if any(differences[dtype] > bar for dtype, bar in BARS.items()):
        raise SystemExit(f"the log-dets of {device} differ too much from those of the host: see above")


if __name__ == "__main__":
    main()
