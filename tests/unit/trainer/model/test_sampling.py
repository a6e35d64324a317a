"""Sampling: the cache changes nothing, settings do what they say, seeds decide, nothing crashes."""

from __future__ import annotations

import pytest
import torch

from aurl_trainer.config.model import ModelConfig
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.model.sampling import choose, generate

VOCAB, PAD, EOS, LENGTH = 40, 0, 2, 24


@pytest.fixture(scope="module")
def model() -> MusicTransformerVAEGAN:
    torch.manual_seed(3)
    made = MusicTransformerVAEGAN(ModelConfig(dim=32, layers=3, heads=4), VOCAB, PAD, LENGTH)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(6)
    return made.eval()


def random_tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(3, VOCAB, (batch, length), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("cuts", [[1] * LENGTH, [10, *[1] * 14], [5, 7, 1, 11], [LENGTH]])
def test_the_cache_gives_the_logits_of_one_whole_pass(model: MusicTransformerVAEGAN, cuts: list[int]) -> None:
    text = random_tokens(3, LENGTH)
    with torch.no_grad():
        whole = model(text)
        cache = model.new_cache()
        pieces = [model(part, cache) for part in text.split(cuts, dim=1)]
    assert cache.length == LENGTH
    found = torch.cat(pieces, dim=1)
    assert torch.allclose(found, whole, atol=1e-4), f"off by {float((found - whole).abs().max())}"


def test_a_full_cache_says_so(model: MusicTransformerVAEGAN) -> None:
    cache = model.new_cache(4)
    with torch.no_grad(), pytest.raises(ValueError, match="holds 4 positions, 5 are needed"):
        model(random_tokens(1, 5), cache)


def greedy_without_cache(model: MusicTransformerVAEGAN, prompt: list[int], tokens: int) -> list[int]:
    """The plain definition, one whole pass a token; for lengths within the context."""
    row = list(prompt)
    for _ in range(tokens):
        with torch.no_grad():
            logits = model(torch.tensor([row]))[0, -1]
        logits[PAD] = -torch.inf
        row.append(int(logits.argmax()))
    return row


def test_prompts_of_different_lengths_get_what_each_gets_alone(model: MusicTransformerVAEGAN) -> None:
    prompts = [[1], [1, 7, 9, 12, 30], [1, 5, 6]]
    together = generate(model, prompts, 12, temperature=0)
    assert together == [greedy_without_cache(model, p, 12) for p in prompts]


def test_a_rows_draws_do_not_depend_on_the_other_rows(model: MusicTransformerVAEGAN) -> None:
    both = generate(model, [[1, 4], [1, 9, 9, 9]], 15, seed=5)
    alone = generate(model, [[1, 4]], 15, seed=5)
    assert both[0] == alone[0]
    assert [len(row) for row in both] == [2 + 15, 4 + 15]


def test_seeds_decide_and_global_generators_stay_as_they_were(model: MusicTransformerVAEGAN) -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first, again, other = (generate(model, [[1], [1]], 20, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "sampling drew from the generator of training"
    assert first == again
    assert first != other
    assert first[0] != first[1], "two pieces of one sampling are the same"


def test_the_models_mode_is_given_back(model: MusicTransformerVAEGAN) -> None:
    model.train()
    generate(model, [[1]], 2)
    assert model.training
    assert model.blocks[0].training
    model.eval()
    generate(model, [[1]], 2)
    assert not model.training


def test_padding_and_forbidden_tokens_never_come(model: MusicTransformerVAEGAN) -> None:
    banned = set(range(5, VOCAB))
    rows = generate(model, [[1]] * 8, 40, temperature=5.0, forbidden=banned)
    drawn = {token for row in rows for token in row[1:]}
    assert drawn == {1, 2, 3, 4}, "expected every allowed token and none but those"


def test_a_piece_ends_at_its_end_token_and_the_others_go_on(model: MusicTransformerVAEGAN) -> None:
    rows = generate(model, [[1]] * 6, 60, temperature=3.0, eos_id=EOS, seed=1)
    ended = [row for row in rows if row[-1] == EOS]
    assert ended, "expected one of six hot pieces to end early"
    assert all(EOS not in row[:-1] for row in rows)
    assert all(len(row) == 61 for row in rows if row[-1] != EOS)
    assert {len(row) for row in ended} != {61}


def test_pieces_and_prompts_longer_than_the_context(model: MusicTransformerVAEGAN) -> None:
    long = random_tokens(1, 3 * LENGTH)[0].tolist()
    rows = generate(model, [[1], long, [1, 3]], 2 * LENGTH, seed=3)
    assert [len(row) for row in rows] == [1 + 2 * LENGTH, 5 * LENGTH, 2 + 2 * LENGTH]
    assert rows[1][: len(long)] == long
    assert all(0 < token < VOCAB for row in rows for token in row)


def test_beyond_the_context_it_reads_the_newest_half_again(model: MusicTransformerVAEGAN) -> None:
    prompt = random_tokens(1, LENGTH + 3)[0].tolist()
    (row,) = generate(model, [prompt], 4, temperature=0)
    window = prompt[-LENGTH // 2 :]
    assert row[len(prompt) :] == greedy_without_cache(model, window, 4)[len(window) :]


def test_logits_never_depend_on_more_positions_than_the_context(model: MusicTransformerVAEGAN) -> None:
    seen: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _m, args: seen.append(args[0].shape[1] + (args[1].length if len(args) > 1 else 0))
    )
    generate(model, [[1]], 3 * LENGTH)
    hook.remove()
    assert max(seen) == LENGTH


def draws(logits: list[float], n: int = 4000, **settings: object) -> list[float]:
    """Share of each token in `n` draws at evenly spread places of the distribution."""
    chosen = choose(
        torch.tensor([logits]).expand(n, -1),
        (torch.arange(n) + 0.5) / n,
        **{"temperature": 1.0, "top_k": None, "top_p": None, **settings},  # type: ignore[arg-type]
    )
    return [round(float(s), 2) for s in torch.bincount(chosen, minlength=len(logits)) / n]


def test_choosing_follows_temperature_top_k_and_top_p() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert draws(logits) == [0.5, 0.3, 0.15, 0.05]
    assert draws(logits, temperature=0) == [1, 0, 0, 0]
    assert draws(logits, temperature=0.5) == pytest.approx([0.68, 0.25, 0.06, 0.01], abs=0.011)
    assert draws(logits, top_k=2) == pytest.approx([0.62, 0.38, 0, 0], abs=0.011)
    assert draws(logits, top_k=99) == [0.5, 0.3, 0.15, 0.05]
    assert draws(logits, top_p=0.7) == pytest.approx([0.62, 0.38, 0, 0], abs=0.011)
    assert draws(logits, top_p=0.01) == [1, 0, 0, 0]
    assert draws(logits, top_k=3, top_p=0.5) == [1, 0, 0, 0]


def test_choosing_is_by_token_not_by_rank() -> None:
    logits = torch.tensor([0.05, 0.5, 0.15, 0.3]).log().tolist()
    assert draws(logits, top_p=0.7) == pytest.approx([0, 0.62, 0, 0.38], abs=0.011)


def test_the_last_place_of_the_distribution_is_still_a_token_that_may_come() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]])
    nearly_one = torch.tensor([1.0], dtype=torch.float64)
    assert choose(logits, nearly_one, 1.0, None, None).item() in (0, 1)


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[]], {}, "prompt 0 is empty"),
        ([[1], [VOCAB]], {}, f"prompt 1: token {VOCAB}"),
        ([[1]], {"top_p": 0.0}, "top_p"),
        ([[1]], {"top_k": 0}, "top_k"),
        ([[1]], {"temperature": -1.0}, "negative"),
    ],
)
def test_impossible_wishes_are_named(
    model: MusicTransformerVAEGAN, prompts: list[list[int]], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate(model, prompts, 3, **settings)  # type: ignore[arg-type]


def test_nothing_asked_for_is_nothing_done(model: MusicTransformerVAEGAN) -> None:
    assert generate(model, [[1, 5]], 0) == [[1, 5]]
    assert generate(model, [], 5) == []
