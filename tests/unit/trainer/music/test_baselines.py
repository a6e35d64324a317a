"""Baselines against hand counts, against a plain slow definition, and against music of a known entropy."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from aurl_trainer.music import baselines
from aurl_trainer.music.baselines import markov_nll, measure, unigram_nll

VOCAB, PAD, BOS = 12, 0, 1
Ids = npt.NDArray[np.int64]


class Windows:
    """Streams cut into samples as `LazyMidiDataset` does: neighbours share a token, the last is padded."""

    pad_id = PAD

    def __init__(self, streams: list[list[int]], length: int = 8, semitones: list[int] | None = None) -> None:
        self.sequence_length = length
        self.rows: list[list[int]] = []
        self.shifts: list[int] = []
        for stream, shift in zip(streams, semitones or [0] * len(streams), strict=True):
            for start in range(0, len(stream) - 1, length):
                self.rows.append(stream[start : start + length + 1])
                self.shifts.append(shift)
        self.targets: Ids = np.array([len(row) - 1 for row in self.rows], np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        row = self.rows[index]
        return torch.tensor(row + [PAD] * (self.sequence_length + 1 - len(row)))

    def semitones(self, index: int) -> int:
        return self.shifts[index]


def streams(count: int, seed: int, length: int = 40) -> list[list[int]]:
    """A second-order chain over 2 .. VOCAB - 1 behind BOS: what comes follows from the two before, mostly."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        row = [BOS, int(rng.integers(2, VOCAB))]
        for _ in range(int(rng.integers(length // 2, length))):
            sure = 2 + (row[-1] * 3 + row[-2]) % (VOCAB - 2)
            row.append(sure if rng.random() < 0.7 else int(rng.integers(2, VOCAB)))
        made.append(row)
    return made


def test_the_unigram_is_the_mean_over_every_target_and_nothing_else() -> None:
    """Seen as often as training: the empirical distribution, up to a discount that vanishes."""
    data = Windows([[BOS, *([2] * 600 + [3] * 300 + [4] * 100)]], length=7)
    shares = np.array([0.6, 0.3, 0.1])
    entropy = float(-(shares * np.log(shares)).sum())
    assert unigram_nll(data, data, VOCAB) == pytest.approx(entropy, abs=0.01)


def test_no_order_puts_more_than_one_on_all_tokens_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sum of p(w | context) over the vocabulary is 1 for seen, half seen and unseen contexts."""
    train = Windows(streams(20, seed=1))
    for context in ([BOS, 5], [6, 7], [9, 9], [3, 2]):
        sums = 0.0
        for token in range(VOCAB):
            # One window, of which only the last target counts: the mean over three is undone below.
            window = Windows([[*context, token]], length=2)
            monkeypatch.setattr(window, "targets", np.array([2]))
            whole = markov_nll(train, window, VOCAB, order=2) * 2
            first = markov_nll(train, Windows([context], length=2), VOCAB, order=2)
            sums += math.exp(-(whole - first))
        assert sums == pytest.approx(1.0, abs=1e-9), f"after {context} probabilities add up to {sums}"


def slow_kneser_ney(train: Windows, validation: Windows, order: int) -> float:
    """Chen & Goodman's interpolated, modified Kneser-Ney with dictionaries, one target at a time."""

    def grams(data: Windows) -> list[tuple[int, ...]]:
        found = []
        for row in data.rows:
            padded = [-1] * order + row
            found += [tuple(padded[i - order : i + 1]) for i in range(order + 1, len(padded))]
        return found

    tables: list[Counter[tuple[int, ...]]] = [Counter(grams(train))]
    while len(next(iter(tables[-1]))) > 1:
        tables.append(Counter(gram[1:] for gram in tables[-1]))

    def probability(gram: tuple[int, ...], level: int) -> float:
        if level == len(tables):
            return 1 / VOCAB
        table = tables[level]
        n = Counter(table.values())
        y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.0
        discount = {0: 0.0}
        for k in (1, 2, 3):
            estimate = k - (k + 1) * y * n[k + 1] / n[k] if n[k] else k / 2
            discount[k] = min(max(estimate, 0.1), k)
        lower = probability(gram[1:], level + 1)
        followers = {g: c for g, c in table.items() if g[:-1] == gram[:-1]}
        if not followers:
            return lower
        kept = sum(discount[min(c, 3)] for c in followers.values())
        own = table[gram] - discount[min(table[gram], 3)]
        return (own + kept * lower) / sum(followers.values())

    return float(np.mean([-math.log(probability(gram, 0)) for gram in grams(validation)]))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_it_agrees_with_the_plain_definition(order: int) -> None:
    train, held_out = Windows(streams(8, seed=1)), Windows(streams(3, seed=2))
    found = markov_nll(train, held_out, VOCAB, order=order)
    assert found == pytest.approx(slow_kneser_ney(train, held_out, order), rel=1e-9)


def test_counting_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out = Windows(streams(20, seed=1)), Windows(streams(5, seed=2))
    whole = markov_nll(train, held_out, VOCAB)
    monkeypatch.setattr(baselines, "CHUNK", 3)
    assert markov_nll(train, held_out, VOCAB) == pytest.approx(whole, rel=1e-12)


def test_more_context_helps_where_the_music_has_it_and_more_music_helps() -> None:
    held_out = Windows(streams(20, seed=2))
    much = Windows(streams(300, seed=1))
    none, one, two = (markov_nll(much, held_out, VOCAB, order=order) for order in (0, 1, 2))
    assert one == pytest.approx(none, abs=0.02), "in this chain one token of context tells nothing"
    entropy = 0.73 * -math.log(0.73) + 0.27 * -math.log(0.03)
    assert two == pytest.approx(entropy, abs=0.25), f"the chain has {entropy:.3f} nats a token"
    assert two < one - 0.5
    by_music = [markov_nll(Windows(streams(n, seed=1)), held_out, VOCAB) for n in (3, 30, 300)]
    assert by_music == sorted(by_music, reverse=True)


def test_what_training_never_had_is_unlikely_but_possible() -> None:
    train = Windows([[BOS, 2, 3, 2, 3, 2, 3, 2, 3]])
    for order in (0, 1, 2):
        found = markov_nll(train, Windows([[BOS, 9, 10, 11]]), VOCAB, order=order)
        assert math.log(VOCAB) - 0.1 < found < 20, f"order {order}: {found}"


def test_validation_is_not_learned_from() -> None:
    """Random music holds nothing to learn: its likelihood must not be better than chance."""
    rng = np.random.default_rng(3)
    rows = [[BOS, *rng.integers(2, VOCAB, 60).tolist()] for _ in range(40)]
    train, held_out = Windows(rows[:20]), Windows(rows[20:])
    for order in (1, 2):
        assert markov_nll(train, held_out, VOCAB, order=order) > math.log(VOCAB - 2) - 0.05


def test_measure_takes_the_first_samples_and_the_better_fit() -> None:
    """Transposed copies of other keys blur what the originals say; here they are pure noise."""
    music = streams(30, seed=1)
    noise = [[BOS, *np.random.default_rng(i).integers(2, VOCAB, 200).tolist()] for i in range(30)]
    mixed = Windows(music + noise, semitones=[0] * 30 + [3] * 30)
    held_out = Windows(streams(6, seed=2))
    found = measure(mixed, held_out, VOCAB, count=7)  # type: ignore[arg-type]
    assert found.tokens == int(held_out.targets[:7].sum())
    assert found.markov2 == pytest.approx(markov_nll(Windows(music), held_out, VOCAB, 7))
    assert found.markov2 < markov_nll(mixed, held_out, VOCAB, 7) - 0.05
    again = Windows(music * 2, semitones=[0] * 30 + [3] * 30)
    assert measure(again, held_out, VOCAB).unigram <= unigram_nll(again, held_out, VOCAB)  # type: ignore[arg-type]


def test_targets_are_exactly_those_of_validation() -> None:
    """Every token but a stream's first is asked for once, with the tokens before it in its window."""
    data = Windows([[BOS, *range(2, 12), *range(2, 8)]], length=8)
    asked = np.concatenate(list(baselines._grams(data, len(data), VOCAB + 1, 2)))
    digits = [((key // 169), (key // 13) % 13, key % 13) for key in asked.tolist()]
    none = VOCAB
    stream = data.rows[0] + data.rows[1][1:]
    expected = [(a, b, c) for a, b, c in zip(stream, stream[1:], stream[2:], strict=False)]
    expected = [(none, stream[0], stream[1]), *expected]
    expected[8] = (none, stream[8], stream[9])
    assert digits == expected


def test_splits_without_targets_and_huge_vocabularies_are_refused() -> None:
    some, nothing = Windows(streams(2, seed=1)), Windows([])
    for train, held_out in itertools.permutations([some, nothing]):
        with pytest.raises(ValueError, match="without a single target"):
            markov_nll(train, held_out, VOCAB)
    with pytest.raises(ValueError, match="too large for order 6"):
        markov_nll(some, some, 65536, order=6)


def test_the_largest_vocabulary_fits_into_the_keys() -> None:
    """A piece of three tokens in a row is nearly certain once seen: no key has run over."""
    vocab = 65536
    cycle = [vocab - 1, vocab - 2, vocab - 3] * 50
    data = Windows([cycle], length=200)
    assert markov_nll(data, data, vocab, order=2) < 0.3
    assert unigram_nll(data, data, vocab) == pytest.approx(math.log(3), abs=0.1)
