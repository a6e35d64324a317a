"""A small dataset of real token windows in memory, for tests of the loop."""

from __future__ import annotations

import numpy as np
import torch


class Windows:
    """`count` windows of a repeating melody with some noise; the last of each three is half padding."""

    def __init__(self, count: int = 24, length: int = 16, vocab: int = 20, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.sequence_length = length
        self.pad_id = 0
        self.vocab = vocab
        start = random.integers(1, vocab, size=(count, 1))
        steps = random.choice([1, 1, 1, 3], size=(count, length + 1)).cumsum(axis=1)
        self._tokens = 1 + (start + steps) % (vocab - 1)
        self.targets = np.full(count, length, dtype=np.int64)
        self.targets[2::3] = length // 2
        for row, targets in enumerate(self.targets):
            self._tokens[row, targets + 1 :] = self.pad_id

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._tokens[index].astype(np.int64))
