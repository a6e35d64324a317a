"""A world whose pods were started before and after its job was changed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.contract import RunFile
from aurl_trainer.engine.intervals import of_rank_0
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from bench.chaos.job import write_music
from tests.unit.trainer.engine.resume.test_music import experiment, start


def test_what_was_set_is_what_comes_back() -> None:
    wanted = experiment(Path("/a"), Path("/b")) | {"samples": {"every": 3}, "monitor": {"evaluate_every": 7}}
    wanted["checkpoint"] = {
        "every": 5,
        "uri": "s3://b/r",
        "keep": {"latest": 4, "by": {"empty_beat_rate": 2}},
    }
    given = Experiment.model_validate(wanted)
    assert of_rank_0(given, Ranks(0, 1)) == given


@pytest.mark.processes
def test_ranks_that_were_told_different_intervals_go_by_those_of_rank_0(tmp_path: Path) -> None:
    music = write_music(tmp_path / "midi", 6)
    (tmp_path / "run").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = []
    for rank, (save, evaluate) in enumerate([(3, 4), (1, 2)]):
        wanted = experiment(tmp_path, music)
        wanted["engine"]["steps"] = 5
        wanted["checkpoint"] = {"every": save, "keep": {"latest": 9}}
        wanted["monitor"] = {"evaluate_every": evaluate}
        ranks.append(start(tmp_path, wanted, f"rank-{rank}", **world, RANK=str(rank), LOCAL_RANK="0"))
    try:
        for process in ranks:
            said, _ = process.communicate(timeout=400)
            assert process.returncode == 0, said
    finally:
        for process in ranks:
            process.kill()
    saved = RunStore(Location(str(tmp_path / "run" / RunFile.CHECKPOINTS))).valid()
    assert sorted(name.step for name in saved) == [3, 4, 5], "expected those of rank 0, and 4 as a new best"
