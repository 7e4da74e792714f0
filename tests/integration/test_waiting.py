"""b09 to b11: only what is complete is converted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon_process import DaemonProcess

Drop = Callable[..., Path]

STALLING = """
import sys
data = open(sys.argv[1], "rb").read()
file = open(sys.argv[2], "wb", buffering=0)
if sys.argv[3] == "preallocated":
    import os
    os.posix_fallocate(file.fileno(), 0, len(data))
half = len(data) // 2
file.write(data[:half])
print("half", flush=True)
sys.stdin.readline()
file.write(data[half:])
file.close()
"""


def stalling_writer(source: Path, target: Path, kind: str) -> subprocess.Popen[str]:
    """Start a process that writes half of a file and goes on when it is told to."""
    writer = subprocess.Popen(
        [sys.executable, "-c", STALLING, str(source), str(target), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    return writer


def go_on(writer: subprocess.Popen[str]) -> None:
    """Let a stalled writer finish."""
    writer.communicate("go\n")
    assert writer.returncode == 0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that several tests use one after the other, each with files of its own; a second is ten settle times."""
    process = DaemonProcess(tmp_path_factory.mktemp("daemon"))
    process.write_config(watch=[{"path": "drop", "settle_s": 0.1, "incomplete_after_s": 1.0}])
    try:
        yield process.start()
    finally:
        process.kill()


@pytest.mark.parametrize(("kind", "seed"), [("plain", 1), ("preallocated", 2)])
def test_b09_a_stalled_writer_is_waited_for(
    running: DaemonProcess, drop: Drop, tmp_path: Path, kind: str, seed: int
) -> None:
    """A writer that stalls for many settle times costs no failed conversion, and ends as one model."""
    mark, before = running.mark(), len(running.models())
    path = running.drop / f"{kind}.pt"
    writer = stalling_writer(drop(tmp_path / "x.pt", seed), path, kind)
    running.wait_for("checkpoint.incomplete", after=mark, path=str(path))  # logged after ten settle times
    assert not running.events("conversion.started", mark)
    go_on(writer)
    running.wait_for("conversion.succeeded", after=mark, path=str(path))
    assert len(running.models()) == before + 1
    assert not running.events("conversion.failed", mark)


def test_b09_restart_in_mid_write(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """A daemon that starts while a file is half written waits for its other half."""
    writer = stalling_writer(drop(tmp_path / "x.pt", 1), daemon.drop / "x.pt", "plain")
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.1, "incomplete_after_s": 0.5}])
    daemon.start()
    daemon.wait_for("checkpoint.incomplete")
    assert daemon.stop() == 0
    mark = daemon.mark()
    daemon.start()
    daemon.wait_for("checkpoint.incomplete", after=mark)
    go_on(writer)
    daemon.wait_for_models(1)
    assert not daemon.events("conversion.failed")


def test_b09_complete_but_still_open(running: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """All bytes are there, but the writer has not closed the file: it is waited for."""
    script = (
        'import sys; f=open(sys.argv[2],"wb"); f.write(open(sys.argv[1],"rb").read()); f.flush();'
        'print("there", flush=True); sys.stdin.readline()'
    )
    source, path = drop(tmp_path / "x.pt", 3), running.drop / "open.pt"
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(source), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    (incomplete,) = running.wait_for("checkpoint.incomplete", path=str(path))
    assert "open for writing" in incomplete["reason"]
    go_on(writer)
    running.wait_for("conversion.succeeded", path=str(path))


def test_b10_never_complete(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """Half a file is one event and one line in `status`, blocks nothing, and converts once it is whole."""
    data = drop(tmp_path / "x.pt", 1).read_bytes()
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.1, "incomplete_after_s": 0.5}])
    daemon.start()
    half = daemon.drop / "half.pt"
    half.write_bytes(data[: len(data) // 2])
    daemon.wait_for("checkpoint.incomplete")
    drop(daemon.drop / "other.pt", 2)
    daemon.wait_for_models(1)
    shown = daemon.status(lambda facts: facts["incomplete"])
    assert [item["path"] for item in shown["incomplete"]] == [str(half)]
    assert "zip directory" in shown["incomplete"][0]["reason"]
    assert len(daemon.events("checkpoint.incomplete")) == 1
    with half.open("ab") as file:
        file.write(data[len(data) // 2 :])
    daemon.wait_for_models(2)
    assert not daemon.events("conversion.failed")


def test_b10_a_rule_says_how_long_is_too_long(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """A rule's `incomplete_after_s` holds from the first event of a file on, and a changed rule for those that wait."""
    data = drop(tmp_path / "x.pt", 1).read_bytes()
    watch = [{"path": "drop", "settle_s": 0.1, "incomplete_after_s": 600}]
    daemon.write_config(watch=watch, rules=[{"match": "quick/*", "incomplete_after_s": 0.5}], rescan_interval_s=600)
    daemon.start()
    quick, slow = daemon.drop / "quick" / "x.pt", daemon.drop / "slow" / "x.pt"
    for half in (slow, quick):
        half.parent.mkdir()
        half.write_bytes(data[: len(data) // 2])
    daemon.wait_for("checkpoint.seen", path=str(slow))
    daemon.wait_for("checkpoint.incomplete", path=str(quick))
    assert not daemon.events("checkpoint.incomplete", path=str(slow))
    assert not daemon.events("rescan.finished", reason="interval")
    daemon.write_config(rules=[{"match": "slow/*", "incomplete_after_s": 0.5}])
    daemon.wait_for("checkpoint.incomplete", path=str(slow))
    shown = daemon.status(lambda facts: facts["incomplete"])
    assert [item["path"] for item in shown["incomplete"]] == [str(slow)]


NAMES = [".x.pt.Ab12Cd", "x.pt.part", "x.pt.tmp", "x.pt.filepart", "x.pt~", "x.pt.crdownload", ".hidden.pt"]


def test_b11_temporary_names(daemon: DaemonProcess, drop: Drop) -> None:
    """Files under temporary names are not even looked at, until they get their own name."""
    daemon.start()
    for seed, name in enumerate(NAMES, start=1):
        drop(daemon.drop / f"run{seed}" / name, seed)
    drop(daemon.drop / "sign.pt", 0)
    daemon.wait_for_models(1)
    assert len(daemon.events("checkpoint.seen")) == 1
    for seed, name in enumerate(NAMES, start=1):
        (daemon.drop / f"run{seed}" / name).rename(daemon.drop / f"run{seed}" / "x.pt")
    daemon.wait_for_models(1 + len(NAMES))
