"""What the tests of moving checkpoints share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(params=["the same disk", "another disk"])
def done(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder to move to, on the same file system and on another."""
    if request.param == "the same disk":
        yield tmp_path / "done"
        return
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    folder = shm / f"sda-daemon-moved-{os.getpid()}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
