"""Those that save: Aurl, torch.save, DCP's async_save with its own fsspec writer, Lightning's callback.

Each saves the same model and optimizer at the same place, and tells how long training was held up and when
all was durable. Not here: what is compared (parts.py).
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

import fsspec
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.utils.data import DataLoader, TensorDataset

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.parts import ModelPart, OptimizerPart
from aurl_trainer.checkpoint.saving.outcomes import Saved
from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig


@dataclass(frozen=True)
class Took:
    """Seconds that training was held up, and from the beginning until all was durable.

    `processor` seconds are this process's for all of it; other work on the machine changes them little.
    """

    stall: float
    durable: float
    processor: float


Saving = Callable[[int], Took]
"""Saves once, as the checkpoint of the step given."""

DOES = {
    "aurl": "SHA-256 of each tensor (checked by every load); on a disk fsync of packs, manifest and folders",
    "torch.save": "CRC-32 of each tensor (checked by no load); one object; on a disk fsync, by this bench",
    "dcp.async_save": "no hash; on a disk fsync of each file, on S3 os.sync() of the whole machine",
    "lightning": "CRC-32 as torch.save; all of it built up in memory first; no fsync",
}
"""What each does besides writing the bytes."""


class Aurl:
    """Our own saves; `saved` holds what each came to. `latest`: how many checkpoints are kept."""

    def __init__(
        self,
        uri: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        latest: int = 1,
        **settings: Any,
    ) -> None:
        config = CheckpointConfig(keep=KeepConfig(latest=latest, best=0, grace_seconds=0), **settings)
        opener = Checkpointer(f"{uri}/aurl", run="bench", fingerprint={}, settings=config, rank=0, world=1)
        self._state = {"model": ModelPart(model), "optimizer": OptimizerPart(model, optimizer)}
        opener.open({})
        self._saver = opener.saver
        self._saver.tidy()
        self.saved: list[Saved] = []

    def begin(self, step: int) -> float:
        """Seconds that training waits; the save goes on."""
        began = time.perf_counter()
        self._saver.begin(step, self._state, {}, {})
        return time.perf_counter() - began

    @property
    def landed(self) -> bool:
        """Whether it is durable; `finish` then waits no more."""
        return self._saver.signals()[0] == 0.0

    def finish(self) -> Saved:
        """Waits until it is durable, and what follows has ended."""
        saved = self._saver.finish()
        assert saved is not None
        self._saver.tidy()
        self.saved.append(saved)
        return saved

    def __call__(self, step: int) -> Took:
        """One save, from beginning to end."""
        worked = time.process_time()
        stall = self.begin(step)
        return Took(stall, self.finish().seconds, time.process_time() - worked)


def torch_save(uri: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Saving:
    """torch.save into one object; on a disk it is synced, as the others' files are."""

    def save(step: int) -> Took:
        began, worked = time.perf_counter(), time.process_time()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        with fsspec.open(f"{uri}/torch-{step}.pt", "wb") as file:
            torch.save(state, file)
            if "://" not in uri:
                file.flush()
                os.fsync(file.fileno())
        took = time.perf_counter() - began
        return Took(took, took, time.process_time() - worked)

    return save


def dcp_async(uri: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Saving:
    """DCP's async_save over its own writer for fsspec."""
    from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
    from torch.distributed.checkpoint.state_dict_saver import async_save

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)

    def save(step: int) -> Took:
        began, worked = time.perf_counter(), time.process_time()
        state = {
            "model": get_model_state_dict(model),
            "optimizer": get_optimizer_state_dict(model, optimizer),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = async_save(state, storage_writer=FsspecWriter(f"{uri}/dcp-{step}"))
        stall = time.perf_counter() - began
        cast("Future[Any]", found).result()
        return Took(stall, time.perf_counter() - began, time.process_time() - worked)

    return save


def lightning(uri: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Saving:
    """Lightning's ModelCheckpoint, in a real fit over one batch for each save."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
            return next(self.inner.parameters()).flatten()[0] * batch[0].sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer

        def optimizer_step(
            self, epoch: int, number: int, optimizer: Any, closure: Callable[[], Any] | None = None
        ) -> None:
            # The state is complete already; a step of AdamW over noise would only cost time.
            if closure is not None:
                closure()

    class Timed(ModelCheckpoint):
        took: Took | None = None

        def _save_checkpoint(self, trainer: Any, path: str) -> None:
            began, worked = time.perf_counter(), time.process_time()
            super()._save_checkpoint(trainer, path)
            seconds = time.perf_counter() - began
            self.took = Took(seconds, seconds, time.process_time() - worked)

    def save(step: int) -> Took:
        callback = Timed(dirpath=f"{uri}/lightning-{step}", every_n_train_steps=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = lightning.Trainer(
                max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=[callback],
            )  # fmt: skip
            trainer.fit(Module(), DataLoader(TensorDataset(torch.ones(1, 1))))
        assert callback.took is not None, "the callback did not save"
        return callback.took

    return save
