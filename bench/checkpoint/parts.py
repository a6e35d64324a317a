"""The parts of the benchmark: each measures one thing and gives its figures by name."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from aurl_trainer.checkpoint.saving.outcomes import Saved
from bench.checkpoint.state import LAYERS, model_of, optimizer_of, tensors_of, touch
from bench.checkpoint.subjects import Aurl, Took, dcp_async, lightning, torch_save

INTERVAL = 600.0
"""Seconds between saves, for the share of wall time that saving takes."""
Figures = dict[str, float]


def stall(uri: str, parameters: int, saves: int) -> Figures:
    """What a step waits for, against a plain copy of the same bytes, and what saving costs beside it.

    Save and copy alternate, into memory that is there already. While a save is uploaded the same computation
    goes on as before it; what it takes longer is lost, too.
    """
    model = model_of(parameters)
    optimizer = optimizer_of(model)
    tensors = tensors_of(model, optimizer)
    copies = [torch.empty_like(t) for t in tensors]
    subject = Aurl(uri, model, optimizer)
    work = _Work()
    alone = work.seconds(1.0)
    stalls, plain, lost = [], [], []
    for step in range(saves + 1):
        touch(model, optimizer)
        began = time.perf_counter()
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor)
        copied = time.perf_counter() - began
        stalled = subject.begin(step)
        beside = work.until(lambda: subject.landed)
        subject.finish()
        if step:  # the first save makes its plan and takes its memory
            plain.append(copied)
            stalls.append(stalled)
            lost.append(max(0.0, beside.seconds - beside.rounds * alone))
    bytes_ = sum(t.nbytes for t in tensors)
    share = (statistics.median(stalls) + statistics.median(lost)) / INTERVAL
    return {
        "bytes": float(bytes_),
        "copy_seconds": statistics.median(plain),
        "stall_seconds": statistics.median(stalls),
        "stall_ratio": statistics.median(s / p for s, p in zip(stalls, plain, strict=True)),
        "lost_beside_seconds": statistics.median(lost),
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

    def __init__(self) -> None:
        self._a, self._b = torch.randn(256, 256), torch.randn(256, 256)

    def _round(self) -> None:
        self._a @ self._b

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


def throughput(uri: str, parameters: int, saves: int, others: Sequence[str]) -> Figures:
    """Bytes of state a second until all is durable, and seconds of stall, of each subject in turn.

    Subjects alternate, save by save, so that a slow minute hits all; Lightning saves inside a fit of its own.
    """
    model = model_of(parameters)
    optimizer = optimizer_of(model)
    bytes_ = sum(t.nbytes for t in tensors_of(model, optimizer))
    savers: dict[str, Callable[[int], Took]] = {
        "aurl": Aurl(uri, model, optimizer, whole_every=1),
        "torch.save": torch_save(uri, model, optimizer),
        "dcp.async_save": dcp_async(uri, model, optimizer),
    }
    took: dict[str, list[Took]] = {name: [] for name in savers if name == "aurl" or name in others}
    for step in range(saves + 1):
        for name, found in took.items():
            touch(model, optimizer)
            once = savers[name](step)
            if step:
                found.append(once)
    if "lightning" in others:
        took["lightning"] = lightning(uri, model, optimizer, saves + 1)[1:]
    figures: Figures = {}
    for name, found in took.items():
        figures[f"{name}_bytes_per_second"] = bytes_ / statistics.median(t.durable for t in found)
        figures[f"{name}_stall_seconds"] = statistics.median(t.stall for t in found)
    for name in took:
        if name != "aurl":
            figures[f"aurl_to_{name}_throughput"] = (
                figures["aurl_bytes_per_second"] / figures[f"{name}_bytes_per_second"]
            )
            figures[f"aurl_to_{name}_stall"] = (
                figures["aurl_stall_seconds"] / figures[f"{name}_stall_seconds"]
            )
    return figures


def incremental(uri: str, parameters: int, saves: int) -> Figures:
    """Bytes that a save writes with three of four layers frozen: whole, and referring to what is there."""
    written: dict[int, Saved] = {}
    for whole_every in (1, 20):
        model = model_of(parameters)
        for layer in list(model.children())[: LAYERS * 3 // 4]:
            layer.requires_grad_(False)
        optimizer = optimizer_of(model)
        subject = Aurl(f"{uri}/every-{whole_every}", model, optimizer, whole_every=whole_every)
        for step in range(saves + 1):
            touch(model, optimizer)
            subject(step)
        written[whole_every] = subject.saved[-1]
    return {
        "whole_bytes": float(written[1].bytes),
        "incremental_bytes": float(written[20].bytes),
        "referred_to_bytes": float(written[20].reused),
        "incremental_to_whole": written[20].bytes / written[1].bytes,
    }


def load(uri: str, parameters: int, saves: int) -> Figures:
    """Peak memory of a load beyond the model and optimizer loaded into, in sizes of the state."""
    model = model_of(parameters)
    optimizer = optimizer_of(model)
    bytes_ = sum(t.nbytes for t in tensors_of(model, optimizer))
    Aurl(uri, model, optimizer)(1)
    torch_save(uri, model, optimizer)(1)
    figures = {}
    for how in ("aurl", "torch.load"):
        call = [sys.executable, "-m", "bench.checkpoint.loading", how, uri, str(parameters)]
        peak, seconds = subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()
        figures[f"{how}_peak_to_state"] = int(peak) / bytes_
        figures[f"{how}_seconds"] = float(seconds)
    return figures
