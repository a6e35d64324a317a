"""A rank with beats: reduces over gloo step by step, saves and leaves as the real loop does.

    loop.py FOLDER STEPS [--do NODE:STEP:WHAT ...]

WHAT happens once, on the named node, before the step's reduction: crash, final (an error that trying again
cannot mend), kill (SIGKILL to itself), gil (C code that holds the interpreter), sleep (Python that never
returns), evaluate (long, but alive), child (leaves a process in a session of its own).
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from aurl_trainer.contract import Env, ExitCode, Phase
from aurl_trainer.engine.survival.exits import leave_saved, run_rank
from aurl_trainer.engine.survival.heartbeat import Heartbeat
from aurl_trainer.engine.survival.preemption import Notice
from aurl_trainer.errors import ConfigError, LeaveError

NODE = os.environ[Env.NODE]


def happen(what: str, step: int, beats: Heartbeat) -> None:
    if what == "crash":
        raise ZeroDivisionError(f"asked to crash at step {step}")
    if what == "final":
        raise ConfigError([f"asked for a final error at step {step}"])
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "gil":
        ctypes.PyDLL(None).sleep(600)
    if what == "sleep":
        never_returns()
    if what == "evaluate":
        beats.phase(Phase.EVALUATE, step)
        time.sleep(12)
    if what == "child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


def never_returns() -> None:
    while True:
        time.sleep(1)


def work(folder: Path, steps: int, events: list[str], beats: Heartbeat) -> None:
    notice = Notice().listen()
    beats.phase(Phase.LOAD, 0)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    saved = folder / "saved.json"
    first = json.loads(saved.read_text())["step"] if saved.exists() else 0
    dist.barrier()
    print(f"world {world} from step {first}", flush=True)
    for step in range(first, steps):
        beats.phase(Phase.STEP, step)
        time.sleep(0.1)
        for event in events:
            node, at, what = event.split(":")
            once = folder / f"{event}.done"
            if node == NODE and step >= int(at) and not once.exists():
                once.touch()
                print(f"event {event}", flush=True)
                happen(what, step, beats)
        beats.phase(Phase.SYNC, step)
        flags = torch.tensor([float(notice.given), float(beats.regroup_requested), 1.0])
        dist.all_reduce(flags)
        assert flags[2] == world
        print(f"step {step} of world {world}", flush=True)
        leave = bool(flags[0] or flags[1])
        if rank == 0 and (leave or step % 10 == 9):
            beats.phase(Phase.SAVE, step)
            new = saved.with_suffix(".new")
            new.write_text(json.dumps({"step": step + 1}))
            new.rename(saved)
        if leave:
            dist.barrier()
            code = ExitCode.PREEMPTED if notice.given else ExitCode.REJOIN
            raise LeaveError(code, "agreed", (step + 1, f"step-{step + 1}"))
    beats.phase(Phase.END, steps)
    dist.barrier()
    leave_saved(steps, f"step-{steps}")
    print("finished", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--do", action="append", default=[])
    args = parser.parse_args()
    beats = Heartbeat.from_environment()
    beats.start()
    run_rank(lambda: work(args.folder, args.steps, args.do, beats), beats)
