"""Generated files are what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from aurl_operator.commands.generate import GENERATED, exit_codes, generate
from aurl_trainer.contract import ExitCode

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("name", GENERATED)
def test_the_file_in_the_repository_is_unchanged(name: str) -> None:
    assert (ROOT / name).read_text() == GENERATED[name](), f"{name} is stale: run `make generate`"


def test_every_exit_code_is_documented() -> None:
    rows = {line.split("|")[1].strip(): line for line in exit_codes().splitlines() if line.startswith("| ")}
    for code in ExitCode:
        assert f"`{code.name}`" in rows[str(int(code))]
        assert len(rows[str(int(code))].split("|")[3].strip()) > 4, f"{code.name} has no docstring"


def test_check_fails_on_a_stale_file_and_writes_nothing(tmp_path: Path) -> None:
    generate(root=tmp_path)
    page = tmp_path / "docs/exit-codes.md"
    assert page.read_text() == exit_codes()
    generate(check=True, root=tmp_path)
    page.write_text("stale")
    with pytest.raises(typer.Exit) as end:
        generate(check=True, root=tmp_path)
    assert end.value.exit_code == 1
    assert page.read_text() == "stale"
