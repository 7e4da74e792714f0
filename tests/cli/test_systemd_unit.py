"""`sda-daemon systemd-unit` as far as it goes without a systemd; the rest is in tests/integration/systemd."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sda_daemon.errors import ExitCode


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a fresh process."""
    return subprocess.run(
        [sys.executable, "-m", "sda_daemon", "systemd-unit", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config with two folders."""
    path = tmp_path / "config.yaml"
    path.write_text("models_dir: /srv/models\nwatch:\n  - path: /srv/runs\n")
    return path


def test_it_prints_unit_and_drop_in_and_changes_nothing(config: Path) -> None:
    """Both files with the paths where they belong, for exactly the folders of the config."""
    done = run("--system", "--config", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# /etc/systemd/system/sda-daemon.service\n")
    assert "# /etc/systemd/system/sda-daemon.service.d/10-folders.conf\n" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("ReadWritePaths=")] == [
        "ReadWritePaths=/srv/models"
    ]
    assert f"run --config {config}\n" in done.stdout


def test_a_users_unit_gets_the_state_folder_too(config: Path, tmp_path: Path) -> None:
    """The user's own state folder is one of those that are written to."""
    done = run("--user", "--config", str(config), HOME=str(tmp_path), XDG_STATE_HOME=str(tmp_path / "state"))
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/state/sda-daemon/models-" in done.stdout
    assert "WantedBy=default.target" in done.stdout


def test_without_a_config_the_unit_is_printed_alone(tmp_path: Path) -> None:
    """With a word on stderr about what is missing."""
    done = run("--user", HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 0
    assert "ReadWritePaths" not in "".join(line for line in done.stdout.splitlines() if not line.startswith("#"))
    assert "no drop-in" in done.stderr


def test_a_bad_config_is_refused_before_anything_is_done(config: Path) -> None:
    """Exit 78 and the line, whether printed or installed."""
    config.write_text("models_dir: /srv/models\n")
    done = run("--system", "--config", str(config))
    assert done.returncode == ExitCode.BAD_CONFIG
    assert "watch" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--user", "--instance", "rain"], "instances are for the system service"),
        (["--system", "--instance", "../x"], "is no name for an instance"),
    ],
)
def test_what_does_not_go_together_is_told(arguments: list[str], words: str) -> None:
    """With what to do instead."""
    done = run(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_instance_reads_the_config_of_its_name() -> None:
    """The template unit, with the command of this installation."""
    done = run("--system", "--instance", "rain")
    assert done.stdout.startswith("# /etc/systemd/system/sda-daemon@.service\n")
    assert "run --config /etc/sda-daemon/%i.yaml" in done.stdout
    assert "/etc/sda-daemon/rain.yaml" in done.stderr
