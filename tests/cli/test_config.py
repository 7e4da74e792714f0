"""The `config` commands, as a person runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sda_daemon.settings.annotated import SCHEMA_FILE_NAME, annotated_config, config_json_schema
from sda_daemon.settings.loading import load_config

GOOD = "models_dir: m\nwatch:\n  - path: runs\n"


def sda(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    command = [sys.executable, "-m", "sda_daemon", *map(str, arguments)]
    env = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_check(tmp_path: Path) -> None:
    """0 for a valid config; 78 with all problems at once, and for a missing file."""
    path = tmp_path / "c.yaml"
    path.write_text(GOOD)
    done = sda("config", "check", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{path}: this config is valid",
        f"models go to {tmp_path}/m",
        f"watched: {tmp_path}/runs (not there yet)",
    ]
    path.write_text(GOOD + "workers: 0\nloging: {}\n")
    done = sda("config", "check", "--config", path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.splitlines() == [
        f"{path}:4:1: workers: 0 must be at least 1",
        f"{path}:5:1: loging: there is no such key (with the value {{}}); did you mean 'logging'?",
        "2 problems",
    ]
    done = sda("config", "check", tmp_path / "nowhere.yaml")
    assert done.returncode == 78
    assert done.stderr.startswith(f"{tmp_path}/nowhere.yaml: there is no such config file.")
    done = sda("run", "--config", tmp_path / "nowhere.yaml")
    assert (done.returncode, "Traceback" in done.stderr) == (78, False)


def test_check_warns_of_what_is_hardly_meant(tmp_path: Path) -> None:
    """A valid config all the same: exit code 0, the warning on stderr."""
    path = tmp_path / "c.yaml"
    path.write_text(GOOD + "metadata: {name: '{{ parts[-9] }}'}\n")
    done = sda("config", "check", path)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: metadata.name: '{{ parts[-9] }}': parts has only 2 items")


def test_check_finds_the_usual_places(tmp_path: Path) -> None:
    """By `$SDA_DAEMON_CONFIG`, then the user's; without any it says where it looked."""
    (tmp_path / "c.yaml").write_text(GOOD)
    assert sda("config", "check", SDA_DAEMON_CONFIG=str(tmp_path / "c.yaml")).returncode == 0
    done = sda("config", "check", XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 78
    assert f"there is no config file at {tmp_path}/sda-daemon/config.yaml or " in done.stderr


def test_init_writes_a_config_that_checks(tmp_path: Path) -> None:
    """With its schema beside it; never over a file that is there."""
    path = tmp_path / "new" / "c.yaml"
    done = sda("config", "init", "--path", path)
    assert done.returncode == 0
    assert f"wrote {path}" in done.stdout
    assert path.read_text() == annotated_config()
    assert path.with_name(SCHEMA_FILE_NAME).read_text() == config_json_schema()
    assert sda("config", "check", path, HOME=str(tmp_path)).returncode == 0
    path.write_text("mine\n")
    done = sda("config", "init", "--path", path)
    assert (done.returncode, path.read_text()) == (73, "mine\n")
    assert done.stderr.startswith(f"sda-daemon: {path} is there already and is left as it is.")
    done = sda("config", "init", "--user", XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 0
    assert (tmp_path / "sda-daemon" / "config.yaml").read_text() == annotated_config()
    assert sda("config", "init", "--user", "--path", path).returncode == 2


def test_init_beside_the_application(tmp_path: Path) -> None:
    """What was found is told, and the config checks; without an application nothing is written."""
    home, path = tmp_path / "app", tmp_path / "c.yaml"
    home.mkdir()
    done = sda("config", "init", "--beside", home, "--path", path)
    assert (done.returncode, path.exists()) == (1, False)
    assert "there is no config.toml of the training application" in done.stderr
    (home / "config.toml").write_text("[paths]\ndatasets = 'sets'\n")
    done = sda("config", "init", "--beside", home, "--path", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"for the application of {home}/config.toml" in done.stdout
    assert f"models go to {home}/data/models" in done.stdout
    checked = sda("config", "check", path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"watched: {home}/sets (not there yet)" in checked.stdout


def test_show_marks_defaults_and_overrides(tmp_path: Path) -> None:
    """What it prints is a config again, with the same settings."""
    path = tmp_path / "c.yaml"
    path.write_text(GOOD + "workers: 1\n")
    done = sda("config", "show", "--config", path, SDA_DAEMON__LOGGING__LEVEL="debug")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"# {path}"
    assert "workers: 1" in lines
    assert any(line.startswith("stop_grace_s: 30s ") and line.endswith("# default") for line in lines)
    assert any(
        line.startswith("  level: debug ") and line.endswith("# from SDA_DAEMON__LOGGING__LEVEL") for line in lines
    )
    again = tmp_path / "again.yaml"
    again.write_text(done.stdout)
    environment = {"SDA_DAEMON__LOGGING__LEVEL": "debug"}
    assert load_config(again, {}).settings == load_config(path, environment).settings


def test_schema_is_json() -> None:
    """For editors."""
    assert json.loads(sda("config", "schema").stdout)["title"] == "sda-daemon config"


def test_render_shows_what_gave_each_field(tmp_path: Path, drop: Callable[..., Path]) -> None:
    """The config, a rule, notes, the checkpoint; broken notes and a rule that skips are told; nothing is written."""
    path = tmp_path / "c.yaml"
    rules = "rules:\n  - match: 'rain/*'\n    metadata: {name: '{{ run }} by rule', tags: [wet]}\n"
    path.write_text(GOOD + rules)
    checkpoint = drop(tmp_path / "runs" / "rain" / "checkpoints" / "x.pt", seed=1)
    (tmp_path / "runs" / "rain" / "sda.yaml").write_text("dataset_name: Rain on tin\n")
    (checkpoint.parent / "sda.yaml").write_text("nmae: x\n")
    done = sda("config", "render", checkpoint, "--config", path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in done.stdout.splitlines()}
    assert rows["name"] == "rain by rule rules[0] (match 'rain/*')"
    assert rows["dataset_name"] == "Rain on tin rain/sda.yaml"
    assert rows["dataset_file_count"] == "0 metadata"
    assert rows["training_epochs"] == "7 the checkpoint"
    assert rows["tags"] == "wet rules[0] (match 'rain/*')"
    assert f"{checkpoint.parent}/sda.yaml is ignored: sda.yaml:1:1: nmae: there is no such key" in done.stdout
    assert sorted(item.name for item in tmp_path.iterdir()) == ["c.yaml", "runs"]
    with_facts = sda("config", "render", checkpoint, "--config", path, "--facts").stdout
    assert "latent_dim" in with_facts.partition("Fact")[2]
    path.write_text(GOOD + "rules:\n  - match: '*'\n    when: epoch == 7\n    skip: true\n")
    skipped = sda("config", "render", checkpoint, "--config", path).stdout
    assert "It is not converted: rules[0] (match '*' when epoch == 7) says skip." in skipped


def test_render_says_what_is_wrong(tmp_path: Path, drop: Callable[..., Path]) -> None:
    """With an exit code for each class: the template, the checkpoint, no file at all."""
    path = tmp_path / "c.yaml"
    path.write_text(GOOD + "metadata: {name: '{{ sidecar.operator }}'}\n")
    checkpoint = drop(tmp_path / "x.pt", seed=1)
    done = sda("config", "render", checkpoint, "--config", path)
    assert done.returncode == 78
    assert done.stderr.startswith("sda-daemon: metadata.name: there is no 'operator' in sidecar")
    checkpoint.write_bytes(b"junk")
    assert sda("config", "render", checkpoint, "--config", path).returncode == 65
    assert sda("config", "render", tmp_path / "nothing.pt", "--config", path).returncode == 1


@pytest.mark.parametrize("command", ["check", "show", "schema"])
def test_no_command_for_looking_imports_torch(tmp_path: Path, command: str) -> None:
    """They answer at once."""
    path = tmp_path / "c.yaml"
    path.write_text(GOOD)
    program = (
        "import sys; from sda_daemon.cli.app import run_app; run_app(sys.argv[1:]);"
        "assert not {'torch', 'numpy'} & set(sys.modules), 'heavy'"
    )
    subprocess.run(
        [sys.executable, "-c", program, "config", command],
        check=True,
        capture_output=True,
        env={**os.environ, "SDA_DAEMON_CONFIG": str(path)},
    )
