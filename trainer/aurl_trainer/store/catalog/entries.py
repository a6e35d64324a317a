"""What is known of one checkpoint without its tensors, and the fields by which it is found.

Not here: where entries come from (index.py), the language of --where (where.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aurl_trainer.store.format.plain import decode

if TYPE_CHECKING:
    from aurl_trainer.store.format.manifest import Head

PLAIN = ("name", "run", "number", "step", "generation", "at", "world", "bytes", "preset", "tags")
"""Fields of an entry itself. Any other word is a part of the configuration, or else a metric."""

CONFIG = (
    "seed", "data", "model", "loss", "engine", "checkpoint", "monitor", "samples", "init_from", "versions"
)  # fmt: skip
"""Parts of the configuration, as in `model.dim`; and `versions.torch`."""


@dataclass(frozen=True)
class Entry:
    """One checkpoint. `run` is what the run is called below the place that was searched."""

    name: str
    run: str
    number: int
    step: int
    generation: int
    at: float
    """Seconds since the epoch."""
    world: int
    bytes: int
    """Stored, of all packs that it refers to."""
    metrics: Mapping[str, float | None]
    config: Mapping[str, Any]
    """The experiment, and `versions` of the code."""
    tags: tuple[str, ...] = ()
    version: int | None = None
    """Of the manifest's format."""
    folders: tuple[str, ...] | None = None
    """Of the packs that it refers to, sorted. None, for both: from the index of an older Aurl."""

    @classmethod
    def of(cls, manifest: Head, run: str = "") -> Entry:
        """The entry of a manifest, without tags."""
        extra = decode(manifest.extra)
        experiment = extra.get("experiment") if isinstance(extra, dict) else None
        config = experiment if isinstance(experiment, dict) else manifest.identity
        return cls(
            name=manifest.name,
            run=run or manifest.run,
            number=manifest.number,
            step=manifest.step,
            generation=manifest.generation,
            at=manifest.at,
            world=manifest.world,
            bytes=manifest.stored_bytes,
            metrics=dict(manifest.metrics),
            config={**config, "versions": dict(manifest.versions)},
            version=manifest.version,
            folders=manifest.folders,
        )

    @property
    def whole(self) -> bool:
        """Whether it tells all that retention has to know."""
        return self.version is not None and self.folders is not None

    def tagged(self, tags: tuple[str, ...]) -> Entry:
        """The same with these tags."""
        return replace(self, tags=tags)

    @property
    def preset(self) -> str | None:
        """The preset that the experiment was made from; None: none, or not recorded."""
        found = self.config.get("from_preset")
        return found if isinstance(found, str) else None

    def value(self, field: tuple[str, ...]) -> Any:
        """The value of a field, as ("model", "dim"); None if this checkpoint has none."""
        first, rest = field[0], field[1:]
        if first in PLAIN and not rest:
            return getattr(self, first)
        if first == "metrics":
            return self.metrics.get(".".join(rest)) if rest else None
        if first in CONFIG:
            found: Any = self.config
            for part in field:
                found = found.get(part) if isinstance(found, Mapping) else None
            return found
        return self.metrics.get(".".join(field))

    def has(self, field: tuple[str, ...]) -> bool:
        """Whether its configuration has such a field, if only with None."""
        found: Any = self.config
        for part in field:
            if not isinstance(found, Mapping) or part not in found:
                return False
            found = found[part]
        return True

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            **{field: getattr(self, field) for field in PLAIN if field != "tags"},
            "tags": list(self.tags),
            "metrics": dict(self.metrics),
        }


def known_fields(entries: list[Entry]) -> list[str]:
    """Words that mean something for at least one of `entries`, for messages."""
    metrics = {name for e in entries for name in e.metrics}
    return [*PLAIN, *CONFIG, *sorted(metrics)]
