"""What nodes say of their progress ends no local run, whatever it is."""

from __future__ import annotations

import dataclasses

import pytest

from aurl_operator.backends.local.supervisor import decide
from aurl_operator.core.memory import Memory
from aurl_operator.core.observed import LOCAL, Observed
from aurl_trainer.contract import Progress
from tests.unit.operator.core.scene import T0, make_job

STRANGE = Progress(0, 1, 1, "step", step="abc", total_steps=9, at=T0)  # type: ignore[arg-type]


def test_progress_that_cannot_be_used_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    plain = Observed(now=T0 + 1.0, job=make_job(), run_id="run", memory=Memory(), capabilities=LOCAL)
    found = decide(dataclasses.replace(plain, progress=STRANGE))
    assert found == decide(plain), "expected the plan that is made without progress"
    assert found[1] is None, "expected it to be forgotten"
    assert "cannot be used" in caplog.text


def test_any_other_error_is_not_hidden() -> None:
    strange = Observed(now="x", job=make_job(), run_id="run", memory=Memory())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        decide(strange)
