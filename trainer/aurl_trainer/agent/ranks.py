"""The processes of one node's ranks: which of them run, how they ended; to signal and to clear them away.

Not here: starting them, which torch does, or the fork server (warm.py); what to do about an end (node.py);
how processes are bound to the agent's life (processes.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from typing import Any, cast

from torch.distributed.elastic.agent.server.api import WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SubprocessContext

from aurl_trainer.agent.blame import Fault, RankEnd, blame, rank_end
from aurl_trainer.agent.processes import MARK, kill_marked, oom_kills, reap_orphans, start_guard
from aurl_trainer.agent.warm import Warm
from aurl_trainer.contract import Cause


class Ranks(LocalElasticAgent):
    """torch's agent, as far as the processes of its ranks go."""

    def __init__(self, spec: WorkerSpec, preload: Sequence[str] = (), **rest: Any) -> None:
        super().__init__(spec, **rest)
        self._mark = uuid.uuid4().hex
        os.environ[MARK] = self._mark
        self.guard = start_guard(self._mark)
        self.warm = Warm(preload) if preload else None
        self._ends: dict[int, RankEnd] = {}
        """Of this world's ranks those that have ended, by global rank."""
        self._oom_before = 0
        """What oom_kills() said before this world's ranks started."""

    def clear(self) -> None:
        """Kill whatever of the last world still lives: ranks, what they started, and orphans."""
        handlers = getattr(self._pcontext, "subprocess_handlers", {})
        for handler in handlers.values():
            if handler.proc.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(handler.proc.pid, signal.SIGKILL)
        server = self.warm.pid if self.warm is not None else None
        kill_marked(f"{MARK}={self._mark}", [os.getpid(), server or 0])
        for handler in handlers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                handler.proc.wait(30)  # in uninterruptible sleep it outlasts even SIGKILL
            for stream in (handler._stdout, handler._stderr):
                if stream is not None:
                    stream.close()
        reap_orphans({self.guard.pid, server or 0})
        if self._pcontext is not None:
            self._pcontext.close()
            self._pcontext = None

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        """See base class."""
        with self.warm.starts_ranks() if self.warm is not None else contextlib.nullcontext():
            started: dict[int, Any] = super()._start_workers(worker_group)
            return started

    @property
    def _context(self) -> SubprocessContext:
        """The processes of this world's ranks."""
        assert isinstance(self._pcontext, SubprocessContext)
        return self._pcontext

    def _pids(self) -> dict[int, int]:
        return {worker.global_rank: worker.id for worker in self._worker_group.workers}

    def _running(self) -> bool:
        return len(self._ends) < len(self._worker_group.workers)

    def _local(self, rank: int) -> int:
        return rank - int(self._worker_group.workers[0].global_rank)

    def _poll(self) -> None:
        """Take note of ranks that have ended."""
        for worker in self._worker_group.workers:
            rank, local = worker.global_rank, worker.local_rank
            code = self._context.subprocess_handlers[local].proc.poll()
            if code is not None and rank not in self._ends:
                error_file, stderr = self._context.error_files[local], self._context.stderrs[local]
                self._ends[rank] = rank_end(rank, code, error_file, stderr)

    def _blamed(self) -> list[tuple[RankEnd, Fault, Cause]]:
        oom_killed = oom_kills() > self._oom_before
        port = int(cast(int, self._worker_group.master_port))
        bad = [end for end in self._ends.values() if end.code != 0]
        return [(end, *blame(end, oom_killed=oom_killed, master_port=port)) for end in bad]

    def _signal(self, number: int) -> None:
        """To the ranks alone, not their process groups: workers that read data must not die of a notice."""
        for rank, pid in self._pids().items():
            if rank not in self._ends:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._running() and time.monotonic() < deadline:
            time.sleep(0.05)
            self._poll()
