"""The rank's side of the beats: a thread that says where this rank is, and leaves when the world is broken.

Here: when a rank gives itself up, because a peer is gone (exit code REJOIN) or because it is itself the one
that did not arrive (HANG). Not here: what beats are and how they are judged (agent/beats.py); what the agent
makes of a rank that does not beat (agent/node.py); what the loop does when it has to regroup (trainer.py).
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NoReturn, Self

from torch.distributed import DistStoreError

from aurl_trainer.agent.beats import (
    PEER_TIMEOUT,
    SUSPICION,
    AwakeClock,
    Beat,
    Seen,
    State,
    departed,
    hang_limits,
    late,
    rank_name,
    trouble,
)
from aurl_trainer.agent.blame import main_thread_stack
from aurl_trainer.agent.board import BEAT_TIMEOUT, Board, connect
from aurl_trainer.contract import Cause, Env, ExitCode, Phase, RankFailure

_ABANDONED = 3.0
"""Peer timeouts that a rank goes on in a step although a peer has gone in peace: its collective may hang."""

_HANDLED_SECONDS = 60.0
"""How long the main thread may take to leave by itself after it has asked who is to blame."""


class Heartbeat:
    """Beats that nobody hears, for a rank without a store: plain `python -m aurl_trainer train`."""

    alive_at: float | None = None
    """When `phase` was called last, in seconds since the epoch."""

    @staticmethod
    def from_environment(env: Mapping[str, str] = os.environ) -> Heartbeat:
        """The rank's heartbeat, from what its agent has put into the environment."""
        if not env.get(Env.STORE) or not env.get(Env.ROUND):
            return Heartbeat()
        return StoreHeartbeat(env)

    def start(self) -> None:
        """Begin to beat, as early in the process as possible."""

    def close(self) -> None:
        """Say goodbye; nothing after it counts as missing."""

    def phase(self, phase: Phase, step: int) -> None:
        """This rank now does `phase` of `step`. Each call is a sign of progress, and cheap."""
        self.alive_at = time.time()

    @property
    def regroup_requested(self) -> bool:
        """A node waits to join: save at a step's end and exit with REJOIN, all ranks together."""
        return False

    def failed(self, cause: Cause, message: str) -> None:
        """Tell the peers at once that this rank fails by itself."""

    def peer_failed(self, timeout: float) -> str | None:
        """After a collective failed here: the peer that is missing or has failed, in words.

        Waits up to `timeout` seconds for evidence; None if there is none, and the failure is this rank's own.
        """
        return None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StoreHeartbeat(Heartbeat):
    """Beats in the store of rendezvous. Raises torch's DistNetworkError at start if there is none."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._rank = int(env["RANK"])
        self._node = env.get(Env.NODE, f"node {env['GROUP_RANK']}")
        self._timeout = float(env.get(Env.PEER_TIMEOUT, str(PEER_TIMEOUT)))
        self._limits = hang_limits(env.get(Env.HANG_LIMITS))
        self._interval = min(1.0, self._timeout / 10)
        self._error_file = env.get("TORCHELASTIC_ERROR_FILE") or None
        self._stacks: IO[str] | None = None
        self._where = (Phase.START, 0, 0)
        self._number = 0
        self._state, self._message = State.RUNNING, ""
        self._regroup = False
        self._evidence: str | None = None
        self._blames_other = False
        self._handled: float | None = None
        self._fresh = threading.Condition()
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """See base class."""
        store = connect(self._env[Env.STORE], BEAT_TIMEOUT, 30.0)
        nodes, world = int(self._env["GROUP_WORLD_SIZE"]), int(self._env["WORLD_SIZE"])
        run, round_ = self._env["TORCHELASTIC_RUN_ID"], int(self._env[Env.ROUND])
        self._board = Board(store, run, round_, nodes, world)
        if self._error_file is not None:
            self._stacks = Path(f"{self._error_file}.stacks").open("w+")  # noqa: SIM115 - kept for the C thread
        self._beat()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """See base class."""
        self._over.set()
        if self._thread is None:
            return
        if self._state not in (State.FAILED, State.BROKEN):
            self._state = State.BROKEN if self._blames_other else State.LEFT
        with contextlib.suppress(Exception):
            self._beat()
        faulthandler.cancel_dump_traceback_later()

    def phase(self, phase: Phase, step: int) -> None:
        """See base class."""
        super().phase(phase, step)
        before = self._where
        ticks = before[2] + 1 if (phase, step) == before[:2] else 0
        self._where = (phase, step, ticks)

    @property
    def regroup_requested(self) -> bool:
        """See base class."""
        return self._regroup

    def failed(self, cause: Cause, message: str) -> None:
        """See base class."""
        self._state, self._message = State.FAILED, f"{cause}: {message}"
        if self._thread is not None:
            with contextlib.suppress(Exception):
                self._beat()

    def peer_failed(self, timeout: float) -> str | None:
        """See base class."""
        if self._thread is None:
            return None
        self._handled = time.monotonic()
        self._state = State.SUSPECT
        deadline = self._handled + timeout
        with self._fresh:
            while self._evidence is None:
                # Of several ranks that suspect each other the lowest gives up first, the others see it fail.
                left = deadline + (0.5 * timeout if self._blames_other else 0.0) - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    self._blames_other = False
                    return None
                self._fresh.wait(min(left, 1.0))
        self._blames_other = True
        self._message = self._evidence
        return self._evidence

    # -- the thread

    def _run(self) -> None:
        clock = AwakeClock(2 * self._interval)
        while not self._over.is_set():
            if self._stacks is not None:
                # Fires from a thread of C if this one stops: then C code holds the interpreter.
                faulthandler.dump_traceback_later(0.8 * self._timeout, file=self._stacks)
            try:
                self._beat()
                seen = self._board.read(clock.tick())
                self._regroup = self._regroup or self._board.regroup_asked()
                if self._board.superseded():
                    self._note("another world has formed without this rank")
                else:
                    self._look(seen)
            except DistStoreError:
                continue  # keys vanished while reading: a newer world clears them away, the next turn sees it
            except Exception as error:
                if not self._over.is_set():
                    self._leave(ExitCode.STORE_LOST, f"the store is lost: {error}")
            self._over.wait(self._interval)

    def _beat(self) -> None:
        with self._writing:
            self._number += 1
            phase, step, ticks = self._where
            beat = Beat(self._number, self._state, self._node, phase, step, ticks, self._message)
            self._board.write(rank_name(self._rank), beat)

    def _look(self, seen: Mapping[str, Seen]) -> None:
        """Draw the consequences of what all others say."""
        peers = {name: s for name, s in seen.items() if name != rank_name(self._rank)}
        ranks = {int(name[5:]): s for name, s in seen.items() if name.startswith("rank/")}
        me = ranks.get(self._rank)
        gone = departed(peers)
        evidence = trouble(peers, self._timeout * (1.0 if self._handled is None else SUSPICION))
        if self._handled is not None:
            lower = (s for r, s in ranks.items() if r < self._rank)
            self._blames_other = any(s.beat.state is State.SUSPECT for s in lower)
            evidence = evidence or gone
        elif me is not None and gone is not None and me.idle > _ABANDONED * self._timeout:
            waits = me.beat.phase in (Phase.STEP, Phase.SYNC)
            evidence = evidence or (gone if waits else None)
        if evidence is not None:
            self._note(evidence)
        elif (verdict := late(self._rank, ranks, self._limits)) is not None and self._handled is None:
            self._hang(verdict)

    def _note(self, evidence: str) -> None:
        """A reason to leave: the main thread's business if it has asked, else this thread's."""
        if self._over.is_set() or self._state is State.FAILED:
            return
        with self._fresh:
            self._evidence = evidence
            self._fresh.notify_all()
        if self._handled is None or time.monotonic() - self._handled > _HANDLED_SECONDS:
            self._leave(ExitCode.REJOIN, evidence)

    def _hang(self, verdict: str) -> NoReturn:
        text = ""
        if self._stacks is not None and self._error_file is not None:
            faulthandler.dump_traceback(self._stacks, all_threads=True)
            text = main_thread_stack(Path(self._stacks.name).read_text())
            step = self._where[1]
            record = RankFailure(Cause.HANG, verdict, text, time.time(), self._rank, step)
            Path(f"{self._error_file}.aurl").write_text(record.to_json())
        self._state = State.FAILED
        self._leave(ExitCode.HANG, f"{verdict}\n{text}".rstrip())

    def _leave(self, code: ExitCode, why: str) -> NoReturn:
        """End the process: the main thread may be in a collective that never returns."""
        if self._state is not State.FAILED:
            self._state = State.BROKEN
        self._message = why.partition("\n")[0]
        with contextlib.suppress(Exception):
            if code is not ExitCode.STORE_LOST:
                self._beat()
        # Not print: the main thread may hold the stream's lock.
        os.write(2, f"rank {self._rank} leaves: {why}\n".encode())
        os._exit(code)
