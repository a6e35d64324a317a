"""Somebody's own torchrun script: plain torch, nothing of Aurl.

foreign.py FOLDER STEPS [--do NODE_INDEX:STEP:crash ...] [--linger NODE] [--polite]

--linger: the ranks of that node do not end when they have finished. --polite: on SIGTERM a rank ends well.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("steps", type=int)
parser.add_argument("--do", action="append", default=[])
parser.add_argument("--linger")
parser.add_argument("--polite", action="store_true")
args = parser.parse_args()
if args.polite:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
saved = args.folder / "saved.txt"
first = int(saved.read_text()) if saved.exists() else 0
dist.barrier()
print(f"world {world} from step {first}", flush=True)
for step in range(first, args.steps):
    time.sleep(0.1)
    for event in args.do:
        node, at, _ = event.split(":")
        once = args.folder / f"{event}.done"
        if os.environ["AURL_NODE"] == node and step >= int(at) and not once.exists():
            once.touch()
            raise ValueError(f"a mistake at step {step}")
    ones = torch.ones(1)
    dist.all_reduce(ones)
    print(f"step {step} of world {world}", flush=True)
    if rank == 0:
        new = saved.with_suffix(".new")
        new.write_text(str(step + 1))
        new.rename(saved)
dist.barrier()
print("finished", flush=True)
if args.linger == os.environ["AURL_NODE"]:
    time.sleep(600)
dist.destroy_process_group()
