"""What the operator is told from outside: environment variables, read once and checked.

Not here: what a job says (api/), where the cluster is (KUBECONFIG, or the pod's own service account).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from aurl_operator.errors import UsageError

PREFIX = "AURL_"


def _listed(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""Text separated by commas."""


class Settings(BaseModel):
    """Each field is the environment variable `AURL_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    namespaces: Listed = ()
    """Namespaces to serve; empty: all, with rights on the whole cluster."""
    default_image: str | None = None
    """Image of jobs that name none."""
    notice_taints: Listed | None = None
    """Taints that announce a machine's end; absent: those of the known clouds."""
    watch_nodes: Literal["auto", "yes", "no"] = "auto"
    """Watch machines; `auto`: unless namespaces are given, since it needs rights on the cluster."""
    metrics_port: int = 9090
    """Prometheus metrics; 0: none."""
    health_port: int = 8080
    """/healthz and /readyz; 0: none."""
    lease_name: str = "aurl-operator"
    lease_namespace: str | None = None
    """Absent: the namespace of the operator's own pod, or of the kubeconfig's context."""
    identity: str = Field(default_factory=socket.gethostname)
    """Name of this replica, for the Lease."""
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Jobs of one namespace looked at at once; a quarter as many more are kept for the other namespaces."""
    creates_per_second: Annotated[float, Field(gt=0)] = 200.0
    """Most pods created a second, over all jobs."""
    log_format: Literal["json", "text"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    testing: bool = False
    stop_after_calls: int | None = None
    """With AURL_TESTING=1: the process kills itself right after its n-th write, as by power failure."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read AURL_*. Raises UsageError that names the variable."""
        known = {PREFIX + name.upper(): name for name in cls.model_fields}
        given = {known[key]: value for key, value in env.items() if key in known and value != ""}
        try:
            found = cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + str(first["loc"][0]).upper()
            raise UsageError(f"{name}={given.get(str(first['loc'][0]))!r}: {first['msg']}") from None
        if found.stop_after_calls is not None and not found.testing:
            raise UsageError("AURL_STOP_AFTER_CALLS is for tests: it needs AURL_TESTING=1")
        return found

    @classmethod
    def or_exit(cls) -> Settings:
        """For programs: a mistake ends the process, with one line that names the variable."""
        try:
            return cls.from_environment()
        except UsageError as error:
            print(f"aurl-operator: {error}", file=sys.stderr)
            sys.exit(int(error.exit_code))

    @property
    def machines(self) -> bool:
        """Whether machines are watched."""
        return not self.namespaces if self.watch_nodes == "auto" else self.watch_nodes == "yes"
