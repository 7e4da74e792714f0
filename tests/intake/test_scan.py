"""Which files count as checkpoints, and listing them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sda_daemon.intake.scan import CheckpointNames, CheckpointScan

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
