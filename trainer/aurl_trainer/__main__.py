"""`python -m aurl_trainer`: what runs in a pod. For people there is `aurl`."""

from __future__ import annotations

import sys

import typer

from aurl_trainer.commands.prepare import prepare
from aurl_trainer.commands.purge import purge
from aurl_trainer.commands.train import train
from aurl_trainer.errors import AurlTrainerError

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command()(train)
app.command()(prepare)
app.command()(purge)


@app.callback()
def main() -> None:
    """Commands of the trainer image. Nodes run `train` under the agent, which may run `prepare` before."""


if __name__ == "__main__":
    try:
        app(prog_name="python -m aurl_trainer")
    except AurlTrainerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
