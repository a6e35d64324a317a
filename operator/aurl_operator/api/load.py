"""From a file to a job: YAML with line numbers, `--set` overrides, and every problem found at once.

Not here: the fields (spec.py, recovery.py), and anything that touches more than this one file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from aurl_operator.api.base import NO_PASSWORD, URL_WITH_PASSWORD
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.api.written import at_odds
from aurl_trainer.config.document import Document, Place
from aurl_trainer.config.experiment import Experiment, resolve
from aurl_trainer.errors import ConfigError

_TOP = ("apiVersion", "kind", "metadata", "spec")
_PRESET_WORDS = ("preset", "overrides")


@dataclass(frozen=True)
class JobDocument(Document):
    """A job's text with overrides laid on it: problems in an override name the override, not a line."""

    overrides: Mapping[Place, str] = field(default_factory=dict)

    def problem(self, place: Sequence[str | int], text: str) -> str:
        """`file:line: field: text`, or `--set path=value: field: text`."""
        at = tuple(place)
        for length in range(len(at), 0, -1):
            if at[:length] in self.overrides:
                return f"{self.overrides[at[:length]]}: {'.'.join(map(str, at))}: {text}"
        return super().problem(place, text)


def load_job(path: Path, overrides: Sequence[str] = ()) -> AurlTrainingJob:
    """The job in the file at `path`, with `--set` overrides such as `nodes.max=3`.

    Its experiment is validated too. Raises ConfigError with a line for each problem, and MissingError if
    the file cannot be read.
    """
    return parse_job(Document.read(path), overrides)


def parse_job(document: Document, overrides: Sequence[str] = ()) -> AurlTrainingJob:
    """The job in `document`, as it is written anew. Raises ConfigError with a line for each problem."""
    located, job = _read(document, overrides)
    problems = [located.problem(("spec", *place), words) for place, words in at_odds(job.spec)]
    if problems:
        raise ConfigError(problems)
    return job


def _read(document: Document, overrides: Sequence[str] = ()) -> tuple[JobDocument, AurlTrainingJob]:
    if not isinstance(document.value, dict):
        raise ConfigError([document.problem((), "expected a mapping with apiVersion, kind, metadata, spec")])
    value, places = override(document.value, overrides)
    located = JobDocument(value, document.name, document.lines, places)
    problems: list[str] = []
    job: AurlTrainingJob | None = None
    try:
        job = located.validate(AurlTrainingJob)
    except ConfigError as error:
        problems += error.problems
    spec = value.get("spec")
    training = spec.get("training") if isinstance(spec, dict) else None
    if isinstance(spec, dict):
        problems += _passwords(located, spec, ("spec",), (("checkpoint", "uri"), ("initFrom",)))
    if isinstance(training, dict):
        problems += _training_problems(located, training)
    if problems or job is None:
        raise ConfigError(problems)
    return located, job


_EXPERIMENT_URLS: tuple[Place, ...] = (
    ("checkpoint", "uri"), ("init_from",), ("data", "source", "midi"), ("data", "source", "labels")
)  # fmt: skip


def _training_problems(document: Document, training: dict[str, Any]) -> list[str]:
    place: Place = ("spec", "training")
    try:
        experiment = resolve(training)
    except ConfigError as error:
        return [document.problem(place, text) for text in error.problems]
    if "preset" in training:
        place = (*place, "overrides")
    try:
        document.validate(Experiment, experiment, place)
    except ConfigError as error:
        return error.problems
    return _passwords(document, experiment, place, _EXPERIMENT_URLS)


def _passwords(document: Document, value: Any, at: Place, fields: Sequence[Place]) -> list[str]:
    """A line for each URL that carries a password: jobs are shown, logged and kept with checkpoints."""
    problems = []
    for field_ in fields:
        found = value
        for part in field_:
            found = found.get(part) if isinstance(found, Mapping) else None
        if isinstance(found, str) and re.match(URL_WITH_PASSWORD, found):
            words = f"{NO_PASSWORD} (without a cluster: the environment, or fsspec's settings)"
            problems.append(document.problem((*at, *field_), words))
    return problems


def override(value: Mapping[str, Any], settings: Sequence[str]) -> tuple[dict[str, Any], dict[Place, str]]:
    """`value` with `path=text` settings laid on it, and the places they went to.

    A path is fields separated by dots, from `spec` on unless it begins with `spec`, `metadata`, `kind` or
    `apiVersion`; numbers are positions in a list. The text is read as YAML. What a preset says is reached
    by the experiment's own path: `training.engine.steps=50`. Raises ConfigError for a setting that is not
    of this form or leads nowhere.
    """
    result = cast("dict[str, Any]", _copy(value))
    places: dict[Place, str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        shown = f"--set {setting}"
        if not equals or not name.strip("."):
            raise ConfigError([f"{shown}: expected path=value, as in --set nodes.max=3"])
        try:
            new = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError([f"{shown}: {text!r} is not YAML: {str(error).splitlines()[0]}"]) from None
        place = _place(result, name.split("."))
        _put(result, place, new, shown)
        places[place] = shown
    return result, places


def _place(value: dict[str, Any], parts: list[str]) -> Place:
    path = parts if parts[0] in _TOP else ["spec", *parts]
    spec = value.get("spec")
    training = spec.get("training") if isinstance(spec, dict) else None
    inside_preset = (
        path[:2] == ["spec", "training"]
        and len(path) > 2
        and path[2] not in _PRESET_WORDS
        and isinstance(training, dict)
        and "preset" in training
    )
    if inside_preset:
        path = ["spec", "training", "overrides", *path[2:]]
    return tuple(int(p) if p.isdecimal() else p for p in path)


def _put(value: dict[str, Any], place: Place, new: Any, shown: str) -> None:
    current: Any = value
    for depth, part in enumerate(place[:-1]):
        child = _child(current, part, place[:depth], shown)
        if place[: depth + 1] == ("spec", "nodes") and type(child) is int:
            child = {"min": child, "max": child}
        elif child is None:
            child = {}
        current[part] = child
        current = child
    _child(current, place[-1], place[:-1], shown)
    current[place[-1]] = new


def _child(container: Any, part: str | int, at: Place, shown: str) -> Any:
    where = ".".join(map(str, at)) or "the job"
    if isinstance(container, list):
        if not isinstance(part, int) or part >= len(container):
            raise ConfigError([f"{shown}: {where} is a list of {len(container)}; positions count from 0"])
        return container[part]
    if isinstance(container, dict):
        return container.get(part)
    raise ConfigError([f"{shown}: {where} is {container!r}, which has no fields"])


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


_METADATA = ("name", "namespace", "uid", "generation", "labels", "annotations", "deletionTimestamp")


def parse_object(raw: Mapping[str, Any]) -> AurlTrainingJob:
    """The job in an object as the API server holds it. Its status is left out; see core/memory.py.

    It may be older than a rule on what is written (written.py). Raises ConfigError with a line for each
    problem.
    """
    metadata = {key: raw["metadata"][key] for key in _METADATA if key in raw["metadata"]}
    value = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": metadata, "spec": raw["spec"]}
    _, job = _read(Document(value, "the job", {}))
    return job
