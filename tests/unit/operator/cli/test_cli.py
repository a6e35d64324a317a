"""The command line: what it loads, how it reports errors, commands of other packages."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer

from aurl_operator import cli
from aurl_operator.commands import lazy
from aurl_operator.errors import AurlError, NotFinishedError
from aurl_trainer.contract import ExitCode
from aurl_trainer.errors import ConfigError


def aurl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aurl_operator", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "100", **environment},
        check=False,
    )


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Installs a command: `plugin(source)` makes its module, offered as `aurl guest`."""

    def install(source: str, attribute: str = "guest") -> None:
        (tmp_path / "guest_module.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "guest_module", raising=False)
        point = metadata.EntryPoint("guest", f"guest_module:{attribute}", lazy.GROUP)
        real = metadata.entry_points(group=lazy.GROUP)
        monkeypatch.setattr(lazy.metadata, "entry_points", lambda group: [*real, point])

    return install


def test_importing_the_command_line_loads_no_torch_and_nothing_slow() -> None:
    code = (
        "import sys, aurl_operator.cli; "
        "print([m for m in ('torch', 'pydantic', 'torchx', 'kopf', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "`aurl --help` must not wait for these"


def test_help_lists_every_command_with_its_line_of_help() -> None:
    done = aurl("--help")
    assert done.returncode == 0
    for name in ("run", "rehearse", "status", "validate", "explain", "report", "sample"):
        assert f" {name} " in done.stdout, f"{name} is not listed"
    assert "cannot be loaded" not in done.stdout


@pytest.mark.parametrize("command", ["run", "rehearse", "status", "validate", "explain"])
def test_each_commands_help_teaches_by_example(command: str) -> None:
    done = aurl(command, "--help")
    assert done.returncode == 0
    assert "Examples:" in done.stdout and f"aurl {command}" in done.stdout


def test_a_wrong_command_is_a_usage_error_with_a_suggestion() -> None:
    done = aurl("rnu")
    assert done.returncode == ExitCode.USAGE
    assert "No such command 'rnu'. Did you mean 'run'?" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFinishedError("saved; go on with: aurl run job.yaml"), ExitCode.NOT_FINISHED),
        (ConfigError(["job.yaml:3: spec.nodes: is required"]), ExitCode.INVALID_JOB),
        (AurlError("something of ours"), ExitCode.CRASH),
    ],
)
def test_our_errors_are_lines_and_exit_codes(
    error: Exception, code: ExitCode, plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("def guest() -> None:\n    '''A guest.'''\n    raise ERROR\n")
    import guest_module

    guest_module.ERROR = error
    assert cli.main(["guest"]) == code
    stderr = capsys.readouterr().err
    assert stderr == f"error: {error}\n", "a user's mistake is one line, never a traceback"


def test_every_problem_of_a_config_is_a_line_of_its_own(plugin, capsys: pytest.CaptureFixture[str]) -> None:
    plugin(
        "from aurl_trainer.errors import ConfigError\n"
        "def guest() -> None:\n    raise ConfigError(['a.yaml:1: x: is required', 'a.yaml:2: y: no'])\n"
    )
    assert cli.main(["guest"]) == ExitCode.INVALID_JOB
    assert capsys.readouterr().err.splitlines() == [
        "error: a.yaml:1: x: is required",
        "error: a.yaml:2: y: no",
    ]


def test_an_unexpected_error_is_one_line_and_a_file_with_the_traceback(
    plugin, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    plugin("def guest() -> None:\n    raise ZeroDivisionError('nobody foresaw this')\n")
    assert cli.main(["guest"]) == ExitCode.CRASH
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1 and "Traceback" not in stderr
    (written,) = tmp_path.glob("aurl-error-*.txt")
    assert str(written) in stderr
    assert "nobody foresaw this" in written.read_text() and "guest_module.py" in written.read_text()


def test_debug_shows_the_traceback(plugin, capsys: pytest.CaptureFixture[str]) -> None:
    plugin("def guest() -> None:\n    raise ZeroDivisionError('nobody foresaw this')\n")
    assert cli.main(["--debug", "guest"]) == ExitCode.CRASH
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_function_can_be_a_command(plugin, capsys: pytest.CaptureFixture[str]) -> None:
    plugin("def guest(name: str) -> None:\n    '''Greets.'''\n    print('hello', name)\n")
    assert cli.main(["guest", "Anna"]) == 0
    assert capsys.readouterr().out == "hello Anna\n"


def test_a_typer_app_can_be_a_command(plugin, capsys: pytest.CaptureFixture[str]) -> None:
    plugin(
        "import typer\napp = typer.Typer()\n@app.command()\ndef list() -> None:\n    print('listed')\n"
        "@app.command()\ndef verify() -> None:\n    print('verified')\n",
        attribute="app",
    )
    assert cli.main(["guest", "verify"]) == 0
    assert capsys.readouterr().out == "verified\n"


@pytest.mark.parametrize(
    ("source", "attribute", "said"),
    [
        ("import a_package_nobody_has\n", "guest", "the package a_package_nobody_has is not installed"),
        ("raise RuntimeError('broken for good')\n", "guest", "RuntimeError: broken for good"),
        ("def guest(:\n", "guest", "SyntaxError"),
        ("guest = 3\n", "guest", "neither a typer app nor a function"),
        ("x = 1\n", "guest", "AttributeError"),
    ],
)
def test_a_broken_command_is_one_line_and_breaks_no_other(
    source: str, attribute: str, said: str, plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin(source, attribute)
    assert cli.main(["--help"]) == 0
    assert "guest" in capsys.readouterr().out
    assert cli.main(["guest"]) == ExitCode.MISSING
    stderr = capsys.readouterr().err
    assert said in stderr and stderr.count("\n") == 1
    assert cli.main(["validate", "--help"]) == 0


def test_a_package_missing_only_when_the_command_runs_is_named(
    plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("def guest() -> None:\n    import a_package_nobody_has\n")
    assert cli.main(["guest"]) == ExitCode.MISSING
    assert "the package a_package_nobody_has is not installed" in capsys.readouterr().err


def test_another_package_cannot_take_the_name_of_our_command(monkeypatch: pytest.MonkeyPatch) -> None:
    thief = metadata.EntryPoint("run", "thief:run", lazy.GROUP)
    monkeypatch.setattr(lazy.metadata, "entry_points", lambda group: [thief])
    group = typer.main.get_command(cli.app)
    assert group._references()["run"].module == "aurl_operator.commands.run"
