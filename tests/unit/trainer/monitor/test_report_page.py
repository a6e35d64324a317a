"""The page holds everything, runs nothing of a run's, and is written for whatever state a run is in."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from symusic import Note, Score, Tempo, Track
from typer import Typer
from typer.testing import CliRunner

from aurl_trainer.commands.report import report
from aurl_trainer.errors import MissingError, RefusedError
from aurl_trainer.monitor.report.notes import read_notes
from tests.unit.trainer.monitor.runs import RunDirectory, rehearsed

EVIL = "</script><img src=x onerror=alert(1)>\"'><script>alert(1)</script>\u2028 {{ 7 * 7 }} ]]>"
VOID = {"meta", "input", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Elements, their attributes, and the text within scripts, styles and all the rest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.inside and self.inside[-1] == tag, f"</{tag}> closes {self.inside[-1:]}"
        self.inside.pop()

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self.inside[-1] if self.inside else "", []).append(data)

    def count(self, tag: str) -> int:
        return sum(1 for t, _ in self.tags if t == tag)

    @property
    def words(self) -> str:
        parts = [t for tag, found in self.text.items() if tag not in ("script", "style") for t in found]
        return re.sub(r"\s+", " ", " ".join(parts))

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text["script"][0])
        return found


def command(*arguments: object) -> str:
    app = Typer()
    app.command()(report)
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def page(folder: Path, *options: object) -> Page:
    command(folder, *options)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def chorale(path: Path, notes: int = 8) -> Path:
    score = Score(480)
    score.tempos.append(Tempo(0, 120))
    track = Track(name="organ", program=19)
    for index in range(notes):
        track.notes.append(Note(index * 480, 480, 60 + index % 12, 90))
    score.tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    score.dump_midi(str(path))
    return path


def test_a_rehearsed_run_is_told_in_words_curves_and_tables(tmp_path: Path) -> None:
    run = rehearsed(tmp_path)
    chorale(tmp_path / "samples" / "step-10-0.mid")
    run.record("samples", step=10, files=["samples/step-10-0.mid"])
    found = page(tmp_path)
    for words in (
        "It finished all 10 steps",
        "2 disturbances on the way (node lost and preemption notice)",
        "2 steps had to be done again, with the same loss as the first time to the last bit.",
        "0.700 nats per token",
        "0.800 better than a model that counts",
        "Learning rate",
        "generation 2 went on from step 4",
        "slowest recovery 5.0 s",
        "after step 10 · 8 notes · 4.0 s",
    ):
        assert words in found.words, f"missing: {words}"
    loss = found.data["charts"]["loss"]
    assert [c["style"] for c in loss["curves"]] == ["raw", "train", "validation"]
    assert loss["curves"][0]["x"] == list(range(1, 11))
    assert found.data["pieces"]["1"]["notes"][0] == [0.0, 0.5, 60, 90, 0]


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    run = rehearsed(tmp_path)
    midi = chorale(tmp_path / "samples" / "a.mid")
    midi.with_suffix(".mp3").write_bytes(b"ID3 sound")
    run.record("samples", step=10, files=["samples/a.mid"])
    found = page(tmp_path)
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "href", "xlink:href", "action", "poster", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {name}={value[:80]!r}>"
        assert "style" not in attributes, f"<{tag}> has a style that the policy forbids"
        assert not [a for a in attributes if a.startswith("on")], f"<{tag}> has an event handler"
    assert "@import" not in found.html and "url(" not in found.html
    sound = next(a["src"] for t, a in found.tags if t == "audio")
    assert sound == "data:audio/mpeg;base64," + base64.b64encode(b"ID3 sound").decode()
    download = next(a for t, a in found.tags if a.get("download"))
    assert base64.b64decode(str(download["href"]).partition(",")[2]) == midi.read_bytes()


def test_the_policy_allows_the_two_inline_blocks_and_nothing_else(tmp_path: Path) -> None:
    found = page(rehearsed(tmp_path).folder)
    policy = next(str(a["content"]) for t, a in found.tags if a.get("http-equiv"))
    style = re.search(r"<style>(.*?)</style>", found.html, re.DOTALL)
    script = re.search(r"<script>(.*?)</script>", found.html, re.DOTALL)
    assert style and script
    for name, block in (("style-src", style[1]), ("script-src", script[1])):
        expected = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{name} 'sha256-{expected}'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_names_and_messages_are_text_and_never_markup(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    (tmp_path / "job.yaml").write_text(
        json.dumps({"metadata": {"name": EVIL}, "spec": {"training": {"preset": EVIL}}})
    )
    plain = page(rehearsed(tmp_path / "plain").folder)
    run.ledger("phase", phase=EVIL, message=EVIL)
    run.ledger("node", nodes=[EVIL], uids=[EVIL])
    run.start()
    run.record("setup", versions={EVIL: EVIL}, rejected=[{"file": EVIL, "reason": EVIL}], rejected_total=7)
    run.steps(1, 4)
    run.record("save", step=4, seconds=0.1, bytes=1, ok=False, message=EVIL)
    run.ledger("incident", EVIL, cause=EVIL, nodes=[EVIL], message=EVIL, traceback=EVIL)
    run.ledger("recovered", EVIL, lost_seconds=1.0, recovery_seconds=1.0)
    run.record("samples", step=4, files=[f"samples/{EVIL}.mid", "../../etc/passwd.mid"])
    run.record("end", step=4, reason=EVIL)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker-0.log").write_text(EVIL)
    found = page(tmp_path)
    assert found.count("script") == plain.count("script") == 2
    assert found.count("img") == 0
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert found.words.count("<img src=x onerror=alert(1)>") >= 10, "the texts are missing"
    assert "{{ 7 * 7 }}" in found.words and "passwd" not in found.html


def test_passwords_in_urls_stay_out(tmp_path: Path) -> None:
    folder = rehearsed(tmp_path).folder
    job = {"spec": {"training": {"preset": "x"}, "checkpoint": {"uri": "sftp://me:hunter2@host/run"}}}
    (folder / "job.yaml").write_text(json.dumps(job, indent=1))
    found = page(folder)
    assert "sftp://***@host/run" in found.words
    assert "hunter2" not in found.html


def test_a_run_that_is_going_on(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.ledger("phase", phase="Running")
    run.node("worker-0-0")
    run.start()
    run.steps(1, 3)
    found = page(tmp_path)
    assert "It is still going on and had done 3 of 10 steps" in found.words
    assert "No music has been sampled" in found.words


def test_a_run_that_is_starting(tmp_path: Path) -> None:
    RunDirectory(tmp_path).ledger("phase", phase="Starting", message="waits for the store")
    assert "No rank has started training yet: waits for the store." in page(tmp_path).words


def test_a_run_that_failed_at_once_shows_why(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.node("worker-0-0")
    run.node("worker-0-0", "final-error")
    run.ledger("phase", phase="Failed", message="no readable music in /data")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker-0-0.log").write_text("line\n" * 1000 + "DataError: nothing to read\n")
    found = page(tmp_path)
    assert "It never got to train: no readable music in /data." in found.words
    assert "DataError: nothing to read" in found.words and found.words.count("line ") <= 60
    assert "loss" not in found.data["charts"]


def test_a_program_of_its_own_is_told_without_curves_and_music(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    (tmp_path / "job.yaml").write_text("spec: {command: [train.py]}")
    run.node("worker-0-0")
    run.now += 61
    run.ledger("incident", "a", cause="crash", nodes=["worker-0-0"], message="exit code 1")
    run.now += 5
    run.ledger("recovered", "a", recovery_seconds=5.0, lost_seconds=5.0)
    run.ledger("phase", phase="Succeeded", message="done")
    found = page(tmp_path)
    assert "This job ran a program of its own. It finished after 1 min 6 s." in found.words
    assert "(crash); then it went on by itself, after 5.0 s." in found.words
    assert "Learning" not in found.words and "Music" not in found.words


def test_an_empty_run_directory(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("metadata: {name: 'x'}\nspec: [oops")
    assert "so there are no curves" in page(tmp_path).words


def test_a_run_of_a_hundred_thousand_steps_makes_a_small_page(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start(total_steps=100_000)
    path = tmp_path / "records" / "gen-000001-rank-0000.jsonl"
    line = '{"kind":"step","at":%f,"step":%d,"loss":%f,"lr":0.001,"tokens":9,"seconds":1.0}\n'
    with path.open("a") as file:
        file.writelines(line % (run.now + s, s, 3 + (s == 54_321)) for s in range(1, 100_001))
    found = page(tmp_path)
    assert len(found.html) < 600_000
    assert 4 in found.data["charts"]["loss"]["curves"][0]["y"], "the one spike is lost"


def test_losses_that_are_no_numbers_are_gaps(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    run.steps(1, 3)
    run.steps(4, 5, loss=None, grad_norm=None)
    assert page(tmp_path).data["charts"]["loss"]["curves"][0]["y"][-2:] == [None, None]


def test_damaged_and_silent_midi_is_named_and_harms_nothing(tmp_path: Path) -> None:
    run = rehearsed(tmp_path)
    good = chorale(tmp_path / "samples" / "good.mid")
    (tmp_path / "samples" / "torn.mid").write_bytes(good.read_bytes()[:40])
    chorale(tmp_path / "samples" / "empty.mid", notes=0)
    names = ["torn.mid", "empty.mid", "good.mid", "gone.mid"]
    run.record("samples", step=10, files=[f"samples/{n}" for n in names])
    found = page(tmp_path)
    assert re.search(r"torn\.mid cannot be shown: \S", found.words)
    assert "empty.mid cannot be shown: it holds no notes" in found.words
    assert list(found.data["pieces"]) == ["3"]


def test_a_parser_that_dies_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = chorale(tmp_path / "good.mid")
    deadly = tmp_path / "deadly.mid"
    deadly.write_bytes(b"x")
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, symusic\n"
        "real = symusic.Score\n"
        "symusic.Score = lambda path: os.abort() if 'deadly' in path else real(path)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hook))
    first, second, third = read_notes([good, deadly, good])
    assert first == third and len(first) == 8
    assert second == "not readable: its reader died over it"


def test_only_so_many_samples_are_put_in_newest_first(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    for step in (1, 2, 3):
        run.steps(step, step)
        names = [f"samples/step-{step}-{n}.mid" for n in range(2)]
        for name in names:
            chorale(tmp_path / name)
        run.record("samples", step=step, files=names)
    downloads = [a["download"] for _, a in page(tmp_path, "--samples", 3).tags if a.get("download")]
    assert downloads == ["step-3-0.mid", "step-3-1.mid", "step-2-0.mid"]
    assert "No music" in page(tmp_path, "--samples", 0).words


def test_samples_made_after_the_run_are_in_and_those_of_redone_steps_are_not(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    run.steps(1, 4)
    chorale(tmp_path / "samples" / "step-000004-1.mid")
    run.record("samples", step=4, files=["samples/step-000004-1.mid"])
    run.start(resumed_from=2)
    chorale(tmp_path / "samples" / "step-000003-later1.mid")
    downloads = [a["download"] for _, a in page(tmp_path).tags if a.get("download")]
    assert downloads == ["step-000003-later1.mid"]


def test_figures_as_json(tmp_path: Path) -> None:
    printed = json.loads(command(rehearsed(tmp_path).folder, "--json"))
    assert printed["phase"] == "Succeeded" and printed["report"] is None
    assert [i["recovery_seconds"] for i in printed["incidents"]] == [5.0, 4.0]
    assert printed["baselines"] == {"unigram": 3.0, "markov2": 1.5} and printed["val_loss"] == 0.7
    assert not (tmp_path / "report.html").exists()
    out = tmp_path / "elsewhere.html"
    assert json.loads(command(tmp_path, "--json", "--out", out))["report"] == str(out)
    assert out.read_text().startswith("<!DOCTYPE html>")


def test_errors_are_for_people(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such run directory"):
        command(tmp_path / "none")
    with pytest.raises(RefusedError, match="cannot be written"):
        command(rehearsed(tmp_path).folder, "--out", tmp_path / "no" / "such" / "folder.html")


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_runs_the_page_under_its_policy(tmp_path: Path) -> None:
    run = rehearsed(tmp_path / "run")
    chorale(tmp_path / "run" / "samples" / "a.mid")
    run.record("samples", step=10, files=["samples/a.mid"])
    command(run.folder)
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
    ]
    done = subprocess.run(
        [*browser, *quiet, f"--user-data-dir={tmp_path / 'profile'}", f"file://{run.folder}/report.html"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    button = next(a for t, a in Page(done.stdout).tags if a.get("class") == "play")
    assert "disabled" not in button, f"the page's script did not run:\n{done.stderr[-2000:]}"
