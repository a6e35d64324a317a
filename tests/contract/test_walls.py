"""Walls that no linter sees: what may lie where, and what an import may bring along."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("folder", ["operator", "trainer"])
def test_the_folders_of_the_packages_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists(), (
        f"{folder}/__init__.py would shadow the standard library's module under `python -m pytest`"
    )


def test_the_standard_library_is_still_found() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.__file__)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(ROOT) not in done.stdout


def test_packages_have_empty_init_files() -> None:
    full = [
        str(p.relative_to(ROOT))
        for package in ("operator/aurl_operator", "trainer/aurl_trainer")
        for p in (ROOT / package).rglob("__init__.py")
        if p.read_text().strip()
    ]
    assert full == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("aurl_operator.cli", "torch"),
        ("aurl_operator.app", "torch"),
        # Its models are those of kubernetes.client once more, which kopf and TorchX load.
        ("aurl_operator.app", "kubernetes.aio"),
        ("aurl_trainer.config.experiment", "torch"),
        ("aurl_trainer.store", "torch"),
    ],
)
def test_importing_leaves_out_what_is_heavy(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", f"importing {module} loads {heavy}"


AGENT = sorted(f"agent/{p.name}" for p in (ROOT / "trainer/aurl_trainer/agent").glob("*.py"))


@pytest.mark.parametrize("name", ["contract.py", *AGENT])
def test_files_that_travel_alone_import_little(name: str) -> None:
    tree = ast.parse((ROOT / "trainer/aurl_trainer" / name).read_text())
    found = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: line {node.lineno}: relative imports hide what is imported"
            module = str(node.module)
            # `from package import name` may import a module of that name.
            found |= {f"{module}.{a.name}" for a in node.names} if module == "aurl_trainer" else {module}
    allowed = set(sys.stdlib_module_names)
    if name != "contract.py":
        allowed |= {"torch", "aurl_trainer"}
    assert {m for m in found if m.split(".")[0] not in allowed} == set()
    ours = {m for m in found if m.startswith("aurl_trainer")}
    assert {
        m for m in ours if m != "aurl_trainer.contract" and not m.startswith("aurl_trainer.agent.")
    } == set()


def test_the_agent_is_a_flat_folder() -> None:
    """A ConfigMap holds files, no folders."""
    folder = ROOT / "trainer/aurl_trainer/agent"
    assert "agent/__main__.py" in AGENT
    inner = [p.name for p in folder.iterdir() if p.is_dir() and p.name != "__pycache__"]
    assert inner == [], f"{inner} cannot be mounted with the rest of agent/"
