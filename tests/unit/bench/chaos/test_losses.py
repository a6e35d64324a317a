"""What a kill cost: a trainer that forgets is noticed, and none is blamed that could not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurl_trainer.contract import RunFile
from aurl_trainer.monitor.records import RecordWriter
from aurl_trainer.store.format.names import CheckpointName, Fence, GenerationId
from aurl_trainer.store.location.place import Location
from bench.chaos.campaign import Struck
from bench.chaos.losses import Life, charged, forgotten, lives, steps_again
from bench.chaos.plan import Victim
from bench.chaos.stages import Stage


class Run:
    """A run's directory, written as its ranks write it: generations in the store, records of each rank."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saves = 0
        self._last: dict[int, CheckpointName] = {}

    def generation(
        self,
        number: int,
        resumed: CheckpointName | None,
        steps: range,
        saves: tuple[int, ...] = (),
        *,
        world: int = 2,
        told: int | None = None,
    ) -> CheckpointName | None:
        """One that settles, begins (`told`: from where it says itself), does its steps and saves some.

        Returns the last save.
        """
        mine = GenerationId(number, f"{number:08x}")
        self.take(number)
        self._put(Fence(mine, True, resumed))
        last = resumed
        for rank in range(world):
            with self._records(number, rank) as records:
                begun = told if told is not None else None if resumed is None else resumed.step
                records.write(
                    "start", generation=number, rank=rank, world=world, total_steps=99, resumed_from=begun
                )
                for step in steps:
                    records.write("audit", step=step, ids=[step], loss=0.5)
                    if step in saves and rank == 0:
                        self._saves += 1
                        last = CheckpointName(self._saves, step, mine)
                        records.write("save", step=step, seconds=0.1, bytes=3, ok=True, message=str(last))
        return last

    def take(self, number: int) -> None:
        """A generation that is taken, no more."""
        self._put(Fence(GenerationId(number, f"{number:08x}")))

    def failed(self, number: int, step: int, *, skipped: bool = False) -> None:
        with self._records(number, 0) as records:
            records.write("save", step=step, seconds=0.1, bytes=0, ok=False, skipped=skipped)

    def _put(self, fence: Fence) -> None:
        Location(str(self.path / RunFile.CHECKPOINTS)).put(fence.object, b"{}")

    def _records(self, number: int, rank: int) -> RecordWriter:
        return RecordWriter(self.path / RunFile.RECORDS, number, rank)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_who_goes_on_from_the_last_save_has_lost_only_the_steps_after_it(run: Run) -> None:
    first = run.generation(1, None, range(1, 14), (5, 10))
    second = run.generation(2, first, range(11, 19), (15,), world=1)
    run.generation(3, second, range(16, 31), (20, 25, 30), world=3)
    found = lives(run.path)
    assert found == [Life(1, 0, 13, 10), Life(2, 10, 18, 15), Life(3, 15, 30, 30)]
    assert forgotten(found) == []
    assert steps_again(found) == {1: 3, 2: 3}


def test_a_trainer_that_begins_anew_is_noticed_once_for_each_time(run: Run) -> None:
    run.generation(1, None, range(1, 14), (5, 10))
    anew = run.generation(2, None, range(1, 9), (5,))
    run.generation(3, anew, range(6, 30), (10,))
    found = lives(run.path)
    assert forgotten(found) == ["generation 2 went on from step 0, although generation 1 had saved step 10"]
    assert steps_again(found) == {1: 13, 2: 3}


def test_a_trainer_that_takes_an_older_save_is_noticed(run: Run) -> None:
    run.generation(1, None, range(1, 14), (5, 10))
    run.generation(2, CheckpointName(1, 5, GenerationId(1, "00000001")), range(6, 14), (10,))
    assert forgotten(lives(run.path)) == [
        "generation 2 went on from step 5, although generation 1 had saved step 10"
    ]


def test_what_it_says_does_not_hide_what_it_did(run: Run) -> None:
    last = run.generation(1, None, range(1, 14), (5, 10))
    run.generation(2, last, range(1, 14), (5,))  # says step 10, to all, and does step 1
    assert lives(run.path)[1].resumed == 0
    assert len(forgotten(lives(run.path))) == 1


def test_the_store_and_the_ranks_must_agree(run: Run) -> None:
    last = run.generation(1, None, range(1, 14), (5, 10))
    run.generation(2, last, range(11, 11), told=5)
    assert len(forgotten(lives(run.path))) == 1, "a rank began at step 5"


def test_a_generation_killed_before_it_went_on_from_anywhere_has_lost_nothing(run: Run) -> None:
    last = run.generation(1, None, range(1, 14), (5, 10))
    run.take(2)
    run.generation(3, last, range(11, 13))
    found = lives(run.path)
    assert [life.generation for life in found] == [1, 3]
    assert forgotten(found) == []
    assert steps_again(found) == {1: 3}, "the kill of the second cost nothing"


def test_a_save_that_nobody_acknowledged_binds_nobody_and_one_that_was_seen_does(run: Run) -> None:
    last = run.generation(1, None, range(1, 14), (5,))
    run.failed(1, 10)
    run.failed(1, 12, skipped=True)
    run.generation(2, last, range(6, 13))
    found = lives(run.path)
    assert forgotten(found) == [], "step 10 was never said to be saved"
    seen = CheckpointName(2, 10, GenerationId(1, "00000001"))
    assert forgotten(found, [seen]) == [
        "generation 2 went on from step 5, although generation 1 had saved step 10"
    ]
    assert forgotten(found, [CheckpointName(3, 12, GenerationId(2, "00000002"))]) == [], "nobody came later"


def test_what_one_generation_went_on_from_the_later_ones_have_too(run: Run) -> None:
    run.generation(1, None, range(1, 14))
    seen_by_second = CheckpointName(1, 10, GenerationId(1, "00000001"))
    run.generation(2, seen_by_second, range(11, 13))
    run.generation(3, None, range(1, 3))
    assert forgotten(lives(run.path)) == [
        "generation 3 went on from step 0, although generation 2 had saved step 10"
    ]


def test_a_generation_without_records_is_known_by_the_store_alone(run: Run) -> None:
    last = run.generation(1, None, range(1, 14), (5, 10))
    run.generation(2, last, range(0), world=0)
    run.generation(3, last, range(11, 13))
    found = lives(run.path)
    assert found[1] == Life(2, 10, 10, 0)
    assert forgotten(found) == []


def struck(number: int, generation: int) -> Struck:
    return Struck(
        run=1, number=number, aimed=Stage.STEP, found=Stage.STEP, victim=Victim.RANK, pids=(1,), at=1.0,
        took=0.3, generation=generation, step=1, furthest=1, world=2,
    )  # fmt: skip


def test_the_first_kill_of_a_generation_is_charged_with_its_steps() -> None:
    found = [Life(1, 0, 13, 10), Life(3, 10, 18, 15), Life(4, 15, 30, 30)]
    kills = [struck(1, 1), struck(2, 1), struck(3, 2), struck(4, 3), struck(5, 4)]
    assert [k.again for k in charged(kills, found)] == [3, None, None, 3, None]
