"""Times as Kubernetes writes them, as seconds since the epoch."""

from __future__ import annotations

from datetime import datetime


def seconds(text: str | None) -> float | None:
    """`2026-01-31T12:00:00Z`, with or without fractions; None for None."""
    return None if text is None else datetime.fromisoformat(text).timestamp()
