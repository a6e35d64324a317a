"""Sealed objects, plain values, identities, names."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.format.identity import differences
from aurl_trainer.store.format.names import CheckpointName, Fence, GenerationId, is_fenced, is_void, not_void
from aurl_trainer.store.format.plain import decode, encode
from aurl_trainer.store.format.sealed import seal, unseal

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text().filter(lambda k: not k.startswith("$")), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda k: k != "digest"), json_values, min_size=1, max_size=4))
def test_a_sealed_object_is_json_and_comes_back(value: dict[str, Any]) -> None:
    data = seal(value)
    assert unseal(data, "x") == value
    assert {k: v for k, v in json.loads(data).items() if k != "digest"} == value


@given(st.data())
def test_any_flipped_bit_or_cut_of_a_sealed_object_is_found(data: st.DataObject) -> None:
    sealed = seal({"step": 100, "loss": 1e5, "text": "Ab"})
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    flipped = bytearray(sealed)
    flipped[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(DamagedError, match="m7: "):
        unseal(bytes(flipped), "m7")
    with pytest.raises(DamagedError):
        unseal(sealed[: data.draw(st.integers(0, len(sealed) - 1))], "m7")


def test_only_json_can_be_sealed() -> None:
    for value in ({"x": math.nan}, {"x": object()}, {}, {"digest": 1}):
        with pytest.raises((ValueError, TypeError)):
            seal(value)


@given(plain_values)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value, "x"), allow_nan=False)))
    assert back == value and repr(back) == repr(value), "a type or a sign changed on the way"


def test_nan_comes_back() -> None:
    assert math.isnan(decode(encode(math.nan, "x")))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": [1, {2}]}, r"extra\.a\[1\]: .*never pickled objects; found builtins\.set"),
        ({"a": b"raw"}, r"extra\.a: .*found builtins\.bytes"),
        ({"a": {1: 2}}, r"extra\.a: a checkpoint holds only text as keys, not 1"),
        ({"$tuple": []}, r"extra: .*not '\$tuple'"),
        (print, r"extra: .*builtin_function_or_method"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_its_place(value: Any, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        encode(value, "extra")


def test_differences_are_named_by_their_dotted_paths() -> None:
    old = {"seed": 1, "model": {"dim": 64, "layers": 2}, "data": {"limit": None}, "flag": True}
    new = {"seed": 1, "model": {"dim": 128, "layers": 2}, "data": {"limit": 10, "new": "x"}, "flag": 1}
    assert differences(old, new) == [
        "data.limit: None -> 10",
        "data.new: (absent) -> 'x'",
        "flag: True -> 1",
        "model.dim: 64 -> 128",
    ]
    assert differences(old, json.loads(json.dumps(old))) == []


generations = st.builds(GenerationId, st.integers(1, 5), st.integers(0, 2**32 - 1).map(lambda n: f"{n:08x}"))
names = st.builds(CheckpointName, st.integers(1, 10**7), st.integers(0, 10**9), generations)


@given(names, generations)
def test_names_come_back(name: CheckpointName, generation: GenerationId) -> None:
    assert CheckpointName.parse(str(name)) == name
    for fence in (Fence(generation), Fence(generation, True), Fence(generation, True, name)):
        assert Fence.parse(fence.object.removeprefix("generations/")) == fence


@pytest.mark.parametrize(
    "text",
    [
        "",
        "probe-1",
        ".g000001-00000000.json.partial",
        "g1.json",
        "g000001-zz.json",
        "g000001-00000000.from-.json",
        "g000001-00000000.from-elsewhere.json",
    ],
)
def test_other_files_are_no_fences(text: str) -> None:
    assert Fence.parse(text) is None and CheckpointName.parse(text) is None


G1, G2, G3 = (GenerationId(n, f"{n:08x}") for n in (1, 2, 3))


def test_what_an_earlier_generation_saves_beyond_a_resume_is_void() -> None:
    kept, beyond = CheckpointName(1, 100, G1), CheckpointName(2, 150, G1)
    own = CheckpointName(2, 150, G2)
    fences = [Fence(G1), Fence(G1, True), Fence(G2), Fence(G2, True, kept)]
    assert not is_void(kept, fences)
    assert is_void(beyond, fences)
    assert not is_void(own, fences)
    assert is_void(CheckpointName(2, 100, G1), fences), "saved again at the same step, after the resume"


def test_a_generation_that_has_not_settled_voids_nothing_but_fences() -> None:
    late = CheckpointName(2, 150, G1)
    assert not is_void(late, [Fence(G1), Fence(G2)])
    assert is_fenced(G1, [Fence(G1), Fence(G2)]) == G2
    assert is_fenced(G2, [Fence(G1), Fence(G2)]) is None


def test_a_start_from_nothing_voids_all_before() -> None:
    assert is_void(CheckpointName(1, 1, G1), [Fence(G1), Fence(G3, True)])


few = st.builds(GenerationId, st.integers(1, 4), st.sampled_from(["0000000a", "0000000b"]))
few_names = st.builds(CheckpointName, st.integers(1, 5), st.integers(0, 5), few)
few_fences = st.builds(Fence, few) | st.builds(Fence, few, st.just(True), st.none() | few_names)


@given(st.lists(few_names, max_size=8), st.lists(few_fences, max_size=6))
def test_one_walk_finds_the_same_as_a_look_at_each(names: list[CheckpointName], fences: list[Fence]) -> None:
    assert not_void(names, fences) == [n for n in names if not is_void(n, fences)]


def test_one_walk_does_not_compare_each_save_with_each_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 2,000 restarts and 1,000 saves that would be millions of comparisons at each look."""
    compared = 0

    def counting(compare: Callable[[GenerationId, GenerationId], bool]) -> Callable[..., bool]:
        def counted(one: GenerationId, other: GenerationId) -> bool:
            nonlocal compared
            compared += 1
            return compare(one, other)

        return counted

    for way in ("__lt__", "__le__", "__gt__"):
        monkeypatch.setattr(GenerationId, way, counting(getattr(GenerationId, way)))
    ids = [GenerationId(n, "00000000") for n in range(1, 401)]
    names = [CheckpointName(n.number, n.number, n) for n in ids]
    fences = [Fence(n, True, m) for n, m in zip(ids[1:], names[:-1], strict=True)]
    assert not_void(names, fences) == names
    assert compared < 20 * len(ids), f"{compared} comparisons for {len(ids)} saves and as many restarts"


@given(st.lists(generations, min_size=1, max_size=6))
def test_a_new_generation_is_later_than_all(others: list[GenerationId]) -> None:
    assert all(GenerationId.after(others) > o for o in others)
