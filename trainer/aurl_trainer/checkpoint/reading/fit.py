"""Whether tensors here and tensors in a checkpoint are alike: names, shapes, types. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from aurl_trainer.checkpoint.dcp import dtype_name
from aurl_trainer.store.format.manifest import Manifest, Tensor


@dataclass(frozen=True)
class Fit:
    """Keys of tensors, sorted: those that fit, and what does not.

    `missing` are only here, `extra` only in the checkpoint; `unlike` are of another shape or type, each with
    how.
    """

    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unlike: dict[str, str]

    def lines(self) -> list[str]:
        """One line for each tensor that does not fit, sorted."""
        return sorted(
            [f"{k} is not in the checkpoint" for k in self.missing]
            + [f"{k} is only in the checkpoint" for k in self.extra]
            + [f"{k} is {how}" for k, how in self.unlike.items()]
        )


def tensors_of(manifest: Manifest, parts: Iterable[str]) -> dict[str, Tensor]:
    """The manifest's tensors of these parts of the state, by whole key."""
    wanted = set(parts)
    return {k: t for k, t in manifest.tensors.items() if k.partition(".")[0] in wanted}


def compare(here: Mapping[str, torch.Tensor], there: Mapping[str, Tensor]) -> Fit:
    """How tensors here and in a checkpoint fit together; both by the same kind of key."""
    unlike = {}
    for key in sorted(here.keys() & there.keys()):
        mine = (dtype_name(here[key].dtype), tuple(here[key].shape))
        saved = (there[key].dtype, there[key].size)
        if mine != saved:
            unlike[key] = f"{saved[0]}{list(saved[1])} there and {mine[0]}{list(mine[1])} here"
    return Fit(
        fitting=tuple(k for k in sorted(here.keys() & there.keys()) if k not in unlike),
        missing=tuple(sorted(here.keys() - there.keys())),
        extra=tuple(sorted(there.keys() - here.keys())),
        unlike=unlike,
    )
