"""Which checkpoints stay, and what may be removed: rules and plans over histories of any kind."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.format.names import CheckpointName, Fence, GenerationId, is_void
from aurl_trainer.store.retention.plan import UNFINISHED_SECONDS, Plan, as_visitor, as_writer
from aurl_trainer.store.retention.rules import Committed, best_first, chosen, kept, rating

NOW = 100_000.0
values = st.none() | st.floats(allow_nan=False, allow_infinity=False, width=16)
rules = st.builds(
    KeepConfig,
    latest=st.integers(1, 4),
    best=st.integers(0, 3),
    by=st.sampled_from([{"val_nll": 1.0}, {"groove": -1.0}, {"val_nll": 1.0, "groove": -0.5}]),
    every_steps=st.none() | st.integers(1, 5),
    every_minutes=st.none() | st.integers(1, 3),
    grace_seconds=st.sampled_from([0, 60, 600]),
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Committed], list[Fence]]:
    """What generations one after the other leave: each resumes somewhere, saves some, may be a zombie."""
    checkpoints: list[Committed] = []
    fences: list[Fence] = []
    number, at = 0, NOW - 2000
    for count in range(1, draw(st.integers(1, 4)) + 1):
        generation = GenerationId(count, f"{draw(st.integers(0, 9)):08x}")
        fences.append(Fence(generation))
        valid = [c.name for c in checkpoints if not is_void(c.name, fences)]
        resumed = draw(st.sampled_from([*valid, None])) if draw(st.booleans()) or not valid else valid[-1]
        if draw(st.integers(0, 9)):
            fences.append(Fence(generation, True, resumed))
        step = 0 if resumed is None else resumed.step
        for _ in range(draw(st.integers(0, 5))):
            number, step, at = number + 1, step + draw(st.integers(0, 3)), at + draw(st.integers(0, 200))
            name = CheckpointName(number, step, generation)
            metrics = {"val_nll": draw(values), "groove": draw(values)}
            whole = draw(st.integers(0, 9)) > 0
            folders = frozenset({name.folder}) if whole else frozenset()
            tagged = draw(st.integers(0, 5)) == 0
            checkpoints.append(
                Committed(name, at if whole else None, metrics if whole else {}, folders, tagged)
            )
    return checkpoints, fences


@given(histories(), rules)
def test_what_each_rule_asks_for_stays(
    history: tuple[list[Committed], list[Fence]], keep: KeepConfig
) -> None:
    checkpoints, fences = history
    stay = kept(checkpoints, fences, keep, NOW)
    valid = sorted((c for c in checkpoints if not is_void(c.name, fences)), key=lambda c: c.name.age)
    assert {c.name for c in checkpoints if c.tagged} <= stay, "a tagged one would go"
    assert {c.name for c in valid[-keep.latest :]} <= stay, "one of the newest would go"
    assert {c.name for c in best_first(valid, keep.by)[: keep.best]} <= stay, "one of the best would go"
    assert {c.name for c in checkpoints if c.at and c.at > NOW - keep.grace_seconds} <= stay, (
        "one is too young"
    )
    earlier = [c for c in valid if c.at is None or c.at <= NOW - keep.grace_seconds]
    assert chosen(earlier, keep) <= stay, "what the rules kept before the grace would go at once"


@given(histories(), rules)
def test_what_is_removed_changes_nothing_for_those_that_stay(
    history: tuple[list[Committed], list[Fence]], keep: KeepConfig
) -> None:
    checkpoints, fences = history
    stay = kept(checkpoints, fences, keep, NOW)
    again = kept([c for c in checkpoints if c.name in stay], fences, keep, NOW)
    assert again == stay, "a second pass over the same would remove more"
    sooner = kept(checkpoints, fences, keep.model_copy(update={"grace_seconds": 0}), NOW)
    assert sooner <= stay, "a grace made something go"


def save(number: int, step: int, at: float, **metrics: float) -> Committed:
    name = CheckpointName(number, step, GenerationId(1, "00000000"))
    return Committed(name, at, metrics, frozenset({name.folder}))


def steps(names: set[CheckpointName]) -> list[int]:
    return sorted(n.step for n in names)


def test_one_a_span_of_steps_and_of_minutes() -> None:
    history = [save(n, 40 * n, 30.0 * n) for n in range(1, 11)]  # steps 40 to 400, half a minute apart
    only_spans = KeepConfig(latest=1, best=0, every_steps=100, grace_seconds=0)
    assert steps(chosen(history, only_spans)) == [120, 200, 320, 400]
    minutes = KeepConfig(latest=1, best=0, every_minutes=2, grace_seconds=0)
    assert steps(chosen(history, minutes)) == [40, 160, 320, 400], "the first in [0, 120), [120, 240), ..."


def test_the_best_by_a_weighted_set_of_metrics() -> None:
    history = [
        save(1, 10, 0, val_nll=1.0, groove=0.2),
        save(2, 20, 0, val_nll=1.1, groove=0.9),
        save(3, 30, 0, val_nll=0.9),
        save(4, 40, 0, val_nll=float("nan"), groove=1.0),
        save(5, 50, 0, val_nll=2.0, groove=0.0),
    ]
    order = best_first(history, {"val_nll": 1.0, "groove": -0.5})
    assert [c.name.step for c in order] == [20, 10, 50], "one without a metric, or with NaN, is not rated"
    assert rating({"groove": 0.5}, {"groove": -2.0}) == -1.0


def test_a_checkpoint_goes_a_grace_after_it_became_superfluous() -> None:
    history = [save(n, n, 100.0 * n) for n in (1, 2, 3)]
    keep = KeepConfig(latest=1, best=0, grace_seconds=60)
    # Save 3 came at 300: until 360 a reader of save 2, then the newest, may still be reading.
    assert steps(kept(history, [], keep, 320.0)) == [2, 3]
    assert steps(kept(history, [], keep, 361.0)) == [3]


@given(histories(), rules, st.booleans(), st.data())
def test_a_plan_removes_nothing_that_is_needed(
    history: tuple[list[Committed], list[Fence]], keep: KeepConfig, writer: bool, data: st.DataObject
) -> None:
    checkpoints, fences = history
    # Incremental saves refer to packs of earlier ones.
    checkpoints = [
        replace(c, folders=c.folders | data.draw(st.sampled_from([o.folders for o in checkpoints])))
        for c in checkpoints
    ]
    generations = [f.id for f in fences]
    mine = data.draw(st.sampled_from(generations))
    under_way = CheckpointName(99, 99, max(generations))
    zombie = CheckpointName(98, 98, data.draw(st.sampled_from(generations)))
    folders = sorted({c.name for c in checkpoints} | {under_way, zombie}, key=str)
    stay = kept(checkpoints, fences, keep, NOW)
    if writer:
        plan = as_writer(checkpoints, folders, generations, mine, stay)
        if mine != max(generations):
            assert plan == Plan(), "a fenced generation removed something"
            return
    else:
        plan = as_visitor(checkpoints, folders, generations, stay, NOW)
        assert under_way not in plan.folders, "a save under way would lose its packs"
    assert stay.isdisjoint(plan.manifests)
    left = [c for c in checkpoints if c.name not in plan.manifests]
    for c in left:
        lost = c.folders & {n.folder for n in plan.folders}
        assert not lost, "a pack in use would go"
    unknown = [c.name.age for c in left if c.at is None]
    assert all(n.age > age for n in plan.folders for age in unknown), "what a damaged one may need would go"
    if (writer or zombie.generation < max(generations)) and all(zombie.age > age for age in unknown):
        assert zombie in plan.folders, "what an interrupted save left would stay"


def test_a_visitor_leaves_an_interrupted_save_until_a_later_one_is_old() -> None:
    generation = GenerationId(1, "00000000")
    left = CheckpointName(2, 20, generation)
    young, old = save(3, 30, NOW - 10), save(3, 30, NOW - UNFINISHED_SECONDS)
    for later, goes in ((young, False), (old, True)):
        plan = as_visitor([later], [left, later.name], [generation], {later.name}, NOW)
        assert (left in plan.folders) == goes
        assert later.name not in plan.folders


def test_nothing_is_removed_when_a_later_generation_has_saved() -> None:
    old, new = GenerationId(1, "00000000"), GenerationId(2, "00000000")
    names = [CheckpointName(n, n, old) for n in range(1, 5)] + [CheckpointName(5, 5, new)]
    assert as_writer([Committed(n) for n in names], [], [old], old, {names[-1]}) == Plan()
