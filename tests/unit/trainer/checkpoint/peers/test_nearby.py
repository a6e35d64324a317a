"""Packs from a peer over a real connection; from one that lies, is dead, or says nothing: from the store."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurl_trainer.checkpoint.peers import nearby as room
from aurl_trainer.checkpoint.peers.nearby import Nearby, Objects, Offer, Sources
from aurl_trainer.checkpoint.peers.serving import PackServer, own_address
from aurl_trainer.errors import DamagedError
from aurl_trainer.store.format.manifest import Manifest, Pack
from aurl_trainer.store.kept import KeptPacks
from aurl_trainer.store.location.place import Location
from tests.unit.trainer.store.far import FarFileSystem

PACK = "packs/v1/rank-0000.pack"
DATA = bytes(range(256)) * 300
TOKEN = "the world's token"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    FarFileSystem.reads.clear()
    yield
    FarFileSystem.reads.clear()


@pytest.fixture
def place(tmp_path: Path) -> Location:
    location = Location(f"far://{tmp_path}/run")
    with location.writing(PACK) as file:
        file.write(DATA)
    return location


@pytest.fixture
def manifest() -> Manifest:
    return Manifest.model_construct(name="v1", packs=(Pack(path=PACK, bytes=len(DATA)),), tensors={})


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[tuple[KeptPacks, Offer]]:
    kept = KeptPacks(tmp_path / "peer", 2**20)
    with kept.keeping(PACK) as copy:
        copy.write(DATA)
    server = PackServer(kept, TOKEN, "127.0.0.1")
    yield kept, Offer(kept.sizes(), server.address)
    server.close()


def near(tmp_path: Path, place: Location, *others: Offer, token: str = TOKEN) -> Nearby:
    return Nearby(place, KeptPacks(tmp_path / "own", 2**20), token, others)


def whole(objects: Objects) -> bytes:
    """As a load does: the size, then ranges, then the hash."""
    assert objects.size(PACK) == len(DATA)
    middle = len(DATA) // 2
    data = objects.get(PACK, 0, middle) + objects.get(PACK, middle, len(DATA))
    if hashlib.sha256(data).digest() != hashlib.sha256(DATA).digest():
        raise DamagedError("its hash does not match")
    return data


def test_a_peer_is_asked_in_place_of_the_store(
    tmp_path: Path, place: Location, manifest: Manifest, peer: tuple[KeptPacks, Offer]
) -> None:
    nearby = near(tmp_path, place, peer[1])
    nearby.usual = 1000.0
    assert nearby.load(manifest, whole) == DATA
    sources = nearby.sources()
    assert (sources.disk, sources.peers, sources.store, sources.refused) == (0, len(DATA), 0, 0)
    assert FarFileSystem.reads == []
    assert 1000 < sources.saved < 2000, "two answers of the store, less what the peer took"


def test_the_own_disk_is_nearer_than_a_peer(
    tmp_path: Path, place: Location, manifest: Manifest, peer: tuple[KeptPacks, Offer]
) -> None:
    nearby = near(tmp_path, place, peer[1])
    with nearby.kept.keeping(PACK) as copy:
        copy.write(DATA)
    assert nearby.load(manifest, whole) == DATA
    assert (nearby.sources().disk, nearby.sources().peers) == (len(DATA), 0)


@pytest.mark.parametrize("where", ["peer", "own"])
def test_a_copy_that_is_not_what_was_written_is_refused_and_the_store_read(
    tmp_path: Path, place: Location, manifest: Manifest, peer: tuple[KeptPacks, Offer], where: str
) -> None:
    nearby = near(tmp_path, place, peer[1])
    with nearby.kept.keeping(PACK) as copy:
        copy.write(DATA if where == "own" else b"another size")
    wrong = bytearray(DATA)
    wrong[77] ^= 1
    (tmp_path / where / PACK).write_bytes(wrong)
    assert nearby.load(manifest, whole) == DATA
    assert nearby.sources().refused == 1
    assert nearby.sources().store == len(DATA)


def test_damage_in_the_store_is_no_peers_fault(tmp_path: Path, place: Location, manifest: Manifest) -> None:
    Path(place.path(PACK)).write_bytes(b"\x00" * len(DATA))
    with pytest.raises(DamagedError):
        near(tmp_path, place).load(manifest, whole)
    assert len(FarFileSystem.reads) == 2, "read once"


def test_strangers_and_other_names_get_nothing(
    tmp_path: Path, place: Location, manifest: Manifest, peer: tuple[KeptPacks, Offer]
) -> None:
    (tmp_path / "peer" / "secret").write_text("not a pack")
    stranger = near(tmp_path, place, peer[1], token="a guess")
    assert stranger.load(manifest, whole) == DATA
    assert (stranger.sources().peers, stranger.sources().store) == (0, len(DATA))
    for name in ("secret", "packs/../secret", "packs/v1/../../secret", "packs/v2/rank-0000.pack"):
        friend = near(tmp_path, place, Offer({name: 10}, peer[1].address))
        assert friend.from_peer(name, 10, 0, 10) is None


def test_a_peer_that_is_gone_or_silent_costs_one_wait(
    tmp_path: Path, place: Location, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SILENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as gone:
        offers = [Offer({PACK: len(DATA)}, s.getsockname()[:2]) for s in (silent, gone)]
        gone.close()
        nearby = near(tmp_path, place, *offers)
        assert nearby.load(manifest, whole) == DATA
        assert nearby.load(manifest, whole) == DATA
        silent.setblocking(False)
        asked = 0
        while True:
            try:
                silent.accept()[0].close()
            except BlockingIOError:
                break
            asked += 1
    assert asked == 1, "whoever fails once is not asked again"
    assert nearby.sources().peers == 0


def test_offers_of_another_size_are_passed_over(
    tmp_path: Path, place: Location, manifest: Manifest, peer: tuple[KeptPacks, Offer]
) -> None:
    shorter = Offer({PACK: len(DATA) - 1}, peer[1].address)
    nearby = near(tmp_path, place, shorter)
    assert nearby.load(manifest, whole) == DATA
    assert nearby.sources().store == len(DATA)


def test_the_address_is_the_one_that_the_way_to_rank_0_begins_with() -> None:
    assert own_address({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}) == "127.0.0.1"
    assert own_address({}) == "127.0.0.1"


def test_what_all_ranks_saved_is_what_the_slowest_did() -> None:
    ranks = [Sources(disk=5, store=1, saved=3.0), Sources(peers=5, store=1, saved=2.0, refused=1)]
    assert Sources.of_all(ranks) == Sources(5, 5, 2, 2.0, 1)
