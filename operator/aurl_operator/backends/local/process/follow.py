"""Following the processes' log files: complete new lines, with the name of who wrote them.

Not here: how they look on a terminal (`commands/local/screen.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RANK_PREFIX = "[{node} rank ${{rank}}]:"
"""torch elastic's TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE: what its tee puts before each line of a rank."""

READ_BYTES = 1 << 18
"""Most that is read of one file at a time: a flood in one log must not hold up the run."""

_LABEL = re.compile(r"^\[(?P<label>[a-z0-9-]+ rank \d+)\]: ?")
_ATTEMPT = re.compile(r"-\d+$")


@dataclass(frozen=True)
class Line:
    """One line of a log, without its end. `label` is as in `worker-1`, `worker-1 rank 3` or `store`."""

    label: str
    text: str


@dataclass
class _Tail:
    offset: int
    rest: bytes = b""


class Follower:
    """Reads what is added to `folder/*.log` from its creation on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tails = {path: _Tail(path.stat().st_size) for path in folder.glob("*.log")}

    def read(self, final: bool = False) -> Iterator[Line]:
        """Complete lines since the last call; with `final`, also a last one that has no end."""
        for path in sorted(self._folder.glob("*.log")):
            tail = self._tails.setdefault(path, _Tail(0))
            with path.open("rb") as file:
                file.seek(tail.offset)
                added = file.read(None if final else READ_BYTES)
            tail.offset += len(added)
            *lines, tail.rest = (tail.rest + added).split(b"\n")
            if final and tail.rest:
                lines.append(tail.rest)
                tail.rest = b""
            node = _ATTEMPT.sub("", path.stem)
            for raw in lines:
                yield _line(node, raw)


def _line(node: str, raw: bytes) -> Line:
    text = raw.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
    found = _LABEL.match(text)
    return Line(found["label"], text[found.end() :]) if found else Line(node, text)
