"""`aurl run` over a checkpoint that rots: an incident that ends nobody, told once; and what is done again."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from aurl_trainer.monitor.records import read_records
from aurl_trainer.monitor.report.figures import figures
from aurl_trainer.monitor.report.source import read_run
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from bench.chaos.job import job, log, start, write_music
from tests.e2e.runs import state

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]

STEPS = 120


def wait(run: Path, what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < deadline, f"expected {what}; the run says:\n{log(run)}"
        time.sleep(0.05)


def ledger(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]


def test_a_rotten_checkpoint_is_passed_over_and_told_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    file = job(tmp_path, write_music(tmp_path / "music"), nodes=1, steps=STEPS)
    store = RunStore(Location(str(run / "checkpoints")))
    call = start(file, run)
    try:
        wait(run, "three checkpoints", lambda: len(store.valid()) >= 3)
        # The whole run at once, so that nobody reads the newest checkpoint before it is damaged.
        for process in psutil.Process(call.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        call.kill()
        call.wait()
        newest = store.valid()[-1]
        pack = Path(store.location.path(newest.pack(0)))
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)

        call = start(file, run)
        wait(
            run,
            "the damage in the ledger",
            lambda: any(e.get("cause") == "checkpoint-damaged" for e in ledger(run)),
        )
        # A supervisor that dies must not tell it again.
        call.kill()
        call.wait()
        call = start(file, run)
        assert call.wait(timeout=400) == 0, f"expected the run to succeed; it says:\n{log(run)}"
    finally:
        call.kill()

    told = [e for e in ledger(run) if e["kind"] == "incident" and e["cause"] == "checkpoint-damaged"]
    assert len(told) == 1, f"expected one incident, found {told}"
    assert f"step {newest.step} is damaged" in told[0]["message"]
    status = state(run)["status"]
    assert status["checkpoint"]["damaged"] == [str(newest)]
    assert status["restarts"]["checkpoint-damaged"] == 1
    assert "incidents: 1 checkpoint-damaged" in log(run), "the summary counts it"
    resumes = figures(read_run(run)).resumes
    first = resumes[0]
    assert first.step < newest.step
    assert first.weights_match is True
    verdicts = {r.verdict for r in resumes}
    assert verdicts <= {"equal", "nothing to compare", "not judged"}, f"found {verdicts}"
    compared = [c for r in read_records(run / "records", {"certificate"}) for c in r["compared"]]
    assert compared and all(c["bitwise"] for c in compared), (
        "steps after the older checkpoint were done again"
    )
