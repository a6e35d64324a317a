"""Stores that fail for a moment, for good, or in the middle of a run: nothing committed is lost."""

from __future__ import annotations

import time
from collections import Counter

import pytest
import torch

from aurl_trainer.errors import CheckpointError, FencedError, UnavailableError
from aurl_trainer.store.location.patience import Patience
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.integration.stores.conftest import Faulty
from tests.integration.stores.proxy import PASS, Answer, Rule, Seen
from tests.unit.trainer.checkpoint.small import checkpointer
from tests.unit.trainer.store.made import open_run, save

pytestmark = pytest.mark.processes

QUICK = Patience(attempts=4, seconds=60.0, first=0.01, longest=0.02)
JSON = {"Content-Type": "application/json"}
XML = {"Content-Type": "application/xml"}


def answer(kind: str, status: int, code: str, text: str) -> Answer:
    """An error in the form of the store."""
    if kind == "gcs":
        return Answer(status, f'{{"error": {{"code": {status}, "message": "{text}"}}}}'.encode(), JSON)
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
    return Answer(status, body, XML | {"x-ms-error-code": code})


BUSY = {
    "an internal error": (500, {"s3": "InternalError", "gcs": "", "azure": "InternalError"}),
    "throttling": (503, {"s3": "SlowDown", "gcs": "", "azure": "ServerBusy"}),
    "too many requests": (429, {"s3": "TooManyRequests", "gcs": "", "azure": "TooManyRequests"}),
}
CUT = {"a reset": Answer(reset=True), "a reset after it took effect": Answer(reset=True, arrives=True)}


