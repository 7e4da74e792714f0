"""What may not be read or written: 73 and what to do, from every command, whoever runs it; nothing is half done."""

from __future__ import annotations

import shutil
import subprocess
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from sda_daemon.cli.app import app
from sda_daemon.library import ModelLibrary
from sda_daemon.state.ledger import Ledger
from tests.cli.console import COMMAND, Printed, environment, run, run_each
from tests.permissions import bound

M = ("--models-dir", "models")
C = ("--config", "sda-daemon.yaml")
CHECKPOINT = "runs/take0/checkpoints/checkpoint_epoch0007.pt"
MODEL = "models/rain_on_tin.sda"
INDEX = "models/model_library.json"
LOCK = "models/.model_library.lock"
READING = (
    ("models", "list"),
    ("models", "list", "--json"),
    ("models", "search", "rain"),
    ("models", "show", "1a2f"),
    ("models", "path", "1a2f"),
    ("models", "export", "1a2f", "--to", "out.sda"),
    ("models", "trash"),
    ("models", "trash", "--empty", "--yes"),
    ("models", "restore", "rain"),
    ("models", "repair", "--dry-run"),
    ("models", "verify"),
    ("convert", CHECKPOINT, "--dry-run"),
)
WRITING = (
    ("models", "edit", "1a2f", "--name", "Rain"),
    ("models", "delete", "1a2f", "--yes"),
    ("models", "delete", "1a2f", "--purge", "--yes"),
)
ALL = (*READING, *WRITING, ("models", "repair", "--yes"), ("convert", CHECKPOINT))
OF_CONFIG = (
    ("config", "check"),
    ("config", "show"),
    ("config", "render", CHECKPOINT),
    ("run", "--once"),
    ("status",),
    ("retry", "--all"),
    ("models", "list"),
    ("convert", CHECKPOINT),
)


@contextmanager
def closed(*paths: Path, mode: int = 0) -> Iterator[None]:
    """Take permissions away from files or folders for a while."""
    before = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(mode)
    try:
        yield
    finally:
        for path, old in zip(paths, before, strict=True):
            path.chmod(old)


def check(printed: Printed, *parts: str) -> None:
    """Assert that a command was refused: 73, what, what to do, and neither usage nor a traceback."""
    assert printed.code == 73, printed
    for part in ("Permission denied", "permissions", *parts):
        assert part in printed.stderr, printed
    for word in ("Usage", "Traceback", "Errno", ".tmp", ".sda-work"):
        assert word not in printed.stderr, printed


def check_each(commands: Sequence[Sequence[str]], cwd: Path, *more: str, parts: Sequence[str] = ()) -> None:
    """Assert that each of these commands is refused."""
    for printed in run_each([[*command, *more] for command in commands], cwd):
        check(printed, *parts)


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commands_of(application: typer.Typer) -> Iterator[Any]:
    """Every command's function."""
    yield from (command.callback for command in application.registered_commands)
    for group in application.registered_groups:
        assert group.typer_instance is not None
        yield from commands_of(group.typer_instance)


def test_no_path_is_judged_before_it_is_opened() -> None:
    """Typer would call what may not be read a mistake in the command line: its check is off for every parameter."""
    found = []
    for command in commands_of(app):
        for name, hint in typing.get_type_hints(command, include_extras=True).items():
            if typing.get_origin(hint) is typing.Annotated and "Path" in str(typing.get_args(hint)[0]):
                found.append(f"{command.__name__} {name}")
                assert not typing.get_args(hint)[1].readable, found[-1]
    assert len(found) > 30


@pytest.mark.parametrize("mode", [0, 0o444])
@pytest.mark.parametrize("what", [CHECKPOINT, "runs/take0", "runs"])
def test_a_checkpoint_that_may_not_be_read(library: Path, what: str, mode: int) -> None:
    """The file itself, or a folder on the way to it, which may be listed or not: 73 for whatever is done with it."""
    if what == CHECKPOINT and mode:
        mode = 0o200
    with closed(library / what, mode=mode):
        commands = [("inspect", CHECKPOINT), ("inspect", "--json", CHECKPOINT), ("inspect", "--no-check", CHECKPOINT)]
        check_each(commands, library, parts=[CHECKPOINT])
        if what != CHECKPOINT:
            commands = [("convert", CHECKPOINT, *M), ("config", "render", CHECKPOINT, *C)]
            check_each(commands, library, parts=[CHECKPOINT])


def test_converting_what_may_not_be_read(library: Path) -> None:
    """A file: 73, and nobody is told that it is tried again. Beside others that fail for other reasons: 1."""
    with closed(library / CHECKPOINT):
        printed = run("convert", CHECKPOINT, "--models-dir", "fresh", cwd=library, is_bound=True)
        check(printed, f"({CHECKPOINT}). Check owner and permissions\n")
        check(run("config", "render", CHECKPOINT, *C, cwd=library, is_bound=True), CHECKPOINT)
        printed = run("convert", CHECKPOINT, "none.pt", "--models-dir", "fresh", cwd=library, is_bound=True)
    assert printed.code == 1, printed
    assert "Permission denied" in printed.stderr


