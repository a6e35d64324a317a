"""What a node runs: a thin agent over torch.distributed.elastic that knows who is to blame.

    python -m aurl_trainer.agent run --nnodes 1:3 --nproc-per-node 1 ... -m aurl_trainer train
    python -m aurl_trainer.agent store --host 127.0.0.1 --port 29400

`run` takes torchrun's arguments. Other than torchrun it tells its own rank's failure (it ends, and the cause
stands in the termination record) from one that a peer caused (it joins the next world, as often as needed);
takes SIGTERM as a preemption notice; notices peers that are powered off or frozen; leaves no process behind;
and closes the rendezvous only at success or at a final error. `store` hosts the store for rendezvous and
beats. This folder needs the standard library, torch and the contract only, because it is also mounted into
images that have nothing else of ours. Not here: budgets and backoff, which are the operator's; the rank's
side of the beats (engine/survival/heartbeat.py).

Here: the command line, and the process around a node's life. What ranks share: beats, board, blame. What is
the agent's alone: settings, processes, rendezvous, pulse, forkserver, warm, ranks, preparation, node, launch;
each may import those before it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from torch.distributed import DistNetworkError, DistStoreError
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError

from aurl_trainer.agent.beats import AwakeClock
from aurl_trainer.agent.blame import BARRED, Ending, agent_failed, ending, last_line
from aurl_trainer.agent.board import clients, listen
from aurl_trainer.agent.launch import make_node, read_launch
from aurl_trainer.agent.node import Node, say
from aurl_trainer.agent.processes import adopt_orphans
from aurl_trainer.agent.pulse import Pulse
from aurl_trainer.contract import Cause, Env, ExitCode


def run(arguments: Sequence[str]) -> NoReturn:
    """Be a node's agent until it ends. The main thread hears signals and watches the store; a second one
    lives the node's life, in which calls into torch may block; a third is the pulse."""
    signals: list[int] = []
    notice = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        signals.append(number)
        notice.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    adopt_orphans()
    scratch = tempfile.mkdtemp(prefix="aurl-agent-")
    try:
        launch = read_launch(arguments, scratch)
    except SystemExit as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if error.code:
            final = Ending(
                Cause.FINAL_ERROR, ExitCode.USAGE, "the agent's arguments or environment are wrong"
            )
            _leave_record(final, os.environ.get(Env.NODE, ""), os.environ.get(Env.TERMINATION_LOG))
        raise
    settings = launch.settings
    pulses: list[Pulse] = []
    nodes: list[Node] = []
    endings: list[Ending] = []
    ended = threading.Event()

    def life() -> None:
        try:
            pulse, node = make_node(launch, notice)
            pulses.append(pulse)
            nodes.append(node)
            endings.append(node.live())
        except (RendezvousConnectionError, DistNetworkError, DistStoreError) as error:
            endings.append(ending(Cause.STORE_LOST, f"the store cannot be reached: {last_line(str(error))}"))
        except BaseException as error:
            endings.append(agent_failed(error))
        finally:
            ended.set()

    threading.Thread(target=life, name="life", daemon=True).start()
    clock = AwakeClock(0.5)
    heard, answered = 0, 0.0
    told: float | None = None
    verdict: Ending | None = None
    while not ended.wait(0.1) and verdict is None:
        awake = clock.tick()
        if signals and told is None:
            told = awake
        if len(signals) > 1:
            verdict = ending(Cause.PREEMPTED, "stopped at once by a second signal")
        elif told is not None and awake - told > 0.5 * (settings.grace + settings.notice):
            verdict = ending(Cause.PREEMPTED, "told to leave; did not get ready in time")
        for pulse, node in zip(pulses, nodes, strict=False):
            if pulse.exchanges != heard:
                heard, answered = pulse.exchanges, awake
            if pulse.barred and verdict is None:
                verdict = ending(Cause.PREEMPTED, BARRED)
                continue
            silent = awake - answered
            if pulse.lost is None and silent <= settings.peer_timeout:
                continue
            why = pulse.lost or f"no answer for {silent:.0f} s"
            lost = ending(Cause.STORE_LOST, f"the store for rendezvous and beats is lost: {why}")
            verdict = node.settled or lost
    if verdict is not None and nodes:
        with contextlib.suppress(Exception):
            nodes[0].clear()
    last = verdict or endings[0]
    _leave_record(last, settings.node, settings.termination_log)
    shutil.rmtree(scratch, ignore_errors=True)
    if last.cause is not Cause.SUCCEEDED:
        say(settings.node, f"ends with code {int(last.code)} ({last.cause}): {last.message}")
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread may be blocked in a call that never returns.
    os._exit(last.code)


def _leave_record(last: Ending, node: str, file: str | None) -> None:
    if file is None:
        return
    try:
        # The kubelet's file exists already and cannot be replaced, only written.
        Path(file).write_text(last.record().to_json())
    except OSError as error:
        say(node, f"cannot write {file}: {error.strerror}")


def store(arguments: Sequence[str]) -> int:
    """Host the store until SIGTERM and, since nodes that save need it, until all who are connected have left.

    A second signal ends it at once.
    """
    parser = argparse.ArgumentParser(prog="agent store", description="Host the store.")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all of IPv4)")
    parser.add_argument("--port", type=int, default=29400, help="port; 0 takes a free one")
    args = parser.parse_args(arguments)
    over, at_once = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: at_once.set() if over.is_set() else over.set())
    try:
        server = listen(args.host, args.port)
    except OSError as error:
        print(f"store: cannot listen on {args.host}:{args.port}: {error.strerror}", file=sys.stderr)
        return ExitCode.MISSING
    host = f"[{args.host}]" if ":" in args.host else args.host
    print(f"store ready on {host}:{server.port}", flush=True)
    over.wait()
    if left := clients(server.port):
        print(f"store told to leave: waits until {left} connections are closed", flush=True)
    while clients(server.port) and not at_once.wait(0.2):
        pass
    return ExitCode.OK


def main() -> NoReturn:
    """`run` or `store`."""
    command, rest = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if command == "run":
        run(rest)
    if command == "store":
        sys.exit(store(rest))
    print(__doc__, file=sys.stderr)
    sys.exit(ExitCode.OK if command in ("-h", "--help") else ExitCode.USAGE)


if __name__ == "__main__":
    main()
