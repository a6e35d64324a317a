"""Whether a template has the shape of a pod: fields where a pod has fields, a list where it has a list.

The shapes are those of the Kubernetes client's models. A field that they do not know is passed on, since the
cluster may know it, and null is left to the merge. Not here: merging (`merge.py`), and what a template may
change (`template.py`).
"""

from __future__ import annotations

import functools
from typing import Any

from kubernetes.client import models

from aurl_trainer.errors import ConfigError

_AMOUNTS = frozenset({"limits", "requests", "overhead", "sizeLimit", "divisor"})
"""Fields whose texts may be numbers as well, as in `cpu: 2`."""

_PLAIN: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "text"),
    "datetime": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
}


def check(template: dict[str, Any], path: str) -> None:
    """Raises ConfigError, a line a field, for a template that is no pod's. `path` is for messages."""
    problems = _problems(template, "V1PodTemplateSpec", path)
    if problems:
        raise ConfigError(problems)


def _problems(value: Any, kind: str, path: str, *, amount: bool = False) -> list[str]:
    """`kind`: a type as the models write it, as in `str`, `list[V1Volume]`, `dict[str, str]`, `V1PodSpec`."""
    if kind in _PLAIN:
        types, words = ((str, int, float), "an amount") if amount else _PLAIN[kind]
        fits = isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))
        return [] if fits else [_expected(path, words, value)]
    if kind.startswith("list["):
        if not isinstance(value, list):
            return [_expected(path, "a list", value)]
        return [p for n, item in enumerate(value) for p in _problems(item, kind[5:-1], f"{path}[{n}]")]
    named = None if kind.startswith("dict[") else _fields(kind)
    if named is None and not kind.startswith("dict["):
        return []
    if not isinstance(value, dict):
        return [_expected(path, "fields", value)]
    kinds = dict.fromkeys(value, kind[5:-1].partition(", ")[2]) if named is None else named
    return [
        problem
        for name, part in value.items()
        if name in kinds and part is not None
        for problem in _problems(part, kinds[name], f"{path}.{name}", amount=amount or name in _AMOUNTS)
    ]


@functools.cache
def _fields(kind: str) -> dict[str, str] | None:
    """Types of a model's fields by their names in YAML; None for what may be anything."""
    model = getattr(models, kind, None)
    if model is None:
        return None
    return {model.attribute_map[name]: of for name, of in model.openapi_types.items()}


def _expected(path: str, words: str, value: Any) -> str:
    return f"{path}: expected {words}, found {type(value).__name__}"
