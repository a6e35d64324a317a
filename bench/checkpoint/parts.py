"""The parts of the benchmark: each measures one thing and gives its figures by name."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import fsspec
import torch

from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.store.incremental import rewritten_after
from bench.checkpoint.state import LAYERS, model_of, optimizer_of, room_for, tensors_of, touch, wait
from bench.checkpoint.subjects import Aurl, Saving, Took, dcp_async, lightning, torch_save

INTERVAL = 600.0
"""Seconds between saves, for the share of wall time that saving takes."""
MORE_KEPT = 6
"""Checkpoints kept, for what an incremental save then writes beside what it does by default."""
Figures = dict[str, float]


def stall(uri: str, device: torch.device, parameters: int, saves: int) -> Figures:
    """What a step waits for, against a plain copy of the same bytes, and what saving costs beside it.

    Save and copy take turns in going first. Both copy into memory that is there and touched already (and
    page-locked, where the state is on a GPU); what the first save takes, which makes its plan and gets its
    memory from the system, is told apart. While a save is uploaded the same computation goes on as before it;
    what it takes longer is lost, too.
    """
    model = model_of(parameters, device)
    optimizer = optimizer_of(model)
    tensors = tensors_of(model, optimizer)
    copies = room_for(tensors)
    subject = Aurl(uri, model, optimizer)
    work = _Work(device)
    alone = work.seconds(1.0)
    stalls, plain, lost = [], [], []
    stalls_worked, plain_worked = [], []

    def copy() -> None:
        began, worked = time.perf_counter(), time.thread_time()
        for mine, tensor in zip(copies, tensors, strict=True):
            mine.copy_(tensor, non_blocking=True)
        wait(device)
        plain.append(time.perf_counter() - began)
        plain_worked.append(time.thread_time() - worked)

    def save(step: int) -> None:
        worked = time.thread_time()
        stalls.append(subject.begin(step))
        stalls_worked.append(time.thread_time() - worked)
        beside = work.until(lambda: subject.landed)
        subject.finish()
        lost.append(max(0.0, beside.seconds - beside.rounds * alone))

    for step in range(saves + 1):
        touch(model, optimizer)
        if step % 2:
            copy()
        save(step)
        if not step % 2:
            copy()
    bytes_ = sum(t.nbytes for t in tensors)
    share = (statistics.median(stalls[1:]) + statistics.median(lost[1:])) / INTERVAL
    return {
        "bytes": float(bytes_),
        "tensors": float(len(tensors)),
        "copy_seconds": statistics.median(plain[1:]),
        "stall_seconds": statistics.median(stalls[1:]),
        "first_stall_seconds": stalls[0],
        "stall_ratio": statistics.median(stalls[1:]) / statistics.median(plain[1:]),
        # The training thread's processor time: what other work on the machine changes little.
        "copy_processor_seconds": statistics.median(plain_worked[1:]),
        "stall_processor_seconds": statistics.median(stalls_worked[1:]),
        "lost_beside_seconds": statistics.median(lost[1:]),
        "share_of_wall_time": share,
        "staging_bytes": float(subject.saved[-1].staging),
    }


@dataclass(frozen=True)
class Beside:
    """Rounds of work in so many seconds."""

    seconds: float
    rounds: int


class _Work:
    """What stands for training: the same multiplication of matrices again and again."""

    def __init__(self, device: torch.device) -> None:
        width = 256 if device.type == "cpu" else 4096
        self._a, self._b = torch.randn(2, width, width, device=device)

    def _round(self) -> None:
        self._a @ self._b
        wait(self._a.device)

    def seconds(self, at_least: float) -> float:
        """Seconds a round takes when nothing else goes on."""
        began, rounds = time.perf_counter(), 0
        while time.perf_counter() - began < at_least:
            self._round()
            rounds += 1
        return (time.perf_counter() - began) / rounds

    def until(self, over: Callable[[], bool]) -> Beside:
        """Works until `over`."""
        began, rounds = time.perf_counter(), 0
        while not over():
            self._round()
            rounds += 1
        return Beside(time.perf_counter() - began, rounds)


def throughput(uri: str, device: torch.device, parameters: int, saves: int, others: Sequence[str]) -> Figures:
    """Bytes of state a second until all is durable, and seconds of stall, of each subject in turn.

    Subjects alternate, save by save, each time in another order, so that a slow minute hits all. The first
    save of each does not count. What a save has written is removed before the next begins.
    """
    model = model_of(parameters, device)
    optimizer = optimizer_of(model)
    bytes_ = sum(t.nbytes for t in tensors_of(model, optimizer))
    makers: dict[str, Callable[[], Saving]] = {
        "aurl": lambda: Aurl(uri, model, optimizer, whole_every=1),
        "torch.save": lambda: torch_save(uri, model, optimizer),
        "dcp.async_save": lambda: dcp_async(uri, model, optimizer),
        "lightning": lambda: lightning(uri, model, optimizer),
    }
    savers = {name: make() for name, make in makers.items() if name == "aurl" or name in others}
    took: dict[str, list[Took]] = {name: [] for name in savers}
    files, root = fsspec.core.url_to_fs(uri)
    names = list(savers)
    for step in range(saves + 1):
        for name in names[step % len(names) :] + names[: step % len(names)]:
            touch(model, optimizer)
            took[name].append(savers[name](step))
            for left in files.ls(root, detail=False, refresh=True):
                if not left.endswith("/aurl"):  # which removes by itself
                    files.rm(left, recursive=True)
    figures: Figures = {}
    for name, found in took.items():
        figures[f"{name}_bytes_per_second"] = bytes_ / statistics.median(t.durable for t in found[1:])
        figures[f"{name}_stall_seconds"] = statistics.median(t.stall for t in found[1:])
        figures[f"{name}_processor_seconds"] = statistics.median(t.processor for t in found[1:])
    for name in names[1:]:
        figures[f"aurl_to_{name}_throughput"] = (
            figures["aurl_bytes_per_second"] / figures[f"{name}_bytes_per_second"]
        )
        figures[f"aurl_to_{name}_stall"] = figures["aurl_stall_seconds"] / figures[f"{name}_stall_seconds"]
    return figures


def incremental(uri: str, device: torch.device, parameters: int, saves: int) -> Figures:
    """Bytes that a save writes with three of four layers frozen, and how many are on the store.

    With the default settings, and where more checkpoints are kept. Means and mosts are over at least so many
    `saves` after the first, which is whole, and over whole periods of what is written again; of the store's
    bytes, right after a save's retention, the most.
    """
    figures: Figures = {}
    for name, latest in {"default": KeepConfig().latest, f"latest_{MORE_KEPT}": MORE_KEPT}.items():
        model = model_of(parameters, device)
        for layer in list(model.children())[: LAYERS * 3 // 4]:
            layer.requires_grad_(False)
        optimizer = optimizer_of(model)
        place = f"{uri}/{name}"
        subject = Aurl(place, model, optimizer, latest=latest)
        period = rewritten_after(CheckpointConfig().whole_every, latest)
        stored = []
        for step in range(1 + -(-max(saves, latest) // period) * period):
            touch(model, optimizer)
            subject(step)
            stored.append(_stored(place))
        whole, later = subject.saved[0].bytes, [saved.bytes for saved in subject.saved[1:]]
        figures["whole_bytes"] = float(whole)
        figures |= {
            f"{name}_mean_bytes": statistics.mean(later),
            f"{name}_least_bytes": float(min(later)),
            f"{name}_most_bytes": float(max(later)),
            f"{name}_mean_to_whole": statistics.mean(later) / whole,
            f"{name}_stored_bytes": float(max(stored)),
        }
    return figures


def _stored(uri: str) -> int:
    """Bytes of all objects below `uri`."""
    files, root = fsspec.core.url_to_fs(uri)
    files.invalidate_cache()
    return int(files.du(root))


def load(uri: str, device: torch.device, parameters: int, saves: int) -> Figures:
    """Peak memory of a load beyond what the process holds before it, in sizes of the state.

    Into a model and an optimizer that has its state already, and into those of a process that has just begun,
    whose optimizer has none: two thirds of a state are then what stays.
    """
    model = model_of(parameters, device)
    optimizer = optimizer_of(model)
    bytes_ = sum(t.nbytes for t in tensors_of(model, optimizer))
    Aurl(uri, model, optimizer)(1)
    torch_save(uri, model, optimizer)(1)
    del model, optimizer
    figures = {}
    for into in ("state", "fresh"):
        for how in ("aurl", "torch.load"):
            call = [
                sys.executable,
                "-m",
                "bench.checkpoint.loading",
                how,
                uri,
                str(device),
                str(parameters),
                into,
            ]
            peak, seconds = subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()
            figures[f"{how}_into_{into}_peak_to_state"] = int(peak) / bytes_
            figures[f"{how}_into_{into}_seconds"] = float(seconds)
    return figures