def test_a_closed_folder_is_told_and_the_others_are_converted(library: Path) -> None:
    """It may hold checkpoints: to say nothing of it would be to say that there are none."""
    (library / "runs" / "bad.pt").unlink()
    with closed(library / "runs" / "take0"):
        printed = run("convert", "runs", "--models-dir", "fresh", cwd=library, is_bound=True)
    check(printed, "(runs/take0). Check owner", "2 converted, 1 failed")
    assert len(ModelLibrary(library / "fresh").list_all()) == 2


@pytest.mark.parametrize("argument", ["runs/take0", "runs/take0/checkpoints", "runs/*/*/*.pt", "runs/take0/**/*.pt"])
def test_nothing_to_convert_behind_a_closed_folder(library: Path, argument: str) -> None:
    """Folders and globs: not "nothing to convert" or "nothing fits"."""
    for other in ("take1", "take2"):
        shutil.rmtree(library / "runs" / other)
    with closed(library / "runs" / "take0"):
        check_each([("convert", argument, *M)], library, parts=["runs/take0"])
    with closed(library / "runs" / "take0", mode=0o444):
        check_each([("convert", argument, *M)], library, parts=["runs/take0"])


def test_a_config_that_may_not_be_read(library: Path) -> None:
    """Wherever it is named: every command that reads it says so, also the daemon."""
    path = library / "sda-daemon.yaml"
    with closed(path):
        check_each([*OF_CONFIG, ("systemd-unit", "--user")], library, *C, parts=["sda-daemon.yaml: the config file"])
        check_each([("config", "check", "sda-daemon.yaml")], library, parts=["Check the path, its owner and"])
        for printed in run_each(OF_CONFIG, library, SDA_DAEMON_CONFIG=str(path)):
            check(printed, f"{path}: the config file cannot be read")


@pytest.mark.parametrize("mode", [0, 0o444])
def test_a_config_at_the_usual_place_that_may_not_be_looked_at(library: Path, mode: int) -> None:
    """It is not taken for missing."""
    home = library / "home"
    folder = home / "sda-daemon"
    folder.mkdir(parents=True)
    shutil.copy(library / "sda-daemon.yaml", folder / "config.yaml")
    with closed(folder, mode=mode):
        for printed in run_each([*OF_CONFIG, ("config", "init")], library, XDG_CONFIG_HOME=str(home)):
            check(printed, "config.yaml")


def test_a_valid_config_of_folders_where_one_is_not_let_in(library: Path) -> None:
    """It is valid all the same: the daemon may be another user."""
    config = library / "sda-daemon.yaml"
    config.write_text("models_dir: models\nwatch:\n  - path: runs/take0/checkpoints\n")
    with closed(library / "runs"):
        (printed,) = run_each([("config", "check", *C)], library)
    assert printed.code == 0, printed
    assert "checkpoints (you cannot look there: Permission denied)" in printed.stdout


@pytest.mark.parametrize("mode", [0, 0o444])
def test_a_library_that_may_not_be_looked_into(library: Path, mode: int) -> None:
    """The folder: from every command, by --models-dir as by the config."""
    with closed(library / "models", mode=mode):
        check_each(ALL, library, *M, parts=["models"])
        check_each([*ALL, ("run", "--once")], library, *C, parts=["models"])


def test_an_index_that_may_not_be_read(library: Path) -> None:
    """It is not taken for broken or missing, and stays as it is."""
    before = content(library / "models")
    with closed(library / INDEX):
        check_each(ALL, library, *M, parts=[f"{INDEX} cannot be read"])
        check_each([("run", "--once")], library, *C, parts=[f"{INDEX} cannot be read"])
    assert before.items() <= content(library / "models").items()


@pytest.mark.parametrize("what", ["models", LOCK])
def test_a_library_that_may_not_be_changed(library: Path, what: str) -> None:
    """Its folder or its lock file: changes are refused and nothing is changed; looking at it is not refused."""
    before = content(library / "models")
    with closed(library / what, mode=0o555 if what == "models" else 0):
        check_each(WRITING, library, *M, parts=["models"])
        for printed in run_each([(*command, *M) for command in READING[:5]], library):
            assert (printed.code, printed.stderr) == (0, ""), printed
    assert content(library / "models") == before


def test_a_model_file_that_may_not_be_read(library: Path) -> None:
    """Each command that needs it says so; what the index knows is told without it."""
    with closed(library / MODEL):
        commands = [("inspect", MODEL), ("models", "export", "1a2f", "--to", ".", *M),
                    ("models", "edit", "1a2f", "--name", "x", *M),
                    ("models", "show", "1a2f", *M), ("models", "show", "1a2f", "--json", *M)]  # fmt: skip
        *refused, shown, document = run_each(commands, library)
        for printed in (*refused, shown):
            check(printed, MODEL)
        assert "Rain on tin" in shown.stdout
        assert document.json()["problem"] == f"Permission denied ({MODEL}). Check owner and permissions"
        assert document.code == 73
        listed, found = run_each([("models", "list", *M), ("models", "repair", "--dry-run", *M)], library)
        assert (listed.code, "Rain on tin" in listed.stdout) == (0, True)
        assert f"Permission denied ({MODEL}). Check owner and permissions" in found.stdout


