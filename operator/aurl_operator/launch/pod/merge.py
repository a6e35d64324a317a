"""Strategic merge of a patch into a pod, as `kubectl patch` does it.

Maps merge, null removes a key, lists replace each other, except those in `KEYS`: their items merge by name,
and `$patch: delete` or `$patch: replace` in an item or map removes or replaces it. A volume that gets
another kind of source loses the old one. Not here: what a job's template may change (`template.py`).
"""

from __future__ import annotations

from typing import Any

from aurl_trainer.errors import ConfigError

KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
}
"""Lists of a pod that merge item by item, and the field that tells items apart."""

DIRECTIVE = "$patch"


def merge(base: dict[str, Any], patch: Any, path: str) -> dict[str, Any]:
    """`base` with `patch` laid over it; neither is changed. `path` is for messages. Raises ConfigError."""
    patch = _map(patch, path)
    directive = _directive(patch, path)
    fields = {name: value for name, value in patch.items() if name != DIRECTIVE}
    if directive == "delete":
        return {}
    made = {} if directive == "replace" else dict(base)
    for name, value in fields.items():
        here = f"{path}.{name}"
        if name.startswith("$"):
            raise ConfigError([f"{here}: of the directives only {DIRECTIVE} is known"])
        if value is None:
            made.pop(name, None)
        elif name in KEYS:
            made[name] = _items(made.get(name) or [], value, KEYS[name], here)
        elif isinstance(value, dict):
            held = made.get(name)
            made[name] = merge(held if isinstance(held, dict) else {}, value, here)
        else:
            made[name] = value
    return made


def _items(base: list[dict[str, Any]], patch: Any, key: str, path: str) -> list[dict[str, Any]]:
    if not isinstance(patch, list):
        raise ConfigError([f"{path}: expected a list, found {type(patch).__name__}"])
    whole = [p for p in patch if isinstance(p, dict) and set(p) == {DIRECTIVE}]
    made = list(base)
    if whole:
        if _directive(whole[0], path) != "replace":
            raise ConfigError([f"{path}: {DIRECTIVE} without {key} can only be replace"])
        made = []
    for number, item in enumerate(patch):
        here = f"{path}[{number}]"
        if item in whole:
            continue
        mark = _map(item, here).get(key)
        if mark is None:
            raise ConfigError([f"{here}: {key} is missing: items are merged by it"])
        at = next((i for i, held in enumerate(made) if held.get(key) == mark), None)
        if _directive(item, here) == "delete":
            made = [held for held in made if held.get(key) != mark]
        elif at is None:
            made.append(merge({}, item, here))
        else:
            made[at] = merge(_without_source(path, made[at], item), item, here)
    return made


def _without_source(path: str, held: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """A volume has one source; one that names another kind does not keep the first."""
    if not path.endswith(".volumes") or not set(item) - {"name", DIRECTIVE}:
        return held
    return {name: value for name, value in held.items() if name == "name" or name in item}


def _directive(patch: dict[str, Any], path: str) -> str:
    found = patch.get(DIRECTIVE, "merge")
    if found not in ("merge", "replace", "delete"):
        raise ConfigError([f"{path}.{DIRECTIVE}: merge, replace or delete; found {found!r}"])
    return str(found)


def _map(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ConfigError([f"{path}: expected fields, found {type(value).__name__}"])
    return value
