"""The units: what systemd itself says of them, and what is written for a config."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sda_daemon.errors import ConfigError, ExitCode
from sda_daemon.service.installation import place_for, render, shipped_file, this_command
from sda_daemon.service.unit import Folders, Scope, folders_of, outermost, quote, render_drop_in, render_unit
from sda_daemon.settings.schema import Settings

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
UNITS = ["system/sda-daemon.service", "system/sda-daemon@.service", "user/sda-daemon.service"]
NEWER_THAN_254 = "restart-steps.conf"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; skips where there is none."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # To check a user's unit it wants a runtime folder.
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(Path(arguments[-1]).parent)}
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def systemd_version() -> int:
    """Return the version of the installed systemd."""
    return int(analyze("--version").stdout.split()[1])


def installable(name: str, folder: Path, drop_ins: str = "") -> Path:
    """Write a unit as it would be installed here: with a command that is there."""
    scope = Scope(name.partition("/")[0])
    path = folder / Path(name).name.replace("@.", "@rain.")
    path.write_text(render_unit(shipped_file(name), scope, this_command(), None) + drop_ins)
    return path


def verify(path: Path, scope: str) -> subprocess.CompletedProcess[str]:
    """Check a unit with the switches that catch misspelt keys."""
    return analyze("verify", f"--{scope}", "--man=no", "--recursive-errors=no", str(path))


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    """No unknown key, no bad value, no missing command."""
    done = verify(installable(name, tmp_path), name.partition("/")[0])
    assert (done.returncode, done.stderr) == (0, "")


def test_the_check_catches_a_misspelt_key(tmp_path: Path) -> None:
    """The test above can fail."""
    done = verify(installable(UNITS[0], tmp_path, "[Service]\nProtectSytem=strict\n"), "system")
    assert done.returncode != 0
    assert "ProtectSytem" in done.stderr


@pytest.mark.parametrize("example", sorted(path.name for path in (SYSTEMD / "examples").iterdir()))
def test_the_examples_fit(example: str, tmp_path: Path) -> None:
    """Each drop-in makes a valid unit together with the one that it is for."""
    if example == NEWER_THAN_254 and systemd_version() < 254:
        pytest.skip("needs systemd 254")
    text = (SYSTEMD / "examples" / example).read_text()
    done = verify(installable(UNITS[0], tmp_path, text), "system")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS[:2])
def test_the_exposure_of_the_system_units_is_low(name: str, tmp_path: Path) -> None:
    """At most 2.0 of 10 by systemd's own measure."""
    path = installable(name, tmp_path)
    done = analyze("security", "--offline=yes", "--threshold=20", str(path))
    assert done.returncode == 0, done.stdout[-500:]
    worse = path.read_text().replace("ProtectSystem=strict", "").replace("PrivateNetwork=yes", "")
    path.write_text(re.sub(r"^(Protect|Private|Restrict|System|Cap).*$", "", worse, flags=re.MULTILINE))
    assert analyze("security", "--offline=yes", "--threshold=20", str(path)).returncode != 0


def test_a_unit_with_its_drop_in_is_valid_for_strange_paths(tmp_path: Path) -> None:
    """Spaces, percent signs, quotes, dollars and colons in every path."""
    strange = tmp_path / 'it\'s 100% "odd" $HOME; a:b'
    config = strange / "config.yaml"
    folders = Folders((strange / "models",), (Path("/home/al ice/runs: %h"),), (strange,))
    unit = render_unit(shipped_file(UNITS[0]), Scope.SYSTEM, this_command(), config)
    path = tmp_path / "sda-daemon.service"
    path.write_text(unit + render_drop_in(folders, Scope.SYSTEM, config))
    done = verify(path, "system")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_template_differs_from_the_plain_unit_in_names_only() -> None:
    """Hardening and limits are the same."""
    plain, template = ([*map(str.strip, shipped_file(name).splitlines()[2:])] for name in UNITS[:2])
    for line, other in zip(plain, template, strict=True):
        if line != other:
            assert "%i" in other, (line, other)


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_lists_the_exit_codes_as_they_are(name: str) -> None:
    """The numbers in its comment are those of the program, and none but 2, 66 and 78 forbid a restart."""
    text = shipped_file(name)
    for code in (ExitCode.NOTHING_TO_WATCH, ExitCode.ALREADY_RUNNING, ExitCode.CANNOT_WRITE, ExitCode.BAD_CONFIG):
        assert re.search(rf"\b{code} [a-z]", text), code
    codes = f"{ExitCode.USAGE:d} {ExitCode.NOTHING_TO_WATCH:d} {ExitCode.BAD_CONFIG:d}"
    assert f"RestartPreventExitStatus={codes}\n" in text


