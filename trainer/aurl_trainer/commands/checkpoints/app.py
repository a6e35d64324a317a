"""Find, check, tag, copy, export, average and remove what runs have saved.

The table of the commands: catalog/ looks at checkpoints, upkeep/ keeps them, derived/ makes of them.

A command's module is loaded when it is called, or when the help of all is shown: whoever lists checkpoints
does not wait for what copies them. Importing this loads neither torch, pydantic nor a store.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

ROOM = "aurl_trainer.commands.checkpoints"


class _Commands(TyperGroup):
    table: ClassVar = {
        "list": "catalog.listing:list_",
        "show": "catalog.showing:show",
        "find": "catalog.finding:find",
        "diff": "catalog.showing:diff",
        "tag": "upkeep.tagging:tag",
        "copy": "derived.copying:copy",
        "promote": "derived.copying:promote",
        "export": "derived.exporting:export",
        "average": "derived.averaging:average",
        "verify": "upkeep.verifying:verify",
        "gc": "upkeep.collecting:gc",
        "index": "catalog.finding:index",
    }

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, loaded; None if there is none of that name."""
        place = self.table.get(cmd_name)
        if place is None:
            return None
        module, _, function = place.partition(":")
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        alone.command(cmd_name)(getattr(importlib.import_module(f"{ROOM}.{module}"), function))
        return typer.main.get_command(alone)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called. Raises typer's usage error, which names one that is spelled alike."""
        if args and args[0] not in self.table:
            self.commands = {name: TyperCommand(name) for name in self.table}
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def checkpoints() -> None:
    """Find, check, tag, copy, export, average and remove what runs have saved.

    A checkpoint is named RUN@WHICH. RUN is a run's directory, a URL, or a
    name below ./runs or below what AURL_RUNS names. WHICH is latest (also
    without an @), best, best:METRIC, best:METRIC:max, step:1200, v12, or a
    tag. `aurl sample`, `aurl evaluate` and initFrom take the same.

    \b
    Examples:
      aurl checkpoints list runs/bach
      aurl checkpoints find s3://bucket --where "val_nll<0.5" --sort val_nll
      aurl checkpoints show s3://bucket/bach@best
      aurl checkpoints tag runs/bach@step:1200 for-the-paper
      aurl checkpoints verify gs://bucket/bach --deep
    """
