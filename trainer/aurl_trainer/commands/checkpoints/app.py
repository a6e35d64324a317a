"""The table of `aurl checkpoints`: catalog/ looks at checkpoints, upkeep/ keeps them, derived/ makes of them.

Importing this loads neither torch nor a store.
"""

from __future__ import annotations

import typer

from aurl_trainer.commands.checkpoints.catalog.finding import find, index
from aurl_trainer.commands.checkpoints.catalog.listing import list_
from aurl_trainer.commands.checkpoints.catalog.showing import diff, show
from aurl_trainer.commands.checkpoints.derived.averaging import average
from aurl_trainer.commands.checkpoints.derived.copying import copy, promote
from aurl_trainer.commands.checkpoints.derived.exporting import export
from aurl_trainer.commands.checkpoints.upkeep.collecting import gc
from aurl_trainer.commands.checkpoints.upkeep.tagging import tag
from aurl_trainer.commands.checkpoints.upkeep.verifying import verify

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
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


app.command("list")(list_)
app.command()(show)
app.command()(find)
app.command()(diff)
app.command()(tag)
app.command()(copy)
app.command()(promote)
app.command()(export)
app.command()(average)
app.command()(verify)
app.command()(gc)
app.command()(index)
