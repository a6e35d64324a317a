"""Which fields of a job may change after it was created: one table, for the rules and the reference.

`never` says what would be needed instead. A field that is not named may change at any time.
"""

from __future__ import annotations

FIXED: dict[str, str] = {
    "training": "what is trained is what the checkpoints hold: create a new job with initFrom or a new name",
    "command": "the program is what the checkpoints are of: create a new job",
    "procsPerNode": "the number of ranks on a node is fixed at the start: create a new job",
    "checkpoint.uri": "a run stays where its checkpoints are: create a new job",
    "initFrom": "its weights are taken once, at the first start: create a new job",
    "scheduling.gang": "pods already belong to a scheduler: create a new job",
}
"""By dotted path; a field that was absent stays absent."""

_RANK_0 = "for worlds whose rank 0 runs in a pod started from then on, as after a suspension"

RESTARTS: dict[str, str] = {
    "nodes": "all nodes save, then start with the new range",
    "suspend": "nodes save and leave, or start again",
    "image": "for pods that start from then on",
    "resources": "for pods that start from then on",
    "template": "for pods that start from then on",
    "serviceAccountName": "for pods that start from then on",
    "checkpoint.every": _RANK_0,
    "checkpoint.keep": _RANK_0,
    "checkpoint.secret": "for pods that start from then on",
    "terminationGracePeriodSeconds": "for pods that start from then on",
}
"""What a change of other fields does; those not named act at once."""
