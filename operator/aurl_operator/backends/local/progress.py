"""Asking nodes for their progress over HTTP, all at once, none of them trusted.

A frozen node does not answer, a broken one may answer anything of any length: each has the same time and the
same size. Not here: who serves it (`aurl_trainer.engine`), what it means (`core/`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aurl_trainer.contract import Progress, RecordError

SECONDS = 1.0
"""How long all nodes together may take to answer."""

BYTES = 65536
"""How much of an answer is read."""


class Poller:
    """Asks many ports at once from the calling thread. `close` it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def ask(self, ports: Mapping[str, int]) -> dict[str, Progress]:
        """What the nodes answered, by the names of `ports`; a node without a proper answer is left out."""
        if not ports:
            return {}
        return self._runner.run(_ask_all(ports))

    def accepts(self, port: int) -> bool:
        """Whether something accepts connections there."""
        return self._runner.run(_accepts(port))

    def close(self) -> None:
        """Ends the event loop."""
        self._runner.close()


async def _ask_all(ports: Mapping[str, int]) -> dict[str, Progress]:
    tasks = {name: asyncio.create_task(_ask(port)) for name, port in ports.items()}
    done, late = await asyncio.wait(tasks.values(), timeout=SECONDS)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    answers = {name: task.result() for name, task in tasks.items() if task in done}
    return {name: progress for name, progress in answers.items() if progress is not None}


async def _ask(port: int) -> Progress | None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=BYTES)
    except OSError:
        return None
    try:
        writer.write(b"GET /progress HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        await writer.drain()
        answer = bytearray()
        while len(answer) < BYTES and (chunk := await reader.read(BYTES - len(answer))):
            answer += chunk
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        return Progress.from_json(body) if head.split(b" ", 2)[1:2] == [b"200"] else None
    except (OSError, RecordError):
        return None
    finally:
        writer.close()


async def _accepts(port: int) -> bool:
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
