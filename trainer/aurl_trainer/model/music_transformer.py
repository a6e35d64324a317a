"""The network: token ids in, logits of the next token out.

Pre-norm decoder (RMSNorm: Zhang & Sennrich 2019, arXiv:1910.07467), rotary positions, tied embeddings, no
biases. Not here: the loss (losses/), sampling (sampling.py), how it is spread over ranks (engine/).
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from aurl_trainer.config.model import ModelConfig
from aurl_trainer.errors import ConfigError
from aurl_trainer.model.attention import CausalSelfAttention, KeyValueCache, Rotation, rotation

INIT_STD = 0.02
"""Of all matrices, as in GPT-2; those that write into the residual stream get less (`reset_parameters`)."""


class Block(nn.Module):
    """Attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.feedforward or 4 * config.dim
        self.attention_norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.attention = CausalSelfAttention(config.dim, config.heads)
        self.feedforward_norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.widen = nn.Linear(config.dim, width, bias=False)
        self.narrow = nn.Linear(width, config.dim, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, by: Rotation, cache: KeyValueCache | None = None, layer: int = 0) -> Tensor:
        """[B, T, dim] -> [B, T, dim]."""
        x = x + self.dropout(self.attention(self.attention_norm(x), by, cache, layer))
        hidden = functional.gelu(self.widen(self.feedforward_norm(x)))
        return x + self.dropout(self.narrow(hidden))  # type: ignore[no-any-return]


class MusicTransformerVAEGAN(nn.Module):
    """A decoder-only transformer over music tokens; the family's name promises members still to come.

    `max_length` is the context it is trained with, tokens. Longer inputs work, as rotary positions have no
    end, but were never seen in training; `sampling.generate` therefore keeps within it.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        pad_id: int,
        max_length: int,
        *,
        mode: Literal["transformer", "vae", "vae_gan"] | None = None,
    ) -> None:
        """Initial weights come from torch's global generator: seed it before.

        `mode` goes before `config.mode`. Raises ConfigError for a mode that this version does not have and
        ValueError for a `pad_id` that is not in the vocabulary.
        """
        super().__init__()
        mode = mode or config.mode
        if mode != "transformer":
            raise ConfigError([f"model.mode: {mode} is not in this version of Aurl; use mode: transformer"])
        if not 0 <= pad_id < vocab_size:
            raise ValueError(f"pad_id {pad_id} is not in a vocabulary of {vocab_size}")
        self.config = config
        self.vocab_size = vocab_size
        self.pad_id = pad_id
        self.max_length = max_length
        self.embedding = nn.Embedding(vocab_size, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all weights anew, in place; a model built on the meta device needs it after `to_empty`.

        The two matrices of a block that write into the residual stream are scaled by 1 / sqrt(2 * layers), so
        that its variance does not grow with depth (GPT-2: Radford et al. 2019).
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)
            elif isinstance(module, nn.RMSNorm):
                module.reset_parameters()
        for block in self.blocks:
            assert isinstance(block, Block)
            for last in (block.attention.outward, block.narrow):
                nn.init.normal_(last.weight, std=INIT_STD / math.sqrt(2 * len(self.blocks)))

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Token ids int64 [B, T] -> logits float32 [B, T, vocab_size]; those at t are about token t + 1.

        Padding stands behind the music, so causality alone keeps it out; its own logits mean nothing. With a
        cache, `tokens` continue what it has seen, and it is advanced by T.
        """
        past = cache.length if cache is not None else 0
        head_dim = self.config.dim // self.config.heads
        by = rotation(past, tokens.shape[1], head_dim, self.config.rope_base, tokens.device)
        x = self.dropout(self.embedding(tokens))
        for layer, block in enumerate(self.blocks):
            x = block(x, by, cache, layer)
        if cache is not None:
            cache.length += tokens.shape[1]
        # The embedding serves as output matrix too (Press & Wolf 2017, arXiv:1608.05859): one parameter, one
        # entry in every state dict, nothing to tie again after loading.
        return functional.linear(self.norm(x), self.embedding.weight).float()

    def new_cache(self, capacity: int | None = None) -> KeyValueCache:
        """An empty cache for this model; `capacity` in tokens, default: the context."""
        return KeyValueCache(len(self.blocks), capacity or self.max_length)

    def parameter_count(self) -> int:
        """Trainable numbers, the tied embedding counted once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
