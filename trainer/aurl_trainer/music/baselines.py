"""What a model must beat: a unigram and a Markov model over the very same tokens and targets.

Both are fitted on the training samples as the model sees them, transposed ones included, and know of a
validation target what the model knows: the tokens before it in the same window. Not here: the model's own
likelihood (engine/evaluation.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurl_trainer.data.batches import Samples

Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CHUNK = 2048
"""Samples counted at a time: memory is bounded by the number of different n-grams, not by the music."""


@dataclass(frozen=True)
class Baselines:
    """Nats per token over the same `tokens` validation targets."""

    unigram: float
    markov2: float
    tokens: int


def measure(train: Samples, validation: Samples, vocab_size: int, count: int | None = None) -> Baselines:
    """Both baselines over the first `count` validation samples (default: all). Raises as markov_nll."""
    count = len(validation) if count is None else min(count, len(validation))
    return Baselines(
        unigram_nll(train, validation, vocab_size, count),
        markov_nll(train, validation, vocab_size, count),
        int(validation.targets[:count].sum()),
    )


def unigram_nll(train: Samples, validation: Samples, vocab_size: int, count: int | None = None) -> float:
    """Mean of -log p(target) over validation, nats per token: `markov_nll` without context."""
    return markov_nll(train, validation, vocab_size, count, order=0)


def markov_nll(
    train: Samples, validation: Samples, vocab_size: int, count: int | None = None, order: int = 2
) -> float:
    """Mean of -log p(target | the `order` tokens before it) over validation, nats per token.

    Interpolated Witten-Bell smoothing down to the uniform distribution (Witten & Bell 1991; Chen & Goodman
    1999, section 2). Before a window's first token stands a symbol of its own, so how pieces begin is known
    too. `count` takes the first so many validation samples. Raises ValueError if a split has no target or
    the vocabulary is too large for the order.
    """
    base = vocab_size + 1
    if base ** (order + 1) >= 2**63:
        raise ValueError(f"a vocabulary of {vocab_size} is too large for order {order}")
    parts = [np.unique(grams, return_counts=True) for grams in _grams(train, len(train), base, order)]
    count = len(validation) if count is None else min(count, len(validation))
    asked = np.concatenate([np.empty(0, np.int64), *_grams(validation, count, base, order)])
    if not len(asked) or not sum(len(grams) for grams, _ in parts):
        raise ValueError("a split without a single target has no likelihood")
    grams = np.concatenate([grams for grams, _ in parts])
    counts = np.concatenate([counts for _, counts in parts])
    likelihood = np.full(len(asked), 1 / vocab_size)
    for length in range(1, order + 2):
        level = _Level.of(grams % base**length, counts, base)
        likelihood = level.refine(asked % base**length, base, likelihood)
    return float(-np.log(likelihood).mean())


def _grams(samples: Samples, count: int, base: int, order: int) -> Iterator[Keys]:
    """One number per target: `order` tokens of context and the target as its digits; no token is base - 1."""
    for start in range(0, count, CHUNK):
        rows = range(start, min(start + CHUNK, count))
        ids = np.stack([samples[i].numpy() for i in rows])
        keys = ids[:, 1:].copy()
        for back in range(1, min(order, keys.shape[1]) + 1):
            before = np.full_like(keys, base - 1)
            before[:, back - 1 :] = ids[:, : ids.shape[1] - back]
            keys += before * base**back
        yield keys[np.arange(keys.shape[1]) < samples.targets[rows.start : rows.stop, None]]


@dataclass(frozen=True)
class _Level:
    """Counts of the n-grams of one length and, by context, how many and how many different ones followed."""

    grams: Keys
    counts: Keys
    contexts: Keys
    totals: Keys
    kinds: Keys

    @classmethod
    def of(cls, grams: Keys, counts: Keys, base: int) -> _Level:
        kept, where = np.unique(grams, return_inverse=True)
        summed = np.bincount(where, weights=counts).astype(np.int64)
        contexts, first = np.unique(kept // base, return_index=True)
        totals = np.add.reduceat(summed, first)
        kinds = np.diff(np.append(first, len(kept)))
        return cls(kept, summed, contexts, totals, kinds)

    def refine(self, asked: Keys, base: int, lower: Floats) -> Floats:
        """(c(h, w) + kinds(h) p_lower(w)) / (c(h) + kinds(h)); `lower` where the context was never seen."""
        count = _look_up(self.grams, self.counts, asked)
        total = _look_up(self.contexts, self.totals, asked // base)
        kinds = _look_up(self.contexts, self.kinds, asked // base)
        return np.where(total == 0, lower, (count + kinds * lower) / np.maximum(total + kinds, 1))


def _look_up(keys: Keys, values: Keys, asked: Keys) -> Keys:
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)
