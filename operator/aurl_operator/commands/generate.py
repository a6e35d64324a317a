"""`python -m aurl_operator.commands.generate [--check]`: write the files that come from code.

Here: the list of generated files, and docs/exit-codes.md from the docstrings of `contract.ExitCode`. Run in
the repository's root by `make generate`; `make check` runs it with --check, which writes nothing and fails
if a file is not what the code says.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from aurl_operator.api.crd.definition import as_yaml
from aurl_operator.api.crd.reference import job_reference
from aurl_trainer.contract import ExitCode

HEAD = """# Exit codes

Written by `make generate` from `aurl_trainer/contract.py`; edit it there.

Codes below 80 are what `aurl` ends with. Codes from 81 to 86 are how ranks and agents tell each other and
the operator why they leave; a script of your own under `command:` may use them too.

| Code | Name | Meaning |
|---:|---|---|
"""


def exit_codes() -> str:
    """docs/exit-codes.md: one row per member of ExitCode with the string that follows it in the source."""
    source = inspect.getsource(ExitCode)
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    rows = []
    for member, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name):
            name = member.targets[0].id
            documented = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            words = " ".join(str(text.value.value).split()) if documented else ""  # type: ignore[attr-defined]
            rows.append(f"| {int(ExitCode[name])} | `{name}` | {words} |\n")
    return HEAD + "".join(rows)


GENERATED: dict[str, Callable[[], str]] = {
    "docs/exit-codes.md": exit_codes,
    "docs/job-reference.md": job_reference,
    "charts/files/crd.yaml": as_yaml,
}
"""Path below the repository's root, and what makes its text."""


def generate(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file differs.")] = False,
    root: Annotated[Path, typer.Option(help="The repository's root.")] = Path(),
) -> None:
    """Write the files that come from code, or check that they are what the code says."""
    stale = 0
    for name, make in GENERATED.items():
        path, text = root / name, make()
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if old == text:
            continue
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            typer.echo(f"wrote {name}")
            continue
        stale += 1
        typer.echo(f"{name} is not what the code says; run: make generate", err=True)
        lines = difflib.unified_diff(old.splitlines(), text.splitlines(), name, "generated", lineterm="", n=1)
        typer.echo("\n".join(list(lines)[:40]), err=True)
    if stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(generate)
    sys.exit(app())
