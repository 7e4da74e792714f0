"""A small library with fixed names, ids and dates, copied for each test."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

IDS = (
    "1a2ff958-0000-5000-8000-000000000001",
    "9c0d41aa-0000-5000-8000-000000000002",
    "9c0d77ee-0000-5000-8000-000000000003",
)
_EPOCH_S = 1_770_000_000


@pytest.fixture(scope="session")
def finished_library(tmp_path_factory: pytest.TempPathFactory, small_checkpoints: Callable[..., Path]) -> Path:
    """A folder with `models` (three models, two of one name) and `runs` (their checkpoints and a bad one)."""
    from sda_daemon.models import ModelMetadata, save_model_from_checkpoint

    base = tmp_path_factory.mktemp("library")
    described = [
        ModelMetadata(
            IDS[0],
            "Rain on tin",
            "Drops, close and slow. Recorded under the roof of the old barn.",
            "field recordings",
            12,
            754.5,
            tags=["rain", "keeper"],
            save_date="2026-02-03T04:05:06.789+00:00",
        ),
        ModelMetadata(IDS[1], "Plucked strings", "", "plucks", tags=[], save_date="2026-02-02T10:00:00.000+00:00"),
        ModelMetadata(IDS[2], "Plucked strings", "", "plucks", tags=["b"], save_date="2026-02-01T10:00:00.000+00:00"),
    ]
    for seed, metadata in enumerate(described):
        source = small_checkpoints(seed, with_analysis=seed == 0)
        run = base / "runs" / f"take{seed}" / "checkpoints" / source.name
        run.parent.mkdir(parents=True)
        shutil.copyfile(source, run)
        os.utime(run, (_EPOCH_S, _EPOCH_S))
        save_model_from_checkpoint(run, metadata, base / "models")
    (base / "runs" / "bad.pt").write_bytes(b"no checkpoint at all")
    (base / "sda-daemon.yaml").write_text("models_dir: models\nwatch:\n  - path: runs\n")
    return base


@pytest.fixture
def library(finished_library: Path, tmp_path: Path) -> Path:
    """A folder of this test's own with the library in `models`."""
    folder = tmp_path / "here"
    shutil.copytree(finished_library, folder)
    return folder


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dates are shown in local time: that is UTC here."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
