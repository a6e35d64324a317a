"""Prepared music as samples: windows of `sequence_length` tokens over the streams of one split.

Not here: preparing (build.py), opening (prepared.py), the order of samples (batches.py).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aurl_trainer.data.prepared import Piece, PreparedData

Split = Literal["train", "validation"]


class LazyMidiDataset(Dataset[Tensor]):
    """The samples of a split, read from the memory-mapped shard when they are asked for.

    A stream is BOS, a piece's tokens, EOS. Its windows start every `sequence_length` tokens and hold one
    more, so neighbours share one token: every token but BOS is predicted exactly once and none is cut off.
    A window never holds two pieces; a stream's last one is padded. A transposed variant of a training piece
    is a stream of its own.

    `targets` (int64 [samples]) counts each sample's predicted tokens; `sequence_length` and `pad_id` are
    the prepared data's.
    """

    def __init__(self, prepared: PreparedData, split: Split = "train") -> None:
        self.prepared = prepared
        self.split = split
        self.sequence_length = prepared.sequence_length
        self.pad_id = prepared.pad_id
        streams = prepared.streams(split)
        length = self.sequence_length
        windows = -(-(streams.length - 1) // length)
        self._stream = np.repeat(np.arange(len(windows)), windows)
        first = np.cumsum(windows) - windows
        within = (np.arange(len(self._stream)) - first[self._stream]) * length
        self._start = streams.offset[self._stream] + within
        self.targets = np.minimum(streams.length[self._stream] - 1 - within, length)
        self._piece = streams.piece[self._stream]
        self._semitones = streams.semitones[self._stream]
        self._tokens: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> Tensor:
        """Tokens of one sample, int64 [sequence_length + 1], padded at the end. Raises IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        if self._tokens is None:
            self._tokens = self.prepared.tokens()
        start = self._start[index]
        window = self._tokens[start : start + self.targets[index] + 1]
        sample = torch.full((self.sequence_length + 1,), self.pad_id, dtype=torch.int64)
        sample[: len(window)] = torch.from_numpy(window.astype(np.int64))
        return sample

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory map: another process opens its own instead of getting a copy of the shard."""
        return {**self.__dict__, "_tokens": None}

    def piece(self, index: int) -> Piece:
        """The piece that a sample comes from, with its labels."""
        return self.prepared.pieces[int(self._piece[index])]

    def semitones(self, index: int) -> int:
        """By how much a sample is transposed."""
        return int(self._semitones[index])

    @property
    def filled(self) -> float:
        """Share of the positions of all samples that predict a token; the rest is padding."""
        return float(self.targets.sum() / (len(self) * self.sequence_length))
