"""Which run and which checkpoint a reference means.

Not here: how references are written (config/reference.py), loading (checkpoint/loading.py).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, assert_never

from aurl_trainer.config.reference import Best, Exact, Latest, Number, Step, Tag, Which
from aurl_trainer.contract import RunFile
from aurl_trainer.errors import CheckpointError, DamagedError, MissingError, RefusedError
from aurl_trainer.store.format.names import MANIFESTS, CheckpointName
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.rules import rating
from aurl_trainer.store.run_store import RunStore

if TYPE_CHECKING:
    from aurl_trainer.store.format.manifest import Manifest

T = TypeVar("T")

RUNS = "AURL_RUNS"
"""Environment variable: the folder or URL below which runs lie that are called by name alone."""

LOCAL_RUNS = "runs"
"""Where `aurl run` puts runs, below the working directory."""


def candidates(store: RunStore, which: Which) -> list[CheckpointName]:
    """The checkpoints that `which` may mean, the first choice first; at least one, and none of them read.

    More than one only for the latest and the best: a damaged one may be passed over. The best are rated by
    the index, where it tells of them. Raises CheckpointError naming what there is when there is none,
    DamagedError when nothing can be rated for damage.
    """
    names = list(reversed(store.valid()))
    match which:
        case Latest():
            return names or [_one(store, [], [], which)]
        case Best():
            return _best(store, names, which)
        case Step():
            return [_one(store, [n for n in names if n.step == which.step], names, which)]
        case Number():
            return [_one(store, [n for n in names if n.number == which.number], names, which)]
        case Exact():
            every = store.committed()  # also one that does not count: whoever says its whole name means it
            return [_one(store, [n for n in every if str(n) == which.name], names, which)]
        case Tag():
            return [_tagged(store, which.name)]
        case _:
            assert_never(which)


def resolve(store: RunStore, which: Which) -> CheckpointName:
    """The first of the candidates, unread. Raises as `candidates` does."""
    return candidates(store, which)[0]


def first_whole(
    store: RunStore,
    which: Which,
    use: Callable[[Manifest], T],
    passed_over: Callable[[CheckpointName, DamagedError], None] = lambda name, error: None,
) -> T:
    """What `use` makes of the first of the candidates that it does not find damaged.

    `passed_over` hears of the others. Raises as `candidates` does, DamagedError when all are damaged, and
    whatever else `use` raises.
    """
    damage: DamagedError | None = None
    for name in candidates(store, which):
        try:
            return use(store.manifest(name))
        except DamagedError as error:
            damage = error
            passed_over(name, error)
    assert damage is not None  # candidates() gives at least one
    raise damage


def chosen(
    store: RunStore,
    which: Which,
    passed_over: Callable[[CheckpointName, DamagedError], None] = lambda name, error: None,
) -> Manifest:
    """The manifest of the first candidate that has one. Raises as `first_whole` does."""
    return first_whole(store, which, lambda manifest: manifest, passed_over)


def _one(
    store: RunStore, found: list[CheckpointName], names: list[CheckpointName], which: Which
) -> CheckpointName:
    if found:
        return found[0]
    uri = store.location.uri
    if not names:
        raise CheckpointError(f"{uri}: no checkpoint there")
    if isinstance(which, Step):
        steps = ", ".join(str(s) for s in sorted({n.step for n in names}))
        raise CheckpointError(f"{uri}: no checkpoint of step {which.step}; there are: {steps}")
    there = ", ".join(f"v{n.number} (step {n.step})" for n in reversed(names))
    raise CheckpointError(f"{uri}: no checkpoint {which}; there are: {there}")


def _tagged(store: RunStore, tag: str) -> CheckpointName:
    tags = store.tags()
    if tag not in tags:
        there = ", ".join(tags) or "none; aurl checkpoints tag RUN@WHICH NAME makes one"
        raise CheckpointError(f"{store.location.uri}: no tag {tag!r}; there are: {there}")
    return tags[tag]


def _best(store: RunStore, names: list[CheckpointName], which: Best) -> list[CheckpointName]:
    from aurl_trainer.store.catalog.index import gather, read_index  # of no use to other references

    if not names:
        return [_one(store, [], [], which)]
    try:
        told = read_index(store.location)
    except CheckpointError:  # refused: the manifests tell the same
        told = {}
    found = gather(store, names, told)
    for problem in found.problems.values():
        if not isinstance(problem, DamagedError) or not found.entries:
            raise problem
    metrics = {entry.name: entry.metrics for entry in found.entries}
    by = {which.metric: -1.0 if which.greatest else 1.0}
    rated = [(value, n) for n in names if (value := rating(metrics.get(str(n), {}), by)) is not None]
    if not rated:
        there = ", ".join(sorted({name for entry in found.entries for name in entry.metrics})) or "none"
        raise CheckpointError(
            f"{store.location.uri}: no checkpoint has the metric {which.metric}; there are: {there}"
        )
    # The newest come first, and stay first among equals.
    return [name for _, name in sorted(rated, key=lambda pair: pair[0])]


def checkpoints_of(run: str) -> str:
    """The place of a run's checkpoints.

    `run` is such a place itself (URL or path), a run's directory, or a run's name: below ./runs, or below
    what AURL_RUNS names. Raises MissingError when nothing is there, CheckpointError when
    this user may not look.
    """
    if "://" in run:
        return run
    found = _at(Path(run))
    if found is not None:
        return found
    looked = [run]
    if "/" not in run:
        beside = Path(LOCAL_RUNS) / run
        found = _at(beside)
        looked.append(str(beside))
        above = os.environ.get(RUNS)
        if found is None and above:
            below = f"{above.rstrip('/')}/{run}"
            found = _at_url(below) if "://" in above else _at(Path(below))
            looked.append(below)
        if found is not None:
            return found
    raise MissingError(
        f"{', '.join(looked)}: no checkpoints there; expected a run's directory, a checkpoint URL, "
        f"or with {RUNS} set a run's name"
    )


def target(place: str) -> Location:
    """A place for checkpoints that somebody else than its run puts there.

    Raises RefusedError for none, and for the directory of a run, whose own checkpoints nobody would find
    then.
    """
    if not place.strip():
        raise RefusedError("expected a place to save to, any fsspec URL or path, found none")
    location = Location(place)
    if RunFile.CHECKPOINTS in location.folders("") or RunFile.JOB in location.files(""):
        raise RefusedError(
            f"{location.uri}: is the directory of a run, whose own checkpoints lie below it; "
            "name another place"
        )
    return location


def _at(folder: Path) -> str | None:
    try:
        return _in(folder)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # nothing has such a name
            return None
        why = f"{error.strerror}: {error.filename}" if error.strerror else str(error)
        raise CheckpointError(f"{folder}: cannot be looked at ({why}); check its permissions") from None


def _in(folder: Path) -> str | None:
    if (folder / MANIFESTS).is_dir():
        return str(folder)
    uri = _uri_in_job(folder / RunFile.JOB)
    if uri is not None:
        return uri
    if (folder / RunFile.CHECKPOINTS).is_dir():
        return str(folder / RunFile.CHECKPOINTS)
    return None


def _at_url(url: str) -> str | None:
    for place in (url, f"{url}/{RunFile.CHECKPOINTS}"):
        if MANIFESTS in Location(place).folders(""):
            return place
    return None


def _uri_in_job(path: Path) -> str | None:
    """`spec.checkpoint.uri` of a run's resolved job."""
    if not path.is_file():
        return None
    import yaml  # of no use to those who name the place itself

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        uri = value["spec"]["checkpoint"]["uri"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
    return uri if isinstance(uri, str) and uri else None
