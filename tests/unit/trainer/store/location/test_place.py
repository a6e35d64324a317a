from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from aurl_trainer.errors import CheckpointError, UnavailableError
from aurl_trainer.store.location import place as module
from aurl_trainer.store.location import stream
from aurl_trainer.store.location.disk import local_path
from aurl_trainer.store.location.place import Location, shown
from tests.unit.trainer.store.faulty import FaultyFileSystem


@pytest.fixture(params=["path", "file", "memory", "faulty"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "faulty":
        FaultyFileSystem.clear()
    return Location(
        {
            "path": str(tmp_path / "run"),
            "file": f"file://{tmp_path}/run",
            "memory": f"memory://{tmp_path}/run",
            "faulty": "faulty://run",
        }[request.param]
    )


def test_what_is_put_can_be_listed_read_and_deleted(place: Location) -> None:
    place.put("a/x.json", b"12345")
    place.put("a/b/y", b"67")
    assert place.names("a") == ["b/y", "x.json"]
    assert place.names("") == ["a/b/y", "a/x.json"]
    assert place.get("a/x.json") == b"12345"
    assert place.get("a/x.json", 1, 3) == b"23"
    assert place.size("a/b/y") == 2
    place.delete(["a/x.json", "a/not-there"])
    assert place.names("a") == ["b/y"]
    with pytest.raises(FileNotFoundError):
        place.get("a/x.json")
    place.delete_folder("a/b")
    assert place.names("a") == []


def objects(place: Location, count: int) -> list[str]:
    names = [f"packs/{number:03d}" for number in range(count)]
    for name in names:
        place.put(name, b"x")
    return names


def test_a_remote_store_is_asked_to_delete_several_at_a_time() -> None:
    """The requests wait for each other, so one at a time would never end; and there are no more than that."""
    together, most = threading.Barrier(module.DELETERS, timeout=60), 3 * module.DELETERS
    going, counts, lock = [0], [0], threading.Lock()

    def meet(number: int, kind: str, path: str) -> None:
        with lock:
            going[0] += kind == "delete"
            counts.append(going[0])
        if kind == "delete":
            together.wait()
        with lock:
            going[0] -= kind != "delete"

    FaultyFileSystem.clear()
    place = Location("faulty://run")
    names = objects(place, most)
    FaultyFileSystem.reset(meet, halves=True)
    place.delete(names)
    FaultyFileSystem.clear()
    assert max(counts) == module.DELETERS
    assert place.names("packs") == []


def test_what_cannot_be_deleted_is_named_and_nothing_begins_after_it() -> None:
    def refuse(number: int, kind: str, path: str) -> None:
        if not path.endswith(("/000", "/not-there")):
            raise PermissionError(13, "Access Denied")

    FaultyFileSystem.clear()
    place = Location("faulty://run")
    names = objects(place, 99)
    FaultyFileSystem.reset(refuse)
    with pytest.raises(CheckpointError, match="faulty://run/packs/001: cannot be deleted: Access Denied"):
        place.delete(["packs/not-there", *names[:2]])
    assert "000" not in place.names("packs")
    FaultyFileSystem.reset(refuse)
    with pytest.raises(CheckpointError, match="cannot be deleted: Access Denied"):
        place.delete(names[1:])
    assert FaultyFileSystem.operations <= module.DELETERS, "it went on after an error"
    FaultyFileSystem.clear()


def test_the_store_says_when_it_took_an_object(place: Location) -> None:
    before = time.time()
    place.put("a/x.json", b"12345")
    at = place.taken_at("a/x.json")
    assert at is not None and before - 2 <= at <= time.time() + 2
    with pytest.raises(FileNotFoundError):
        place.taken_at("a/y.json")


def test_a_folder_that_is_not_there_is_empty(place: Location) -> None:
    assert place.names("nowhere") == [] and place.partials("nowhere") == []


def test_a_large_object_is_there_after_the_block_and_not_after_a_failed_one(place: Location) -> None:
    with place.writing("packs/p") as file:
        file.write(b"abc")
        file.write(b"def")
    assert place.get("packs/p") == b"abcdef"
    with pytest.raises(CheckpointError, match="half way"), place.writing("packs/q") as file:
        file.write(b"abc")
        raise OSError(5, "half way")
    assert place.names("packs") == ["p"], "a failed write left its half behind"


class WholeFileSystem(MemoryFileSystem):
    """A store whose streams appear when they are closed, as those of S3 do."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if "r" in mode:
            return super()._open(path, mode=mode, **kwargs)
        file = MemoryFile(self, path)
        file.close = file.commit
        return file


@pytest.mark.parametrize("kind", ["path", "streams"])
def test_a_failed_write_leaves_what_was_there_before(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BLOCK_BYTES", 4)  # larger than that is a stream
    place = Location(str(tmp_path)) if kind == "path" else Location("memory://run", WholeFileSystem())
    with place.writing("packs/p") as file:
        file.write(b"what others use")
    for length in (2, 9):
        with pytest.raises(CheckpointError, match="half way"), place.writing("packs/p") as file:
            file.write(bytes(length))
            assert place.get("packs/p") == b"what others use", "it was gone before the other was whole"
            raise OSError(5, "half way")
        assert place.get("packs/p") == b"what others use", "a failed write took what was there before"
    assert place.names("packs") == ["p"] and place.partials("packs") == []
    with place.writing("packs/p") as file:
        file.write(b"something new")
    assert place.get("packs/p") == b"something new" and place.partials("packs") == []


@pytest.mark.parametrize("kind", ["path", "streams"])
def test_a_failed_write_leaves_what_another_wrote_meanwhile(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies of one checkpoint to one place, neither of which found its pack there."""
    monkeypatch.setattr(stream, "BLOCK_BYTES", 4)
    place = Location(str(tmp_path)) if kind == "path" else Location("memory://two", WholeFileSystem())
    with pytest.raises(CheckpointError, match="half way"), place.writing("packs/p") as file:
        file.write(bytes(9))
        assert place.names("packs") == [], "half an object is seen"
        with place.writing("packs/p") as other:
            other.write(b"the other's, whole")
        raise OSError(5, "half way")
    assert place.names("packs") == ["p"], "the other's pack has gone"
    assert place.get("packs/p") == b"the other's, whole"
    assert place.partials("packs") == []


def test_the_probe_writes_and_is_read(place: Location) -> None:
    name = place.write_probe()
    place.read_probe(name)
    place.put(name, b"other bytes")
    with pytest.raises(CheckpointError, match="other bytes than were written"):
        place.read_probe(name)
    place.delete([name])
    with pytest.raises(CheckpointError, match="all nodes share"):
        place.read_probe(name)


def test_what_is_published_is_listed_on_return_also_where_listings_lag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOKS", (0.0, 0.0))
    FaultyFileSystem.clear()
    FaultyFileSystem.lag = 9
    place = Location("faulty://run")
    place.put("m/early", b"1")
    assert place.names("m") == [], "the listing does not lag, so the test shows nothing"
    place.publish("m/late", b"1")
    assert place.names("m") == ["early", "late"]
    place.put("m/more", b"1")
    place.catch_up()
    assert place.names("m") == ["early", "late", "more"]
    FaultyFileSystem.clear()


def test_a_store_that_never_lists_what_was_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTING_SECONDS", 0.01)
    FaultyFileSystem.clear()
    FaultyFileSystem.lag = 10**6
    with pytest.raises(UnavailableError, match=r"m/x: was written, but .* do not show it; the store"):
        Location("faulty://run").publish("m/x", b"1")
    FaultyFileSystem.clear()


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "generations").symlink_to("generations")
    with pytest.raises(CheckpointError, match="generations: cannot be listed"):
        Location(str(tmp_path)).names("generations")


def test_another_process_sees_changes_at_once(tmp_path: Path) -> None:
    here, there = Location(str(tmp_path)), Location(f"file://{tmp_path}")
    assert there.names("m") == []
    here.put("m/1", b"x")
    assert there.names("m") == ["1"]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("foo://bucket/run", "foo://bucket/run: not a place for checkpoints: .*foo"),
        ("ftp://user:secret@127.0.0.1:1/run", r"ftp://\*\*\*@127.0.0.1:1/run: not a place"),
    ],
)
def test_an_unusable_url_is_one_clear_line(uri: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as error:
        Location(uri).write_probe()
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot be written: Not a directory") as error:
        Location(str(tmp_path / "file" / "run")).write_probe()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (FileNotFoundError("The specified bucket does not exist"), "bucket does not exist"),
        (PermissionError(13, "Access Denied"), "Access Denied"),
        (OSError(28, "No space left on device"), "no space is left there"),
        (RuntimeError("Unable to locate credentials\nmore"), "Unable to locate credentials"),
    ],
)
def test_what_stores_raise_becomes_one_clear_line(fault: Exception, says: str) -> None:
    def fail(number: int, kind: str, path: str) -> None:
        raise fault

    FaultyFileSystem.clear()
    FaultyFileSystem.reset(fail)
    with pytest.raises(CheckpointError, match=f"faulty://run/probe.*: cannot be written: .*{says}") as error:
        Location("faulty://run").write_probe()
    assert "\n" not in str(error.value)
    FaultyFileSystem.clear()


