"""YAML with line numbers: a document, and pydantic's complaints about it as lines for people.

Used for experiments and, by the operator, for jobs. Not here: what the fields are.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aurl_trainer.errors import ConfigError, MissingError

M = TypeVar("M", bound=BaseModel)
Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key, _ in node.value:
        name = loader.construct_object(key)
        if name in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"{name!r} is given twice (first in line {seen[name]})", key.start_mark
            )
        seen[name] = key.start_mark.line + 1
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


@dataclass(frozen=True)
class Document:
    """One YAML document: its value, its name for messages, and the line of each field."""

    value: Any
    name: str
    lines: Mapping[Place, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Document:
        """The document in a file. Raises MissingError or ConfigError."""
        try:
            return cls.parse(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise MissingError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError([f"{path}: not UTF-8 text; a job is a YAML file"]) from None

    @classmethod
    def parse(cls, text: str, name: str) -> Document:
        """The one document in `text`. Raises ConfigError with the line of a syntax error."""
        try:
            nodes = list(yaml.compose_all(text, _Loader))
            values = list(yaml.load_all(text, _Loader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f"{name}:{mark.line + 1}" if mark else name
            raise ConfigError([f"{where}: not readable as YAML: {error.problem or error.context}"]) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError([f"{name}: not readable as YAML: {str(error).splitlines()[0]}"]) from None
        if len(values) != 1 or nodes[0] is None:
            raise ConfigError([f"{name}: expected one YAML document, found {len(values)}"])
        lines: dict[Place, int] = {}
        _collect(nodes[0], (), lines)
        return cls(values[0], name, lines)

    def line(self, place: Sequence[str | int]) -> int | None:
        """Line of the field, or of the nearest one around it that the text names."""
        at = tuple(place)
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at)

    def problem(self, place: Sequence[str | int], text: str) -> str:
        """`file:line: field: text`."""
        line = self.line(place)
        where = f"{self.name}:{line}" if line else self.name
        dotted = ".".join(str(p) for p in place)
        return f"{where}: {dotted}: {text}" if dotted else f"{where}: {text}"

    def validate(self, model: type[M], value: Any = None, place: Place = ()) -> M:
        """`value` (default: all of it), which stands at `place`, as `model`. Raises ConfigError."""
        try:
            return model.model_validate(self.value if value is None else value)
        except ValidationError as error:
            raise ConfigError(
                [self.problem(place + _place(model, e["loc"]), _words(model, e)) for e in error.errors()]
            ) from None


def _collect(node: yaml.Node, at: Place, lines: dict[Place, int]) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            place = (*at, str(key.value))
            lines[place] = key.start_mark.line + 1
            _collect(child, place, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _collect(child, (*at, index), lines)


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> Place:
    """pydantic's location without the names of union members, which no user wrote."""
    return tuple(p for p in loc if isinstance(p, int) or not (p and (p[0].isupper() or "[" in p)))


def _words(model: type[BaseModel], error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        siblings = _fields(model, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), siblings, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(siblings))}"
        return f"unknown field; {hint}"
    if error["type"] == "missing":
        return "is required"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"expected a mapping of fields; found {error.get('input')!r}"
    text = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    if error["type"] != "value_error" and isinstance(given, str | int | float | bool):
        return f"{text}; found {given!r}"
    return text


def _fields(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model that `loc` leads to, as far as it can be followed."""
    current: type[BaseModel] = model
    for part in loc:
        by_name = {(f.alias or n): f for n, f in current.model_fields.items()} | dict(current.model_fields)
        if part not in by_name:
            continue
        found = _model_in(by_name[str(part)].annotation)
        if found is not None:
            current = found
    return [f.alias or n for n, f in current.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
