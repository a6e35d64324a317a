"""The summary in plain words: what was trained, how it went, and how good it got.

Not here: the figures themselves (figures.py), nor how the page looks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from aurl_trainer.monitor.report.figures import UNFINISHED, Figures
from aurl_trainer.monitor.report.page import words
from aurl_trainer.monitor.report.source import Run
from aurl_trainer.monitor.report.timeline import Incident


def paragraphs(run: Run, facts: Figures) -> list[str]:
    """The summary: how it went, and how good it got."""
    if run.foreign:
        return [" ".join(("This job ran a program of its own.", _ended(facts), _losses(facts)))]
    if not facts.lineage:
        text = "It never got to train" if facts.phase == "Failed" else "No rank has started training yet"
        return [_sentence(text, facts.message)]
    went = " ".join(filter(None, (_what(run), _how(facts), _losses(facts))))
    return [p for p in (went, _result(facts)) if p]


def _what(run: Run) -> str:
    raw = run.experiment
    layers = _in(raw, "model", "layers")
    model = f"A transformer of {layers} layers" if layers else "A transformer"
    parameters = run.setup.get("parameters")
    if parameters:
        model += f" ({words.count(parameters)} parameters)"
    pieces = run.setup.get("train_pieces")
    music = _music(raw)
    return f"{model} was trained on {f'{pieces:,} pieces of ' if pieces else ''}{music}."


def _music(raw: dict[str, Any]) -> str:
    if _in(raw, "data", "source", "music21") == "bach":
        return "Bach’s chorales"
    folder = _in(raw, "data", "source", "midi")
    return f"the MIDI files in {folder}" if folder else "music"


def _how(facts: Figures) -> str:
    ranks = words.plural(facts.most_ranks, "rank")
    where = f"{words.plural(facts.most_nodes, 'node')} ({ranks})" if facts.most_nodes else ranks
    where = f"up to {where}" if len(facts.lineage) > 1 else where
    took = words.duration(facts.wall_seconds)
    if facts.phase == "Succeeded":
        return f"It finished all {facts.step:,} steps in {took} on {where}."
    done = f"{facts.step:,} of {facts.total_steps:,} steps in {took} on {where}"
    if facts.phase == "Failed":
        return _sentence(f"It failed after {done}", facts.message)
    if facts.phase == "Suspended":
        return f"It is suspended after {done}."
    standing = "It had done" if facts.phase == UNFINISHED else "It is still going on and had done"
    return f"{standing} {done} when this report was written."


def _ended(facts: Figures) -> str:
    took = words.duration(facts.wall_seconds)
    if facts.phase in ("Succeeded", "Failed"):
        verb = "finished" if facts.phase == "Succeeded" else "failed"
        return _sentence(f"It {verb} after {took}", facts.message if verb == "failed" else "")
    return f"It had been going on for {took} when this report was written."


def _sentence(text: str, reason: str) -> str:
    """The text with its reason, if there is one, and a full stop."""
    return f"{text}: {reason.rstrip('. ')}." if reason else f"{text}."


def _losses(facts: Figures) -> str:
    redone = facts.steps_redone
    again = f"{words.plural(redone, 'step').capitalize()} had to be done again"
    if redone and facts.steps_repeated == redone:
        again += ", with the same loss as the first time to the last bit"
    again += "."
    losses = [i for i in facts.incidents if not i.noticed]
    noticed = [i for i in facts.incidents if i.noticed]
    besides = f" Noticed without a loss: {_causes(noticed)}." if noticed else ""
    if not losses:
        return (again if redone else "Nothing was lost on the way.") + besides
    text = f"{words.plural(len(losses), 'disturbance').capitalize()} on the way ({_causes(losses)})"
    recovered = [i for i in losses if i.recovered_at is not None]
    slowest = facts.slowest_recovery
    if recovered and slowest is not None:
        all_of = "each time" if len(recovered) > 1 else "then"
        if len(recovered) < len(losses):
            all_of = f"after {len(recovered)} of them"
        text += f"; {all_of} it went on by itself, after {words.duration(slowest)}"
        text += " at most" if len(recovered) > 1 else ""
    return (f"{text}. {again}" if recovered and facts.lineage else f"{text}.") + besides


def _causes(incidents: Sequence[Incident]) -> str:
    causes = Counter(words.cause(i.cause) for i in incidents)
    return words.listing([f"{n} × {cause}" if n > 1 else cause for cause, n in causes.items()])


def _result(facts: Figures) -> str:
    loss = facts.val_loss
    if loss is None:
        return ""
    text = (
        f"On held-out music it needs {loss:.3f} nats per token: on average as unsure as when choosing "
        f"among {_choices(loss)} equally likely tokens."
    )
    if facts.markov2 is not None and facts.unigram is not None:
        verdict = "better" if loss < facts.markov2 else "worse"
        text += (
            f" That is {abs(facts.markov2 - loss):.3f} {verdict} than a model that counts what follows "
            f"each pair of tokens ({facts.markov2:.3f}, or {_choices(facts.markov2)} choices), and "
            f"{abs(facts.unigram - loss):.3f} {'better' if loss < facts.unigram else 'worse'} than one that "
            f"only knows how frequent each token is ({facts.unigram:.3f})."
        )
    return text


def _choices(nats: float) -> str:
    """Perplexity."""
    value = math.exp(min(nats, 50.0))
    return f"{value:.1f}" if value < 100 else words.count(value)


def _in(raw: Any, *keys: str) -> Any:
    for key in keys:
        raw = raw.get(key) if isinstance(raw, dict) else None
    return raw
