"""How a checkpoint is named everywhere: `RUN`, or `RUN@WHICH`.

    runs/bach                     the newest checkpoint of a run's directory
    s3://bucket/bach@best         the one with the lowest validation NLL; as best:val_nll
    bach@best:groove:max          the one with the greatest of a metric (`:min`, the lowest, if not said)
    bach@step:1200                the one of a step
    bach@v12                      save number 12, or by its whole name, v000012-s00001200-g000001-5f3a9c01
    bach@production               the one with a tag
    bach@latest                   the newest

Not here: which run and which checkpoint that is (store/choose.py). Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aurl_trainer.errors import ConfigError

BEST_BY = "val_nll"
"""The metric that `best` goes by where none is named; lower is better."""

_METRIC = r"[A-Za-z_][A-Za-z0-9_./-]*"
_BEST = re.compile(rf"best(?::({_METRIC}))?(?::(min|max))?")
_STEP = re.compile(r"step:(\d{1,18})")
_NUMBER = re.compile(r"v(\d{1,18})")
_EXACT = re.compile(r"v\d{6,}-s\d{8,}-g\d{6,}-[0-9a-f]{8}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_WORDS = ("latest", "best", "step")
_HAVE_USERS = {"abfs", "abfss", "adl", "ftp", "ftps", "hdfs", "http", "https", "sftp", "smb", "ssh", "wasbs"}
"""Protocols whose URLs may have an @ before the host."""


@dataclass(frozen=True)
class Latest:
    """The newest."""

    def __str__(self) -> str:
        return "latest"


@dataclass(frozen=True)
class Best:
    """The best by one metric: the lowest, or the greatest."""

    metric: str = BEST_BY
    greatest: bool = False

    def __str__(self) -> str:
        return f"best:{self.metric}" + (":max" if self.greatest else "")


@dataclass(frozen=True)
class Step:
    """The one of a step; the later one if a step was saved twice."""

    step: int

    def __str__(self) -> str:
        return f"step:{self.step}"


@dataclass(frozen=True)
class Number:
    """A save's number."""

    number: int

    def __str__(self) -> str:
        return f"v{self.number}"


@dataclass(frozen=True)
class Exact:
    """A checkpoint's whole name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Tag:
    """What a tag names."""

    name: str

    def __str__(self) -> str:
        return self.name


Which = Latest | Best | Step | Number | Exact | Tag


@dataclass(frozen=True)
class Reference:
    """A run (a directory, a URL, or a name) and one of its checkpoints. `said`: it was named, not assumed."""

    run: str
    which: Which = Latest()
    said: bool = False

    def __str__(self) -> str:
        return f"{self.run}@{self.which}" if self.said else self.run

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference in `text`. Raises ConfigError if what follows the last @ names no checkpoint."""
        run, at, which = text.rpartition("@")
        if not at or _is_authority(run):
            return cls(_named(text, text))
        found = parse_which(which)
        if found is None:
            if "/" in which or "." in which:  # an @ that belongs to a path or to a host
                return cls(text)
            raise ConfigError([f"{text}: {which!r} names no checkpoint; {FORMS}"])
        return cls(_named(run, text), found, True)


FORMS = "say latest, best, best:METRIC, best:METRIC:max, step:1200, v12, or a tag"
"""What may follow the @, for messages."""


def parse_which(text: str) -> Which | None:
    """What follows the @; None if it names no checkpoint."""
    if text == "latest":
        return Latest()
    if found := _BEST.fullmatch(text):
        return Best(found[1] or BEST_BY, found[2] == "max")
    if found := _STEP.fullmatch(text):
        return Step(int(found[1]))
    if found := _NUMBER.fullmatch(text):
        return Number(int(found[1]))
    if _EXACT.fullmatch(text):
        return Exact(text)
    return Tag(text) if tag_problem(text) is None else None


def tag_problem(text: str) -> str | None:
    """Why `text` cannot be a tag; None: it can."""
    if _TAG.fullmatch(text) is None:
        return "a tag has 1 to 63 letters, digits, dashes and underscores, and begins with a letter or digit"
    if text in _WORDS or _NUMBER.fullmatch(text):
        return f"{text!r} means something else after an @; take another word"
    return None


def beside(text: str, uri: str | None) -> str:
    """The reference `text`; a run that it calls by name alone lies beside the one at `uri`, if that is a URL.

    Raises ConfigError as `Reference.parse` does.
    """
    found = Reference.parse(text)
    above, _, last = (uri or "").rstrip("/").rpartition("/")
    if "/" in found.run or not last or "://" not in above:
        return text
    return str(Reference(f"{above}/{found.run}", found.which, found.said))


def _named(run: str, text: str) -> str:
    if not run:
        raise ConfigError([f"{text!r}: names no run; expected RUN or RUN@WHICH, as in runs/bach@best"])
    return run


def _is_authority(before: str) -> bool:
    """Whether an @ after `before` stands in front of a URL's host."""
    protocol, found, rest = before.partition("://")
    return bool(found) and protocol in _HAVE_USERS and "/" not in rest
