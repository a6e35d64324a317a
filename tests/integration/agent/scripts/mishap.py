"""An agent as it is, but that something happens to it at an instant that nobody hits from outside.

slow-store: as it leaves the rendezvous another node writes, and the store answers nothing for longer than
leaving may take.
"""

import os
import pickle
import signal
import threading
from base64 import b64encode
from datetime import UTC, datetime, timedelta

from aurl_trainer.agent.__main__ import main
from aurl_trainer.agent.rendezvous import Rendezvous

MISHAP = os.environ.pop("AURL_TEST_MISHAP")
STORE = int(os.environ.pop("AURL_TEST_STORE"))
leave = Rendezvous.leave


def leave_slowly(self: Rendezvous) -> None:
    state = pickle.loads(self.backend.get_state()[0])
    state.last_heartbeats[self._this_node] = datetime.now(UTC) + timedelta(seconds=60)  # or it is forgotten
    self._store.set(self.backend._key, b64encode(pickle.dumps(state)).decode())
    os.kill(STORE, signal.SIGSTOP)
    threading.Timer(8.0, os.kill, (STORE, signal.SIGCONT)).start()
    leave(self)


if __name__ == "__main__":
    assert MISHAP == "slow-store"
    Rendezvous.leave = leave_slowly  # type: ignore[method-assign]
    main()
