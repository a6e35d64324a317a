"""What is minimised: named terms over the tokens of a micro-batch, and their weighted sum.

Every term is a sum over tokens divided by one given number, the tokens of the whole global batch; so the
micro-batches' losses add up to the global batch's, however it is cut. Not here: reduction over ranks
(engine/).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from aurl_trainer.config.losses import LossConfig

IGNORED = -100
"""The target where nothing is to be predicted."""


@dataclass(frozen=True)
class Losses:
    """`total` is to be differentiated; `terms` are the unweighted terms, scalars without graph.

    "nll" is always there: the plain negative log likelihood in nats, which alone compares with other models
    and settings.
    """

    total: Tensor
    terms: dict[str, Tensor]


class ComprehensiveLossFramework:
    """Next-token loss of a decoder: (1 - s) nll + s uniform + z_weight z."""

    def __init__(self, config: LossConfig) -> None:
        self.weights = {"nll": 1 - config.label_smoothing}
        """Of each term by name; terms of weight zero are not computed."""
        if config.label_smoothing:
            self.weights["uniform"] = config.label_smoothing
        if config.z_loss:
            self.weights["z"] = config.z_loss

    def __call__(self, logits: Tensor, targets: Tensor, denominator: int | Tensor) -> Losses:
        """Logits [B, T, V], targets int64 [B, T] with `IGNORED` where they do not count."""
        terms = self.terms(logits, targets, denominator)
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return Losses(total, {name: term.detach() for name, term in terms.items()})

    def terms(self, logits: Tensor, targets: Tensor, denominator: int | Tensor) -> dict[str, Tensor]:
        """Each term, differentiable, computed in float32. Shapes as in the call.

        nll: -log p(target). uniform: the mean of -log p over the vocabulary, which smooths labels (Szegedy et
        al. 2015, arXiv:1512.00567). z: the squared log-partition (PaLM, arXiv:2204.02311).
        """
        flat, wanted = logits.flatten(0, -2).float(), targets.flatten()
        found = {"nll": functional.cross_entropy(flat, wanted, ignore_index=IGNORED, reduction="sum")}
        if len(self.weights) > 1:
            counts = wanted != IGNORED
            partition = flat.logsumexp(-1)
            if "uniform" in self.weights:
                found["uniform"] = ((partition - flat.mean(-1)) * counts).sum()
            if "z" in self.weights:
                found["z"] = (partition.square() * counts).sum()
        return {name: term / denominator for name, term in found.items()}
