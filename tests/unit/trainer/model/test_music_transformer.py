"""The network: sees no future, is built and initialised as promised, learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.errors import ConfigError
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN

VOCAB, PAD, LENGTH = 50, 0, 32
SMALL = ModelConfig(dim=32, layers=2, heads=4, dropout=0.1)


def build(config: ModelConfig = SMALL, seed: int = 1) -> MusicTransformerVAEGAN:
    torch.manual_seed(seed)
    return MusicTransformerVAEGAN(config, VOCAB, PAD, LENGTH)


def tokens(batch: int = 2, length: int = LENGTH, seed: int = 2) -> torch.Tensor:
    return torch.randint(1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def with_large_weights(model: MusicTransformerVAEGAN) -> MusicTransformerVAEGAN:
    """Fresh weights are so small that attention hardly matters; these make every path loud."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_moves_no_logit_before_it_and_those_from_it_on(dtype: torch.dtype) -> None:
    model = with_large_weights(build()).eval()
    before = tokens()
    for place in (0, 1, LENGTH // 2, LENGTH - 1):
        after = before.clone()
        after[:, place] = (after[:, place] % (VOCAB - 1)) + 1
        assert (after[:, place] != before[:, place]).all()
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            moved = (model(after) - model(before)).abs().amax(-1)
        assert (moved[:, :place] == 0).all(), f"token {place} moved logits of an earlier position"
        assert (moved[:, place] > 0).all(), f"token {place} did not reach its own position"
        # In bf16 a far token's part may be rounded away.
        assert (moved[:, place:] > 0).float().mean() > 0.8, f"token {place} did not reach later positions"


def test_no_gradient_flows_from_a_logit_to_a_later_token() -> None:
    model = with_large_weights(build()).eval()
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    model.embedding.register_forward_hook(keep)
    model(tokens(1))[0, 10].square().sum().backward()
    gradient = seen[0].grad
    assert gradient is not None
    assert (gradient[0, 11:] == 0).all(), "logits of position 10 depend on a later token"
    assert (gradient[0, :11].abs().sum(-1) > 0).all(), "logits of position 10 ignore an earlier token"


def test_position_matters_but_only_relative_to_the_other_tokens() -> None:
    model = with_large_weights(build()).eval()
    swapped = torch.tensor([[3, 4, 5, 6], [4, 3, 5, 6]])
    one, other = model(swapped)[:, -1]
    assert not torch.allclose(one, other, atol=1e-3), "order of earlier tokens makes no difference"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (build(seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_a_fresh_model_is_undecided() -> None:
    config = ModelConfig(dim=64, layers=12, heads=4, dropout=0)
    logits = build(config)(tokens(4))
    nll = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens(4)[:, 1:].flatten())
    assert abs(float(nll.detach()) - math.log(VOCAB)) < 0.1, f"first loss {float(nll):.3f}"


def test_depth_does_not_blow_up_the_residual_stream() -> None:
    def size(layers: int) -> float:
        model = build(ModelConfig(dim=64, layers=layers, heads=4, dropout=0))
        found: list[float] = []
        model.norm.register_forward_pre_hook(lambda _m, inputs: found.append(float(inputs[0].std())))
        with torch.no_grad():
            model(tokens())
        return found[0]

    assert size(24) < 1.5 * size(2)


def test_input_and_output_embedding_are_one_tensor_in_the_state() -> None:
    model = build()
    state = model.state_dict()
    shapes = [name for name, value in state.items() if value.shape == (VOCAB, SMALL.dim)]
    assert shapes == ["embedding.weight"], f"more than one matrix over the vocabulary: {shapes}"
    assert len({value.data_ptr() for value in state.values()}) == len(state), "two names share one tensor"
    assert sum(v.numel() for v in state.values()) == model.parameter_count()
    twin = build(seed=5)
    twin.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(twin.eval()(tokens()), model.eval()(tokens()))
        twin.embedding.weight[7] += 1
        assert not torch.allclose(twin(tokens())[..., 7], model(tokens())[..., 7])


def test_there_is_nothing_but_parameters_in_the_state() -> None:
    model = build()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert not list(model.buffers()), "a buffer would need care on meta devices and in checkpoints"


def test_built_on_the_meta_device_and_given_memory_it_is_the_same_model() -> None:
    with torch.device("meta"):
        model = MusicTransformerVAEGAN(SMALL, VOCAB, PAD, LENGTH)
    assert all(p.is_meta for p in model.parameters())
    model.to_empty(device="cpu")
    expected = build(seed=7)
    for each in (model, expected):
        torch.manual_seed(1)
        each.reset_parameters()
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    with torch.no_grad():
        assert torch.equal(model.eval()(tokens()), expected.eval()(tokens()))


def test_bf16_autocast_gives_float32_logits_near_the_full_ones_and_gradients_to_all() -> None:
    model = build().eval()
    exact = model(tokens())
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(tokens())
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, exact, atol=0.02), f"off by {float((rough - exact).abs().max())}"
    rough.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_dropout_works_in_training_and_only_there() -> None:
    model = build(ModelConfig(dim=32, layers=2, heads=4, dropout=0.5))
    assert not torch.equal(model(tokens()), model(tokens()))
    model.eval()
    assert torch.equal(model(tokens()), model(tokens()))


def test_one_batch_is_learned_by_heart() -> None:
    """Nearly nothing is left of the loss, and the model then says the piece from its first token."""
    model = build(ModelConfig(dim=64, layers=2, heads=4, dropout=0))
    loss = ComprehensiveLossFramework(LossConfig())
    batch = tokens(4, LENGTH + 1)
    batch[:, 0] = torch.arange(1, 5)  # the one thing that tells the rows apart at the start
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    for _ in range(150):
        optimizer.zero_grad()
        found = loss(model(batch[:, :-1]), batch[:, 1:], 4 * LENGTH)
        found.total.backward()
        optimizer.step()
    assert float(found.total.detach()) < 0.02, f"still {float(found.total.detach()):.3f} nats a token"
    said = model.eval()(batch[:, :-1]).argmax(-1)
    assert torch.equal(said, batch[:, 1:])


@pytest.mark.parametrize("mode", ["vae", "vae_gan"])
def test_modes_of_the_future_are_refused_in_one_line(mode: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.mode: {mode} is not in this version.*transformer$"):
        MusicTransformerVAEGAN(SMALL.model_copy(update={"mode": mode}), VOCAB, PAD, LENGTH)
    with pytest.raises(ConfigError, match=mode):
        MusicTransformerVAEGAN(SMALL, VOCAB, PAD, LENGTH, mode=mode)  # type: ignore[arg-type]


def test_the_keyword_goes_before_the_config() -> None:
    config = SMALL.model_copy(update={"mode": "vae"})
    assert MusicTransformerVAEGAN(config, VOCAB, PAD, LENGTH, mode="transformer").vocab_size == VOCAB


def test_padding_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="pad_id 50"):
        MusicTransformerVAEGAN(SMALL, VOCAB, VOCAB, LENGTH)


def test_the_width_of_the_feedforward_is_what_the_config_says() -> None:
    narrow = build(ModelConfig(dim=32, layers=1, heads=4, feedforward=48))
    assert narrow.state_dict()["blocks.0.widen.weight"].shape == (48, 32)
    assert build().state_dict()["blocks.0.widen.weight"].shape == (4 * 32, 32)
