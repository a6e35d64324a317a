"""The life of one node: world after world, until it has a reason to end.

It joins a rendezvous, lets torch start the ranks, and decides what an end, a notice or trouble elsewhere
means: the next world, or this node's own end. Not here: whose fault an end is (blame.py), what is known of
the other nodes (pulse.py), the ranks' processes (ranks.py), budgets and backoff (the operator's).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch.distributed import DistNetworkError, DistStoreError
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec, WorkerState
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousGracefulExitError,
)

from aurl_trainer.agent.beats import State, agent_name, missing, spoken
from aurl_trainer.agent.blame import (
    ALL_WELL,
    BARRED,
    Ending,
    Fault,
    RankEnd,
    agent_failed,
    ending,
    how_it_ended,
    last_line,
    main_thread_stack,
    to_blame,
    told,
)
from aurl_trainer.agent.preparation import prepare
from aurl_trainer.agent.processes import oom_kills, start_guard
from aurl_trainer.agent.pulse import News, Pulse
from aurl_trainer.agent.quarrel import Quarrel
from aurl_trainer.agent.ranks import Ranks
from aurl_trainer.agent.rendezvous import Noticed, Rendezvous
from aurl_trainer.agent.settings import Settings
from aurl_trainer.agent.warm import Warm
from aurl_trainer.contract import Cause, Env, ExitCode, Phase, Termination

_STOP_SECONDS = 5.0
"""How long ranks of a broken world may take to die of SIGTERM."""

_AGREED_SECONDS = 30.0
"""How long the other ranks of a node may take to leave after the first has left in agreement."""


class Node(Ranks):
    """One node's life, in place of the one that torch's agent would live."""

    def __init__(
        self,
        spec: WorkerSpec,
        handler: Rendezvous,
        settings: Settings,
        pulse: Pulse,
        notice: threading.Event,
        **rest: Any,
    ) -> None:
        super().__init__(spec, settings.preload, **rest)
        self._rendezvous_handler = handler
        self._settings, self._pulse, self._notice = settings, pulse, notice
        self._rounds = 0
        self._round = 0
        self._formed_at = 0.0
        self._members: frozenset[str] = frozenset()
        self._quarrel = Quarrel()
        self.settled: Ending | None = None
        """How this node ends, once that is certain: what goes wrong on the way out does not change it."""

    def run(self, role: str = "") -> RunResult:
        """Refused: torch's own loop charges peers' deaths and closes the rendezvous; see `live`."""
        raise RuntimeError("an agent of Aurl is started by live()")

    def live(self) -> Ending:
        """World after world, until this node has a reason to end. Never raises."""
        try:
            self._prepare()
            result = None
            while result is None:
                try:
                    self._import()
                    if self._pulse.look_barred():
                        return ending(Cause.PREEMPTED, BARRED)
                    self._form()
                    result = self._watch()
                except DistStoreError as error:
                    why = f"the world did not form: {last_line(str(error))}"
                    self._say(why)
                    self._leave(why)
                finally:
                    self.clear()
            self.settled = result
            if result.cause in (Cause.SUCCEEDED, Cause.FINAL_ERROR):
                self._close(result)
            else:
                self._leave(result.message)
            return result
        except Noticed:
            self.settled = ending(Cause.PREEMPTED, "told to leave before its ranks ran")
            self._leave(self.settled.message)
            return self.settled
        except (RendezvousClosedError, RendezvousGracefulExitError):
            return self._closed()
        except (RendezvousConnectionError, DistNetworkError) as error:
            if self.settled is not None:
                return self.settled
            return ending(Cause.STORE_LOST, f"the store does not answer: {last_line(str(error))}")
        except BaseException as error:
            return agent_failed(error)

    def _prepare(self) -> None:
        """Prepare while others train; where nobody does there is nothing to gain. Raises Noticed."""
        command = self._settings.preparation
        if command and self._rendezvous_handler.formed():
            self._say("others have formed a world: prepares before it joins")
            self._say(prepare(command, self._settings.limits[Phase.LOAD], self._notice.is_set))

    def _import(self) -> None:
        """Before it asks for a place: what ranks need is imported. Raises Noticed."""
        if self.warm is None:
            return
        failed = self.warm.wait(self._settings.limits[Phase.START], self._notice.is_set)
        if failed is not None:
            self._say(f"{failed}: each rank imports for itself")
            # Another one would fail as this one did, unless it had been ready: then it serves the next world.
            self.warm = Warm(self._settings.preload) if self.warm.served else None

    # -- one world

    def _form(self) -> None:
        group = self._worker_group
        self._rendezvous(group)
        node, nodes = cast(int, group.group_rank), cast(int, group.group_world_size)
        if self._notice.is_set():
            raise Noticed
        ranks = range(group.workers[0].global_rank, group.workers[-1].global_rank + 1)
        world = group.workers[0].world_size
        self._round = round_ = self._rendezvous_handler.round
        self._formed_at, self._members = time.monotonic(), self._rendezvous_handler.members
        self._pulse.enter(round_, node, nodes, ranks, world)
        self._say(
            f"world of {nodes} nodes, {world} ranks (round {round_}); here: {', '.join(map(str, ranks))}"
        )
        os.environ[Env.ROUND] = str(round_)
        self._ends = {}
        self._oom_before = oom_kills()
        # torch derives the number of restarts, which names the folder of the logs, from what remains.
        self._remaining_restarts = group.spec.max_restarts - self._rounds
        self._rounds += 1
        for local, pid in self._start_workers(group).items():
            group.workers[local].id = pid
        group.state = WorkerState.HEALTHY

    def _watch(self) -> Ending | None:
        """Wait until this world ends. None: join the next one."""
        noticed: float | None = None
        regroup_asked = False
        troubled: float | None = None
        while True:
            time.sleep(self._worker_group.spec.monitor_interval)
            if self.guard.poll() is not None:
                self.guard = start_guard(self._mark)
            self._poll()
            if not self._running():
                if all(end.code == 0 for end in self._ends.values()):
                    return self._finish()
                return self._noticed() if noticed is not None else self._settle()
            if self._notice.is_set() and noticed is None:
                noticed = time.monotonic()
                self._say("notice: told to leave")
                self._signal(signal.SIGTERM)
            if noticed is not None:
                if time.monotonic() - noticed > self._settings.notice:
                    return self._noticed()
                continue
            if any(end.code != 0 for end in self._ends.values()):
                return self._settle()
            news = self._news()
            if (verdict := self._hung(news)) is not None:
                return verdict
            if news.superseded is not None:
                return self._rejoin(news.superseded, 0.0)
            if news.trouble is not None:
                # Our own ranks see it too, and leave by themselves.
                troubled = troubled or time.monotonic()
                if not news.ours or news.unmet:
                    return self._rejoin(news.trouble, _STOP_SECONDS)
                if time.monotonic() - troubled > _STOP_SECONDS:
                    return self._rejoin(news.trouble, 0.0)
            elif not regroup_asked and self._rendezvous_handler.num_nodes_waiting() > 0:
                if not news.ours:
                    return self._rejoin("a node waits to join", self._settings.grace)
                self._say("a node waits to join: asking the ranks to save and leave")
                self._pulse.ask_regroup()
                regroup_asked = True

    def _news(self, fresh: bool = False) -> News:
        """What is known of this world. Trouble is also who was lost before it came: it beats nowhere, so that
        nobody misses its beats, and all ranks wait for it. Who is only slow is still on the list."""
        news = self._pulse.news(fresh)
        if not news.unmet:
            return news
        nodes = cast(int, self._worker_group.group_world_size)
        gone = news.unmet & self._rendezvous_handler.gone(self._round, nodes)
        if gone:
            news = self._pulse.news(fresh=True)  # it may have come and gone since
            gone &= news.unmet
        lost = f"{spoken(agent_name(min(gone)))} was lost before it came" if gone else None
        return replace(news, trouble=news.trouble or lost, unmet=gone)

    def _settle(self) -> Ending | None:
        """A rank has ended badly: find out whose fault it is. None: not ours, join the next world."""
        started = time.monotonic()
        suspecting = False
        while True:
            self._poll()
            end, fault, cause = to_blame(self._blamed())
            news = self._news(fresh=True)
            waited = time.monotonic() - started
            idle = not self._running()
            if fault is Fault.OWN:
                return self._failed(end, cause)
            if fault is Fault.NOTICE and (idle or waited > _AGREED_SECONDS):
                return self._left(ending(Cause.PREEMPTED, f"rank {end.rank} was told to leave"))
            if fault is Fault.WORLD and (idle or waited > _AGREED_SECONDS):
                return self._rejoin(news.trouble or f"rank {end.rank} left for the next world", 0.0)
            if fault is Fault.PEER:
                why = news.trouble or news.departed or news.superseded
                if why is not None:
                    return self._blame_others(why, end, cause, news)
                alone = self._worker_group.group_world_size == 1
                # Of several that suspect each other the lowest answers for it; the others learn it then.
                patience = self._settings.peer_timeout * (1.0 if not news.suspects else 1.5) + 1.0
                if (alone and idle) or waited > patience:
                    return self._failed(end, cause)
                if not suspecting:
                    self._pulse.say(State.SUSPECT, f"rank {end.rank}: {end.message}")
                    suspecting = True
            if self._notice.is_set():
                return self._noticed()
            time.sleep(self._worker_group.spec.monitor_interval)

    def _blame_others(self, why: str, end: RankEnd, cause: Cause, news: News) -> Ending | None:
        """Join the next world, unless this is only the last of many that ended so."""
        step = max((seen.beat.step for seen in news.own.values()), default=0)
        seen = f"rank {end.rank}: {end.message or how_it_ended(end.code)}"
        if not self._quarrel.ended(self._members, step, time.monotonic() - self._formed_at):
            return self._rejoin(f"{why} ({seen})", 0.0)
        count = self._quarrel.worlds
        message = f"{count} worlds of the same nodes in a row ended so, and no node was lost: {why}; {seen}"
        return self._failed(replace(end, message=message), cause)

    def _finish(self) -> Ending | None:
        """All own ranks ended well. Their word is enough if they are ours; else all nodes must say so.

        A script that knows nothing of Aurl may end so when it is told to leave, in the middle of its work:
        after a notice it has left.
        """
        well = told(ending(Cause.SUCCEEDED, ALL_WELL), self._context.error_files.values())
        news = self._news(fresh=True)
        if any(seen.beat.number > 0 for seen in news.own.values()):
            self.settled = well
        if self.settled is None and self._notice.is_set():
            return self._noticed()
        self._pulse.say(State.DONE, "")
        while self.settled is None:
            news = self._news(fresh=True)
            if news.others_done:
                self.settled = well
            elif self._notice.is_set():
                return self._noticed()
            elif (why := news.trouble or news.superseded) is not None:
                return self._rejoin(why, 0.0)
            else:
                time.sleep(self._worker_group.spec.monitor_interval)
        return self.settled

    def _hung(self, news: News) -> Ending | None:
        """A rank of this node that lives but does not beat: frozen, or C code holds the interpreter."""
        for rank, seen in news.own.items():
            if rank in self._ends:
                continue
            beat, limits = seen.beat, self._settings.limits
            if beat.number > 0 and missing(seen, self._settings.peer_timeout):
                message = f"rank {rank} lives but has not beaten for {seen.silent:.0f} s"
            elif beat.number == 0 and news.ours and seen.silent > limits[Phase.START]:
                message = f"rank {rank} has not begun to beat for {seen.silent:.0f} s"
            elif beat.state is State.LEFT and seen.silent > limits[Phase.END]:
                message = f"rank {rank} has said goodbye but does not end"
            else:
                continue
            local = self._local(rank)
            text = ""
            with contextlib.suppress(OSError):
                text = main_thread_stack(Path(f"{self._context.error_files[local]}.stacks").read_text())
            self._poll()
            if rank in self._ends:
                return None
            end = RankEnd(rank, int(ExitCode.HANG), time.time(), text, message, Cause.HANG, beat.step)
            return self._failed(end, Cause.HANG)
        return None

    # -- ways out of a world

    def _rejoin(self, why: str, seconds: float) -> Ending | None:
        """Stop what still runs, within `seconds`, and go on to the next world: always None."""
        self._say(f"joins the next world: {why}")
        if self._running() and seconds > 0:
            self._pulse.say(State.BROKEN, why)
            self._signal(signal.SIGTERM)
            self._wait(seconds)
        self._pulse.leave(self._parting(), why)
        return None

    def _failed(self, end: RankEnd, cause: Cause) -> Ending:
        message = end.message or how_it_ended(end.code)
        if end.message and end.code < 0:
            message += f" ({how_it_ended(end.code)})"
        if not message.startswith(f"rank {end.rank} "):
            message = f"rank {end.rank}: {message}"
        self._say(f"{cause}: {message}")
        self._pulse.leave(State.FAILED, message)
        return ending(cause, message, end)

    def _noticed(self) -> Ending:
        late_ranks = sorted(set(self._pids()) - set(self._ends))
        message = "left after a notice"
        if late_ranks:
            names = ", ".join(map(str, late_ranks))
            message += f"; ranks {names} did not end in {self._settings.notice:.0f} s"
        return self._left(ending(Cause.PREEMPTED, message))

    def _left(self, result: Ending) -> Ending:
        result = told(result, self._context.error_files.values())
        self._say(result.message)
        self._pulse.leave(self._parting(), result.message)
        return result

    def _parting(self) -> State:
        """Whether all own ranks left in agreement with the others."""
        own = self._news(fresh=True).own.values()
        agreed = bool(own) and all(seen.beat.state is State.LEFT for seen in own)
        return State.LEFT if agreed else State.BROKEN

    def _leave(self, why: str) -> None:
        """Off the lists of the rendezvous, where a node that is silent is forgotten after a few seconds.

        Whoever counts on this node in a world that it has never entered is told that it will not come.
        """
        try:
            self._rendezvous_handler.leave()
        except Exception as error:
            failed = last_line(str(error)) or type(error).__name__
            self._say(f"could not take its name off the rendezvous: {failed}")
        if (place := self._rendezvous_handler.left) is not None:
            with contextlib.suppress(Exception):
                self._pulse.decline(*place, why)

    def _close(self, result: Ending) -> None:
        """The end for all nodes: nobody needs to join any more."""
        with contextlib.suppress(Exception):
            self._rendezvous_handler._store.set(self._closed_key(), result.record().to_json())
            self._rendezvous_handler.shutdown()

    def _closed(self) -> Ending:
        """Somebody has closed the rendezvous: end as they did."""
        store = self._rendezvous_handler._store
        if not store.check([self._closed_key()]):
            return ending(Cause.FINAL_ERROR, "the rendezvous is closed, and nobody has said why")
        other = Termination.from_json(store.get(self._closed_key()))
        if other.cause == Cause.SUCCEEDED:
            return ending(Cause.SUCCEEDED, "the run had ended before this node joined")
        final = ending(Cause.FINAL_ERROR, f"another node has ended the run: {other.message}")
        return replace(final, rank_code=other.exit_code)

    def _closed_key(self) -> str:
        return f"aurl/{self._rendezvous_handler.get_run_id()}/closed"

    def _say(self, text: str) -> None:
        say(self._settings.node, text)


def say(node: str, text: str) -> None:
    """A line for the log."""
    print(f"[agent of {node}] {text}", file=sys.stderr, flush=True)