def test_only_folders_that_are_written_to_are_writable() -> None:
    """A watched folder is, where its checkpoints are cleared away; folders within others need no line of their own."""
    settings = Settings.model_validate(
        {
            "models_dir": "/srv/models",
            "watch": [
                {"path": "/srv/read"},
                {"path": "/srv/delete", "after": "delete"},
                {"path": "/srv/move", "after": "move", "move_to": "/srv/move/done"},
                {"path": "/srv/models/in"},
            ],
        }
    )
    folders = folders_of(settings, Path("/srv/state"))
    assert set(folders.writable) == {Path(f"/srv/{name}") for name in ("models", "state", "delete", "move")}
    assert folders.readable == (Path("/srv/read"),)


def test_the_drop_in_opens_what_the_sandbox_hides() -> None:
    """Folders in homes and /tmp are mounted in; a system service's home is hidden no more than it needs to be."""
    folders = Folders(
        (Path("/home/a/models"), Path("/srv/m")), (Path("/tmp/runs"),), (Path("/opt/x"), Path("/root/py"))
    )
    lines = render_drop_in(folders, Scope.SYSTEM, Path("/etc/c.yaml"), "alice").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "[Service]",
        "User=alice",
        "Group=",
        "ProtectHome=tmpfs",
        "BindReadOnlyPaths=/root/py",
        "BindReadOnlyPaths=-/tmp/runs",
        "BindPaths=/home/a/models",
        "ReadWritePaths=/srv/m",
    ]
    users = render_drop_in(folders, Scope.USER, Path("/etc/c.yaml"))
    assert "ReadWritePaths=/home/a/models" in users
    assert "ProtectHome" not in users


def test_folders_within_others_are_left_out() -> None:
    """The outermost stay, each once."""
    paths = [Path("/a/b"), Path("/a"), Path("/ab"), Path("/a")]
    assert outermost(paths) == (Path("/a"), Path("/ab"))


def test_words_are_quoted() -> None:
    """Plain ones stay plain; a line break is refused with a reason."""
    assert quote("/srv/models") == "/srv/models"
    assert quote("/a b/100%") == '"/a b/100%%"'
    assert quote('/a"\\$x', in_command=True) == r'"/a\"\\$$x"'
    with pytest.raises(ConfigError, match="line break"):
        quote("/a\nExecStart=/bin/sh")


def test_a_unit_for_a_config(tmp_path: Path) -> None:
    """This interpreter's command and that config are in it; what is written begins with our mark."""
    config = tmp_path / "my.yaml"
    config.write_text("models_dir: models\nwatch:\n  - path: runs\n")
    rendered = render(place_for(Scope.SYSTEM), config)
    command = this_command()
    assert f"ExecStart={command} run --config {config}\n" in rendered.unit
    assert f"ExecReload={command} config check {config}\n" in rendered.unit
    assert "/opt/sda-daemon" not in re.sub(r"^#.*$", "", rendered.unit, flags=re.MULTILINE)
    assert f"BindPaths={tmp_path}/models" in rendered.drop_in or f"ReadWritePaths={tmp_path}/models" in rendered.drop_in
