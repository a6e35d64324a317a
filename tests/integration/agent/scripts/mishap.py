"""An agent as it is, but that something happens to it at an instant that nobody hits from outside.

slow-store: as it leaves the rendezvous another node writes, and the store answers nothing for longer than
leaving may take. notice, kill: told to leave, or killed, when its world is complete and the other node of it
trains already, before this one has said anything there.
"""

import os
import pickle
import signal
import threading
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

from aurl_trainer.agent.__main__ import main
from aurl_trainer.agent.rendezvous import Rendezvous

MISHAP = os.environ.pop("AURL_TEST_MISHAP")
STORE = int(os.environ.pop("AURL_TEST_STORE"))
leave, next_rendezvous = Rendezvous.leave, Rendezvous.next_rendezvous


def leave_slowly(self: Rendezvous) -> None:
    state = pickle.loads(self.backend.get_state()[0])
    state.last_heartbeats[self._this_node] = datetime.now(UTC) + timedelta(seconds=60)  # or it is forgotten
    self._store.set(self.backend._key, b64encode(pickle.dumps(state)).decode())
    os.kill(STORE, signal.SIGSTOP)
    threading.Timer(8.0, os.kill, (STORE, signal.SIGCONT)).start()
    leave(self)


def form_and_be_lost(self: Rendezvous) -> Any:
    world = next_rendezvous(self)
    while not self._store.check([f"aurl/test/{self.round}/agent/{1 - world.rank}"]):
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM if MISHAP == "notice" else signal.SIGKILL)
    time.sleep(0.5)
    return world


if __name__ == "__main__":
    if MISHAP == "slow-store":
        Rendezvous.leave = leave_slowly  # type: ignore[method-assign]
    else:
        Rendezvous.next_rendezvous = form_and_be_lost  # type: ignore[method-assign]
    main()
