"""`aurl`: the command line, and the one place where errors become lines on stderr and exit codes.

Here: the app, its table of commands, and `main`. Not here: any command (`commands/`), or how commands of
other packages are found (`commands/lazy.py`). Importing this loads neither torch nor pydantic.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from typer.main import get_command

from aurl_operator.commands.lazy import LazyGroup, Reference, missing_package
from aurl_operator.errors import AurlError
from aurl_trainer.contract import ExitCode
from aurl_trainer.errors import AurlTrainerError


class _Aurl(LazyGroup):
    own: ClassVar = {
        name: Reference(name, f"aurl_operator.commands.{module}", name, "aurl")
        for name, module in (
            ("run", "run"),
            ("rehearse", "rehearse"),
            ("status", "status"),
            ("logs", "logs"),
            ("validate", "validate"),
            ("explain", "explain"),
            ("resume", "cluster.resume"),
        )
    }


app = typer.Typer(
    cls=_Aurl,
    name="aurl",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aurl {metadata.version('aurl')}")
        raise typer.Exit


@app.callback()
def aurl(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="AURL_DEBUG", help="Show tracebacks of unexpected errors.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train music models on machines that can vanish at any moment.

    One file, the job, says what to train and on how many nodes: here each
    node is a process of this machine; `kubectl apply -f job.yaml` runs the
    same job on a cluster, a pod for each node.

    \b
    Examples:
      aurl validate job.yaml       is it right?
      aurl explain job.yaml        what would start, which rules would act?
      aurl run job.yaml            run it; Ctrl-C saves and leaves
      aurl run job.yaml --set spec.nodes.max=3
      aurl status runs/my-job      how is it going?
      aurl logs bach -n music -f   what does it print, on a cluster?
      aurl report runs/my-job      everything about a run in one HTML file
      aurl rehearse job.yaml --kill worker-1@step:40
                                   what if a machine vanishes?
    """
    context.ensure_object(dict)["debug"] = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `aurl` with `arguments` (default: the process's) and returns the exit code."""
    shared: dict[str, bool] = {"debug": False}
    try:
        get_command(app).main(args=arguments, prog_name="aurl", obj=shared)
    except (AurlError, AurlTrainerError) as error:
        _say(str(error) or type(error).__name__)
        return int(error.exit_code)
    except ModuleNotFoundError as error:
        if shared["debug"] or (error.name or "aurl_").startswith("aurl_"):
            return _unexpected(error, shared["debug"])
        _say(missing_package(error))
        return int(ExitCode.MISSING)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.OK if end.code is None else 1)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except Exception as error:  # the one place that catches everything
        return _unexpected(error, shared["debug"])
    return int(ExitCode.OK)


def _say(text: str) -> None:
    """Each line of an error's text, marked as one; red on a terminal."""
    for line in text.splitlines():
        typer.echo(f"{typer.style('error', fg='red', bold=True)}: {line}", err=True)


def _unexpected(error: BaseException, debug: bool) -> int:
    """An error that nobody foresaw: one line, and the traceback in a file (or here, with --debug)."""
    import tempfile
    import traceback

    if debug:
        traceback.print_exception(error)
    summary = f"unexpected {type(error).__name__}: {str(error).partition(os.linesep)[0]}"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path(tempfile.gettempdir()) / f"aurl-error-{stamp}-{os.getpid()}.txt"
    try:
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        _say(f"{summary} (run again with `aurl --debug ...` for the traceback)")
    else:
        _say(f"{summary} (traceback in {path}; please report it)")
    return int(ExitCode.CRASH)
