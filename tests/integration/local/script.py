"""A torchrun script that knows nothing of Aurl: all ranks count steps together, and one keeps the count.

    script.py STEPS SECONDS_A_STEP FOLDER

It leaves a process in a session of its own, as data loaders and shells do, and answers `GET /progress`.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist

steps, seconds, folder = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
kept = folder / "kept.json"
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
straggler = subprocess.Popen(["sleep", "600"], start_new_session=True)

start = torch.tensor([json.loads(kept.read_text())["step"] if kept.exists() else 0])
dist.broadcast(start, 0)
step = resumed_from = int(start)


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        progress = {
            "v": 1,
            "rank": rank,
            "world": world,
            "generation": int(os.environ.get("AURL_ROUND", "0")),
            "phase": "step",
            "step": step,
            "total_steps": steps,
            "at": time.time(),
            "resumed_from": resumed_from,
            "last_durable_step": step,
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(progress).encode())

    def log_message(self, *_: object) -> None:
        pass


if os.environ["LOCAL_RANK"] == "0":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["AURL_PROGRESS_PORT"])), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()

while step < steps:
    total = torch.ones(1)
    dist.all_reduce(total)
    assert int(total) == world
    time.sleep(seconds)
    step += 1
    if rank == 0:
        draft = folder / "kept.new"
        draft.write_text(json.dumps({"step": step}))
        draft.rename(kept)
    print(f"step {step} of {steps} in a world of {world}", flush=True)
dist.barrier()
dist.destroy_process_group()
straggler.kill()
