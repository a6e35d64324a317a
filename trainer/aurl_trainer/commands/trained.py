"""A trained model from a run's checkpoints, for commands that use one.

Not here: reading checkpoints (checkpoint/loading.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aurl_trainer.config.reference import Reference
from aurl_trainer.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from aurl_trainer.checkpoint.weights import Weights
    from aurl_trainer.config.experiment import Experiment
    from aurl_trainer.data.prepared import PreparedData
    from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN


@dataclass(frozen=True)
class Trained:
    """A model with the weights of `step`, on `device`, in evaluation mode, and what it was trained on.

    `weights` says whether they are the model's own ("model") or the averaged ones ("average").
    """

    model: MusicTransformerVAEGAN
    step: int
    weights: str
    experiment: Experiment
    prepared: PreparedData
    device: torch.device


def which_weights(text: str | None) -> Weights:
    """`model` or `average`; None: those that the run is judged by. Raises typer.BadParameter."""
    import typer

    if text is None:
        return "judged"
    if text in ("model", "average"):
        return text  # type: ignore[return-value]
    raise typer.BadParameter(f"expected model or average, found {text!r}", param_hint="--weights")


def open_trained(checkpoint: Reference, progress: bool, weights: Weights = "judged") -> Trained:
    """The model that a reference means. The music is prepared if it is not yet.

    Raises MissingError (no such run), CheckpointError (none that fits), and what preparing may raise.
    """
    from aurl_trainer.checkpoint.loading import load_weights, open_manifest
    from aurl_trainer.checkpoint.weights import part_of
    from aurl_trainer.config.document import Document
    from aurl_trainer.config.experiment import Experiment
    from aurl_trainer.data.prepared import prepare
    from aurl_trainer.engine.parallel import pick_device
    from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
    from aurl_trainer.store.choose import checkpoints_of
    from aurl_trainer.store.format.plain import decode

    uri = checkpoints_of(checkpoint.run)
    extra: Any = decode(open_manifest(uri, checkpoint.which).extra)
    if not isinstance(extra, dict) or "experiment" not in extra:
        raise CheckpointError(f"{uri}: this checkpoint does not say which experiment it is of")
    experiment = Document(extra["experiment"], f"{uri}: experiment").validate(Experiment)
    prepared = prepare(experiment.data, experiment.seed, progress=progress)
    model = MusicTransformerVAEGAN(
        experiment.model, prepared.vocab_size, prepared.pad_id, experiment.data.sequence_length
    )
    loaded = load_weights(uri, model, checkpoint.which, weights)
    part = part_of(loaded, weights)
    device = pick_device(experiment.engine.device, 0)
    return Trained(model.to(device).eval(), loaded.step, part, experiment, prepared, device)
