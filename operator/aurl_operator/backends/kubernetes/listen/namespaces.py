"""Which namespaces of a list can be served: one without rights, or gone with its Role, harms no other.

Not here: a right that is missing for one action on one job (act/).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ForbiddenError

log = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
"""How often it is asked whether one that could not be served can be by now."""


@dataclass(frozen=True)
class Namespaces:
    """Those of a list that can be served, and those that cannot."""

    served: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


async def divided(api: Api, wanted: Iterable[str]) -> Namespaces:
    """Asks each one for its jobs and pods. Raises the last refusal if there is none that can be served."""
    served: list[str] = []
    left: list[str] = []
    refused: ForbiddenError | None = None
    for namespace in wanted:
        try:
            await listed(api, namespace)
            served.append(namespace)
        except ForbiddenError as error:
            log.error("namespace %s is not served: %s", namespace, error.message)
            left.append(namespace)
            refused = error
    if refused is not None and not served:
        raise refused
    return Namespaces(tuple(served), tuple(left))


async def listed(api: Api, namespace: str) -> None:
    """Raises ForbiddenError if jobs or pods may not be listed there."""
    await api.get(paths.jobs(namespace), limit="1")
    await api.get(paths.pods(namespace), limit="1", labelSelector=names.SELECTOR)
