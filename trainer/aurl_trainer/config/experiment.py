"""The whole experiment: one model that holds every room's configuration, and its presets.

`load_config("high_quality.yaml")` reads a preset by name or a file by path; `resolve` merges overrides into
a preset. Imports no torch.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from aurl_trainer.config.base import Config
from aurl_trainer.config.checkpoint import CheckpointConfig
from aurl_trainer.config.data import DataConfig
from aurl_trainer.config.document import Document
from aurl_trainer.config.engine import EngineConfig
from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.config.monitor import MonitorConfig, SamplesConfig
from aurl_trainer.config.reference import Reference
from aurl_trainer.contract import Env
from aurl_trainer.errors import ConfigError


class Experiment(Config):
    """Everything that decides a result, and nothing about the machines it runs on."""

    seed: int = Field(default=1, ge=0, lt=2**31)
    """Of everything random: order, initial weights, dropout, augmentation, sampling."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    engine: EngineConfig = EngineConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    monitor: MonitorConfig = MonitorConfig()
    samples: SamplesConfig = SamplesConfig()
    init_from: str | None = Field(default=None, min_length=1, max_length=2048)
    """Checkpoint whose weights a new run begins with, as in `s3://bucket/other@best:val_nll`. A run that has
    saved goes on from its own."""
    from_preset: str | None = Field(default=None, max_length=63)
    """The preset that this was made from: a note to find checkpoints by. Each preset names itself here."""

    @field_validator("init_from")
    @classmethod
    def _names_a_checkpoint(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                Reference.parse(value)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return value

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with its first start: all but places, intervals and looks.

        A run may be continued with another `checkpoint`, `monitor`, `samples`, `init_from`, `data.cache`,
        `data.workers`, `engine.threads`, `engine.device` or `engine.average.use`, and with nothing else
        changed; an exact one keeps `engine.threads` too.
        """
        outside = {"checkpoint", "monitor", "samples", "init_from", "from_preset"}
        raw = self.model_dump(mode="json", exclude=outside)
        for part, name in (
            ("data", "cache"),
            ("data", "workers"),
            ("engine", "threads"),
            ("engine", "device"),
        ):
            raw[part].pop(name)
        # Fields that came later are left out while they ask for nothing: older runs go on.
        average = raw["engine"].pop("average")
        if self.engine.average.kind != "none":
            average.pop("use")
            raw["engine"]["average"] = average
        if self.engine.reproducibility == "exact":
            raw["engine"]["threads"] = self.engine.threads
        else:
            raw["engine"].pop("reproducibility")
        return raw

    def fingerprint(self) -> str:
        """SHA-256 over `identity()`, hexadecimal."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()


def presets() -> list[str]:
    """Names of the presets that come with Aurl."""
    folder = resources.files("aurl_trainer.config") / "presets"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


@functools.cache
def preset_document(name: str) -> Document:
    """The preset's YAML, read once; its value is not to be changed. Raises ConfigError if there is none."""
    bare = name.removesuffix(".yaml")
    if bare not in presets():
        raise ConfigError([f"no preset named {bare!r}; there are: {', '.join(presets())}"])
    text = (resources.files("aurl_trainer.config") / "presets" / f"{bare}.yaml").read_text()
    return Document.parse(text, f"preset {bare}")


def load_config(name_or_path: str | Path) -> Experiment:
    """The experiment in a file, or a preset by its name (with or without `.yaml`).

    Raises ConfigError with file, line and field of each problem.
    """
    path = Path(name_or_path)
    document = Document.read(path) if path.is_file() else preset_document(str(name_or_path))
    return document.validate(Experiment)


def given() -> Experiment:
    """The experiment that AURL_EXPERIMENT holds, as a node gets it. Raises ConfigError."""
    text = os.environ.get(Env.EXPERIMENT)
    if not text:
        raise ConfigError([f"no experiment: name a preset or a file, or set {Env.EXPERIMENT}"])
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError([f"{Env.EXPERIMENT}: not JSON: {error}"]) from None
    return Document(value, Env.EXPERIMENT).validate(Experiment)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on it, mapping by mapping; lists and scalars are replaced.

    `source` of the data is replaced whole: another source shares nothing with the preset's. So are the
    weights in `by`.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict) and key not in ("source", "by")
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def resolve(training: dict[str, Any]) -> dict[str, Any]:
    """The plain experiment of a job's `training`: `{preset, overrides}` merged, or an experiment as it is.

    Not validated yet: validate the result as Experiment. Raises ConfigError for an unknown preset or other
    keys beside `preset` and `overrides`.
    """
    if "preset" not in training:
        return training
    others = sorted(set(training) - {"preset", "overrides"})
    if others:
        raise ConfigError([f"{', '.join(others)}: beside preset there is only overrides; move it there"])
    overrides = training.get("overrides") or {}
    if not isinstance(overrides, dict):
        raise ConfigError(["overrides: expected a mapping"])
    raw = preset_document(str(training["preset"])).value
    assert isinstance(raw, dict)
    return merge(copy.deepcopy(raw), overrides)
