"""The nodes of a world tell each other what they have on their disks, and serve it while all load.

Called by all ranks at the same points, as the checkpointer is. Not here: the copies (store/kept.py).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.checkpoint.peers.nearby import Nearby, Offer
from aurl_trainer.checkpoint.peers.serving import PackServer, own_address
from aurl_trainer.store.kept import KeptPacks
from aurl_trainer.store.location.place import Location

log = logging.getLogger(__name__)


class Neighbours:
    """This rank's part in it. `serves`: it is the one of its node that serves."""

    def __init__(self, kept: KeptPacks, serves: bool) -> None:
        self._kept = kept
        self._serves = serves

    @contextlib.contextmanager
    def meet(self, ranks: Ranks, place: Location) -> Iterator[Nearby]:
        """The way to the packs at `place` and nearby, as long as the block lasts.

        Let all ranks have read before one of them leaves the block: it serves no longer.
        """
        token = ranks.first(lambda: secrets.token_urlsafe(32))
        server: PackServer | None = None
        sizes = self._kept.sizes()
        if self._serves and sizes and ranks.size > 1:
            try:
                server = PackServer(self._kept, token, own_address())
            except OSError as error:
                log.warning("this node serves no copies to its peers: %s", error.strerror)
        mine = Offer(sizes if server else {}, server.address if server else None)
        try:
            offers = ranks.together(lambda: mine)
            others = [o for rank, o in enumerate(offers) if rank != ranks.rank]
            yield Nearby(place, self._kept, token, others)
        finally:
            if server is not None:
                server.close()
