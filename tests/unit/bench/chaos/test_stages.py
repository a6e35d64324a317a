"""Where a run is, from one look at it."""

from __future__ import annotations

from dataclasses import replace

from aurl_trainer.store.format.names import CheckpointName, GenerationId
from bench.chaos.stages import Rhythm, Sight, Stage, stage_of

RHYTHM = Rhythm(steps=100, save_every=10, evaluate_every=20)
THIS = GenerationId(3, "0000000a")
OLD = CheckpointName(4, 20, GenerationId(2, "0000000b"))
LAST = CheckpointName(5, 30, THIS)
NOW = CheckpointName(6, 40, THIS)

STEADY = Sight(
    ranks=2,
    generation=3,
    world=2,
    resumed=20,
    step=34,
    furthest=34,
    saved=30,
    packs={OLD: (9, 9), LAST: (9, 9)},
    manifests=frozenset({OLD, LAST}),
)
SAVING = replace(STEADY, step=40, evaluated=40, packs={**STEADY.packs, NOW: (9, 9)})


def stage(sight: Sight) -> Stage:
    return stage_of(sight, RHYTHM)


def test_after_a_strike_it_goes_by_who_lives() -> None:
    struck = replace(STEADY, waiting=True)
    assert stage(replace(struck, survivors=1, ranks=0)) is Stage.LEAVING
    assert stage(replace(struck, survivors=0, ranks=0)) is Stage.RENDEZVOUS
    assert stage(replace(struck, survivors=0, ranks=1)) is Stage.START


def test_a_generation_loads_until_it_says_that_it_begins() -> None:
    assert stage(replace(STEADY, world=None)) is Stage.LOAD
    assert stage(STEADY) is Stage.STEP


def test_evaluation_comes_before_the_save_of_the_same_step() -> None:
    done = replace(STEADY, step=40)
    assert stage(done) is Stage.EVALUATE
    assert stage(replace(done, evaluated=40)) is Stage.STAGING


def test_a_save_is_followed_pack_by_pack_to_its_end() -> None:
    assert stage(replace(SAVING, packs={**STEADY.packs, NOW: ()})) is Stage.PACKS_HALF
    assert stage(replace(SAVING, packs={**STEADY.packs, NOW: (9,)})) is Stage.PACKS_HALF
    assert stage(SAVING) is Stage.PACKS_HALF, "sizes that may still grow are not whole"
    whole = replace(SAVING, still=frozenset({OLD, LAST, NOW}))
    assert stage(whole) is Stage.PACKS_WHOLE
    assert stage(replace(whole, partials=frozenset({NOW}))) is Stage.MANIFEST
    committed = replace(whole, manifests=frozenset({OLD, LAST, NOW}))
    assert stage(committed) is Stage.COMMITTED
    removing = replace(committed, manifests=frozenset({LAST, NOW}), removing=True)
    assert stage(removing) is Stage.RETENTION
    assert stage(replace(removing, saved=40)) is Stage.RETENTION, "told of before the old ones are gone"
    assert stage(replace(committed, saved=40)) is Stage.STEP


def test_steps_go_on_while_a_save_is_written_beside_them() -> None:
    ahead = replace(SAVING, step=43)
    assert stage(ahead) is Stage.PACKS_HALF
    assert stage(replace(ahead, packs=STEADY.packs)) is Stage.STAGING, "due at 40 and not begun"


def test_a_folder_that_stays_for_a_later_checkpoint_is_no_removal() -> None:
    committed = replace(SAVING, manifests=frozenset({LAST, NOW}))
    assert stage(committed) is Stage.COMMITTED
    assert stage(replace(committed, saved=40)) is Stage.STEP


def test_what_an_earlier_generation_left_half_is_no_save_under_way() -> None:
    left = CheckpointName(5, 30, GenerationId(2, "0000000b"))
    fresh = replace(STEADY, packs={OLD: (9, 9), left: (9,)}, manifests=frozenset({OLD}), step=24, saved=20)
    assert stage(fresh) is Stage.STEP


def test_a_resumed_run_owes_no_save_of_the_step_it_resumed_from() -> None:
    fresh = replace(STEADY, packs={OLD: (9, 9)}, manifests=frozenset({OLD}), step=20, saved=20)
    assert stage(fresh) is Stage.STEP


def test_the_last_step_is_the_end_whatever_is_written() -> None:
    assert stage(replace(SAVING, step=100)) is Stage.END