def test_a_put_that_runs_out_of_space_leaves_nothing(tmp_path: Path) -> None:
    code = """
        import sys
        from aurl_trainer.errors import CheckpointError
        from aurl_trainer.store.location.place import Location
        place = Location(sys.argv[1])
        place.put("m/small", b"x")
        for put in (lambda: place.put("m/big", bytes(100_000)), lambda: stream()):
            def stream():
                with place.writing("m/big") as file:
                    file.write(bytes(100_000))
            try:
                put()
            except CheckpointError as error:
                print(error)
            else:
                raise SystemExit("a full disk was not noticed")
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        preexec_fn=limit, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["small"], "half an object stayed"
    assert done.stdout.count("m/big: cannot be written: File too large") == 2, done.stdout


def test_urls_are_shown_without_secrets() -> None:
    assert shown("ftp://me:pass@host/x") == "ftp://***@host/x"
    assert shown("ftp://me:p@ss@host/x@y") == "ftp://***@host/x@y", "a password may hold an @"
    assert shown("sftp://me@corp:p@:ss@host:22/x") == "sftp://***@host:22/x"
    assert shown("http://container@host:443/x") == "http://container@host:443/x", "there is no password"
    assert shown("abfs://container@account.dfs.core.windows.net/x").startswith("abfs://container@")
    assert shown("/plain/path") == "/plain/path"
    assert shown("a: s3://b/x\nb: 'sftp://me:pass@h/y'\n") == "a: s3://b/x\nb: 'sftp://***@h/y'\n"
    assert shown("http://host\nname: a@b\n") == "http://host\nname: a@b\n", "a URL ends with its line"


def test_the_store_needs_no_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, aurl_trainer.store as s, aurl_trainer.commands.checkpoints\n"
        "for m in pkgutil.iter_modules(s.__path__): importlib.import_module('aurl_trainer.store.' + m.name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120)
    assert done.returncode == 0, "importing aurl_trainer.store loaded torch"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///runs/bach", "/runs/bach"),
        ("local:///runs/bach/", "/runs/bach"),
        ("file:/runs/bach", "/runs/bach"),
        ("/runs/a:b", "/runs/a:b"),
        ("s3://bucket/run", None),
        ("simplecache::file:///runs", None),
    ],
)
def test_what_lies_on_local_disks(uri: str, path: str | None) -> None:
    assert local_path(uri) == path


@pytest.mark.parametrize("protocol", ["s3", "gs", "az", "abfs"])
def test_credentials_in_the_url_of_a_bucket_are_refused_and_not_told(protocol: str) -> None:
    with pytest.raises(CheckpointError, match="credentials never stand in such a URL") as error:
        Location(f"{protocol}://me:s3cr3t@bucket/run")
    assert "s3cr3t" not in str(error.value)
