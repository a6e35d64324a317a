"""What a job may not say when it is written, beyond what the models refuse: as the API server's rules say it.

An object that a cluster holds is not asked: it may be older than a rule, and none of this keeps a job from
running (such a queue is passed over, such a wait is the longest allowed). The same in CEL: crd/rules.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from aurl_operator.api.spec import JobSpec
from aurl_trainer.config.document import Place


def at_odds(spec: JobSpec) -> Iterator[tuple[Place, str]]:
    """Where below `spec` something is wrong, and what."""
    if spec.scheduling.queue is not None and spec.scheduling.gang == "None":
        yield ("scheduling", "queue"), "scheduling.queue needs scheduling.gang: Volcano or Kueue"
    if spec.command is not None and spec.cleanup.checkpoints != "Keep":
        words = "cleanup.checkpoints: Aurl does not know the checkpoints of a command; use Keep"
        yield ("cleanup", "checkpoints"), words
    if spec.checkpoint.uri is not None and "://" not in spec.checkpoint.uri:
        words = "uri: expected a URL, as in s3://bucket/run (on this machine: file:///home/me/run)"
        yield ("checkpoint", "uri"), words
    recovery = spec.recovery
    for name, budget in (
        ("preemptions", recovery.preemptions),
        ("nodeLost", recovery.node_lost),
        ("crashes", recovery.crashes),
        ("hang", recovery.hang),
        ("outOfMemory", recovery.out_of_memory),
    ):
        first, most = budget.backoff.initial_seconds, budget.backoff.max_seconds
        if first > most:
            words = f"initialSeconds ({first}) is more than maxSeconds ({most})"
            yield ("recovery", name, "backoff"), words
