"""A typer group whose commands are loaded when they are called, so that `aurl --help` is quick.

Here: where commands come from (our own table, and the entry-point group `aurl.commands` of every installed
package), their one line of help read from the source without importing it, and what happens when one of
them is broken. Not here: what any command does.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, cast

import typer
from typer.core import TyperCommand, TyperGroup

from aurl_operator.errors import MissingError

GROUP = "aurl.commands"
"""Entry-point group: each names a typer app or a function, as in `sample = "package.module:sample"`."""


@dataclass(frozen=True)
class Reference:
    """Where a command lives: `module:attribute` of an installed distribution."""

    name: str
    module: str
    attribute: str
    distribution: str

    def summary(self) -> str:
        """First line of the command's docstring, read from the source; nothing is imported but packages."""
        try:
            spec = importlib.util.find_spec(self.module)
            if spec is None or spec.origin is None:
                return f"(not installed properly: {self.distribution} has no {self.module})"
            tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        except (ImportError, ValueError, SyntaxError, OSError):
            return f"(cannot be loaded: {self.module} of {self.distribution})"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == self.attribute:
                return _first_line(ast.get_docstring(node))
        return _first_line(ast.get_docstring(tree))

    def load(self) -> TyperCommand | TyperGroup:
        """The command itself. Raises MissingError if its package is broken or incomplete."""
        try:
            target = getattr(importlib.import_module(self.module), self.attribute)
        except ModuleNotFoundError as error:
            raise MissingError(f"aurl {self.name}: {missing_package(error)}") from error
        except Exception as error:  # whatever a foreign module raises while it is imported
            raise MissingError(
                f"aurl {self.name}: {self.module} of the package {self.distribution} cannot be loaded: "
                f"{type(error).__name__}: {_first_line(str(error))}"
            ) from error
        return _as_command(self, target)


def missing_package(error: ModuleNotFoundError) -> str:
    """What to say to a user about a module that is not installed."""
    package = (error.name or str(error)).partition(".")[0]
    if package.startswith("aurl_"):
        return f"{error.name} is missing from this installation of aurl; install it again"
    return f"the package {package} is not installed; try: pip install 'aurl[operator,trainer]'"


def from_entry_points() -> dict[str, Reference]:
    """Commands that installed packages offer, by name; of two with one name the first package's counts."""
    found: dict[str, Reference] = {}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda p: p.dist.name if p.dist else ""):
        distribution = point.dist.name if point.dist else "an unknown package"
        found.setdefault(point.name, Reference(point.name, point.module, point.attr, distribution))
    return found


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _as_command(reference: Reference, target: Any) -> TyperCommand | TyperGroup:
    if isinstance(target, typer.Typer):
        app = target
    elif callable(target):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        app.command(reference.name)(cast(Callable[..., Any], target))
    else:
        raise MissingError(
            f"aurl {reference.name}: {reference.module}:{reference.attribute} of the package "
            f"{reference.distribution} is neither a typer app nor a function"
        )
    command = typer.main.get_command(app)
    command.name = reference.name
    return cast(TyperCommand | TyperGroup, command)


class LazyGroup(TyperGroup):
    """Our commands by `own`, then the entry points'. Ours cannot be replaced by another package's."""

    own: ClassVar[Mapping[str, Reference]] = {}

    def _references(self) -> dict[str, Reference]:
        return {**from_entry_points(), **self.own}

    def list_commands(self, ctx: Any) -> list[str]:
        """Names: ours in the order of the table, then the others by name."""
        others = sorted(set(self._references()) - set(self.own))
        return [*self.own, *others]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """A stand-in with the command's line of help: enough for `aurl --help` and completion."""
        reference = self._references().get(cmd_name)
        return TyperCommand(cmd_name, help=reference.summary()) if reference else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, loaded. Raises typer's usage error for a name nobody offers."""
        references = self._references()
        if args and args[0] in references:
            return args[0], references[args[0]].load(), args[1:]
        self.commands = {name: TyperCommand(name) for name in references}
        return super().resolve_command(ctx, args)
