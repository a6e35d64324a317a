"""Saving and loading beside what others take, in the same run: `python -m bench.checkpoint --help`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from bench.checkpoint import parts
from bench.checkpoint.place import place
from bench.checkpoint.state import count
from bench.checkpoint.subjects import DOES

AIMS = {"stall_ratio": 1.3, "share_of_wall_time": 0.005}
"""At most."""
OTHERS = ("torch.save", "dcp.async_save", "lightning")


def main() -> None:
    """Runs the parts one after the other and prints each figure, beside its aim where it has one."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.checkpoint",
        description=(
            "What a save costs training, how fast it is durable beside torch.save, DCP's async_save and "
            "Lightning's callback, what an incremental one writes, what a load needs. "
            "Example: python -m bench.checkpoint --parameters 50M --store s3 --json out.json"
        ),
    )
    parser.add_argument("--parameters", default="50M", help="of the model; AdamW triples its bytes (50M)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the state lies (cpu)")
    parser.add_argument(
        "--store", choices=("file", "s3"), default="file", help="s3 of AWS_ENDPOINT_URL, or moto"
    )
    parser.add_argument(
        "--saves", type=int, default=5, help="measured ones of each kind, at least, beside a first one (5)"
    )
    parser.add_argument("--parts", default="stall,throughput,incremental,load", help="all of them")
    parser.add_argument(
        "--others", default=",".join(OTHERS), help="with which throughput is compared (all that are there)"
    )
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    parameters = count(arguments.parameters)
    device = torch.device(arguments.device)
    others = arguments.others.split(",")
    if unknown := set(others) - set(OTHERS):
        parser.error(f"--others: {', '.join(sorted(unknown))}: not among {', '.join(OTHERS)}")
    if device.type == "cuda":
        others = [o for o in others if o != "lightning"]  # which is asked for on a CPU here
    elif "lightning" in others and importlib.util.find_spec("lightning") is None:
        print("lightning is not installed (pip install 'aurl[bench]'): it is left out")
        others.remove("lightning")
    measures: dict[str, Callable[[str, torch.device, int, int], parts.Figures]] = {
        "stall": parts.stall,
        "throughput": partial(parts.throughput, others=others),
        "incremental": parts.incremental,
        "load": parts.load,
    }
    results: dict[str, object] = {
        "parameters": parameters,
        "store": arguments.store,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }
    for name in arguments.parts.split(","):
        torch.manual_seed(0)
        with place(arguments.store) as (uri, server):
            figures = measures[name](uri, device, parameters, arguments.saves)
        results[name] = figures
        print(f"{name}: {arguments.parameters} parameters on {server}", flush=True)
        for subject in DOES if name == "throughput" else ():
            print(f"  {subject:16} {DOES[subject]}")
        for key, value in figures.items():
            aim = f"   aim: at most {AIMS[key]:g}" if key in AIMS else ""
            print(f"  {key:44} {_word(key, value)}{aim}", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


def _word(key: str, value: float) -> str:
    if key.endswith("_per_second"):
        return f"{value / 1e6:12,.1f} MB/s"
    if key.endswith("bytes"):
        return f"{value / 1e6:12,.1f} MB"
    return f"{value:12,.4f}" + (" s" if key.endswith("seconds") else "")


if __name__ == "__main__":
    main()
