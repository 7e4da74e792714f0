"""b40: every command does what it is there for, whatever its standard streams are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sda_daemon.library import ModelLibrary
from tests.cli.console import COMMAND, Printed, environment

M = ("--models-dir", "models")
BAD = "runs/bad.pt"
TAKE = "runs/take0/checkpoints/checkpoint_epoch0007.pt"
SHOWING = {
    "help": ("--help",),
    "convert, dry": ("convert", TAKE, "--dry-run", *M),
    "inspect, json": ("inspect", TAKE, "--json"),
    "list": ("models", "list", *M),
    "list, json": ("models", "list", "--json", *M),
    "show": ("models", "show", "1a2f", *M),
    "path": ("models", "path", "1a2f", *M),
    "verify": ("models", "verify", *M),
    "repair, dry": ("models", "repair", "--dry-run", *M),
    "trash": ("models", "trash", *M),
    "config check": ("config", "check", "--config", "sda-daemon.yaml"),
    "config show": ("config", "show", "--config", "sda-daemon.yaml"),
    "config schema": ("config", "schema"),
    "config render": ("config", "render", TAKE, "--config", "sda-daemon.yaml"),
    "events": ("events",),
    "completion": ("completion", "bash"),
    "systemd-unit": ("systemd-unit", "--user", "--config", "sda-daemon.yaml"),
}
FAILING = {
    "usage": (("models", "nothing"), 2),
    "unknown model": (("models", "show", "nobody", *M), 1),
    "no config": (("models", "list"), 78),
    "no checkpoint": (("inspect", BAD), 65),
}
NAME = "Ünïcode — 音"


def shell(line: str, library: Path, *arguments: str, **variables: str) -> Printed:
    """Run `line` in a shell, in which "$@" is the command."""
    done = subprocess.run(
        ["bash", "-c", line, "bash", COMMAND, *arguments],
        cwd=library,
        env=environment(library, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Printed(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), done.returncode)


def check_quiet(printed: Printed, code: int) -> None:
    """Assert the exit code, and that nobody sees a traceback."""
    assert printed.code == code, printed
    for word in ("Traceback", "Error in", "Exception", "Fatal Python"):
        assert word not in printed.stdout + printed.stderr


@pytest.mark.parametrize("arguments", SHOWING.values(), ids=SHOWING.keys())
def test_b40_stdout_that_takes_nothing(library: Path, arguments: tuple[str, ...]) -> None:
    """Closed: as if it had been read. A full disk: a message and 73. A reader that goes: no error."""
    usual = shell('"$@"', library, *arguments)
    check_quiet(usual, 0)
    check_quiet(shell('"$@" >&-', library, *arguments), 0)
    full = shell('"$@" >/dev/full', library, *arguments)
    if usual.stdout:
        check_quiet(full, 73)
        assert "stdout did not take everything: No space left on device" in full.stderr
    else:
        check_quiet(full, 0)
    check_quiet(shell('"$@" | true; exit ${PIPESTATUS[0]}', library, *arguments), 0)


@pytest.mark.parametrize("kind", ["convert, dry", "list", "verify", "repair, dry", "systemd-unit"])
def test_b40_stderr_that_takes_nothing(library: Path, kind: str) -> None:
    """The result is the same, closed or full, and with all three closed."""
    arguments = SHOWING[kind]
    usual = shell('"$@"', library, *arguments)
    for line in ('"$@" 2>&-', '"$@" 2>/dev/full'):
        printed = shell(line, library, *arguments)
        check_quiet(printed, 0)
        assert printed.stdout == usual.stdout
    check_quiet(shell('"$@" <&- >&- 2>&-', library, *arguments), 0)


@pytest.mark.parametrize(("arguments", "code"), FAILING.values(), ids=FAILING.keys())
def test_b40_errors_keep_their_exit_codes(library: Path, arguments: tuple[str, ...], code: int) -> None:
    """Whoever hears of them."""
    for line in ('"$@" 2>/dev/full', '"$@" <&- >&- 2>&-', '"$@" >/dev/full'):
        check_quiet(shell(line, library, *arguments), code)


@pytest.mark.parametrize("line", ['"$@" >/dev/full 2>&1', '"$@" 2>&1 | true'])
def test_b40_what_is_to_be_done_is_done(library: Path, line: str) -> None:
    """Conversions, edits and deletions do not end with the first line that nobody hears."""
    shell(line, library, "convert", "runs", "--models-dir", "fresh", "--jobs", "1")
    assert len(ModelLibrary(library / "fresh").list_all()) == 3
    shell(line, library, "models", "edit", "1a2f", "9c0d41", "9c0d77", "--tag", "heard", *M)
    assert all("heard" in entry.tags for entry in ModelLibrary(library / "models").list_all())
    shell(line, library, "models", "delete", "1a2f", "9c0d41", "9c0d77", "--yes", *M)
    assert ModelLibrary(library / "models").list_all() == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_b40_names_that_the_encoding_does_not_have(library: Path, encoding: str) -> None:
    """Commands end as always, with something else in the place of a character."""
    usual = {"PYTHONIOENCODING": encoding}
    assert shell('"$@"', library, "models", "edit", "1a2f", "--name", NAME, *M, **usual).code == 0
    folder = library / "runs" / NAME
    folder.mkdir()
    checkpoint = (library / TAKE).rename(folder / "x.pt")
    bad = folder / "bad.pt"
    bad.write_text("nothing")
    for arguments in (
        ("models", "list", *M),
        ("models", "show", NAME, *M),
        ("models", "path", "1a2f", *M),
        ("models", "list", "--format", "name", *M),
        ("inspect", str(checkpoint)),
        ("convert", str(checkpoint), "--dry-run", "--models-dir", "fresh"),
        ("convert", str(checkpoint), "--models-dir", "fresh"),
        ("config", "render", str(checkpoint), "--config", "sda-daemon.yaml"),
    ):
        check_quiet(shell('"$@"', library, *arguments, **usual), 0)
    check_quiet(shell('"$@"', library, "inspect", str(bad), **usual), 65)
    check_quiet(shell('"$@"', library, "convert", str(bad), "--models-dir", "fresh", **usual), 1)
    check_quiet(shell('"$@"', library, "models", "show", NAME + "!", *M, **usual), 1)
    check_quiet(shell('"$@"', library, "models", NAME, **usual), 2)
    listed = shell('"$@"', library, "models", "list", "--json", *M, **usual)
    assert NAME in [model["name"] for model in json.loads(listed.stdout)]


@pytest.mark.parametrize("locale", ["C"])
def test_b40_a_locale_without_characters(library: Path, locale: str) -> None:
    """Also where Python is kept from helping itself to UTF-8."""
    variables = {"LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert shell('"$@"', library, "models", "edit", "1a2f", "--name", "x", *M, **variables).code == 0
    name = shell('"$@"', library, "models", "edit", "1a2f", "--name", NAME, *M)
    assert name.code == 0
    for arguments in (("list",), ("show", "1a2f"), ("path", "1a2f"), ("list", "--json"), ("verify",)):
        check_quiet(shell('"$@"', library, "models", *arguments, *M, **variables), 0)
    check_quiet(shell('"$@"', library, "inspect", NAME, **variables), 1)


def test_b40_words_of_a_command_line_cannot_take_over_the_terminal(library: Path) -> None:
    """A file may be called like an option: `sda-daemon inspect *`."""
    evil = "--x\x1b[2J\u202e\x07"
    (library / evil).touch()
    for arguments in (("inspect", evil), ("models", evil), (evil,), ("inspect", "./" + evil), ("convert", "./" + evil)):
        printed = shell('"$@"', library, *arguments)
        check_quiet(printed, printed.code)
        assert printed.code != 0
        assert all(line.isprintable() for line in (printed.stdout + printed.stderr).splitlines())
