"""What every command prints for people, at 80 and 120 columns, compared with kept output."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.console import check_golden, run

M = ("--models-dir", "models")
CASES: dict[str, tuple[str, ...]] = {
    "help": ("--help",),
    "models-help": ("models", "--help"),
    "models-list-help": ("models", "list", "--help"),
    "convert-help": ("convert", "--help"),
    "list": ("models", "list", *M),
    "list-best": ("models", "list", "--sort", "val_loss", "--limit", "1", *M),
    "list-tagged": ("models", "list", "--tag", "RAIN", *M),
    "list-format": ("models", "list", "--format", "name,epochs,val_loss,tags,id", "--sort", "name", *M),
    "list-from-config": ("models", "list", "--config", "sda-daemon.yaml"),
    "search": ("models", "search", "OLD barn", *M),
    "search-nothing": ("models", "search", "thunder", *M),
    "show": ("models", "show", "rain on tin", *M),
    "path": ("models", "path", "1a2f", *M),
    "export": ("models", "export", "1a2ff958", "--to", "out.sda", *M),
    "edit": ("models", "edit", "9c0d41", "--name", "Harp", "--tag", "soft", "--description", "Ünïcode", *M),
    "delete": ("models", "delete", "9c0d41", "9c0d77", "--yes", *M),
    "delete-purge": ("models", "delete", "9c0d41", "--purge", "--yes", *M),
    "trash-empty": ("models", "trash", *M),
    "repair-nothing": ("models", "repair", *M),
    "verify": ("models", "verify", *M),
    "convert": ("convert", "runs", "--jobs", "1", *M),
    "convert-dry-run": ("convert", "runs/take1", "--dry-run", "--models-dir", "other", "--name", "{{ run }}!"),
    "inspect-checkpoint": ("inspect", "runs/take0/checkpoints/checkpoint_epoch0007.pt"),
    "inspect-model": ("inspect", "--no-check", "models/rain_on_tin.sda"),
    "inspect-junk": ("inspect", "runs/bad.pt"),
    "events": ("events", "checkpoint"),
    "config-check": ("config", "check", "sda-daemon.yaml"),
    "config-check-missing": ("config", "check", "none.yaml"),
    "config-help": ("config", "--help"),
    "config-show": ("config", "show", "--config", "sda-daemon.yaml"),
    "config-init": ("config", "init", "--path", "new.yaml"),
    "config-init-taken": ("config", "init", "--path", "sda-daemon.yaml"),
    "config-render": (
        ("config", "render", "runs/take0/checkpoints/checkpoint_epoch0007.pt", "--config", "sda-daemon.yaml")
    ),
    "status-never-run": ("status", "--config", "sda-daemon.yaml"),
    "retry-never-run": ("retry", "--all", "--config", "sda-daemon.yaml"),
    "retry-nothing-named": ("retry", "--config", "sda-daemon.yaml"),
    "unknown-command": ("modles",),
    "unknown-model": ("models", "show", "thunder", *M),
    "ambiguous-model": ("models", "show", "plucked strings", *M),
    "ambiguous-id": ("models", "show", "9c0d", *M),
    "no-library": ("models", "list", "--models-dir", "nowhere"),
    "no-confirmation": ("models", "delete", "1a2ff958", *M),
}


@pytest.mark.parametrize("width", ["80", "120"])
@pytest.mark.parametrize("name", CASES)
def test_output(name: str, width: str, library: Path) -> None:
    """The same command on the same library prints what was kept, and no line is wider than the terminal."""
    printed = run(*CASES[name], cwd=library, COLUMNS=width)
    check_golden(f"{name}-{width}", printed)
    if "--format" not in CASES[name] and CASES[name][0] not in ("convert", "config"):  # whole lines
        assert max((len(line) for line in printed.stdout.splitlines()), default=0) <= int(width)


@pytest.mark.parametrize("width", ["80", "120"])
def test_output_of_a_damaged_library(width: str, library: Path) -> None:
    """A repair plan, its execution and a verification of a folder with something of everything in it."""
    models = library / "models"
    shutil.copy(models / "rain_on_tin.sda", models / "a_copy.sda")
    (models / "plucked_strings.sda").rename(models / "renamed.sda")
    (models / "plucked_strings_1.sda").unlink()
    (models / "broken.sda").write_bytes(b"PK\x03\x04 but not for long")
    check_golden(f"verify-damaged-{width}", run("models", "verify", *M, cwd=library, COLUMNS=width))
    check_golden(f"repair-dry-run-{width}", run("models", "repair", "--dry-run", *M, cwd=library, COLUMNS=width))
    check_golden(f"repair-yes-{width}", run("models", "repair", "--yes", *M, cwd=library, COLUMNS=width))
    check_golden(f"repair-again-{width}", run("models", "repair", *M, cwd=library, COLUMNS=width))


@pytest.mark.parametrize("width", ["80", "120"])
def test_output_of_status(width: str, library: Path) -> None:
    """After a daemon has been there: what it refused, and how to try again."""
    run("run", "--once", "--config", "sda-daemon.yaml", cwd=library, SDA_DAEMON__WORKERS="1")
    check_golden(f"status-{width}", run("status", "--config", "sda-daemon.yaml", cwd=library, COLUMNS=width))
    check_golden(f"retry-{width}", run("retry", "--all", "--config", "sda-daemon.yaml", cwd=library, COLUMNS=width))


@pytest.mark.parametrize("width", ["80", "120"])
def test_output_of_the_trash(width: str, library: Path) -> None:
    """Deleted, listed, restored, deleted again and gone."""
    run("models", "delete", "1a2ff958", "--yes", *M, cwd=library)
    check_golden(f"trash-{width}", run("models", "trash", *M, cwd=library, COLUMNS=width))
    check_golden(f"restore-{width}", run("models", "restore", "1a2ff958", *M, cwd=library, COLUMNS=width))
    run("models", "delete", "1a2ff958", "--yes", *M, cwd=library)
    check_golden(f"trash-emptied-{width}", run("models", "trash", "--empty", "--yes", *M, cwd=library, COLUMNS=width))


@pytest.mark.parametrize("width", ["80", "120"])
def test_b31_output_of_a_library_with_foreign_entries(width: str, library: Path) -> None:
    """They are counted below the list, and named in the plan of a repair, which leaves all but one of them alone."""
    index = library / "models" / "model_library.json"
    ours = index.read_text().removeprefix('{\n"version": 1,\n"models": {\n').removesuffix("\n}\n}\n")
    theirs = ['"vq": {"file_path": "rain.vqvae"}', '"list": [1.0]', '"evil": {"file_path": "../../secret.sda"}']
    index.write_text(f'{{\n"version": 1,\n"models": {{\n{",".join(theirs)},\n{ours}\n}}\n}}\n')
    check_golden(f"list-foreign-{width}", run("models", "list", *M, cwd=library, COLUMNS=width))
    check_golden(f"repair-foreign-{width}", run("models", "repair", "--yes", *M, cwd=library, COLUMNS=width))
    assert all(member in index.read_text() for member in theirs[:2])
    assert theirs[2] not in index.read_text()
    index.write_text('{"version": 1, "models": {\n' + ours + "}}")  # as by a program that knows nothing else
    check_golden(f"repair-left-out-{width}", run("models", "repair", "--yes", *M, cwd=library, COLUMNS=width))
    assert all(member in index.read_text() for member in theirs[:2])
