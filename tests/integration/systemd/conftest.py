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
def whole_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint whose model the first application can play: a real one where the samples are here."""
    path = SAMPLES / "runs" / "notes64" / "checkpoints" / "checkpoint_epoch0005.pt"
    if path.exists():
        return path
    from sda_daemon.demo.checkpoints import checkpoint_dict, small_model, write_checkpoint

    weights = small_model(1, columns=4).state_dict()  # (16000 // 256 + 1) / 16 columns are a second
    content = checkpoint_dict(weights, epoch=5)
    del content["training_config"]["kl_weight_max"]  # it would tell of a later generation
    return write_checkpoint(tmp_path / path.name, content)


@pytest.fixture
def service(lab: Lab) -> Lab:
    """The system service, installed by the one command and running, with quick restarts and one worker."""
    lab.tune("RestartSec=100ms\nEnvironment=SDA_DAEMON__WORKERS=1")
    lab.sda("systemd-unit", "--system", "--install")
    assert lab.show("ActiveState") == "active"
    assert lab.show("SubState", SERVICE) == "running"
    return lab
