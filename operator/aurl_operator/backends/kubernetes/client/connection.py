"""Where the API server is and who we are there: a kubeconfig, or the service account of our own pod.

kubernetes' own loaders read both, run exec plugins and renew tokens. Not `kubernetes.aio`: TorchX and kopf
load `kubernetes.client` anyhow, and a second set of its models takes 32 MB. Not here: requests (api.py).
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

from kubernetes.client import Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.config.kube_config import KubeConfigMerger

from aurl_operator.backends.kubernetes.client.errors import UnavailableError
from aurl_operator.errors import MissingError

HOW = "set KUBECONFIG, or create a cluster (docs/tour.md shows it with kind)"

TOKEN_SECONDS = 10.0
"""A token is asked for again after so long; who gives it renews it minutes before its end."""


@dataclass
class Connection:
    """An API server, and how to prove who we are. For one event loop."""

    host: str
    tls: ssl.SSLContext | None
    configuration: Configuration
    namespace: str
    """The context's own namespace; `default` if it names none."""
    _headers: dict[str, str] = field(default_factory=dict)
    _fresh_until: float = 0.0
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def headers(self) -> dict[str, str]:
        """What each request must carry; renews a token that has run out. Raises UnavailableError."""
        async with self._asking:
            if time.monotonic() >= self._fresh_until:
                self._headers = await self._ask()
                self._fresh_until = time.monotonic() + TOKEN_SECONDS
        return self._headers

    async def _ask(self) -> dict[str, str]:
        try:
            # In a thread: a plugin of a kubeconfig may take seconds.
            key = await asyncio.to_thread(self.configuration.get_api_key_with_prefix, "BearerToken")
        except (OSError, ConfigException) as error:
            raise UnavailableError(0, type(error).__name__, f"no token: {error}") from None
        if not key:
            return {}
        return {"Authorization": key if key.lower().startswith("bearer ") else f"Bearer {key}"}


async def connection(context: str | None = None) -> Connection:
    """That of a kubeconfig (KUBECONFIG, ~/.kube/config); in a pod that names neither, its service account's.

    Raises MissingError.
    """
    configuration = Configuration()
    inside = "KUBERNETES_SERVICE_HOST" in os.environ and context is None and not os.environ.get("KUBECONFIG")
    namespace = "default"
    try:
        if inside:
            load_incluster_config(client_configuration=configuration)
            own = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
            namespace = own.read_text().strip() if own.exists() else namespace
        else:
            namespace = await asyncio.to_thread(_from_file, context, configuration)
    except (ConfigException, FileNotFoundError) as error:
        raise MissingError(f"no cluster: {str(error).splitlines()[0]}; {HOW}") from None
    return Connection(configuration.host.rstrip("/"), _tls(configuration), configuration, namespace)


def _from_file(context: str | None, configuration: Configuration) -> str:
    """Fills `configuration`; returns the context's namespace. Raises MissingError and ConfigException."""
    # Looked up here: kubernetes looks at KUBECONFIG once, when it is imported.
    file = os.environ.get("KUBECONFIG") or "~/.kube/config"
    known = KubeConfigMerger(file).config
    there = {} if known is None else {c["name"]: c["context"] for c in known["contexts"]}
    if context is not None and context not in there:
        has = f"it has {', '.join(there)}" if there else HOW
        raise MissingError(f"no context {context} in {file}; {has}")
    load_kube_config(file, context, configuration, persist_config=False)
    return str(there[context or known["current-context"]].safe_get("namespace") or "default")


def _tls(configuration: Configuration) -> ssl.SSLContext | None:
    if not configuration.host.startswith("https"):
        return None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
