"""What the API server checks itself beyond types: CEL rules, on the mapping that they are about.

A file is asked the same before it is sent, by the models and by written.py. Not here: what only the
operator can check (the experiment, the template's merge).
"""

from __future__ import annotations

from typing import Any

from aurl_operator.api.base import NO_PASSWORD, URL_WITH_PASSWORD
from aurl_operator.api.crd.changes import FIXED

Rule = dict[str, str]


def rules() -> dict[str, list[Rule]]:
    """Rules by the dotted path, below `spec`, of the mapping they belong to; the empty path is `spec`."""
    found: dict[str, list[Rule]] = {
        "": [
            {
                "rule": "has(self.training) != has(self.command)",
                "message": "name exactly one of training and command",
            },
            {
                "rule": "!has(self.scheduling) || !has(self.scheduling.queue) || "
                "(has(self.scheduling.gang) && self.scheduling.gang != 'None')",
                "message": "scheduling.queue needs scheduling.gang: Volcano or Kueue",
            },
            {
                "rule": "!has(self.command) || !has(self.cleanup) || "
                "!has(self.cleanup.checkpoints) || self.cleanup.checkpoints == 'Keep'",
                "message": "cleanup.checkpoints: Aurl does not know the checkpoints of a command; use Keep",
            },
            {
                "rule": "!has(self.command) || !has(self.initFrom)",
                "message": "initFrom goes with training; a command loads its own checkpoints",
            },
            {
                "rule": f"!has(self.initFrom) || !self.initFrom.matches('{URL_WITH_PASSWORD}')",
                "message": f"initFrom: {NO_PASSWORD}",
            },
        ],
        "nodes": [{"rule": "self.min <= self.max", "message": "min is more than max"}],
        "checkpoint": [
            {
                "rule": "!has(self.uri) || self.uri.contains('://')",
                "message": "uri: expected a URL, as in s3://bucket/run",
            },
            {
                "rule": f"!has(self.uri) || !self.uri.matches('{URL_WITH_PASSWORD}')",
                "message": f"uri: {NO_PASSWORD}",
            },
        ],
    }
    for budget in ("preemptions", "nodeLost", "crashes", "hang", "outOfMemory"):
        found[f"recovery.{budget}.backoff"] = [
            {
                "rule": "!has(self.initialSeconds) || !has(self.maxSeconds) || "
                "self.initialSeconds <= self.maxSeconds",
                "message": "initialSeconds is more than maxSeconds",
            }
        ]
    for path, why in FIXED.items():
        parent, _, field = path.rpartition(".")
        found.setdefault(parent, []).append(
            {
                "rule": f"has(self.{field}) == has(oldSelf.{field}) && "
                f"(!has(self.{field}) || self.{field} == oldSelf.{field})",
                "message": f"{path} cannot change: {why}",
            }
        )
    return found


def add_rules(schema: dict[str, Any]) -> None:
    """Writes all rules into the schema of `spec`."""
    for path, wanted in rules().items():
        node = schema
        for part in filter(None, path.split(".")):
            node = node["properties"][part]
        node["x-kubernetes-validations"] = wanted
