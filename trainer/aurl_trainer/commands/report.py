"""`aurl report`: one HTML file that tells all about a run. Not here: what is in it (monitor/report/)."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from aurl_trainer.contract import RunFile
from aurl_trainer.errors import RefusedError


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's directory, as in runs/my-job.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help=f"Where to; default: RUN/{RunFile.REPORT}."),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, max=200, help="Most pieces of music to put into the page.")
    ] = 12,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON; write the page only with --out.")
    ] = False,
) -> None:
    """Write one HTML file about a run: curves, incidents and what they cost, music to listen to.

    The file holds everything it shows: open it by a double click, or send it to somebody. The run may be
    going on, finished, or have failed at once.

    \b
    Examples:
      aurl report runs/my-job
      aurl report runs/my-job --out my-job.html --samples 4
      aurl report runs/my-job --json | jq .goodput
    """
    from aurl_trainer.monitor.report.figures import figures
    from aurl_trainer.monitor.report.music import pieces
    from aurl_trainer.monitor.report.page.render import render
    from aurl_trainer.monitor.report.source import read_run

    read = read_run(run)
    facts = figures(read)
    path = out or (None if as_json else run / RunFile.REPORT)
    if path is not None:
        _write(path, render(read, facts, pieces(read, facts.lineage, samples)))
    if as_json:
        typer.echo(json.dumps({"report": str(path) if path else None, **facts.to_json()}, indent=2))
    else:
        typer.echo(f"{path}")


def _write(path: Path, text: str) -> None:
    """Writes the file whole or not at all. Raises RefusedError if it cannot be written there."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(text)
                file.close()
                temporary.chmod(0o666 & ~_umask())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise RefusedError(f"{path}: the report cannot be written: {error.strerror}") from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
