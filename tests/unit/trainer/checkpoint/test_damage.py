"""Whatever happens to the objects of a checkpoint: it is found, never loaded, and an older one is used."""

from __future__ import annotations

import json
import logging
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.loading import load_weights
from aurl_trainer.checkpoint.waiting import Waiting
from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.config.reference import Best, Latest, Number, Step
from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.aside import set_aside, take_back
from aurl_trainer.store.format.manifest import VERSION
from aurl_trainer.store.format.sealed import seal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import Claim, RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.checkpoint.small import checkpointer, hash_of, make, state, train
from tests.unit.trainer.checkpoint.test_checkpointer import Bomb
from tests.unit.trainer.store.made import flip as flip_bit

Run = tuple[str, RunStore, dict[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run saved at steps 1, 2 and 3, and the hash of each state."""
    uri = f"memory:/{tmp_path}/run"
    saver = checkpointer(uri)
    trained = make(1)
    saver.open(state(*trained))
    hashes = {}
    for step in (1, 2, 3):
        train(*trained, step)
        saver.save(step, state(*trained), {"at": step}, {"val_nll": 4.0 - step})
        hashes[step] = hash_of(*trained)
    return uri, RunStore(Location(uri)), hashes


def objects(store: RunStore, step: int) -> list[str]:
    """All objects of one checkpoint."""
    name = next(n for n in store.committed() if n.step == step)
    return [name.manifest, *(f"packs/{n}" for n in store.location.names("packs") if n.startswith(str(name)))]


def resume(run: Run) -> tuple[int, str, list[str]]:
    fresh = make(9)
    restored = checkpointer(run[0]).open(state(*fresh)).restored
    assert restored is not None
    assert restored.extra == {"at": restored.step}
    assert [d.step for d in restored.damaged] == [int(d.name[9:17]) for d in restored.damaged]
    return restored.step, hash_of(*fresh), [d.message for d in restored.damaged]


def flip(data: bytes, seed: int) -> bytes:
    bit = random.Random(seed).randrange(8 * len(data))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << (bit % 8)
    return bytes(flipped)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("which", ["manifest", "pack"])
def test_a_flipped_bit_is_found_and_the_older_checkpoint_is_taken(
    run: Run, which: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    _uri, store, hashes = run
    manifest, pack = objects(store, 3)
    victim = manifest if which == "manifest" else pack
    store.location.put(victim, flip(store.location.get(victim), seed))
    with caplog.at_level(logging.WARNING):
        step, found, warnings = resume(run)
    assert (step, found) == (2, hashes[2]), "not the older checkpoint, whole"
    (warning,) = warnings
    assert warning.startswith("checkpoint of step 3 is damaged and passed over: v000003-s00000003")
    assert which == "manifest" or "model." in warning or "optimizer." in warning, "the item is not named"
    assert warning in caplog.text and "resuming from step 2" in caplog.text, "the fall-back was not loud"


def _manifest_by_hand(store: RunStore, path: str) -> None:
    store.location.put(path, store.location.get(path).replace(b'"step":3', b'"step":4'))


def _pickle_as_pack(store: RunStore, path: str) -> None:
    data = pickle.dumps(Bomb(Path("/nonexistent/marker")))
    store.location.put(path, data + bytes(store.location.size(path) - len(data)))


DAMAGE: dict[str, tuple[str, Callable[[RunStore, str], None], str]] = {
    "pack missing": ("pack", lambda s, p: s.location.delete([p]), "is missing"),
    "pack empty": ("pack", lambda s, p: s.location.put(p, b""), "has 0 bytes instead of"),
    "pack cut": ("pack", lambda s, p: s.location.put(p, s.location.get(p)[:-1]), "bytes instead of"),
    "pack too long": ("pack", lambda s, p: s.location.put(p, s.location.get(p) + b"x"), "bytes instead of"),
    "pack is a pickle": ("pack", _pickle_as_pack, "hash does not match"),
    "manifest empty": ("manifest", lambda s, p: s.location.put(p, b""), "digest does not match"),
    "manifest cut": ("manifest", lambda s, p: s.location.put(p, s.location.get(p)[:-9]), "digest does not"),
    "manifest by hand": ("manifest", _manifest_by_hand, "edited by hand"),
    "manifest of torch": ("manifest", lambda s, p: s.location.put(p, pickle.dumps({})), "digest does not"),
    "manifest is another's": (
        "manifest",
        lambda s, p: s.location.put(p, s.location.get(objects(s, 2)[0])),
        "holds the manifest of v000002",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_other_damage_is_found_too(run: Run, damage: str) -> None:
    _uri, store, hashes = run
    which, act, says = DAMAGE[damage]
    manifest, pack = objects(store, 3)
    act(store, manifest if which == "manifest" else pack)
    step, found, (warning,) = resume(run)
    assert (step, found) == (2, hashes[2])
    assert says in warning


def test_what_was_passed_over_is_set_aside_and_outlives_the_saves_after_it(run: Run) -> None:
    """It is void now, and retention would take it before anybody could look at it."""
    uri, store, hashes = run
    last = store.valid()[-1]
    flip_bit(store.location, last.pack(0))
    trained = make(9)
    saver = checkpointer(uri, keep=KeepConfig(latest=1, best=0, grace_seconds=0))
    saver.open(state(*trained))
    assert store.aside() == {last} and hash_of(*trained) == hashes[2]
    for step in (3, 4):
        train(*trained, step)
        saver.save(step, state(*trained), {"at": step}, {})
    assert store.committed() == [last, store.valid()[-1]], "the damaged one, and the newest"
    assert not verify(store, last).good
    flip_bit(store.location, last.pack(0))
    assert verify(store, last).good, "nothing of it was removed"


def test_a_reader_that_reads_badly_costs_no_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad memory or a bad network card of one node: the store is whole."""
    uri, store, _ = run
    get = Location.get
    bad = {f"packs/{n}" for n in store.pack_folders() if n.step > 1}

    def reads_badly(self: Location, name: str, *span: int) -> bytes:
        data = get(self, name, *span)
        return data if name.rpartition("/")[0] not in bad or not data else bytes([data[0] ^ 1]) + data[1:]

    with monkeypatch.context() as patched:
        patched.setattr(Location, "get", reads_badly)
        saver = checkpointer(uri, keep=KeepConfig(latest=1, best=0, grace_seconds=0))
        trained = make(9)
        opened = saver.open(state(*trained)).restored
    assert opened is not None and opened.step == 1
    saver.save(2, state(*trained), {"at": 2}, {})
    assert [(n.step, verify(store, n).good) for n in store.committed()] == [(2, True), (3, True), (2, True)]


def test_a_load_gives_signs_of_life_as_bytes_come_and_says_when_it_waits_for_others(run: Run) -> None:
    """A slow store, or a fall-back that reads three checkpoints, takes longer than any limit for silence."""
    uri, store, _ = run
    flip_bit(store.location, store.valid()[-1].pack(0))
    signs: list[str] = []
    waiting = Waiting(True, lambda: signs.append("alive"), print, lambda: signs.append("waits"))
    trained = make(9)
    opened = checkpointer(uri, waiting=waiting).open(state(*trained)).restored
    assert opened is not None and opened.step == 2
    reads = " ".join(signs).split("waits")
    assert len(reads) == 4 and reads[-1] == " alive", "it was read twice, then the older one; then it goes on"
    assert all(one.count("alive") > 1 for one in reads[:-1]), "one sign for each piece"


def test_several_damaged_ones_are_passed_over_each_by_name(run: Run) -> None:
    _uri, store, hashes = run
    for step in (2, 3):
        pack = objects(store, step)[1]
        store.location.put(pack, flip(store.location.get(pack), step))
    step, found, warnings = resume(run)
    assert (step, found) == (1, hashes[1])
    assert [w.split(" is damaged")[0] for w in warnings] == ["checkpoint of step 3", "checkpoint of step 2"]


def test_when_none_is_whole_the_run_does_not_silently_start_anew(run: Run) -> None:
    uri, store, _ = run
    for step in (1, 2, 3):
        store.location.delete([objects(store, step)[1]])
    with pytest.raises(CheckpointError, match=r"none of its 3 checkpoints is whole.*is missing"):
        checkpointer(uri).open(state(*make(9)))


def test_when_all_are_set_aside_the_run_does_not_silently_start_anew(run: Run) -> None:
    uri, store, hashes = run
    for name in store.committed():
        set_aside(store.location, name, ["a flipped bit"])
    before = store.fences()
    with pytest.raises(CheckpointError, match=r"all 3 checkpoints there are set aside.*--repair") as error:
        checkpointer(uri).open(state(*make(9)))
    assert "\n" not in str(error.value)
    assert store.fences() == before, "a generation was taken for nothing"
    for name in store.committed():
        take_back(store.location, name)
    assert resume(run)[:2] == (3, hashes[3]), "what was set aside is void for ever"


def test_when_the_last_one_is_set_aside_while_a_world_begins_it_does_not_start_anew(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, store, hashes = run
    claim = RunStore.claim

    def meanwhile(self: RunStore, *arguments: Any) -> Claim:
        for name in store.committed():
            set_aside(store.location, name, ["a flipped bit"])
        return claim(self, *arguments)

    monkeypatch.setattr(RunStore, "claim", meanwhile)
    with pytest.raises(CheckpointError, match="all 3 checkpoints there are set aside"):
        checkpointer(uri).open(state(*make(9)))
    monkeypatch.undo()
    for name in store.committed():
        take_back(store.location, name)
    assert resume(run)[:2] == (3, hashes[3]), "what was set aside is void for ever"


def test_what_was_passed_over_is_no_part_of_the_run_any_more(run: Run) -> None:
    uri, store, _ = run
    pack = objects(store, 3)[1]
    whole = store.location.get(pack)
    store.location.put(pack, flip(whole, 1))
    fresh = make(9)
    saver = checkpointer(uri)
    saver.open(state(*fresh))
    store.location.put(pack, whole)  # even if it turns out to be whole after all
    assert [n.step for n in store.valid()] == [1, 2]
    saver.save(3, state(*fresh), {"at": 3})
    assert [(n.step, n.generation.number) for n in store.valid()] == [(1, 1), (2, 1), (3, 2)]


def test_a_checkpoint_of_a_newer_format_stops_the_run(run: Run) -> None:
    uri, store, _ = run
    path = objects(store, 3)[0]
    value = json.loads(store.location.get(path))
    del value["digest"]
    store.location.put(path, seal(value | {"version": VERSION + 1}))
    with pytest.raises(CheckpointError, match="written by a newer Aurl") as error:
        checkpointer(uri).open(state(*make(9)))
    assert not isinstance(error.value, DamagedError), "it would have been passed over, and then lost"


def test_a_store_that_does_not_answer_is_not_damage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Location, name: str, start: int | None = None, end: int | None = None) -> bytes:
        if name.startswith("packs/"):
            raise CheckpointError("connection reset")
        return real(self, name, start, end)

    real = Location.get
    monkeypatch.setattr(Location, "get", broken)
    with pytest.raises(CheckpointError, match="connection reset") as error:
        checkpointer(run[0]).open(state(*make(9)))
    assert not isinstance(error.value, DamagedError)
    monkeypatch.undo()
    assert resume(run)[0] == 3, "the newest checkpoint was given up for a passing trouble"


def test_a_resealed_manifest_cannot_bring_in_a_pickle(run: Run, tmp_path: Path) -> None:
    _uri, store, hashes = run
    path = objects(store, 3)[0]
    value = json.loads(store.location.get(path))
    del value["digest"]
    marker = tmp_path / "marker"
    value["extra"] = {"$pickle": pickle.dumps(Bomb(marker)).hex()}
    value["tensors"]["model.scale"]["dtype"] = "Tensor"
    store.location.put(path, seal(value))
    step, found, (warning,) = resume(run)
    assert (step, found) == (2, hashes[2])
    assert "'Tensor' is not a type of numbers" in warning
    assert not marker.exists()


def test_weights_alone_are_loaded_from_the_chosen_checkpoint(run: Run) -> None:
    uri, _, _ = run
    for which, step in ((Latest(), 3), (Best(), 3), (Step(2), 2), (Number(1), 1)):
        model, _ = make(9)
        manifest = load_weights(uri, model, which)
        assert manifest.step == step
        full = make(8)
        trained = make(1)
        train(*trained, *range(1, step + 1))
        assert hash_of(model, full[1]) == hash_of(trained[0], full[1])


def test_weights_fall_back_loudly_unless_a_step_was_asked_for(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    uri, store, _ = run
    store.location.delete([objects(store, 3)[1]])
    with caplog.at_level(logging.WARNING):
        assert load_weights(uri, make(9)[0]).step == 2
    assert "checkpoint of step 3 is damaged and passed over" in caplog.text
    with pytest.raises(DamagedError, match="is missing"):
        load_weights(uri, make(9)[0], Step(3))


def test_weights_need_no_optimizer_bytes(run: Run) -> None:
    uri, store, _ = run
    manifest = store.manifest(next(n for n in store.valid() if n.step == 3))
    chunk = manifest.tensors["optimizer.state.scale.exp_avg"].chunks[0]
    path = manifest.packs[chunk.pack].path
    data = bytearray(store.location.get(path))
    data[chunk.at] ^= 1
    store.location.put(path, bytes(data))
    model = make(9)[0]
    assert load_weights(uri, model).step == 3
    assert torch.isfinite(model.scale)
