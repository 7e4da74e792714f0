"""Opening models to verify them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sda_daemon.demo.checkpoints import small_model
from sda_daemon.models import ModelMetadata, save_model_from_checkpoint
from sda_daemon.models.digest import weights_digest

_CHECK = """
import sys
from sda_daemon.conversion.verification import check_model

opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
verdict = check_model(sys.argv[1])
count = sum(str(name) == sys.argv[1] for name in opened)
print(verdict.kind.value, verdict.recorded_digest or "-", verdict.weights_digest, count)
"""


def check(path: Path) -> list[str]:
    """Verify a model in a process of its own; return the result, both digests, and how often it was opened."""
    ran = subprocess.run([sys.executable, "-c", _CHECK, str(path)], capture_output=True, text=True, check=True)
    return ran.stdout.split()


@pytest.fixture
def digest() -> str:
    """Of the weights of seed 1."""
    return weights_digest(small_model(1).state_dict())


def test_a_model_is_opened_once(small_checkpoints: Callable[..., Path], tmp_path: Path, digest: str) -> None:
    """Header, network and weights come from one reading of the file, whether a digest was recorded or not."""
    made = save_model_from_checkpoint(small_checkpoints(1, with_analysis=True), ModelMetadata(name="Rain"), tmp_path)
    assert check(made) == ["ok", digest, digest, "1"]
    content = torch.load(made, weights_only=False)
    del content["provenance"]
    torch.save(content, made)
    assert check(made) == ["unrecorded", "-", digest, "1"]


def test_the_digest_is_of_what_is_stored(small_checkpoints: Callable[..., Path], tmp_path: Path, digest: str) -> None:
    """Weights of half precision are computed with as others are, but are what they are."""
    made = save_model_from_checkpoint(small_checkpoints(1), ModelMetadata(name="Rain"), tmp_path)
    content = torch.load(made, weights_only=False)
    half = {
        name: value.half() if value.is_floating_point() else value
        for name, value in content["model_state_dict"].items()
    }
    torch.save({**content, "model_state_dict": half}, made)
    assert check(made) == ["changed", digest, weights_digest(half), "1"]
