"""Causal self-attention with rotary positions, and the cache of keys and values for sampling.

Not here: the blocks around it (music_transformer.py) and what is sampled (sampling.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each float [T, head_dim / 2]."""


def rotation(start: int, length: int, head_dim: int, base: float, device: torch.device) -> Rotation:
    """Angles of positions start .. start + length - 1 (RoPE: Su et al. 2021, arXiv:2104.09864).

    Computed anew in each forward pass, once for all layers: it costs nothing beside one matrix product, no
    length is the last one, and there is no buffer that a meta device or a checkpoint could get wrong.
    """
    pairs = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32)
    positions = torch.arange(start, start + length, device=device, dtype=torch.float32)
    angles = positions[:, None] * base ** (-pairs / head_dim)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """`x` [B, H, T, head_dim] with component i turned against component i + head_dim / 2, in float32."""
    cos, sin = by
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).type_as(x)


class KeyValueCache:
    """Keys and values of what a model has read, for `capacity` positions in each of `layers` layers."""

    def __init__(self, layers: int, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        """Positions that are filled in every layer; the model advances it after each forward pass."""
        self._held: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds [B, H, T, head_dim] behind `length`; all keys and values so far. ValueError when full."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, {end} are needed")
        held = self._held[layer]
        if held is None:
            shape = (*keys.shape[:2], self.capacity, keys.shape[3])
            held = (keys.new_empty(shape), values.new_empty(shape))
            self._held[layer] = held
        for store, new in zip(held, (keys, values), strict=True):
            store[:, :, self.length : end] = new
        return held[0][:, :, :end], held[1][:, :, :end]


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which position t sees positions 0 .. t only."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(dim, 3 * dim, bias=False)
        self.outward = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, by: Rotation, cache: KeyValueCache | None = None, layer: int = 0) -> Tensor:
        """[B, T, dim] -> [B, T, dim]. With a cache, `x` continues what the cache holds.

        No dropout on the attention weights: it would take the fused kernels away and the residual branches
        have their own.
        """
        batch, length, dim = x.shape
        split = self.inward(x).view(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = rotate(query, by), rotate(key, by)
        past = 0
        if cache is not None:
            past = cache.length
            key, value = cache.extend(layer, key, value)
        if past and length > 1:
            # is_causal aligns the triangle with the first key; a continuation needs it at the last one.
            seen = torch.ones(length, past + length, dtype=torch.bool, device=x.device).tril(past)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=past == 0)
        return self.outward(mixed.transpose(1, 2).reshape(batch, length, dim))  # type: ignore[no-any-return]
