"""Which code this is: what a manifest records about its writer."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path


@functools.cache
def code_versions() -> dict[str, str | None]:
    """Versions of aurl, torch and Python, and the git commit where aurl runs from a checkout (else None)."""
    return {
        "aurl": _version("aurl"),
        "torch": _version("torch"),
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    checkout = next((p for p in here.parents if (p / ".git").exists()), None)
    # A virtual environment inside somebody else's checkout says nothing about this code.
    if checkout is None or "site-packages" in here.parts:
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
