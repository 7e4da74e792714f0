"""Fixtures: a booted systemd, and one in which the service is installed and runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SAMPLES
from tests.integration.systemd.lab import SERVICE, Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A systemd of its own; skips where it cannot be booted."""
    lab = Lab(tmp_path)
    try:
        lab.boot()
        yield lab
    finally:
        lab.shut_down()


@pytest.fixture
def sample_checkpoint() -> Path | None:
    """A real checkpoint, where the samples are beside this repository."""
    path = SAMPLES / "runs" / "notes64" / "checkpoints" / "checkpoint_epoch0005.pt"
    return path if path.exists() else None


@pytest.fixture
def service(lab: Lab) -> Lab:
    """The system service, installed by the one command and running, with quick restarts and one worker."""
    lab.tune("RestartSec=100ms\nEnvironment=SDA_DAEMON__WORKERS=1")
    lab.sda("systemd-unit", "--system", "--install")
    assert lab.show("ActiveState") == "active"
    assert lab.show("SubState", SERVICE) == "running"
    return lab
