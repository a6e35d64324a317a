"""SIGKILL at random instants of saving, and disks that are really full."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.checkpoint.killed import state_of
from tests.unit.trainer.checkpoint.small import checkpointer


@pytest.mark.processes
@pytest.mark.parametrize(("world", "kills"), [(1, 40), (2, 20)])
def test_after_a_kill_at_any_instant_the_newest_checkpoint_verifies_and_loads(
    tmp_path: Path, world: int, kills: int
) -> None:
    uri = f"file://{tmp_path}/run"
    random_ = random.Random(20)
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.trainer.checkpoint.killed", uri, str(world)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4],
    )  # fmt: skip
    assert victim.stdin is not None and victim.stdout is not None
    newest = 0
    interrupted = 0
    try:
        for kill in range(kills):
            delay, first = random_.uniform(0.0, 0.15), random_.randrange(world)
            victim.stdin.write(f"{random_.choice((0, 0, 1, 2))} {delay} {first}\n")
            victim.stdin.flush()
            assert victim.stdout.readline() == "killed\n", f"the saver failed at kill {kill}"
            store = RunStore(Location(uri))
            names = store.valid()
            folders = {n.partition("/")[0] for n in store.location.names("packs")}
            interrupted += bool(folders - {str(n) for n in names})
            for name in names:
                verdict = verify(store, name)
                assert verdict.good, f"kill {kill}: {verdict.problems}"
            if not names:
                assert newest == 0, f"kill {kill} lost all checkpoints"
                continue
            assert names[-1].step >= newest, f"kill {kill} lost checkpoints"
            newest = names[-1].step
    finally:
        victim.stdin.close()
        victim.stdout.close()
        assert victim.wait(60) == 0
    loaded = state_of(0)
    saver = checkpointer(uri)
    restored = saver.open(loaded).restored
    assert restored is not None and restored.step == newest and not restored.damaged
    expected = state_of(newest)
    assert int(loaded["step"]) == newest
    assert all(torch.equal(loaded["noise"][k], expected["noise"][k]) for k in expected["noise"])
    assert torch.equal(loaded["frozen"], expected["frozen"])
    assert interrupted, "no kill fell into a save: the test has shown nothing"
    saver.save(newest + 1, expected, {})
    store = RunStore(Location(uri))
    used = {p.path.split("/")[1] for n in store.committed() for p in store.manifest(n).packs}
    assert {n.partition("/")[0] for n in store.location.names("packs")} == used, (
        "a pack that nobody refers to"
    )
    assert not store.location.partials("manifests"), "leftovers of killed savers were not swept"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"may not mount here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_costs_one_save(tiny_disk: Path) -> None:
    uri = str(tiny_disk / "run")
    saver = checkpointer(uri, compression=0)
    small, large = {"x": torch.randn(50_000)}, {"x": torch.randn(250_000)}
    saver.open(small)
    saver.save(1, small, {})
    with pytest.raises(CheckpointError, match=r"rank-0000\.pack: cannot be written: no space is left there"):
        saver.save(2, large, {})
    store = RunStore(Location(uri))
    assert [n.step for n in store.valid()] == [1]
    assert len(store.location.names("packs")) == 1, "half a pack still fills the disk"
    # Not even room for a manifest.
    filler = tiny_disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(CheckpointError, match="no space is left there"):
        saver.save(3, {"x": torch.ones(1)}, {})
    assert [n.step for n in store.valid()] == [1]
    filler.unlink()
    saver.save(4, small, {})
    loaded = {"x": torch.zeros(50_000)}
    restored = checkpointer(uri).open(loaded).restored
    assert restored is not None and restored.step == 4 and torch.equal(loaded["x"], small["x"])
