"""The CustomResourceDefinition: names, schema with rules, columns, scale and status.

Not here: schema of the parts (schema.py), rules (rules.py).
"""

from __future__ import annotations

from typing import Any

import yaml

from aurl_operator.api import names
from aurl_operator.api.crd.rules import add_rules
from aurl_operator.api.crd.schema import spec_schema, status_schema

Json = dict[str, Any]

COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("Ready", "integer", ".status.nodes.ready", 0),
    ("Nodes", "integer", ".status.nodes.desired", 0),
    ("Step", "integer", ".status.progress.step", 0),
    ("Of", "integer", ".status.progress.total", 0),
    ("Goodput", "number", ".status.goodput.ratio", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Durable", "integer", ".status.checkpoint.lastDurableStep", 1),
    ("Loss", "number", ".status.progress.loss", 1),
    ("Message", "string", ".status.message", 1),
)


def definition() -> Json:
    """The whole definition."""
    spec = spec_schema()
    add_rules(spec)
    schema = {
        "type": "object",
        "description": "A training job that survives the loss of its machines.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 63, "pattern": _NAME}},
            },
            "spec": spec,
            "status": status_schema(),
        },
    }
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.nodes.max",
                "statusReplicasPath": ".status.nodes.ready",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, "priority": priority}
            for name, kind, path, priority in COLUMNS
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": ["aurl"],
            },
            "versions": [version],
        },
    }


_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def as_yaml() -> str:
    """The definition as a file."""
    text = yaml.safe_dump(definition(), sort_keys=False, width=110, allow_unicode=True)
    return f"# Written by `make generate` from operator/aurl_operator/api.\n{text}"
