"""docs/job-reference.md: every field of a job, from the same schema that the API server checks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aurl_operator.api.crd.changes import FIXED, RESTARTS
from aurl_operator.api.crd.rules import rules
from aurl_operator.api.crd.schema import spec_schema, status_schema

Json = dict[str, Any]

HEAD = """# The job: every field

Written by `make generate` from `operator/aurl_operator/api`; edit it there.

`aurl validate job.yaml` checks a file, `kubectl explain atj.spec` tells the same from a cluster. Durations
are whole seconds. The experiment under `training` is the trainer's own: `trainer/aurl_trainer/config`.

"""


def job_reference() -> str:
    """The whole page."""
    lines = [HEAD, "## spec\n", "| Field | Type | Default | May change | Meaning |\n|---|---|---|---|---|\n"]
    for path, node in _fields(spec_schema(), ""):
        lines.append(f"| `{path}` | {_type(node)} | {_default(node)} | {_change(path)} | {_words(node)} |\n")
    lines.append("\n## Rules\n\nRefused by the API server, with these words:\n\n")
    for path, found in rules().items():
        for rule in found:
            place = f"spec.{path}" if path else "spec"
            lines.append(f"- `{place}`: {rule['message']}\n")
    lines.append("\n## status\n\n| Field | Type | Meaning |\n|---|---|---|\n")
    for path, node in _fields(status_schema(), ""):
        lines.append(f"| `{path}` | {_type(node)} | {_words(node)} |\n")
    return "".join(lines)


def _fields(node: Json, at: str) -> Iterator[tuple[str, Json]]:
    for name, child in node.get("properties", {}).items():
        path = f"{at}.{name}" if at else name
        yield path, child
        yield from _fields(child, path)
        items = child.get("items", {})
        if "properties" in items:
            yield from _fields(items, f"{path}[]")


def _type(node: Json) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    kind = node.get("type", "number or mapping")
    if kind == "array":
        return f"list of {_type(node['items'])}"
    if kind == "object" and "additionalProperties" in node:
        return f"mapping of {_type(node['additionalProperties'])}"
    bounds = [str(node[key]) for key in ("minimum", "maximum") if key in node]
    return f"{kind} {' to '.join(bounds)}" if len(bounds) == 2 else str(kind).replace("object", "mapping")


def _default(node: Json) -> str:
    return f"`{json.dumps(node['default'])}`" if node.get("default", {}) != {} else ""


def _change(path: str) -> str:
    if path in FIXED:
        return f"no: {FIXED[path]}"
    top = next((known for known in RESTARTS if path == known or path.startswith(f"{known}.")), None)
    return f"yes: {RESTARTS[top]}" if top else "yes"


def _words(node: Json) -> str:
    return str(node.get("description", "")).replace("|", "\\|")
