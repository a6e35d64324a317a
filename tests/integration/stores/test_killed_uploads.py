"""A process is killed in a large object: what it sent lies on S3 unseen, and goes with the next world."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator

import pytest

from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.passes import retain
from aurl_trainer.store.retention.removal import all_but_best, everything
from tests.integration.stores.servers import BUCKET, serving
from tests.unit.trainer.store.made import open_run
from tests.unit.trainer.store.test_collect import ONE_LEFT

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def s3() -> Iterator[pytest.MonkeyPatch]:
    with serving("s3") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture
def run(s3: pytest.MonkeyPatch) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def killed_in(uri: str, name: str) -> None:
    """A process sends one block of an object, and is killed before the next."""
    script = """
        import os, signal, sys
        from aurl_trainer.store.location.place import Location
        from aurl_trainer.store.location.stream import BLOCK_BYTES
        with Location(sys.argv[1]).writing(sys.argv[2]) as file:
            file.write(bytes(BLOCK_BYTES + 1))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), uri, name], check=False)
    assert done.returncode == -9


def left(uri: str) -> list[str]:
    """The objects at the place whose uploads were begun and never ended."""
    place = Location(uri)
    found = place.fs.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads", [])
    prefix = place.root.removeprefix(f"{BUCKET}/") + "/"
    return [u["Key"].removeprefix(prefix) for u in found if u["Key"].startswith(prefix)]


def test_the_next_world_ends_what_killed_ones_had_begun_and_nothing_else(run: str) -> None:
    store, claim = open_run(run)
    mine, later = CheckpointName(1, 1, claim.id), CheckpointName(9, 9, GenerationId(9, "00000000"))
    for name in (mine, later):
        killed_in(run, name.pack(0))
    killed_in(f"{run}-neighbour", mine.pack(0))
    assert left(run) == [mine.pack(0), later.pack(0)], "nothing was left that could go"
    assert store.location.names("packs") == [], "it is seen, though it is not whole"
    retain(store, claim.id, ONE_LEFT)
    assert len(left(run)) == 2, "a pass after a save asks for them, too"
    retain(store, claim.id, ONE_LEFT, orphans_only=True)
    assert left(run) == [later.pack(0)], "expected only that of a later generation to stay"
    assert left(f"{run}-neighbour") == [mine.pack(0)], "another run's upload was ended"


@pytest.mark.parametrize("how", ["everything", "all but the best"])
def test_a_run_that_is_removed_leaves_none(run: str, how: str) -> None:
    _, claim = open_run(run)
    killed_in(run, CheckpointName(1, 1, claim.id).pack(0))
    if how == "everything":
        everything(Location(run))
    else:
        all_but_best(Location(run), 1, {"val_nll": 1.0})
    assert left(run) == []
