"""A process is killed in a large object: what it sent lies on S3 unseen, and goes later."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from aurl_trainer.commands.checkpoints.app import app
from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention import leftovers
from aurl_trainer.store.retention.leftovers import OldUploads
from aurl_trainer.store.retention.passes import collect, retain
from aurl_trainer.store.retention.removal import all_but_best, everything
from tests.integration.stores.proxy import PASS, proxied
from tests.integration.stores.servers import BUCKET, serving
from tests.integration.stores.test_faults import answer
from tests.unit.trainer.store.made import RUN, open_run, save
from tests.unit.trainer.store.test_collect import OLD, ONE_LEFT

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


def test_gc_ends_what_a_run_that_never_goes_on_had_begun(run: str) -> None:
    """By age alone, which moto does not tell: each of its uploads was begun in 2010."""
    store, claim = open_run(run)
    keep = KeepConfig(grace_seconds=0)
    rules = {"keep": keep.model_dump(), "deadline": 0.001}
    save(store, claim.id, 1, 1, extra={"experiment": {"checkpoint": rules}})
    last = CheckpointName(2, 2, claim.id)
    killed_in(run, last.pack(0))
    killed_in(run, "packs/elsewhere/x.bin")
    killed_in(f"{run}-neighbour", last.pack(0))
    decades = 10**9
    young = collect(store, KeepConfig(grace_seconds=decades), save_seconds=0.001)
    assert young.uploads == collect(store, keep, save_seconds=decades).uploads == OldUploads()
    assert last.pack(0) in left(run), "an upload within its grace, or that of a save, was ended"
    would = CliRunner().invoke(app, ["gc", run, "--dry-run", "--json"]).stdout
    assert json.loads(would)["uploads"] == [last.pack(0)], "a dry run names it"
    assert last.pack(0) in left(run), "a dry run ended it"
    said = CliRunner().invoke(app, ["gc", run]).stdout
    assert f"removed: what a killed upload left, unseen ({last.pack(0)})" in said
    assert left(run) == ["packs/elsewhere/x.bin"], "expected only what is no pack of a checkpoint to stay"
    assert left(f"{run}-neighbour") == [last.pack(0)], "another run's upload was ended"
    assert [c.step for c in store.valid()] == [1]


@pytest.mark.parametrize("who", ["a world that opens the run", "gc"])
def test_music_that_a_killed_node_was_sending_goes(
    run: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By age alone. Servers say how old an upload is, or (moto) that each was begun in 2010."""
    store, claim = open_run(run)
    name = "music/0123abcd/4567cdef/tokens.bin"
    killed_in(run, name)

    def ended(stray_seconds: float) -> bool:
        monkeypatch.setattr(leftovers, "STRAY_SECONDS", stray_seconds)
        if who == "gc":
            return collect(store, ONE_LEFT).uploads.objects == (name,)
        retain(store, claim.id, ONE_LEFT, orphans_only=True)
        return name not in left(run)

    decades, clocks_differ = 10.0**9, 60.0
    assert not ended(decades), "an upload that may have a writer yet was ended"
    assert left(run) == [name]
    assert ended(-clocks_differ)
    assert left(run) == []


def test_gc_says_that_it_may_not_look_and_does_all_else(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, claim = open_run(run)
    for n in (1, 2):
        save(store, claim.id, n, n, at=OLD + n)
    denied = answer("s3", 403, "AccessDenied", "Access Denied")
    with proxied(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.reset(lambda seen: denied if "uploads" in seen.path.partition("?")[2] else PASS)
        result = CliRunner().invoke(app, ["gc", run, "--latest", "1", "--best", "0"])
    assert result.exit_code == 0, result.output
    assert [c.step for c in store.valid()] == [2]
    assert "removed: step 1 " in result.stdout
    assert re.search(r"killed uploads left stays: .*/packs: cannot be .*Access Denied", result.stderr)


@pytest.mark.parametrize("how", ["everything", "all but the best"])
def test_a_run_that_is_removed_leaves_none(run: str, how: str) -> None:
    _, claim = open_run(run)
    killed_in(run, CheckpointName(1, 1, claim.id).pack(0))
    if how == "everything":
        everything(Location(run), RUN)
    else:
        all_but_best(Location(run), RUN, 1, {"val_nll": 1.0})
    assert left(run) == []
