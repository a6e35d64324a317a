"""Options of commands that speak to a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "-n", "--namespace", help="Of a job on a cluster; default: the context's.", show_default=False
    ),
]
ContextOption = Annotated[
    str | None, typer.Option("--context", help="A context of the kubeconfig.", show_default=False)
]
ClusterOption = Annotated[
    bool, typer.Option("--cluster", help="A job of the kubeconfig's context, not a run on this machine.")
]
