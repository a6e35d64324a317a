"""From pydantic's JSON schema to what Kubernetes calls a structural schema.

References are written out, `anyOf` with null becomes the type alone, constants become enums, and what a
structural schema cannot say (a number or a text) becomes Kubernetes' own mark. `nodes` is always a
mapping: with a number in its place the API server could not serve `scale`.
Not here: the definition around it (definition.py), rules (rules.py).
"""

from __future__ import annotations

from typing import Any

from aurl_operator.api.spec import JobSpec
from aurl_operator.api.status import JobStatus

Json = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)
_UNTYPED = {"x-kubernetes-preserve-unknown-fields": True}


def spec_schema() -> Json:
    """The structural schema of `spec`."""
    raw = JobSpec.model_json_schema(by_alias=True)
    schema = _structural(raw, raw.get("$defs", {}))
    properties = schema["properties"]
    properties["nodes"] |= {
        "description": "The range within which the job grows and shrinks.",
        "default": {"min": 1, "max": 1},
    }
    for free in ("training", "template"):
        properties[free] = {
            "type": "object",
            "description": properties[free].get("description", ""),
            **_UNTYPED,
        }
    return schema


def status_schema() -> Json:
    """The structural schema of `status`. What a newer operator writes stays in the object."""
    raw = JobStatus.model_json_schema(by_alias=True, mode="validation")
    schema = _structural(raw, raw.get("$defs", {}))
    _without_defaults(schema)
    return {**schema, **_UNTYPED}


def _structural(node: Json, definitions: Json) -> Json:
    node = _resolved(node, definitions)
    if _is_quantity(node):
        return {
            "x-kubernetes-int-or-string": True,
            "maxLength": 64,
            **({"description": node["description"]} if "description" in node else {}),
        }
    result: Json = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        result |= {"type": "string", "enum": [node["const"]]}
    if "exclusiveMinimum" in node:
        result |= {"minimum": node["exclusiveMinimum"], "exclusiveMinimum": True}
    if result.get("default", ...) is None:
        del result["default"]
    if node.get("type") == "integer":
        result["format"] = "int64"
    if node.get("type") == "array":
        result["items"] = _structural(node.get("items", {}), definitions)
    if node.get("type") == "object" or "properties" in node:
        result["type"] = "object"
        if "properties" in node:
            result["properties"] = {
                name: _structural(child, definitions) for name, child in node["properties"].items()
            }
            # A mapping that is absent is filled in, and so are the defaults inside it.
            if "default" in result:
                result["default"] = {}
            if node.get("required"):
                result["required"] = node["required"]
        elif isinstance(node.get("additionalProperties"), dict):
            result["additionalProperties"] = _structural(node["additionalProperties"], definitions)
        else:
            result |= _UNTYPED
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    return result


def _resolved(node: Json, definitions: Json) -> Json:
    """Without reference and without `or null`; what stands beside them goes first."""
    beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf", "allOf")}
    if "$ref" in node:
        found = definitions[node["$ref"].rpartition("/")[2]]
        return _resolved({**found, **beside}, definitions)
    choices = [choice for choice in node.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) == 1:
        return _resolved({**choices[0], **beside}, definitions)
    return node


def _is_quantity(node: Json) -> bool:
    types = {choice.get("type") for choice in node.get("anyOf", [])}
    return types == {"integer", "string"}


def _without_defaults(node: Json) -> None:
    node.pop("default", None)
    node.pop("required", None)
    for child in node.get("properties", {}).values():
        _without_defaults(child)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            _without_defaults(node[key])