def first_of_each(fault: Answer) -> Rule:
    """Each request fails the first time that it is made."""
    met: Counter[tuple[str, str]] = Counter()

    def rule(seen: Seen) -> Answer:
        key = (seen.method, seen.path.partition("?")[0])
        met[key] += 1
        return fault if met[key] == 1 else PASS

    return rule


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds, as long as they are."""
    monkeypatch.setattr(Patience, "within", lambda self, deadline: QUICK)


def a_run(faulty: Faulty) -> int:
    """Opens, saves, and reads back as another process would; the number of checkpoints that verify."""
    store, claim = open_run(faulty.uri)
    number = claim.next_number
    save(store, claim.id, number, 10 * number)
    fresh = RunStore(Location(faulty.uri))
    valid = fresh.valid()
    assert valid and valid[-1].number == number, f"expected save {number} to be the newest, found {valid}"
    for name in valid:
        verdict = verify(fresh, name)
        assert verdict.good, verdict.problems
    return len(valid)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("trouble", [*BUSY, *CUT])
def test_what_passes_is_waited_for(faulty: Faulty, trouble: str) -> None:
    if trouble in CUT:
        fault = CUT[trouble]
    else:
        status, codes = BUSY[trouble]
        fault = answer(faulty.kind, status, codes[faulty.kind], "try later")
    faulty.proxy.reset(first_of_each(fault))
    assert a_run(faulty) == 1
    assert a_run(faulty) == 2, "the second world did not go on from the first"


def test_listings_that_lag_behind_are_waited_for(faulty: Faulty) -> None:
    faulty.proxy.reset(stale=0.5)
    assert a_run(faulty) == 1
    assert a_run(faulty) == 2, "the second world did not go on from the first"
    store, claim = open_run(faulty.uri)
    open_run(faulty.uri)
    with pytest.raises(FencedError):
        save(store, claim.id, claim.next_number, 1000)


def test_a_lag_that_nobody_waits_for_would_be_noticed(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.proxy.reset(stale=600.0)
    monkeypatch.setattr(Location, "publish", Location.put)
    with pytest.raises(AssertionError, match="expected save 1 to be the newest"):
        a_run(faulty)


@pytest.mark.parametrize("operation", ["put", "get", "list", "delete", "size"])
def test_no_client_multiplies_the_tries(faulty: Faulty, operation: str) -> None:
    place = Location(faulty.uri, patience=QUICK)
    place.put("m/x", b"1")
    faulty.proxy.reset(lambda seen: answer(faulty.kind, 503, "ServiceUnavailable", "down"))
    acts = {
        "put": lambda: place.put("m/y", b"1"),
        "get": lambda: place.get("m/x", 0, 1),
        "list": lambda: place.names("m"),
        "delete": lambda: place.delete(["m/x"]),
        "size": lambda: place.size("m/x"),
    }
    with pytest.raises(UnavailableError, match=r"gave up after 4 tries") as error:
        acts[operation]()
    assert "\n" not in str(error.value)
    # gcsfs asks for an object and for a folder of that name at the same time.
    made = Counter(f"{s.method} {s.path}" for s in faulty.proxy.seen)
    assert max(made.values()) == QUICK.attempts, f"expected {QUICK.attempts} of each request, found {made}"


def test_a_silent_store_is_left_at_the_deadline(faulty: Faulty) -> None:
    place = Location(faulty.uri)
    place.put("m/x", b"1")
    faulty.proxy.reset(lambda seen: Answer(delay=50.0))
    began = time.monotonic()
    bounded = place.until(began + 1.0)
    with pytest.raises(UnavailableError):
        bounded.put("m/y", b"1")
    with pytest.raises(UnavailableError):
        bounded.get("m/x")
    assert time.monotonic() - began < 40.0, "the deadline of a second did not hold"


def test_a_save_whose_store_falls_silent_has_ended_at_its_deadline_and_the_next_one_counts(
    faulty: Faulty,
) -> None:
    """Without the deadline the upload would go on for minutes, and the next save could not begin.

    The deadline holds for the healthy saves, too, and must be long enough for them on a busy machine.
    """
    state = {"model": {"w": torch.randn(1000)}}
    opener = checkpointer(faulty.uri, deadline=15.0)
    opener.open(state)
    opener.save(1, state, {})
    faulty.proxy.reset(lambda seen: Answer(delay=120.0) if seen.writes else PASS)
    state["model"]["w"] += 1
    began = time.monotonic()
    opener.saver.begin(2, state, {}, {})
    with pytest.raises(CheckpointError):
        opener.saver.finish()
    faulty.proxy.reset()
    assert opener.saver.tidy(60.0 - (time.monotonic() - began)), "the upload went on beyond its deadline"
    state["model"]["w"] += 1
    opener.save(3, state, {})
    fresh = RunStore(Location(faulty.uri))
    assert [name.step for name in fresh.valid()] == [1, 3]
    assert all(verify(fresh, name).good for name in fresh.valid())


FINAL = {
    "expired credentials": (
        {"s3": (400, "ExpiredToken"), "gcs": (401, ""), "azure": (403, "AuthenticationFailed")},
        "Invalid Credentials",
        "renew the credentials",
    ),
    "permission lost": (
        {"s3": (403, "AccessDenied"), "gcs": (403, ""), "azure": (403, "AuthorizationFailure")},
        "not any more",
        "must be allowed to list, read, write and delete",
    ),
}


@pytest.mark.parametrize("trouble", FINAL)
def test_what_is_final_fails_at_once_in_the_middle_of_a_run_and_nothing_is_lost(
    faulty: Faulty, trouble: str
) -> None:
    codes, text, advice = FINAL[trouble]
    status, code = codes[faulty.kind]
    assert a_run(faulty) == 1
    for spared in (0, 1):  # the pack is refused, then the manifest
        store, claim = open_run(faulty.uri)
        good = len(store.valid())
        writes: list[Seen] = []

        def rule(seen: Seen, spared: int = spared, writes: list[Seen] = writes) -> Answer:
            writes += [seen] if seen.writes else []
            refuse = seen.writes and len(writes) > spared
            return answer(faulty.kind, status, code, text) if refuse else PASS

        faulty.proxy.reset(rule)
        with pytest.raises(CheckpointError, match=advice) as error:
            save(store, claim.id, claim.next_number, 10 * claim.next_number)
        assert not isinstance(error.value, UnavailableError) and "\n" not in str(error.value)
        assert len(writes) == spared + 1, f"expected no second try of a write, found {writes}"
        faulty.proxy.reset()
        fresh = RunStore(Location(faulty.uri))
        assert len(fresh.valid()) == good and verify(fresh, fresh.valid()[-1]).good
    assert a_run(faulty) == 2, "the run did not go on when the permission came back"
