"""Writing so that a crash at any moment leaves the old content or the new."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sda_daemon.files import (
    WORK_FOLDER_PREFIX,
    find_temporary,
    is_file,
    is_folder,
    link_or_copy,
    publish_new,
    status_of,
    sweep_temporary,
    sweep_work_folders,
    work_folder,
    write_atomic,
)
from tests.permissions import bound


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_at_a_path(tmp_path: Path) -> None:
    """Files, folders, links to them, and nothing, also below a file."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "dead").symlink_to("nowhere")
    kinds = {
        name: (is_file(tmp_path / name), is_folder(tmp_path / name), status_of(tmp_path / name) is not None)
        for name in ("file", "link", "dead", "none", "file/none")
    }
    nothing = (False, False, False)
    assert kinds == {
        "file": (True, False, True), "link": (False, True, True),
        "dead": nothing, "none": nothing, "file/none": nothing,
    }  # fmt: skip


@pytest.mark.parametrize("function", ["status_of", "is_file", "is_folder"])
@pytest.mark.parametrize("name", ["there", "none"])
def test_what_lies_behind_a_closed_folder_is_not_taken_for_missing(tmp_path: Path, function: str, name: str) -> None:
    """It is an error, whatever pathlib of this Python makes of it."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "there").touch()
    program = f"import sys, pathlib; from sda_daemon.files import *; {function}(pathlib.Path(sys.argv[1]))"
    (tmp_path / "closed").chmod(0)
    command = bound([sys.executable, "-c", program, tmp_path / "closed" / name])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (tmp_path / "closed").chmod(0o755)
    assert "PermissionError" in done.stderr
    assert f"closed/{name}" in done.stderr


def test_content_is_replaced_and_the_previous_kept(tmp_path: Path) -> None:
    """A new file, a replaced one, and its backup."""
    path, backup = tmp_path / "x", tmp_path / "x.bak"
    status = write_atomic(path, [b"one", b" two"], backup)
    assert (path.read_bytes(), status.st_size, backup.exists()) == (b"one two", 7, False)
    write_atomic(path, [b"three"], backup)
    assert (path.read_bytes(), backup.read_bytes()) == (b"three", b"one two")
    write_atomic(path, iter([b"four"]), backup)
    assert (path.read_bytes(), backup.read_bytes()) == (b"four", b"three")
    assert names(tmp_path) == ["x", "x.bak"]


def test_a_failure_leaves_the_old_content(tmp_path: Path) -> None:
    """Whatever goes wrong in the middle: the old file, no temporary one."""
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def breaks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_atomic(path, breaks(), tmp_path / "x.bak")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    """A real one: the process may not write files of more than 10 kB."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    program = """
import resource, signal, sys
from pathlib import Path
from sda_daemon.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_atomic(Path(sys.argv[1]), [bytes(20_000)])
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "27\n"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


WRITER = """
import itertools, sys
from pathlib import Path
from sda_daemon.files import write_atomic
path = Path(sys.argv[1])
print("ready", flush=True)
for n in itertools.count():
    write_atomic(path, [b"%d" % (n % 10)] * 50_000, path.with_name("x.bak"))
"""


@pytest.mark.parametrize("moment_s", [0.0, 0.003, 0.011, 0.029, 0.05])
def test_killed_at_any_moment_the_file_is_whole(moment_s: float, tmp_path: Path) -> None:
    """SIGKILL while it writes over and over: file and backup are each one content, never a mixture."""
    path = tmp_path / "x"
    write_atomic(path, [b"a" * 50_000])
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(moment_s)
        writer.send_signal(signal.SIGKILL)
    for file in (path, tmp_path / "x.bak"):
        if file.exists():
            content = file.read_bytes()
            assert (len(content), len(set(content))) == (50_000, 1)
    sweep_temporary(tmp_path, "x")
    assert set(names(tmp_path)) <= {"x", "x.bak"}


def test_sweeping_takes_only_what_writers_left(tmp_path: Path) -> None:
    """By prefix and ending; folders stay."""
    for name in (".x.ab.tmp", ".x.bak.cd.tmp", ".y.ab.tmp", "x", ".x", "x.tmp"):
        (tmp_path / name).touch()
    assert sorted(path.name for path in find_temporary(tmp_path, "x")) == [".x.ab.tmp", ".x.bak.cd.tmp"]
    assert sweep_temporary(tmp_path, "x") == 2
    assert names(tmp_path) == [".x", ".y.ab.tmp", "x", "x.tmp"]


def test_publishing_never_replaces(tmp_path: Path) -> None:
    """The first free name; an error when all are taken, with the file still there."""
    (tmp_path / "a").write_text("old")
    (tmp_path / "new").write_text("new")
    assert publish_new(tmp_path / "new", tmp_path, ["a", "b"]) == tmp_path / "b"
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("old", "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "more").write_text("more")
    with pytest.raises(FileExistsError):
        publish_new(tmp_path / "more", tmp_path, ["a", "b"])
    assert (tmp_path / "more").exists()
    (tmp_path / "c").symlink_to("nowhere")
    assert publish_new(tmp_path / "more", tmp_path, ["c", "d"]) == tmp_path / "d"


def test_a_second_name_never_replaces(tmp_path: Path) -> None:
    """Neither does a link."""
    (tmp_path / "a").write_text("a")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "a"
    with pytest.raises(FileExistsError):
        link_or_copy(tmp_path / "a", tmp_path / "b")


def test_a_work_folder_is_gone_at_its_end(tmp_path: Path) -> None:
    """With all that is in it, after an error too."""
    with work_folder(tmp_path) as folder:
        (folder / "x").write_text("x")
        (folder / "deep").mkdir()
        (folder / "deep" / "y").write_text("y")
        assert folder.name.startswith(WORK_FOLDER_PREFIX)
        assert sweep_work_folders(tmp_path) == 0  # its owner lives: we
        assert (folder / "x").exists()
    assert names(tmp_path) == []


def test_work_folders_of_the_dead_are_swept(tmp_path: Path) -> None:
    """Those of living processes are not; links and files with such names neither."""
    program = """
import sys
from pathlib import Path
from sda_daemon.files import open_work_folder
path, descriptor = open_work_folder(Path(sys.argv[1]))
(path / "half").write_text("half")
print(path, flush=True)
sys.stdin.readline()
"""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    models = tmp_path / "models"
    models.mkdir()
    (models / f"{WORK_FOLDER_PREFIX}link").symlink_to(outside)
    (models / f"{WORK_FOLDER_PREFIX}file").touch()
    command = [sys.executable, "-c", program, str(models)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert sweep_work_folders(models) == 0
        assert (folder / "half").exists()
        os.kill(owner.pid, signal.SIGKILL)
    assert sweep_work_folders(models) == 1
    assert not folder.exists()
    assert (outside / "precious").exists()
    assert names(models) == [f"{WORK_FOLDER_PREFIX}file", f"{WORK_FOLDER_PREFIX}link"]
