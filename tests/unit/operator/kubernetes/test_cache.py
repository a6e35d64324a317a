"""What the cache makes of news that come late or twice."""

from __future__ import annotations

from typing import Any

from aurl_operator.backends.kubernetes.cache import Cache

KEY = ("music", "bach")


def job(uid: str, version: int) -> dict[str, Any]:
    metadata = {"namespace": "music", "name": "bach", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {}}


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
