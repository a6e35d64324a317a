"""What the cache makes of news that come late or twice."""

from __future__ import annotations

from typing import Any

import pytest

from aurl_operator.backends.kubernetes.cache import Cache

KEY = ("music", "bach")


def job(uid: str, version: int) -> dict[str, Any]:
    metadata = {"namespace": "music", "name": "bach", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {}}


def pod(uid: str, job: str, version: int = 1) -> dict[str, Any]:
    owner = {"apiVersion": "aurl.dev/v1alpha1", "kind": "AurlTrainingJob", "name": "bach", "uid": job}
    metadata = {
        "namespace": "music",
        "name": f"bach-{uid}",
        "uid": uid,
        "resourceVersion": str(version),
        "ownerReferences": [owner],
    }
    return {"kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": "Running"}}


def test_an_answer_that_comes_after_the_end_does_not_bring_a_job_back() -> None:
    cache = Cache(())
    cache.put_job(job("one", 1))
    cache.drop_job(job("one", 3))
    cache.renew_job(job("one", 2))
    assert KEY not in cache.entries, "it would be looked at for ever"


def test_an_answer_about_a_job_that_was_made_anew_is_passed_over() -> None:
    cache = Cache(())
    cache.put_job(job("one", 1))
    cache.put_job(job("two", 5))
    cache.renew_job(job("one", 4))
    assert cache.entries[KEY].uid == "two"
    cache.renew_job(job("two", 6))
    assert cache.entries[KEY].version == "6"


@pytest.mark.parametrize("last", ["dropped", "put"])
def test_a_job_made_anew_under_its_name_has_no_part_in_the_pods_of_the_deleted_one(last: str) -> None:
    cache = Cache(())
    cache.put_job(job("one", 1))
    cache.put_pod(pod("old", "one"))
    cache.drop_job(job("one", 2))
    # It saves and leaves, for as long as it has grace.
    cache.put_pod(pod("old", "one", 3))
    cache.put_job(job("two", 4))
    if last == "dropped":
        assert cache.drop_pod(pod("old", "one", 5), 0.0) is None
    else:
        cache.put_pod(pod("old", "one", 5))
    entry = cache.entries[KEY]
    assert not entry.pods and not entry.vanished, "its end would be booked as a loss of the new job"


def test_a_machine_of_which_nobody_has_told_yet_has_not_gone() -> None:
    cache = Cache(())
    cache.put_job(job("one", 1))
    lost = pod("a", "one")
    lost["spec"] = {"nodeName": "gone-before-the-start"}
    cache.put_pod(lost)
    cache.machines_listed()
    assert cache.machine_gone("gone-before-the-start")
    assert not cache.machine_gone("new"), "expected a pod on a machine that is just joining to be let live"
    node = {"metadata": {"name": "new"}, "spec": {}, "status": {}}
    cache.put_machine(node)
    cache.drop_machine(node)
    assert cache.machine_gone("new")
    cache.put_machine(node)
    assert not cache.machine_gone("new"), "expected one that joins again to count"


def test_pods_that_are_listed_before_their_job_are_its_own() -> None:
    cache = Cache(())
    cache.put_pod(pod("mine", "one"))
    cache.put_pod(pod("old", "zero"))
    cache.put_job(job("one", 1))
    assert set(cache.entries[KEY].pods) == {"mine"}
