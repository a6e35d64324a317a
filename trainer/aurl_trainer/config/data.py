"""What music is trained on and how it becomes tokens and samples.

Not here: how it is done (the room `data/`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from aurl_trainer.config.base import Config


class SourceConfig(Config):
    """Where the music comes from: exactly one of `music21` and `midi`."""

    music21: Literal["bach"] | None = None
    """A collection of music21's installed corpus: `bach` is the four-part chorales."""
    midi: str | None = None
    """A folder or fsspec URL with MIDI files, searched with all its subfolders."""
    labels: str | None = None
    """A CSV with the column `file` (path below `midi`) and any of `composer`, `set`, `title`."""
    limit: int | None = Field(default=None, ge=1)
    """Use only so many pieces, chosen by the seed."""
    max_file_bytes: int = Field(default=10_000_000, ge=1)
    """Larger MIDI files are rejected unread."""

    @model_validator(mode="after")
    def _one_source(self) -> SourceConfig:
        if (self.music21 is None) == (self.midi is None):
            raise ValueError("name exactly one of music21 and midi")
        if self.labels is not None and self.midi is None:
            raise ValueError("labels goes with midi")
        return self


class TokenizerConfig(Config):
    """How a score becomes tokens (MidiTok)."""

    type: Literal["REMI", "TSD", "Structured", "MIDILike"] = "REMI"
    """MidiTok's tokenization."""
    bpe_vocab_size: int | None = Field(default=None, ge=128, le=65536)
    """Train a BPE of this size on the training split; absent: no BPE."""
    velocities: int = Field(default=8, ge=1, le=127)
    """Number of velocity bins; with 1 there are no velocity tokens."""
    tempos: bool = False
    """Whether tempo changes are tokens."""
    programs: bool = False
    """Whether instruments are tokens; without, all notes of a piece are one stream."""
    resolution: int = Field(default=4, ge=1, le=24)
    """Positions per beat. Lengths have as many up to 4 beats, half as many up to 12, then 1 up to 32."""

    @model_validator(mode="after")
    def _structured_has_no_tempos(self) -> TokenizerConfig:
        if self.type == "Structured" and self.tempos:
            raise ValueError("Structured has no tempo tokens: leave tempos out, or take another type")
        return self


class SplitConfig(Config):
    """How pieces are held out: whole pieces or groups, before anything is cut into samples."""

    validation: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of groups held out for validation."""
    by: Literal["piece", "set", "composer"] = "piece"
    """What stays together: a piece, or all pieces with the same label. A piece of no set stands alone."""


class DataConfig(Config):
    """Music, tokens, split and samples."""

    source: SourceConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    split: SplitConfig = SplitConfig()
    sequence_length: int = Field(default=512, ge=16, le=65536)
    """Tokens per sample, the model's context."""
    transpose: int = Field(default=0, ge=0, le=11)
    """Augmentation: training samples are transposed by up to so many semitones either way."""
    cache: str | None = None
    """Folder for prepared shards; default: the user's cache folder."""
    workers: int = Field(default=2, ge=1, le=64)
    """Processes that read MIDI files during preparation."""
