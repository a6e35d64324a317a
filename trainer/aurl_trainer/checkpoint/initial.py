"""The weights of another run's checkpoint as the beginning of a new one: `initFrom`.

    wanted = Reference.parse("gs://bucket/bach@best")
    begun = load_initial(checkpoints_of(wanted.run), wanted.which, model, vocabulary=ours)
    for line in begun.lines(): print(line)

What fits by name, shape and type is loaded in place, streamed and verified; the rest stays as it is in
`model`, and the result names it. Every rank calls it, on an unwrapped or a sharded model, before the averaged
weights begin; it does no collectives. Not here: what a run writes down of it (engine/state/run_state.py), how
names such as `run@best` become a place and a choice (store/choose.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from aurl_trainer.checkpoint.loading import warn
from aurl_trainer.checkpoint.parts import ModelPart, OptimizerPart
from aurl_trainer.checkpoint.reading.fit import Fit, compare, tensors_of
from aurl_trainer.checkpoint.transfer import read, read_tensors
from aurl_trainer.checkpoint.weights import Vocabulary, Weights, part_of, vocabulary_of
from aurl_trainer.config.reference import Which
from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.choose import first_whole
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore


@dataclass(frozen=True)
class Initialised:
    """What came over from `checkpoint` of `run` at `uri`, and what did not. Names are the model's own.

    `missing` are only in the model and stay as they were drawn; `extra` are only in the checkpoint; `unlike`
    says how shapes or types differ; `by_token` were left out because the tokenizer is another one.
    `optimizer` None: it was not asked for.
    """

    uri: str
    run: str
    checkpoint: str
    step: int
    weights: Literal["model", "average"]
    loaded: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unlike: dict[str, str]
    by_token: tuple[str, ...]
    tokenizer: Literal["same", "other", "unknown"]
    optimizer: bool | None = None

    def lines(self) -> list[str]:
        """For people: what was loaded, then one line for each kind of what was not."""
        of = "averaged weights" if self.weights == "average" else "weights"
        lines = [f"begins with the {of} of {self.run}, step {self.step} ({self.checkpoint} at {self.uri})"]
        if self.unlike:
            lines.append(f"does not fit, stays new: {_few([f'{k}: {v}' for k, v in self.unlike.items()])}")
        if self.missing:
            lines.append(f"not in that checkpoint, stays new: {_few(self.missing)}")
        if self.extra:
            lines.append(f"only in that checkpoint, left out: {_few(self.extra)}")
        if self.by_token:
            lines.append(f"another tokenizer, so its tokens' weights stay new: {_few(self.by_token)}")
        if self.tokenizer == "unknown":
            lines.append("that checkpoint does not say which tokenizer it is of; it is taken for the same")
        if self.optimizer is False:
            lines.append("the optimizer's state does not fit, so it starts new")
        return lines

    def record(self) -> dict[str, Any]:
        """Plain, for records and manifests."""
        return asdict(self) | {k: list(getattr(self, k)) for k in ("missing", "extra", "by_token")}


def load_initial(
    uri: str,
    which: Which,
    model: torch.nn.Module,
    *,
    vocabulary: Vocabulary | None = None,
    token_tensors: Collection[str] = (),
    weights: Weights = "judged",
    optimizer: torch.optim.Optimizer | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Initialised:
    """Loads what fits of a checkpoint at `uri` into `model`, in place.

    `vocabulary` is this run's; if the checkpoint's is another, `token_tensors`, the names of the weights that
    have a row for each token, are left out. `weights`: the model's, the averaged ones, or those
    that the other run is judged by. With `optimizer` its state comes, too, if all of it fits.
    `alive` is called while bytes come.

    For the latest and the best a damaged one is passed over with a warning. Raises
    CheckpointError when there is none or nothing of it fits, and DamagedError when none is whole; the model
    may then be half loaded.
    """
    store = RunStore(Location(uri))

    def load(manifest: Manifest) -> Initialised:
        return _load(
            store.location,
            manifest,
            model,
            vocabulary or Vocabulary(),
            token_tensors,
            weights,
            optimizer,
            alive,
        )

    return first_whole(store, which, load, warn)


def _load(
    location: Location,
    manifest: Manifest,
    model: torch.nn.Module,
    vocabulary: Vocabulary,
    token_tensors: Collection[str],
    weights: Weights,
    optimizer: torch.optim.Optimizer | None,
    alive: Callable[[], None],
) -> Initialised:
    alike = vocabulary.same(vocabulary_of(manifest))
    same: Literal["same", "other", "unknown"] = "unknown" if alike is None else "same" if alike else "other"
    part = part_of(manifest, weights)
    here = ModelPart(model).capture()
    there = {k.removeprefix(f"{part}."): t for k, t in tensors_of(manifest, [part]).items()}
    fit = compare(here, there)
    strange = tuple(k for k in fit.fitting if same == "other" and k in token_tensors)
    taken = [k for k in fit.fitting if k not in strange]
    if not taken:
        raise CheckpointError(
            f"{location.uri}: nothing of {manifest.name} fits this model: {_few(fit.lines()) or 'no weights'}"
        )
    # First: making an optimizer's state takes a step of length zero on the weights.
    has_state = (
        None if optimizer is None else _load_optimizer(location, manifest, model, optimizer, fit, alive)
    )
    read_tensors({f"{part}.{k}": here[k] for k in taken}, location, manifest, alive)
    return Initialised(
        uri=location.uri,
        run=manifest.run,
        checkpoint=manifest.name,
        step=manifest.step,
        weights=part,
        loaded=len(taken),
        missing=fit.missing,
        extra=fit.extra,
        unlike=fit.unlike,
        by_token=strange,
        tokenizer=same,
        optimizer=has_state,
    )


def _load_optimizer(
    location: Location,
    manifest: Manifest,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    fit: Fit,
    alive: Callable[[], None],
) -> bool:
    """Whether all of it fitted and is loaded."""
    if fit.missing or fit.extra or fit.unlike:
        return False
    try:
        read({"optimizer": OptimizerPart(model, optimizer)}, location, manifest, alive)
    except DamagedError:
        raise
    except CheckpointError:
        optimizer.state.clear()
        return False
    return True


def _few(names: Collection[str]) -> str:
    """At most five of them."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(list(names)[:5]) + more
