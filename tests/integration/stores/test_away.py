"""A store that is away when the world of a new node begins: the job waits for it, and loses nothing."""

from __future__ import annotations

import functools

import pytest

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.waiting import Waiting
from aurl_trainer.config.checkpoint import CheckpointConfig
from aurl_trainer.errors import UnavailableError
from aurl_trainer.store.location import place
from aurl_trainer.store.location.patience import Patience
from tests.integration.stores.conftest import Faulty
from tests.integration.stores.proxy import PASS, Answer, Seen
from tests.unit.trainer.checkpoint.small import IDENTITY, hash_of, make, state, train

pytestmark = pytest.mark.processes


def make_checkpointer(uri: str, waiting: Waiting | None = None) -> Checkpointer:
    return Checkpointer(
        uri,
        run="r",
        fingerprint=IDENTITY,
        settings=CheckpointConfig(),
        rank=0,
        world=1,
        waiting=waiting,
    )


def test_a_store_that_is_away_for_longer_than_all_tries_of_one_request(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "Patience", functools.partial(Patience, attempts=3, first=0.05))
    model, optimizer = make(1)
    before = make_checkpointer(faulty.uri)
    before.open(state(model, optimizer))
    train(model, optimizer, 0)
    before.save(1, state(model, optimizer), {}, {})
    saved = hash_of(model, optimizer)

    def gone(seen: Seen) -> Answer:
        return Answer(reset=True) if away else PASS

    away = True
    faulty.proxy.reset(gone)
    with pytest.raises(UnavailableError, match="gave up after 3 tries"):
        make_checkpointer(faulty.uri).probe()
    said: list[str] = []

    def heard(text: str) -> None:
        nonlocal away
        said.append(text)
        away = False  # it has been given up once: from here on it is back

    after = make_checkpointer(faulty.uri, Waiting(True, lambda: None, heard))
    after.probe()
    assert "waits up to 300 s" in said[0] and "answers again" in said[1], said
    away = True
    model, optimizer = make(2)
    restored = after.open(state(model, optimizer)).restored
    after.saver.tidy()
    assert restored is not None and restored.step == 1
    assert hash_of(model, optimizer) == saved, "another state came back than was saved"
    assert len(said) == 4, f"expected to be told of both waits, found {said}"
