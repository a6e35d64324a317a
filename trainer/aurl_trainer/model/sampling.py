"""Sampling: prompts in, continued token sequences out, with a cache of keys and values.

Not here: what the tokens mean; music/sampled.py makes music of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN

Prompts = Sequence[Sequence[int]] | Tensor


def generate(
    model: MusicTransformerVAEGAN,
    prompts: Prompts,
    tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    eos_id: int | None = None,
    forbidden: Collection[int] = (),
) -> list[list[int]]:
    """Each prompt followed by at most `tokens` sampled tokens, the last one `eos_id` if the piece ended.

    `prompts`: lists of ids of any lengths, or int64 [B, P]. `temperature` 0 takes the likeliest token.
    `top_k` keeps the k likeliest; `top_p` the fewest whose probabilities reach p (Holtzman et al. 2020,
    arXiv:1904.09751), the likeliest always. Padding and `forbidden` ids are never sampled.

    Row i draws from a generator of its own, keyed by (seed, i): the same on every device, whatever the other
    rows do, and torch's global generators stay as they were. All rows walk through the same positions; where
    a longer prompt still speaks, its own token is taken. When the context is full, the older half is dropped
    and the rest read again from position 0, as training windows begin in the middle of pieces too.

    Raises ValueError for an empty prompt, an id outside the vocabulary, or impossible settings.
    """
    rows = _rows(prompts, model.vocab_size)
    if tokens < 0 or temperature < 0 or (top_k is not None and top_k < 1):
        raise ValueError("tokens and temperature must not be negative, top_k must be positive")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], found {top_p}")
    if not rows or not tokens:
        return rows
    banned = sorted({model.pad_id, *forbidden})
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return _continue(model, rows, tokens, temperature, top_k, top_p, seed, eos_id, banned)
    finally:
        model.train(training)


def _rows(prompts: Prompts, vocab_size: int) -> list[list[int]]:
    rows = [list(map(int, row)) for row in prompts]
    for index, row in enumerate(rows):
        if not row:
            raise ValueError(f"prompt {index} is empty; the least one is the begin-of-piece token")
        wrong = next((t for t in row if not 0 <= t < vocab_size), None)
        if wrong is not None:
            raise ValueError(f"prompt {index}: token {wrong} is not in a vocabulary of {vocab_size}")
    return rows


def _continue(
    model: MusicTransformerVAEGAN,
    rows: list[list[int]],
    tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    eos_id: int | None,
    banned: list[int],
) -> list[list[int]]:
    device = model.embedding.weight.device
    prompt_lengths = [len(row) for row in rows]
    noise = torch.stack([_noise(seed, i, tokens) for i in range(len(rows))])
    ends = [length + tokens for length in prompt_lengths]
    done = [False] * len(rows)
    at = min(prompt_lengths)
    # A row that is done, or ahead of its text, is fed anything: rows do not see each other.
    text = torch.full((len(rows), max(ends)), model.pad_id, dtype=torch.int64, device=device)
    for i, row in enumerate(rows):
        text[i, : len(row)] = torch.tensor(row, device=device)
    keep = max(1, model.max_length // 2)
    start = 0 if at <= model.max_length else at - keep
    cache = model.new_cache()
    logits = model(text[:, start:at], cache)[:, -1]
    while True:
        drawing = [i for i in range(len(rows)) if not done[i] and prompt_lengths[i] <= at]
        if drawing:
            logits[:, banned] = -torch.inf
            uniform = torch.tensor([float(noise[i, at - prompt_lengths[i]]) for i in drawing], device=device)
            chosen = choose(logits[drawing], uniform, temperature, top_k, top_p)
            text[drawing, at] = chosen
            for i, token in zip(drawing, chosen.tolist(), strict=True):
                rows[i].append(token)
                done[i] = token == eos_id or len(rows[i]) >= ends[i]
        if all(done):
            return rows
        at += 1
        if at - start > model.max_length:
            start, cache = at - keep, model.new_cache()
            logits = model(text[:, start:at], cache)[:, -1]
        else:
            logits = model(text[:, at - 1 : at], cache)[:, -1]


def _noise(seed: int, row: int, tokens: int) -> Tensor:
    """Uniform numbers in [0, 1), float64 [tokens], from a stream of their own per (seed, row)."""
    generator = torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + row * 0xBF58476D1CE4E5B9) % 2**63)
    return torch.rand(tokens, generator=generator, dtype=torch.float64)


def choose(
    logits: Tensor, uniform: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """One token per row of logits [B, V], by inversion of the distribution at `uniform` [B] in [0, 1)."""
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits.double() / temperature
    if top_k is not None and top_k < scaled.shape[-1]:
        scaled, ids = scaled.topk(top_k, dim=-1)
    else:
        scaled, ids = scaled.sort(dim=-1, descending=True, stable=True)
    reached = scaled.softmax(-1).cumsum(-1)
    if top_p is not None:
        before = reached - scaled.softmax(-1)
        kept = (before < top_p).sum(-1, keepdim=True)
        total = reached.gather(-1, kept - 1)
    else:
        total = reached[:, -1:]
    place = torch.searchsorted(reached, uniform[:, None].double() * total, right=True)
    # Rounding may put the last draw behind the last token of any weight.
    last = (scaled > -torch.inf).sum(-1, keepdim=True) - 1
    return ids.gather(-1, torch.minimum(place, last)).squeeze(-1)
