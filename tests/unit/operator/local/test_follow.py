"""Following logs: whole lines only, each with who wrote it, and from now on."""

from __future__ import annotations

from pathlib import Path

from aurl_operator.backends.local.process.follow import Follower, Line


def test_lines_are_labelled_with_node_and_rank(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    (tmp_path / "worker-1-2.log").write_bytes(
        b"[worker-1 rank 3]: step 1\n[agent of worker-1] hello\nbare\n\n[worker-1 rank 3]:no blank\n"
    )
    (tmp_path / "store-0-0.log").write_bytes(b"store ready\n")
    assert list(follower.read()) == [
        Line("store-0", "store ready"),
        Line("worker-1 rank 3", "step 1"),
        Line("worker-1", "[agent of worker-1] hello"),
        Line("worker-1", "bare"),
        Line("worker-1", ""),
        Line("worker-1 rank 3", "no blank"),
    ]


def test_a_line_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    log = tmp_path / "worker-0-0.log"
    log.write_bytes(b"ha")
    assert list(follower.read()) == []
    with log.open("ab") as file:
        file.write("lf \u266b\nrest".encode())
    assert [line.text for line in follower.read()] == ["half \u266b"]
    assert [line.text for line in follower.read(final=True)] == ["rest"]
    assert list(follower.read(final=True)) == []


def test_what_was_there_before_is_not_shown_again(tmp_path: Path) -> None:
    (tmp_path / "worker-0-0.log").write_bytes(b"old\n")
    follower = Follower(tmp_path)
    with (tmp_path / "worker-0-0.log").open("ab") as file:
        file.write(b"new\n")
    assert [line.text for line in follower.read()] == ["new"]


def test_progress_bars_and_broken_text_do_no_harm(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    (tmp_path / "worker-0-0.log").write_bytes(b"  1%\r 50%\r100%\r\n\xff\xfe\n")
    assert [line.text for line in follower.read()] == ["100%", "\ufffd\ufffd"]
