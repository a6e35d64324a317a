"""The resume certificates as texts and rows.

Not here: the figures (report/resumes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aurl_trainer.monitor.records import TOLERANCE
from aurl_trainer.monitor.report.page import words
from aurl_trainer.monitor.report.resumes import UNJUDGED, Resumed
from aurl_trainer.monitor.report.source import Record

_VERDICTS = {
    "equal": ("the same to the last bit", "good"),
    "close": ("the same within rounding", "good"),
    "differs": ("differs", "bad"),
    "nothing to compare": ("nothing to compare", "none"),
    UNJUDGED: ("not judged: lost before", "none"),
}


def rows(resumes: Sequence[Resumed], origin: float) -> list[dict[str, Any]]:
    """A row for each resume. `origin` is when the run started, seconds since the epoch."""
    found = []
    for resume in resumes:
        verdict, style = _VERDICTS.get(resume.verdict, (resume.verdict, "none"))
        found.append(
            {
                "generation": resume.generation,
                "at": words.clock(resume.at - origin),
                "step": f"{resume.step:,}",
                "checkpoint": resume.checkpoint,
                "load": _load(resume),
                "redone": "" if resume.steps_redone is None else f"{resume.steps_redone:,}",
                "compared": len(resume.compared),
                "verdict": verdict,
                "style": style,
                "manifest": resume.manifest,
                "weights": resume.weights or "",
                "weights_match": _WEIGHTS[resume.weights_match],
                "steps": [_step(c) for c in resume.compared],
                "problems": resume.problems,
            }
        )
    return found


def _load(resume: Resumed) -> str:
    text = words.duration(resume.load_seconds)
    if not resume.disk_bytes and not resume.peer_bytes:
        return text
    parts = [
        ("peers", resume.peer_bytes),
        ("own disks", resume.disk_bytes),
        ("the store", resume.store_bytes),
    ]
    sources = words.listing([f"{words.size(size)} from {source}" for source, size in parts if size])
    saved = f"; about {words.duration(resume.saved_seconds)} saved" if resume.saved_seconds >= 0.05 else ""
    return f"{text}: {sources}{saved}"


_WEIGHTS = {
    True: "as loaded, each what the manifest says",
    False: "as loaded, NOT what the manifest says",
    None: "no digest: the model is sharded, so no rank holds all of them; each piece was checked on loading",
}


def _step(compared: Record) -> dict[str, str]:
    before, again = compared.get("before"), compared.get("loss")
    same = compared.get("samples")
    ranks = words.plural(compared.get("world") or 0, "rank")
    return {
        "step": f"{compared.get('step', 0):,}",
        "samples": "not on record" if same is None else "the same" if same else "others",
        "before": _loss(before),
        "again": _loss(again),
        "equal": _equal(before, again, bitwise=compared.get("bitwise") is True),
        "first": f"generation {compared.get('generation')}, {ranks}",
    }


def _loss(value: Any) -> str:
    """All digits: two that are printed alike are alike."""
    return repr(float(value)) if isinstance(value, int | float) else "not finite"


def _equal(one: Any, other: Any, *, bitwise: bool) -> str:
    """How far two losses are equal; short of every bit is not equal where every bit was asked for."""
    if one == other:
        return "the last bit"
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return "within rounding" if numbers and not bitwise and abs(one - other) <= TOLERANCE else "differs"
