"""One way to name a checkpoint: what each form means, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurl_trainer.config.reference import (
    Best,
    Exact,
    Latest,
    Number,
    Reference,
    Step,
    Tag,
    Which,
    beside,
    parse_which,
    tag_problem,
)
from aurl_trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "run", "which"),
    [
        ("runs/bach", "runs/bach", Latest()),
        ("bach@latest", "bach", Latest()),
        ("s3://bucket/bach@best", "s3://bucket/bach", Best("val_nll")),
        ("bach@best:groove:max", "bach", Best("groove", greatest=True)),
        ("bach@best:music/overlap:min", "bach", Best("music/overlap")),
        ("bach@step:1200", "bach", Step(1200)),
        ("bach@v12", "bach", Number(12)),
        ("a@v000012-s00001200-g000001-5f3a9c01", "a", Exact("v000012-s00001200-g000001-5f3a9c01")),
        ("bach@for-the-paper_2", "bach", Tag("for-the-paper_2")),
        ("gs://bucket@prod", "gs://bucket", Tag("prod")),
        # An @ that belongs to the URL or to a path.
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a", Latest()),
        ("abfs://box@account/a@v3", "abfs://box@account/a", Number(3)),
        ("abfs://box@account", "abfs://box@account", Latest()),
        ("sftp://me@host", "sftp://me@host", Latest()),
        ("s3://key:word@bucket/a", "s3://key:word@bucket/a", Latest()),
        ("runs@home/bach", "runs@home/bach", Latest()),
    ],
)
def test_what_a_reference_means(text: str, run: str, which: Which) -> None:
    found = Reference.parse(text)
    assert (found.run, found.which) == (run, which)
    assert Reference.parse(str(found)) == found


@pytest.mark.parametrize("text", ["bach@", "bach@best of all", "bach@step:", "bach@step", "bach@best:"])
def test_what_names_no_checkpoint_is_refused_with_what_may_be_said(text: str) -> None:
    with pytest.raises(ConfigError, match="names no checkpoint; say latest, best, "):
        Reference.parse(text)


@pytest.mark.parametrize("text", ["", "@best"])
def test_a_reference_needs_a_run(text: str) -> None:
    with pytest.raises(ConfigError, match="names no run"):
        Reference.parse(text)


@pytest.mark.parametrize("text", ["latest", "best", "v12", "", "a.b", "a/b", "a b", "-a", "x" * 64])
def test_these_are_no_tags(text: str) -> None:
    assert tag_problem(text) is not None


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", fullmatch=True))
def test_a_word_is_a_tag_or_means_something_else(text: str) -> None:
    found = parse_which(text)
    assert (tag_problem(text) is None) == (found == Tag(text)), f"{text} is read as {found}"


@pytest.mark.parametrize(
    ("text", "uri", "expected"),
    [
        ("bach@best", "s3://bucket/runs/mozart", "s3://bucket/runs/bach@best:val_nll"),
        ("bach", "s3://bucket/mozart/", "s3://bucket/bach"),
        ("bach", "s3://bucket", "bach"),
        ("bach", None, "bach"),
        ("runs/bach@v3", "s3://bucket/mozart", "runs/bach@v3"),
        ("gs://other/bach@v3", "s3://bucket/mozart", "gs://other/bach@v3"),
    ],
)
def test_a_bare_name_is_a_run_beside_ours(text: str, uri: str | None, expected: str) -> None:
    assert beside(text, uri) == expected