def test_verifying_a_file_that_may_not_be_read(library: Path) -> None:
    """It is "unreadable", which is not "broken"; beside one that is, the exit code is that of damage."""
    with closed(library / MODEL):
        printed = run("models", "verify", *M, cwd=library, is_bound=True)
        check(printed, f"{MODEL}: it cannot be read: Permission denied. Check owner and permissions")
        assert "3 models: 1 unreadable, 2 ok" in printed.stdout.replace("2 ok, 1 unreadable", "1 unreadable, 2 ok")
        other = library / "models" / "plucked_strings.sda"
        other.write_bytes(other.read_bytes()[:1000])
        printed = run("models", "verify", "--json", *M, cwd=library, is_bound=True)
    assert printed.code == 65
    assert sorted(item["result"] for item in printed.json()) == ["broken", "ok", "unreadable"]


@pytest.mark.parametrize("mode", [0, 0o444, 0o555])
def test_a_trash_that_may_not_be_looked_into_or_changed(library: Path, mode: int) -> None:
    """It is not taken for empty, nothing is deleted, and what cannot be taken out of it is in one place only."""
    assert run("models", "delete", "1a2f", "--yes", *M, cwd=library).code == 0
    before = content(library / "models")
    with closed(library / "models" / ".trash", mode=mode):
        commands: list[Sequence[str]] = [("models", "trash", "--empty", "--yes"), ("models", "restore", "Rain on tin")]
        check_each(commands if mode == 0o555 else [("models", "trash"), *commands], library, *M, parts=[".trash"])
        check_each([("models", "delete", "9c0d41", "--yes")], library, *M, parts=[".trash"])
    assert content(library / "models") == before


@pytest.mark.parametrize(("mode", "folder"), [(0, "out"), (0o555, "out"), (0, "out/in"), (0o555, "out/in")])
def test_writing_where_one_may_not(library: Path, mode: int, folder: str) -> None:
    """Models, configs and libraries: what was to be written is named, not a name that was made up on the way."""
    (library / folder).mkdir(parents=True)
    with closed(library / "out", *([library / folder] if mode else []), mode=mode):
        commands = [
            ("models", "export", "1a2f", "--to", folder, *M),
            ("models", "export", "1a2f", "--to", f"{folder}/x.sda", *M),
            ("models", "export", "1a2f", "9c0d41", "--to", folder, *M),
            ("config", "init", "--path", f"{folder}/x.yaml"),
            ("config", "init", "--path", f"{folder}/new/x.yaml"),
            ("convert", CHECKPOINT, "--models-dir", folder),
            ("convert", CHECKPOINT, "--models-dir", f"{folder}/models"),
        ]
        if folder != "out" and not mode:
            commands.append(("models", "list", "--models-dir", f"{folder}/models"))
        check_each(commands, library, parts=[folder if mode else "out"])
    assert content(library / "out") == {}


@pytest.mark.parametrize("what", ["state", "state/ledger.sqlite3", "state/.sda-daemon.lock"])
def test_a_state_folder_that_may_not_be_read(library: Path, what: str) -> None:
    """What the daemon does is not made up: `status` and `retry` say why they do not know, the daemon why not to run."""
    config = library / "sda-daemon.yaml"
    config.write_text(config.read_text() + "state_dir: state\n")
    Ledger(library / "state").close()
    (library / "state" / ".sda-daemon.lock").touch()
    with closed(library / what):
        for printed in run_each([("status", *C), ("retry", "--all", *C), ("run", "--once", *C)], library):
            assert printed.code == 73, printed
            assert "Traceback" not in printed.stderr
            assert "permissions" in printed.stderr, printed
            assert "state" in printed.stderr


def test_from_a_folder_that_may_not_be_entered(library: Path) -> None:
    """As after becoming another user in somebody's home: absolute paths work, also in workers; others are refused."""
    home = library / "home"
    home.mkdir()

    def run_there(*arguments: str) -> Printed:
        script = 'cd "$0" && chmod 0 . && exec "$@"'
        command = bound(["sh", "-c", script, home, COMMAND, *arguments])
        try:
            done = subprocess.run(
                command, env=environment(library), capture_output=True, text=True, timeout=120, check=False
            )
        finally:
            home.chmod(0o755)
        return Printed(done.stdout, done.stderr, done.returncode)

    checkpoint = str(library / CHECKPOINT)
    printed = run_there("convert", checkpoint, "--models-dir", str(library / "fresh"))
    assert printed.code == 0, printed
    assert "cannot" not in printed.stderr.replace("the application cannot load it", ""), printed
    assert "It would convert" in run_there("inspect", checkpoint).stdout
    check(run_there("convert", checkpoint, "--models-dir", "models"), f"{home}/models cannot be made")
    check(run_there("convert", f"../{CHECKPOINT}", "--models-dir", str(library / "fresh")), CHECKPOINT)
