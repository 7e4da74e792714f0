"""Failures as a person meets them: a message on stderr, no traceback, and an exit code of their class."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sda_daemon.library import ModelLibrary
from tests.cli.console import COMMAND, Printed, environment, run
from tests.daemon_process import patch_workers

M = ("--models-dir", "models")


def check_failure(printed: Printed, code: int, *parts: str) -> None:
    """Assert exit code, message and the absence of tracebacks."""
    assert printed.code == code, printed
    assert "Traceback" not in printed.stderr
    for part in parts:
        assert part in printed.stderr


def test_unknown_model_suggests_near_names(library: Path) -> None:
    """Part of a name or a slip of the finger is enough for a suggestion."""
    check_failure(run("models", "path", "rain", *M, cwd=library), 1, "there is no model 'rain'", "'Rain on tin'")
    check_failure(run("models", "path", "Rian on tin", *M, cwd=library), 1, "Did you mean 'Rain on tin'?")


def test_ambiguous_name_lists_the_candidates(library: Path) -> None:
    """Each with its whole id, ready to be copied; nothing is done."""
    printed = run("models", "delete", "Plucked strings", "--yes", *M, cwd=library)
    check_failure(printed, 1, "fits 2 models", "9c0d41aa-0000-5000-8000-000000000002", "9c0d77ee")
    assert len(ModelLibrary(library / "models").list_all()) == 3


def test_no_library_is_not_made_by_looking(library: Path) -> None:
    """A mistyped folder is reported and stays away."""
    check_failure(run("models", "list", "--models-dir", "nowhere", cwd=library), 1, "there is no library at nowhere")
    assert not (library / "nowhere").exists()


def test_no_config(library: Path) -> None:
    """Without --models-dir a config is needed; 78 as for the daemon."""
    check_failure(run("models", "list", cwd=library), 78, "there is no config file", "--config")
    check_failure(
        run("models", "list", "--config", "none.yaml", cwd=library), 78, "none.yaml: there is no such config file"
    )


def test_broken_index_is_recovered_and_told(library: Path) -> None:
    """The broken one is kept, the files are adopted again, and stderr says so in words."""
    (library / "models" / "model_library.json").write_text('{"version": 1, "models": {')
    printed = run("models", "list", *M, cwd=library)
    check_failure(printed, 0, "The index could not be read and was set aside", "kept_as: model_library.json.broken-")
    assert "Rain on tin" in printed.stdout
    assert run("models", "list", *M, cwd=library).stderr == ""


def test_newer_index_is_left_alone(library: Path) -> None:
    """65, and the file is as it was."""
    index = library / "models" / "model_library.json"
    index.write_text('{"version": 9, "models": {}}')
    check_failure(run("models", "list", *M, cwd=library), 65, "version 9, newer than supported version 2")
    assert index.read_text() == '{"version": 9, "models": {}}'


def test_unreadable_model_file(library: Path) -> None:
    """A damaged file: `show` tells what the index knows, `edit` and `verify` refuse with 65."""
    path = library / "models" / "rain_on_tin.sda"
    path.write_bytes(path.read_bytes()[:1000])
    shown = run("models", "show", "1a2f", *M, cwd=library)
    check_failure(shown, 0, "its file cannot be read", "truncated or damaged")
    assert "Rain on tin" in shown.stdout
    before = path.read_bytes()
    check_failure(run("models", "edit", "1a2f", "--name", "x", *M, cwd=library), 65, "truncated or damaged")
    assert path.read_bytes() == before
    check_failure(run("models", "verify", "1a2f", *M, cwd=library), 65, "rain_on_tin.sda")


def test_file_that_is_not_there(library: Path) -> None:
    """`inspect` and `convert` name it."""
    check_failure(run("inspect", "none.pt", cwd=library), 1, "No such file or directory (none.pt)")
    check_failure(run("convert", "none.pt", *M, cwd=library), 1, "there is no file none.pt")
    check_failure(run("convert", "runs/*.ckpt", *M, cwd=library), 1, "nothing fits runs/*.ckpt")


def test_bad_template_option(library: Path) -> None:
    """A misspelt fact is found before anything is converted."""
    printed = run("convert", "runs", "--name", "{{ runn }}", "--models-dir", "fresh", cwd=library)
    check_failure(printed, 78, "--name", "there is no fact 'runn'", "did you mean 'run'?")
    assert not (library / "fresh").exists()


def test_wrong_usage(library: Path) -> None:
    """2, with what would be right."""
    check_failure(run("models", "list", "--sort", "colour", *M, cwd=library), 2, "cannot sort by 'colour'", "val_loss")
    check_failure(run("models", "list", "--format", "name,x", *M, cwd=library), 2, "there is no column 'x'")
    check_failure(run("models", "edit", "1a2f", *M, cwd=library), 2, "nothing to change")
    check_failure(run("models", "edit", "1a2f", "9c0d41", "--name", "x", *M, cwd=library), 2, "cannot all be called")
    check_failure(run("events", "nothing", cwd=library), 1, "there is no event 'nothing'")


def test_export_never_overwrites_unasked(library: Path) -> None:
    """An existing file stays; with --force it is replaced; the model itself never is."""
    (library / "out.sda").write_text("precious")
    check_failure(run("models", "export", "1a2f", "--to", "out.sda", *M, cwd=library), 1, "already", "--force")
    assert (library / "out.sda").read_text() == "precious"
    assert run("models", "export", "1a2f", "--to", "out.sda", "--force", *M, cwd=library).code == 0
    assert (library / "out.sda").read_bytes() == (library / "models" / "rain_on_tin.sda").read_bytes()
    printed = run("models", "export", "1a2f", "--to", "models", "--force", *M, cwd=library)
    check_failure(printed, 1, "It is the model itself")


def test_a_doctored_index_leads_nowhere(library: Path) -> None:
    """`path`, `export` and `delete` never follow a file_path out of the folder."""
    (library / "precious.sda").write_text("precious")
    index = library / "models" / "model_library.json"
    index.write_text(index.read_text().replace('"rain_on_tin.sda"', '"../precious.sda"'))
    check_failure(run("models", "path", "1a2f", *M, cwd=library), 1, "no file of the library")
    check_failure(run("models", "export", "1a2f", "--to", "x.sda", *M, cwd=library), 1, "no file of the library")
    check_failure(run("models", "delete", "1a2f", "--purge", "--yes", *M, cwd=library), 1, "models repair --dry-run")
    assert "precious" not in run("models", "list", *M, cwd=library).stdout
    assert run("models", "repair", "--yes", *M, cwd=library).code == 0
    assert "precious" not in index.read_text()
    assert (library / "precious.sda").read_text() == "precious"


def test_hostile_names_cannot_take_over_the_terminal(library: Path) -> None:
    """Escape sequences in a name are shown as replacement characters, in tables and in messages."""
    assert run("models", "edit", "1a2f", "--name", "evil\x1b[2J\x07name", *M, cwd=library).code == 0
    for arguments in (("list",), ("show", "1a2f"), ("list", "--format", "name"), ("delete", "1a2f")):
        printed = run("models", *arguments, *M, cwd=library)
        assert "\x1b" not in printed.stdout + printed.stderr
        assert "\x07" not in printed.stdout + printed.stderr
        assert "evil\N{REPLACEMENT CHARACTER}[2J" in printed.stdout + printed.stderr


@pytest.fixture
def small_disk(library: Path) -> Iterator[Path]:
    """A file system of 8 MB, mounted as `disk`; skips where none can be mounted."""
    disk = library / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.needs_root("mounts a small disk")
def test_full_disk(library: Path, small_disk: Path) -> None:
    """`convert` says which checkpoint found no room; `edit` and `export` exit with 73; nothing is half done."""
    models = small_disk / "models"
    first = run("convert", "runs/take0", "runs/take1", "runs/take2", "--models-dir", str(models), cwd=library)
    check_failure(first, 1, "No space left on device")
    names = sorted(path.name for path in models.glob("*.sda"))
    entries = ModelLibrary(models).list_all()
    assert sorted(entry.file_path for entry in entries) == names
    assert 1 <= len(names) < 3
    (small_disk / "filler").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 100_000))
    before = {path.name: path.read_bytes() for path in models.glob("*.sda")}
    printed = run("models", "edit", entries[0].model_id, "--tag", "x", "--models-dir", str(models), cwd=library)
    check_failure(printed, 73, "No space left on device", "Make room")
    printed = run("models", "export", "1a2f", "--to", str(small_disk), *M, cwd=library)
    check_failure(printed, 73, "No space left on device")
    assert {path.name: path.read_bytes() for path in models.glob("*.sda")} == before
    assert not [path for path in models.iterdir() if path.name.startswith(".sda-work")]


def test_ctrl_c_is_quiet(library: Path) -> None:
    """130, one line on what was done, no traceback, nothing half written."""
    endless = library / "endless"
    endless.mkdir()
    for number in range(4):
        shutil.copy(library / "runs" / "take1" / "checkpoints" / "checkpoint_epoch0007.pt", endless / f"{number}.pt")
    body = """
        while "endless" in str(path):
            time.sleep(1)
        return read(path)
    """
    process = subprocess.Popen(
        [COMMAND, "convert", "runs/take0", "endless", "--models-dir", "fresh", "--jobs", "1"],
        cwd=library,
        env=environment(library, **patch_workers(library / "site", body)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("added 'take0 epoch 7' ")
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "interrupted: 1 converted; 4 left"
    assert not [path for path in (library / "fresh").iterdir() if path.name.startswith(".sda-work")]


def test_a_closed_pipe_is_no_error(library: Path) -> None:
    """`… | head -1` ends quietly."""
    script = f"{COMMAND} events | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=library, env=environment(library), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0].startswith("daemon.started")
    assert done.stderr == ""


def on_terminal(arguments: list[str], cwd: Path, typed: str = "", **variables: str) -> tuple[str, int]:
    """Run the command on a terminal of its own; return what was shown and the exit code."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *arguments],
        cwd=cwd,
        env=environment(cwd, TERM="xterm-256color", COLUMNS="100", **variables),
        stdin=child,
        stdout=child,
        stderr=child,
        close_fds=True,
    )
    os.close(child)
    shown = b""
    asked = False
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            part = os.read(parent, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
        if typed and not asked and b"[y/N]" in shown:
            asked = True
            os.write(parent, typed.encode())
    os.close(parent)
    return shown.decode(errors="replace"), process.wait(timeout=60)


def test_colours_only_where_wanted(library: Path) -> None:
    """On a terminal yes, with NO_COLOR no, in a pipe no."""
    coloured, _ = on_terminal(["models", "list", *M], library)
    assert "\x1b[33m" in coloured
    plain, _ = on_terminal(["models", "list", *M], library, NO_COLOR="1")
    assert "\x1b[33m" not in plain
    assert "\x1b" not in run("models", "list", *M, cwd=library).stdout


def test_a_pipe_gets_whole_lines(library: Path) -> None:
    """Without COLUMNS a pipe has no width: nothing is cut or wrapped."""
    name = "A very long name " * 10
    run("models", "edit", "1a2f", "--name", name.strip(), *M, cwd=library)
    (line,) = [line for line in run("models", "list", *M, cwd=library).stdout.splitlines() if "very long" in line]
    assert name.strip() in line
    assert line.endswith("1a2ff958")


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 2), ("n\n", 1, 3), ("\n", 1, 3)])
def test_delete_asks(library: Path, answer: str, code: int, left: int) -> None:
    """Only a yes deletes."""
    shown, found = on_terminal(["models", "delete", "1a2f", *M], library, typed=answer)
    assert "Delete 1 model into the trash? [y/N]" in shown
    assert "Traceback" not in shown
    assert (found, len(ModelLibrary(library / "models").list_all())) == (code, left)


def test_progress_bar_on_a_terminal_only(library: Path) -> None:
    """Rate and count are drawn while many are converted, and the results stand above the bar."""
    shown, code = on_terminal(["convert", "runs", "--models-dir", "fresh"], library)
    assert code == 1
    assert "Converting" in shown
    assert "/4" in shown
    assert "added 'take0 epoch 7'" in shown.replace("\r\n", "\n")
    assert "Converting" not in run("convert", "runs", "--jobs", "1", "--models-dir", "other", cwd=library).stderr
