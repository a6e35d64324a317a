from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurl_trainer.store.format.names import CheckpointName, Fence, GenerationId, is_void
from aurl_trainer.store.retention import Kept, kept, sweep

metrics = st.none() | st.floats(allow_nan=True, width=16)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Kept], list[Fence]]:
    """What generations one after the other leave: each resumes somewhere, saves some, may be a zombie."""
    checkpoints: list[Kept] = []
    fences: list[Fence] = []
    number = 0
    for count in range(1, draw(st.integers(1, 4)) + 1):
        generation = GenerationId(count, f"{draw(st.integers(0, 9)):08x}")
        fences.append(Fence(generation))
        valid = [c.name for c in checkpoints if not is_void(c.name, fences)]
        resumed = draw(st.sampled_from([*valid, None])) if draw(st.booleans()) or not valid else valid[-1]
        if draw(st.integers(0, 9)):
            fences.append(Fence(generation, True, resumed))
        step = 0 if resumed is None else resumed.step
        for _ in range(draw(st.integers(0, 5))):
            number, step = number + 1, step + draw(st.integers(0, 3))
            name = CheckpointName(number, step, generation)
            checkpoints.append(Kept(name, draw(metrics), frozenset({name.pack(0)})))
    return checkpoints, fences


@given(histories(), st.integers(1, 4), st.integers(0, 3))
def test_the_newest_and_the_best_stay(
    history: tuple[list[Kept], list[Fence]], latest: int, best: int
) -> None:
    checkpoints, fences = history
    valid = [c for c in checkpoints if not is_void(c.name, fences)]
    stay = kept(checkpoints, fences, latest, best)
    assert stay <= {c.name for c in valid}, "a void checkpoint was kept"
    newest = sorted((c.name for c in valid), key=lambda n: n.age)[-latest:]
    assert set(newest) <= stay, "one of the newest is not kept"
    assert len(stay) <= latest + best
    rated = [c for c in valid if c.metric is not None and abs(c.metric) < float("inf")]
    assert len([c for c in rated if c.name in stay]) >= min(best, len(rated))
    for better in rated:
        for worse in rated:
            if worse.name in stay and worse.name not in newest and better.name not in stay:
                assert worse.metric <= better.metric, "a worse one was kept in place of a better one"  # type: ignore[operator]


@given(histories(), st.integers(1, 3), st.integers(0, 2), st.booleans(), st.data())
def test_a_sweep_removes_nothing_that_counts_or_is_referred_to(
    history: tuple[list[Kept], list[Fence]], latest: int, best: int, orphans_only: bool, data: st.DataObject
) -> None:
    checkpoints, fences = history
    # Incremental saves refer to packs of earlier ones.
    checkpoints = [
        Kept(c.name, c.metric, c.packs | set(data.draw(st.sampled_from([o.packs for o in checkpoints]))))
        for c in checkpoints
    ]
    generations = [f.id for f in fences]
    mine = data.draw(st.sampled_from(generations))
    other = CheckpointName(99, 99, data.draw(st.sampled_from([*generations, GenerationId(9, "00000000")])))
    folders = sorted({c.name.folder for c in checkpoints} | {other.folder})
    plan = sweep(checkpoints, folders, fences, mine, latest=latest, best=best, orphans_only=orphans_only)
    if mine != max(generations):
        assert plan.manifests == () and plan.folders == (), "a fenced generation removed something"
        return
    gone = set(plan.manifests)
    assert gone.isdisjoint(kept(checkpoints, fences, latest, best))
    assert not (orphans_only and gone)
    for c in checkpoints:
        if c.name not in gone:
            assert {p.rpartition("/")[0] for p in c.packs}.isdisjoint(plan.folders), "a pack in use would go"
    assert (other.folder in plan.folders) == (other.generation <= mine), "what an interrupted save left"


def test_nothing_is_removed_when_a_later_generation_has_saved() -> None:
    old, new = GenerationId(1, "00000000"), GenerationId(2, "00000000")
    names = [CheckpointName(n, n, old) for n in range(1, 5)] + [CheckpointName(5, 5, new)]
    plan = sweep([Kept(n) for n in names], [], [Fence(old)], old, latest=1, best=0)
    assert plan.manifests == ()
