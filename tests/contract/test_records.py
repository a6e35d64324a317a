"""Records survive the way from one process to another, and refuse what is not one of them."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurl_trainer.contract import (
    DEFAULT_HANG_LIMITS,
    NOTICES,
    TERMINATION_BYTES,
    TRACEBACK_BYTES,
    ExitCode,
    LedgerEntry,
    Noted,
    Phase,
    Progress,
    RankFailure,
    RankSaved,
    RecordError,
    Termination,
)

PROGRESS = Progress(rank=0, world=2, generation=3, phase="step", step=7, total_steps=9, at=1.0, loss=2.5)

NOTED = Noted(id="damaged/v1", cause="checkpoint-damaged", at=2.0, message="m", step=3, checkpoint="v1")


@pytest.mark.parametrize(
    "record",
    [
        PROGRESS,
        Termination(cause="crash", message="boom", exit_code=1, at=2.0, rank=1, step=3, traceback="t"),
        LedgerEntry(kind="incident", at=3.0, id="i1", cause="hang", nodes=["worker-0"], uids=["u"]),
        Termination(
            cause="succeeded", message="m", exit_code=0, at=2.0, durable_step=9, durable_name="v3-s9"
        ),
        RankFailure(cause="final-error", message="m", traceback="", at=1.0, rank=0),
        RankSaved(),
        RankSaved(durable_step=9, durable_name="v3-s9"),
        NOTED,
        dataclasses.replace(PROGRESS, noted=[NOTED], last_durable_name="v1"),
    ],
)
def test_round_trip(
    record: Progress | Termination | LedgerEntry | RankFailure | RankSaved | Noted,
) -> None:
    assert type(record).from_json(record.to_json()) == record


def test_progress_holds_the_newest_notices_that_can_be_read_and_never_fails_over_one() -> None:
    raw = json.loads(PROGRESS.to_json())
    good = json.loads(NOTED.to_json())
    bad = [{}, 7, {**good, "cause": "of a newer version"}, {**good, "cause": "crash"}, {**good, "at": "now"}]
    assert Progress.from_json(json.dumps(raw | {"noted": [*bad, {**good, "more": 1}]})).noted == [NOTED]
    many = [{**good, "id": str(n), "message": "\x00" * 9000} for n in range(3 * NOTICES)]
    full = Progress.from_json(json.dumps(raw | {"noted": many}))
    assert [n.id for n in full.noted] == [str(n) for n in range(2 * NOTICES, 3 * NOTICES)]
    assert len(full.to_json()) < 30_000, "what reads it reads 64 kB at most"


def test_a_newer_writer_may_add_fields_but_a_newer_version_is_refused() -> None:
    raw = json.loads(PROGRESS.to_json())
    assert Progress.from_json(json.dumps(raw | {"added": 1})) == PROGRESS
    with pytest.raises(RecordError, match="version 99"):
        Progress.from_json(json.dumps(raw | {"v": 99}))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"v": 1}', '{"v": 1, "cause": "no such cause"}', "\x00", '"x"']
)
def test_anything_else_is_a_record_error(text: str) -> None:
    with pytest.raises(RecordError):
        Termination.from_json(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", "abc"),
        ("step", None),
        ("step", 1.5),
        ("step", 2**63),
        ("rank", True),
        ("at", "x"),
        ("at", float("nan")),
        ("at", 1e300),
        ("loss", "low"),
        ("loss", [1.0]),
        ("music", [1]),
        ("music", {"a": "b"}),
        ("warnings", "none"),
        ("last_durable_name", 7),
        ("last_durable_name", "\ud800"),
        ("phase", 1),
        ("noted", 5),
    ],
)
def test_a_progress_with_a_wrong_type_is_no_record(field: str, value: object) -> None:
    text = json.dumps(json.loads(PROGRESS.to_json()) | {field: value})
    with pytest.raises(RecordError):
        Progress.from_json(text)


@pytest.mark.parametrize(
    "text", ["[" * 60_000, '{"v": 1, "step": ' + "[" * 60_000, '{"v": 1' + "1" * 9000 + "}"]
)
def test_what_json_cannot_hold_is_no_record(text: str) -> None:
    with pytest.raises(RecordError):
        Progress.from_json(text)


def test_numbers_that_are_not_finite_are_none_for_writers_and_readers() -> None:
    nan, inf = float("nan"), float("inf")
    bad = {"loss": nan, "val_loss": inf, "tokens_per_second": -inf, "music": {"good": 0.5, "bad": nan}}
    made = dataclasses.replace(PROGRESS, **bad)
    read = Progress.from_json(json.dumps(json.loads(PROGRESS.to_json()) | bad))
    for one in (made, read):
        assert (one.loss, one.val_loss, one.tokens_per_second) == (None, None, None)
        assert one.music == {"good": 0.5}
    assert "NaN" not in made.to_json() and "Infinity" not in made.to_json()
    big = PROGRESS.to_json().replace("2.5", "1e999")
    assert Progress.from_json(big).loss is None


@settings(max_examples=50)
@given(st.sampled_from([f.name for f in dataclasses.fields(Progress)]), _JSON)
def test_a_progress_that_is_read_can_be_put_into_a_status(field: str, value: object) -> None:
    try:
        text = json.dumps(json.loads(PROGRESS.to_json()) | {field: value})
        read = Progress.from_json(text)
    except RecordError:
        return
    json.dumps(json.loads(read.to_json()), allow_nan=False).encode()
    assert Progress.from_json(read.to_json()) == read


@given(st.text(max_size=5000), st.text(max_size=9000))
@example("\x00" * 5000, "\U0001f3b5" * 5000)
def test_a_termination_record_fits_what_the_kubelet_keeps(message: str, traceback: str) -> None:
    record = Termination(cause="crash", message=message, exit_code=1, at=0.0, traceback=traceback)
    assert len(record.to_json().encode()) <= TERMINATION_BYTES
    assert record.traceback is not None
    assert len(record.traceback) <= TRACEBACK_BYTES
    assert Termination.from_json(record.to_json()) == record


def test_every_phase_has_a_hang_limit_and_exit_codes_are_told_apart() -> None:
    assert set(DEFAULT_HANG_LIMITS) == set(Phase)
    assert len({int(c) for c in ExitCode}) == len(ExitCode.__members__), "two names share an exit code"
