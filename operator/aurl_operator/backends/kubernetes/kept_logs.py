"""What nodes printed, as they kept it beside their checkpoints: for pods that cannot be read any more."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aurl_operator.api.load import parse_object
from aurl_operator.backends.kubernetes.pod_log import Line, Wanted
from aurl_operator.errors import MissingError
from aurl_operator.launch.experiment import experiment
from aurl_trainer.contract import RunFile


def last(text: str, count: int | None) -> list[str]:
    """The last `count` lines of `text`; None: all."""
    rows = text.splitlines()
    return rows if count is None else rows[max(0, len(rows) - count) :]


def kept_lines(
    found: dict[str, Any],
    wanted: Wanted,
    why: str = "has no pods any more",
    only: Collection[str] | None = None,
) -> list[Line]:
    """The tails that nodes kept beside their checkpoints, of all or of `only` these processes.

    `why` they are asked for stands in errors. Raises MissingError if none is as wanted.
    """
    name = found["metadata"]["name"]
    if wanted.role != "node":
        raise MissingError(f"{name} {why}, and only nodes keep their logs")
    if wanted.since is not None:
        raise MissingError(f"{name} {why}, and kept logs have no times: ask without --since")
    wanted_job = parse_object(found)
    known = experiment(wanted_job)
    uri = wanted_job.spec.checkpoint.uri if known is None else known.checkpoint.uri
    if uri is None:
        raise MissingError(f"{name} {why}, and kept no logs: it has no checkpoint.uri")
    import fsspec

    place = f"{uri}/{RunFile.LOGS}/{found['metadata']['uid']}"
    try:
        fs, path = fsspec.core.url_to_fs(place)
        files = sorted(str(p) for p in fs.ls(path, detail=False) if str(p).endswith(".log"))
        texts = {file: fs.cat_file(file).decode(errors="replace") for file in files}
    except Exception as error:
        raise MissingError(f"{name} {why}, and its kept logs at {place} cannot be read: {error}") from None
    result: list[Line] = []
    for file, text in texts.items():
        process = file.rpartition("/")[2].removesuffix(".log")
        if wanted.index is not None and not process.startswith(f"worker-{wanted.index}-"):
            continue
        if only is not None and process not in only:
            continue
        result += [Line(process, row) for row in last(text, wanted.tail)]
    if not result:
        raise MissingError(f"{name} {why}, and no logs are kept at {place}")
    return result
