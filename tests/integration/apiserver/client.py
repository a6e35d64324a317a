"""Questions that tests ask the API server again and again: a kubectl for each would cost too much."""

from __future__ import annotations

import functools
import os
from typing import Any

from kubernetes import client, config


def api_client() -> client.ApiClient:
    """The client for KUBECONFIG; threads may share it."""
    return _client(os.environ["KUBECONFIG"])


@functools.cache
def _client(path: str) -> client.ApiClient:
    return config.new_client_from_config(path)


def job_object(namespace: str, name: str) -> dict[str, Any]:
    """The job as the API server has it. Raises ApiException if there is none."""
    jobs = client.CustomObjectsApi(api_client())
    found: dict[str, Any] = jobs.get_namespaced_custom_object(
        "aurl.dev", "v1alpha1", namespace, "aurltrainingjobs", name
    )
    return found
