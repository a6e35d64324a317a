"""A script that knows nothing of Aurl and whose nodes do not agree: one ends, the other waits for it.

quarrel.py FOLDER
"""

import os
import sys

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
dist.barrier()
print(f"world {dist.get_world_size()}", flush=True)
if os.environ["RANK"] == "1":
    sys.stdout.flush()
    os._exit(0)
while True:
    dist.all_reduce(torch.ones(1))
