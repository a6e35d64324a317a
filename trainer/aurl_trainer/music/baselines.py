"""What a model must beat: a unigram and a Markov model over the very same tokens and targets.

Both are fitted on the training split and know of a validation target what the model knows: the tokens before
it in the same window. Not here: the model's own likelihood (engine/evaluation.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from aurl_trainer.data.batches import Samples

if TYPE_CHECKING:
    from aurl_trainer.data.dataset import LazyMidiDataset

Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
T = TypeVar("T", np.int64, np.float64)

CHUNK = 2048
"""Samples counted at a time: memory is bounded by the number of different n-grams, not by the music."""


@dataclass(frozen=True)
class Baselines:
    """Nats per token over the same `tokens` validation targets."""

    unigram: float
    markov2: float
    tokens: int


def measure(
    train: LazyMidiDataset,
    validation: Samples,
    vocab_size: int,
    count: int | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Baselines:
    """Both baselines over the first `count` validation samples (default: all). Raises as markov_nll.

    `alive` is called for each training sample that is counted.

    Where training samples are transposed too, each is fitted with and without these, and the better one is
    told: counts have no use for keys that validation never uses, but more music may outweigh that.
    """
    count = len(validation) if count is None else min(count, len(validation))
    fits: list[Samples] = [_Chosen(train, np.arange(len(train)), alive)]
    originals = np.array([i for i in range(len(train)) if train.semitones(i) == 0])
    if 0 < len(originals) < len(train):
        fits.append(_Chosen(train, originals, alive))
    return Baselines(
        min(unigram_nll(fit, validation, vocab_size, count) for fit in fits),
        min(markov_nll(fit, validation, vocab_size, count) for fit in fits),
        int(validation.targets[:count].sum()),
    )


class _Chosen:
    """Some of the samples of a dataset, as a dataset that tells of each sample taken."""

    def __init__(self, samples: Samples, ids: Keys, alive: Callable[[], None]) -> None:
        self.samples, self.ids, self._alive = samples, ids, alive
        self.targets = samples.targets[ids]
        self.sequence_length, self.pad_id = samples.sequence_length, samples.pad_id

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Tensor:
        self._alive()
        return self.samples[int(self.ids[index])]


def unigram_nll(train: Samples, validation: Samples, vocab_size: int, count: int | None = None) -> float:
    """Mean of -log p(target) over validation, nats per token: `markov_nll` without context."""
    return markov_nll(train, validation, vocab_size, count, order=0)


def markov_nll(
    train: Samples, validation: Samples, vocab_size: int, count: int | None = None, order: int = 2
) -> float:
    """Mean of -log p(target | the `order` tokens before it) over validation, nats per token.

    Interpolated Kneser-Ney with three discounts, down to the uniform distribution (Chen & Goodman 1999,
    section 3). Before a window's first token stands a symbol of its own, so how pieces begin is known too.
    `count` takes the first so many validation samples. Raises ValueError if a split has no target or the
    vocabulary is too large for the order.
    """
    base = vocab_size + 1
    if base ** (order + 1) >= 2**63:
        raise ValueError(f"a vocabulary of {vocab_size} is too large for order {order}")
    count = len(validation) if count is None else min(count, len(validation))
    asked = np.concatenate([np.empty(0, np.int64), *_grams(validation, count, base, order)])
    parts = [np.unique(grams, return_counts=True) for grams in _grams(train, len(train), base, order)]
    if not len(asked) or not sum(len(grams) for grams, _ in parts):
        raise ValueError("a split without a single target has no likelihood")
    grams, where = np.unique(np.concatenate([grams for grams, _ in parts]), return_inverse=True)
    counts = np.bincount(where, np.concatenate([counts for _, counts in parts])).astype(np.int64)
    levels = [_Level.of(grams, counts, base)]
    for length in range(order, 0, -1):
        # What a shorter context is followed by counts once for each token that it was seen behind.
        grams, counts = np.unique(grams % base**length, return_counts=True)
        levels.append(_Level.of(grams, counts, base))
    likelihood = np.full(len(asked), 1 / vocab_size)
    for length, level in enumerate(reversed(levels), 1):
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
    """The n-grams of one length: counts, and by context how many followed and how much is kept for others."""

    grams: Keys
    counts: Keys
    discounts: Floats
    contexts: Keys
    totals: Keys
    kept: Floats

    @classmethod
    def of(cls, grams: Keys, counts: Keys, base: int) -> _Level:
        """From sorted n-grams and their counts."""
        discounts = _discounts(counts)
        contexts, first = np.unique(grams // base, return_index=True)
        totals = np.add.reduceat(counts, first)
        kept = np.add.reduceat(discounts[np.minimum(counts, 3)], first)
        return cls(grams, counts, discounts, contexts, totals, kept)

    def refine(self, asked: Keys, base: int, lower: Floats) -> Floats:
        """(c - D(c) + kept p_lower) / total for n-grams `asked`; p_lower if the context is new."""
        count = _look_up(self.grams, self.counts, asked)
        total = _look_up(self.contexts, self.totals, asked // base)
        kept = _look_up(self.contexts, self.kept, asked // base)
        own = count - self.discounts[np.minimum(count, 3)]
        return np.where(total == 0, lower, (own + kept * lower) / np.maximum(total, 1))


def _discounts(counts: Keys) -> Floats:
    """What is taken off counts of 0, 1, 2 and more; Chen & Goodman's equation 26 over counts of counts.

    Never less than a tenth: music too little or too regular for the estimate must not make new things
    impossible.
    """
    n1, n2, n3, n4 = (float((counts == k).sum()) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2) if n1 else 0.0
    pairs = ((n1, n2), (n2, n3), (n3, n4))
    found = [k - (k + 1) * y * after / n if n else 0.5 * k for k, (n, after) in enumerate(pairs, 1)]
    return np.array([0.0, *np.clip(found, 0.1, [1, 2, 3])])


def _look_up(keys: Keys, values: npt.NDArray[T], asked: Keys) -> npt.NDArray[T]:
    """The value of each asked key, 0 for one that is not there; `keys` are sorted."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], values.dtype.type(0))
