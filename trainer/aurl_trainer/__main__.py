"""`python -m aurl_trainer`: what runs in a pod. For people there is `aurl`."""

from __future__ import annotations

import typer

from aurl_trainer.commands.purge import purge
from aurl_trainer.commands.train import train

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command()(train)
app.command()(purge)


@app.callback()
def main() -> None:
    """Commands of the trainer image. Nodes run `train` under the agent."""


if __name__ == "__main__":
    app(prog_name="python -m aurl_trainer")
