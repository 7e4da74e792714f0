"""Checkpoints as each generation of the application writes them: small, but for everything that tells them apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from sda_daemon.demo.checkpoints import checkpoint_dict, made_up_analysis, small_model, write_checkpoint
from sda_daemon.models.formats import ModelFormat
from sda_daemon.models.vae import OutputActivation

WHOLE_SECOND = 4
"""Columns of the feature maps of one second in the small spectrogram config."""


def write_generation(
    path: Path,
    generation: ModelFormat,
    seed: int = 0,
    *,
    columns: int = WHOLE_SECOND,
    activation: OutputActivation | None = None,
    with_enum: bool = True,
    with_analysis: bool = True,
    **facts: Any,
) -> Path:
    """Write a checkpoint of a generation; `activation` makes it one of a revision that had another."""
    ends_in = activation or generation.activation
    model = small_model(seed, columns=columns, activation=ends_in)
    analysis = made_up_analysis() if with_analysis else None
    content = checkpoint_dict(model.state_dict(), analysis=analysis, **facts)
    if ends_in == "sigmoid":
        del content["training_config"]["kl_weight_max"]
    if not with_enum:
        import torch

        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        return path
    return write_checkpoint(path, content, module=generation.enum_module)


OPEN = """
import sys
before = set(sys.modules)
import numpy, torch
content = torch.load(sys.argv[1], weights_only=False)
assert not any(name.partition(".")[0] in ("sda_daemon", "distill", "small_dataset_audio") for name in sys.modules)
metadata = content["metadata"]
plain = (str, int, float, bool, list)
assert all(type(value) in plain for value in metadata.values()), metadata
print(content["format"], content["version"], ",".join(metadata), content["decoder_activation"])
"""


def opened_elsewhere(path: Path, folder: Path) -> list[str]:
    """Open a model in a process that has only torch and numpy; return marker, version, metadata keys, activation."""
    command = [sys.executable, "-I", "-c", OPEN, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
