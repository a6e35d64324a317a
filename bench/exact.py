"""What `reproducibility: exact` costs: time of a step and bytes between ranks, against the ordinary mode.

    python -m bench.exact [--worlds 1 2] [--steps 12] [--dim 256] [--layers 4] [--device cpu]

Both modes train the same model on the same samples in the same processes; blocks of steps alternate, so that
a slow minute of the machine hits both. Processor time is rank 0's own, whatever else runs. Bytes are those
that passed the loopback interface meanwhile, of all processes on it; for the ranks' alone, give it a network
of its own:

    unshare --user --map-root-user --net sh -c 'ip link set lo up && python -m bench.exact'

Memory is the most that a rank's tensors hold at once in the first two steps of a mode: model, optimizer and
activations, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from aurl_trainer.config.engine import OptimizerConfig
from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.contract import Phase
from aurl_trainer.data.batches import BatchPlan
from aurl_trainer.engine.exact.gradients import ExactGradients
from aurl_trainer.engine.optimizer import build_optimizer
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.randomness import make_deterministic
from aurl_trainer.engine.step import TrainingStep
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from bench.memory import TensorMemory

WARM = 2
"""Steps of each mode before those that are timed; from the second on the optimizer has its state."""
BLOCK = 3
"""Steps of one mode before the other's turn."""
VOCABULARY, SHARDS = 512, 4


class Tokens:
    """Windows of random tokens: what a step costs does not depend on the music."""

    def __init__(self, count: int, length: int) -> None:
        self.sequence_length, self.pad_id = length, 0
        self.targets = np.full(count, length, dtype=np.int64)
        self._tokens = torch.randint(VOCABULARY, (count, length + 1))

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._tokens[index]


def prepare(exact: bool, world: World, options: argparse.Namespace) -> TrainingStep:
    torch.manual_seed(1)
    data = Tokens(64, options.length)
    config = ModelConfig(dim=options.dim, layers=options.layers, heads=4)
    model = MusicTransformerVAEGAN(config, VOCABULARY, data.pad_id, options.length)
    schedule = OptimizerConfig()
    return TrainingStep(
        model=world.wrap(model, average=not exact),
        loss=ComprehensiveLossFramework(LossConfig()),
        optimizer=build_optimizer(model, schedule),
        precision=Precision("fp32", world.device),
        dataset=data,
        plan=BatchPlan(len(data), options.batch, SHARDS, seed=1),
        world=world,
        schedule=schedule,
        steps=1000,
        seed=1,
        exact=ExactGradients(model, SHARDS, world) if exact else None,
    )


def memory_of(exact: bool, world: World, options: argparse.Namespace) -> tuple[int, TrainingStep]:
    """The most bytes that the tensors of a mode hold, data included, and its step, which was done twice."""
    with TensorMemory(world.device) as memory:
        step = prepare(exact, world, options)
        for number in range(WARM):
            step.run(number, quiet)
    return memory.peak, step


def quiet(phase: Phase, step: int) -> None:
    """Nobody listens."""


def on_loopback() -> int:
    """Bytes sent over the loopback interface of this network so far."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    raise SystemExit("no loopback interface is here")


def rank(number: int, size: int, meeting: str, options: argparse.Namespace, results: Any) -> None:
    torch.set_num_threads(1)
    make_deterministic(True)
    if size > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=size)
    world = World(number, size, number, torch.device(options.device))
    memory, steps = {}, {}
    for mode in ("world", "exact"):
        memory[mode], steps[mode] = memory_of(mode == "exact", world, options)
    seconds: dict[str, list[float]] = {mode: [] for mode in steps}
    processor: dict[str, list[float]] = {mode: [] for mode in steps}
    moved = dict.fromkeys(steps, 0)
    done = dict.fromkeys(steps, WARM - 1)
    for block in range(-(-options.steps // BLOCK)):
        for mode in ("world", "exact") if block % 2 else ("exact", "world"):
            world.barrier()
            before = on_loopback()
            for _ in range(BLOCK):
                done[mode] += 1
                began, worked = time.perf_counter(), time.process_time()
                steps[mode].run(done[mode], quiet)
                seconds[mode].append(time.perf_counter() - began)
                processor[mode].append(time.process_time() - worked)
            world.barrier()
            moved[mode] += on_loopback() - before
    if number == 0:
        parameters = sum(p.numel() for p in steps["exact"].model.parameters())
        time_of = {mode: statistics.median(values) for mode, values in seconds.items()}
        work_of = {mode: statistics.median(values) for mode, values in processor.items()}
        bytes_of = {mode: moved[mode] / len(seconds[mode]) for mode in steps} if size > 1 else None
        results.put(
            {
                "world": size,
                "parameters": parameters,
                "seconds": time_of,
                "time_ratio": time_of["exact"] / time_of["world"],
                "processor_seconds": work_of,
                "processor_ratio": work_of["exact"] / work_of["world"],
                "bytes": bytes_of,
                "bytes_ratio": bytes_of["exact"] / bytes_of["world"] if bytes_of else None,
                "memory_bytes": memory,
                "memory_besides_bytes": memory["exact"] - memory["world"],
            }
        )
    world.barrier()
    world.leave()


def measure(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of a world of `size` ranks on this machine."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (size, f"file://{folder}/meeting", options, results)
        ranks = [
            context.Process(target=rank, args=(number, *arguments), daemon=True) for number in range(size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise SystemExit(f"a rank failed in a world of {size}")
        found: dict[str, Any] = results.get()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2], help="numbers of ranks, one a run")
    parser.add_argument("--steps", type=int, default=12, help="steps of each mode")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--length", type=int, default=256, help="tokens of a sample")
    parser.add_argument("--batch", type=int, default=8, help="samples of a global batch, 4 shards")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: all ranks share it")
    parser.add_argument("--json", action="store_true", help="figures as JSON on standard output")
    options = parser.parse_args()
    found = []
    for size in options.worlds:
        print(f"world of {size} ...", file=sys.stderr, flush=True)
        found.append(measure(size, options))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{found[0]['parameters'] / 1e6:.2f} M parameters, {options.batch} x {options.length} tokens a step"
    )
    for f in found:
        ordinary, exact, ratio = f["seconds"]["world"] * 1e3, f["seconds"]["exact"] * 1e3, f["time_ratio"]
        head = f"world {f['world']}: ordinary {ordinary:.0f} ms a step"
        print(
            f"{head}, exact {exact:.0f} ms, ratio {ratio:.2f}; of processor time {f['processor_ratio']:.2f}"
        )
        if f["bytes"]:
            ordinary, exact = f["bytes"]["world"] / 1e6, f["bytes"]["exact"] / 1e6
            ratio = f["bytes_ratio"]
            print(
                f"  between ranks: ordinary {ordinary:.2f} MB a step, exact {exact:.2f} MB, ratio {ratio:.2f}"
            )
        ordinary, exact = f["memory_bytes"]["world"] / 1e6, f["memory_bytes"]["exact"] / 1e6
        print(f"  tensors of a rank, at most: ordinary {ordinary:.1f} MB, exact {exact:.1f} MB")


if __name__ == "__main__":
    main()
