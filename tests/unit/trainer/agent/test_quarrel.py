"""When worlds that end by blaming a peer are one too many."""

from __future__ import annotations

from aurl_trainer.agent.quarrel import LONG_SECONDS, WORLDS, Quarrel

TWO = frozenset({"a", "b"})


def ends(quarrel: Quarrel, times: int, members: frozenset[str] = TWO, step: int = 5) -> list[bool]:
    return [quarrel.ended(members, step, 1.0) for _ in range(times)]


def test_the_same_nodes_may_not_blame_each_other_for_ever() -> None:
    assert ends(Quarrel(), WORLDS) == [False] * (WORLDS - 1) + [True]


def test_another_node_a_new_step_or_a_long_world_begin_anew() -> None:
    quarrel = Quarrel()
    ends(quarrel, WORLDS - 1)
    assert not quarrel.ended(frozenset({"a", "c"}), 5, 1.0), "a node was replaced"
    ends(quarrel, WORLDS - 2, frozenset({"a", "c"}))
    assert not quarrel.ended(frozenset({"a", "c"}), 6, 1.0), "a step further"
    ends(quarrel, WORLDS - 2, frozenset({"a", "c"}), 6)
    assert not quarrel.ended(frozenset({"a", "c"}), 6, LONG_SECONDS), "it had run for long"


def test_steps_done_again_are_no_progress() -> None:
    quarrel = Quarrel()
    quarrel.ended(TWO, 9, 1.0)
    assert ends(quarrel, WORLDS - 1, step=8)[-1], "all resume at step 5 and get to step 8 again and again"
