"""Merging a pod template the way people know it from Kubernetes: strategic merge patch.

Mappings merge, null removes, lists of named things merge by their name, other lists are replaced;
`$patch: delete` in an item removes it, `$patch: replace` in a mapping replaces it. Source: Kubernetes,
"strategic merge patch" and the patchMergeKey marks of core/v1. Not here: what may be overridden
(manifest.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
_APPENDED = ("tolerations", "envFrom")
"""Replaced by Kubernetes; ours stay, since a job's own secret and tolerations are not the template's."""


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` laid on it. Neither is changed."""
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merge(before if isinstance(before, Mapping) else {}, value)
        elif isinstance(value, list) and isinstance(result.get(key), list):
            result[key] = _merge_lists(key, result[key], value)
        else:
            result[key] = value
    return result


def _merge_lists(name: str, base: list[Any], patch: list[Any]) -> list[Any]:
    if name in _APPENDED:
        return [*(item for item in base if _toleration_of(item) not in map(_toleration_of, patch)), *patch]
    key = _KEYS.get(name)
    if key is None:
        return patch
    found = {item[key]: item for item in base if key in item}
    for item in patch:
        if not isinstance(item, Mapping) or key not in item:
            raise ValueError(f"{name}: each item needs {key}")
        if item.get("$patch") == "delete":
            found.pop(item[key], None)
        else:
            found[item[key]] = merge(found.get(item[key], {}), item)
    return list(found.values())


def _toleration_of(item: Any) -> Any:
    return (item.get("key"), item.get("effect")) if isinstance(item, Mapping) and "key" in item else item
