"""What an exported file says about its model: all that it takes to build the model again. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.plain import decode
from aurl_trainer.store.format.versions import code_versions

NEEDED = ("model", "vocab_size", "pad_id", "max_length", "tokenizer")
"""What a model cannot be built again without."""


def describe(manifest: Manifest, weights: str) -> dict[str, str]:
    """The file's metadata, text by name.

    `model` (the configuration) and `versions` (of what saved the checkpoint) are JSON. What the checkpoint
    does not say is left out: older ones hold no `vocab_size`, `pad_id`, `max_length` and `tokenizer`.
    """
    extra: Any = decode(manifest.extra)
    extra = extra if isinstance(extra, Mapping) else {}
    experiment = extra.get("experiment") or manifest.identity
    about = extra.get("model") or {}
    told = {
        "format": "pt",  # names and shapes are torch's; other programs look for this word
        "exported_by": f"aurl {code_versions()['aurl'] or 'unknown'}",
        "versions": json.dumps(manifest.versions),
        "run": manifest.run,
        "step": str(manifest.step),
        "checkpoint": manifest.name,
        "weights": weights,
    }
    if experiment.get("model") is not None:
        told["model"] = json.dumps(experiment["model"])
    for name in NEEDED[1:]:
        if about.get(name) is not None:
            told[name] = str(about[name])
    return told
