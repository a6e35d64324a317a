"""The loss: what each term is, that each reaches the decoder, that parts add up, that copying costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.data.batches import BatchPlan, global_tokens, micro_batches
from aurl_trainer.losses.framework import IGNORED, ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN

VOCAB = 30
ALL_TERMS = LossConfig(label_smoothing=0.1, z_loss=1e-3)


class RandomWindows:
    """Samples as `LazyMidiDataset` gives them, some of them short."""

    sequence_length = 12
    pad_id = 0

    def __init__(self, count: int = 10) -> None:
        rng = np.random.default_rng(1)
        self.targets = rng.integers(3, self.sequence_length + 1, count)
        self.rows = rng.integers(1, VOCAB, (count, self.sequence_length + 1))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        row = torch.from_numpy(self.rows[index].copy())
        row[self.targets[index] + 1 :] = self.pad_id
        return row


def example(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 7, VOCAB, generator=generator) * 2
    targets = torch.randint(0, VOCAB, (3, 7), generator=generator)
    targets[1, 4:] = IGNORED
    return logits, targets


def test_terms_are_what_their_formulas_say() -> None:
    logits, targets = example()
    counted = targets != IGNORED
    logp = logits.double().log_softmax(-1)
    nll = -logp.gather(-1, targets.clamp_min(0)[..., None])[..., 0][counted].sum() / 100
    uniform = -logp.mean(-1)[counted].sum() / 100
    z = (logits.double().exp().sum(-1).log() ** 2)[counted].sum() / 100
    found = ComprehensiveLossFramework(ALL_TERMS)(logits, targets, 100)
    assert {n: float(t) for n, t in found.terms.items()} == pytest.approx(
        {"nll": float(nll), "uniform": float(uniform), "z": float(z)}, rel=1e-5
    )
    assert float(found.total) == pytest.approx(float(0.9 * nll + 0.1 * uniform + 1e-3 * z), rel=1e-5)


def test_smoothing_is_torchs_own() -> None:
    logits, targets = example()
    found = ComprehensiveLossFramework(LossConfig(label_smoothing=0.2))(logits, targets, 1).total
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), label_smoothing=0.2, reduction="sum"
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_the_plain_likelihood_is_reported_whatever_is_minimised() -> None:
    logits, targets = example()
    plain = ComprehensiveLossFramework(LossConfig())(logits, targets, 18)
    smooth = ComprehensiveLossFramework(ALL_TERMS)(logits, targets, 18)
    assert set(plain.terms) == {"nll"}
    assert float(plain.total) == float(plain.terms["nll"]) == float(smooth.terms["nll"])
    assert float(smooth.total) != float(plain.total)


def test_ignored_targets_count_nothing_and_get_no_gradient() -> None:
    logits, targets = example()
    logits.requires_grad_()
    framework = ComprehensiveLossFramework(ALL_TERMS)
    framework(logits, targets, 1).total.backward()
    assert logits.grad is not None
    assert (logits.grad[targets == IGNORED] == 0).all()
    assert (logits.grad[targets != IGNORED].abs().sum(-1) > 0).all()
    nothing = framework(logits.detach().requires_grad_(), torch.full((3, 7), IGNORED), 5)
    nothing.total.backward()
    assert float(nothing.total.detach()) == 0.0


def test_reported_terms_hold_no_graph() -> None:
    logits, targets = example()
    found = ComprehensiveLossFramework(ALL_TERMS)(logits.requires_grad_(), targets, 1)
    assert found.total.requires_grad
    assert not any(term.requires_grad for term in found.terms.values())


@pytest.mark.parametrize("name", ["nll", "uniform", "z"])
def test_every_term_alone_gives_every_weight_of_the_decoder_a_gradient(name: str) -> None:
    torch.manual_seed(1)
    model = MusicTransformerVAEGAN(ModelConfig(dim=32, layers=2, heads=4, dropout=0), VOCAB, 0, 12)
    batch = torch.randint(1, VOCAB, (2, 13))
    term = ComprehensiveLossFramework(ALL_TERMS).terms(model(batch[:, :-1]), batch[:, 1:], 24)[name]
    term.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without, f"the term {name} does not reach {without}"


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_losses_and_gradients_add_up_to_the_global_batchs(shards: int) -> None:
    data = RandomWindows()
    framework = ComprehensiveLossFramework(ALL_TERMS)
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(2))

    def run(cut: int, world: int) -> tuple[float, Tensor]:
        plan = BatchPlan(len(data), 10, cut, seed=3)
        weights = table.clone().requires_grad_()
        total = 0.0
        for rank in range(world):
            for micro in micro_batches(data, plan, 0, rank, world):
                part = framework(weights[micro.inputs], micro.targets, global_tokens(data, plan, 0)).total
                (part * micro.weight).backward()
                total += float(part.detach())
        assert weights.grad is not None
        return total, weights.grad

    whole, parts = run(1, 1), run(shards, 3)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert torch.allclose(parts[1], whole[1], atol=1e-6)


def test_copying_the_input_does_not_pay_and_telling_the_next_token_does() -> None:
    """With unshifted labels it would be the other way round."""
    data = RandomWindows()
    plan = BatchPlan(len(data), 10, 2, seed=3)
    loss = ComprehensiveLossFramework(LossConfig())
    copier, seer, tokens = 0.0, 0.0, global_tokens(data, plan, 0)
    for micro in micro_batches(data, plan, 0):
        for row, sample in enumerate(micro.ids):
            following = data[int(sample)][1:]
            wanted = micro.targets[row]
            assert torch.equal(wanted[wanted != IGNORED], following[: data.targets[sample]])
        certain = 20 * torch.nn.functional.one_hot(torch.arange(VOCAB), VOCAB).float()
        copier += float(loss(certain[micro.inputs], micro.targets, tokens).total)
        seer += float(loss(certain[micro.targets.clamp_min(0)], micro.targets, tokens).total)
    assert copier > 10, f"a model that repeats its input has a loss of only {copier:.3f}"
    assert seer < 1e-3, f"a model that knows the next token has a loss of {seer:.3f}"


def test_half_precision_logits_are_summed_in_full_precision() -> None:
    logits, targets = example()
    exact = ComprehensiveLossFramework(ALL_TERMS)(logits.bfloat16().float(), targets, 1).total
    found = ComprehensiveLossFramework(ALL_TERMS)(logits.bfloat16(), targets, 1).total
    assert found.dtype == torch.float32
    assert float(found) == float(exact)
