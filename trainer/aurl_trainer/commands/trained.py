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

    from aurl_trainer.checkpoint.weights import Vocabulary, Weights
    from aurl_trainer.config.experiment import Experiment
    from aurl_trainer.data.prepared import PreparedData
    from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
    from aurl_trainer.store.format.manifest import Manifest


@dataclass(frozen=True)
class Untrained:
    """A model such as a checkpoint is of, on `device`, in evaluation mode, and what it is trained on."""

    model: MusicTransformerVAEGAN
    experiment: Experiment
    prepared: PreparedData
    device: torch.device

    @property
    def vocabulary(self) -> Vocabulary:
        """What the tokenizer that is here now means by its tokens."""
        from aurl_trainer.checkpoint.weights import Vocabulary

        return Vocabulary(self.prepared.vocabulary_hash, self.prepared.tokenizer_hash)


@dataclass(frozen=True)
class Trained(Untrained):
    """The same with the weights of `step`: the model's own ("model") or the averaged ones ("average").

    `other`: how the music that is here now differs from what it was trained on; None: the checkpoint does not
    say what that was.
    """

    step: int
    weights: str
    other: list[str] | None


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

    Raises MissingError (no such run), CheckpointError (none that fits, or the music that is here now gives
    another tokenizer: its tokens would mean something else), and what preparing may raise.
    """
    from aurl_trainer.checkpoint.loading import load_weights, open_manifest
    from aurl_trainer.checkpoint.weights import part_of, vocabulary_of
    from aurl_trainer.store.choose import checkpoints_of
    from aurl_trainer.store.location.place import shown

    uri = checkpoints_of(checkpoint.run)
    manifest = open_manifest(uri, checkpoint.which)
    built = build(manifest, uri, progress)
    if built.vocabulary.same(vocabulary_of(manifest)) is False:
        raise CheckpointError(
            f"{shown(uri)}: step {manifest.step} knows another tokenizer than the music that is here now "
            "gives, so its tokens would be read as other notes; bring back what data.source had when it was "
            "trained"
        )
    loaded = load_weights(uri, built.model, checkpoint.which, weights)
    return Trained(
        built.model,
        built.experiment,
        built.prepared,
        built.device,
        loaded.step,
        part_of(loaded, weights),
        other_music(loaded, built.prepared),
    )


def other_music(manifest: Manifest, prepared: PreparedData) -> list[str] | None:
    """How `prepared` differs from what a checkpoint was trained on, a line each; None if that is not said."""
    from aurl_trainer.data.content import content_of
    from aurl_trainer.data.dataset import LazyMidiDataset
    from aurl_trainer.engine.resume.music import lines
    from aurl_trainer.store.format.plain import decode

    extra: Any = decode(manifest.extra)
    before = extra.get("prepared") if isinstance(extra, dict) else None
    if not before:
        return None
    now = content_of(LazyMidiDataset(prepared, "train"), LazyMidiDataset(prepared, "validation"))
    return lines(before, now, "then", "now")


def build(manifest: Manifest, uri: str, progress: bool) -> Untrained:
    """A model to load the weights of this checkpoint into. The music is prepared if it is not yet.

    Raises CheckpointError if the checkpoint does not say what its model is, and what preparing may raise.
    """
    from aurl_trainer.config.document import Document
    from aurl_trainer.config.experiment import Experiment
    from aurl_trainer.data.prepared import prepare
    from aurl_trainer.engine.parallel import pick_device
    from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
    from aurl_trainer.store.format.plain import decode
    from aurl_trainer.store.location.place import shown

    uri = shown(uri)
    extra: Any = decode(manifest.extra)
    if not isinstance(extra, dict) or "experiment" not in extra:
        raise CheckpointError(f"{uri}: this checkpoint does not say which experiment it is of")
    experiment = Document(extra["experiment"], f"{uri}: experiment").validate(Experiment)
    prepared = prepare(experiment.data, experiment.seed, progress=progress)
    model = MusicTransformerVAEGAN(
        experiment.model, prepared.vocab_size, prepared.pad_id, experiment.data.sequence_length
    )
    device = pick_device(experiment.engine.device, 0)
    return Untrained(model.to(device).eval(), experiment, prepared, device)
