"""Which files count as checkpoints, and listing them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sda_daemon.intake.scan import CheckpointNames, CheckpointScan
from sda_daemon.intake.sources import delete_source, move_source

NAMES = CheckpointNames(("*.pt", "*.ckpt"), ("old/*", "*/scratch/*"), "/drop/done")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/drop/x.pt", True),
        ("/drop/a/b/x.ckpt", True),
        ("/drop/x.pth", False),
        ("/drop/.x.pt", False),
        ("/drop/.trash/x.pt", False),
        ("/drop/x.pt.meta.json", False),
        ("/drop/x.pt.part", False),
        ("/drop/old/x.pt", False),
        ("/drop/a/scratch/x.pt", False),
        ("/drop/done/x.pt", False),
        ("/drop/done-not/x.pt", True),
    ],
)
def test_names(path: str, is_one: bool) -> None:
    """Patterns on the name, globs to ignore on the path, never hidden or temporary names or what was moved away."""
    assert NAMES.matches("/drop", path) == is_one


def test_scanning_follows_links_to_files_only(tmp_path: Path) -> None:
    """Links to folders could be loops; a vanished or unreadable folder is passed over."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.pt").write_bytes(b"1")
    (tmp_path / "link.pt").symlink_to(tmp_path / "a" / "x.pt")
    (tmp_path / "broken.pt").symlink_to(tmp_path / "nothing")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")
    scan = CheckpointScan(str(tmp_path), str(tmp_path), CheckpointNames(("*.pt",)))
    assert sorted(Path(path).name for path, _ in scan) == ["link.pt", "x.pt"]
    assert scan.folders == 2
    assert list(CheckpointScan(str(tmp_path / "none"), str(tmp_path), NAMES)) == []


def test_moving_sources(tmp_path: Path) -> None:
    """The sidecar goes along, the place below the watch is kept, nothing that is there is replaced."""
    for content in ("first", "second"):
        path = tmp_path / "drop" / "run" / "x.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.with_name("x.pt.meta.json").write_text("{}")
        move_source(path, tmp_path / "drop", tmp_path / "done")
    moved = tmp_path / "done" / "run"
    assert (moved / "x.pt").read_text() == "first"
    assert (moved / "x_1.pt").read_text() == "second"
    assert (moved / "x.pt.meta.json").exists()
    assert (moved / "x_1.pt.meta.json").exists()
    delete_source(moved / "x.pt")
    assert sorted(path.name for path in moved.iterdir()) == ["x_1.pt", "x_1.pt.meta.json"]


def test_moving_to_another_file_system(tmp_path: Path) -> None:
    """A copy that is durable before the original goes."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    target = other / f"sda-daemon-test-{os.getpid()}"
    path = tmp_path / "x.pt"
    path.write_bytes(b"weights")
    try:
        moved = move_source(path, tmp_path, target)
        assert moved.read_bytes() == b"weights"
        assert not path.exists()
        moved.unlink()
    finally:
        target.rmdir()
