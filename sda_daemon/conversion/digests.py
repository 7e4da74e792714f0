"""Reads the weights of model files to tell what they are, and gives one model the sliders of another.

Runs in a worker process; the supervising process only ever names what is here. What needs torch is imported when it is
called.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sda_daemon.access import take_access
from sda_daemon.conversion.job import Sliders
from sda_daemon.errors import SdaError
from sda_daemon.library.weights import Weights
from sda_daemon.models.header import ModelHeader, read_model_header
from sda_daemon.os_errors import explained
from sda_daemon.signature import FileSignature

FILES_AT_ONCE = 64
BUDGET_S = 0.25
"""A worker that reads weights is free for a conversion again so soon, one large file aside."""


def read_weights(models_dir: str, files: Sequence[str], budget_s: float = BUDGET_S) -> list[Weights]:
    """Tell the weights digests of model files, of at least the first and as many as there is time for.

    Of what this program has written the digest is in its provenance. Files that are gone, or change while they are
    read, are left out.

    Args:
        models_dir: the folder.
        files: names of files in it.
        budget_s: how long it may take, in seconds.
    """
    until = time.monotonic() + budget_s
    found: list[Weights] = []
    for number, file in enumerate(files):
        if number and time.monotonic() > until:
            break
        found.append(_read(Path(models_dir), file))
    return found


def _read(folder: Path, file: str) -> Weights:
    path = folder / file
    try:
        signature = FileSignature.of(path.lstat())
    except OSError as error:
        return Weights(file, NO_CONTENT, reason=explained(error))
    try:
        header = read_model_header(path)
        recorded = _recorded(header)
        digest = recorded or _digest_of(path)
        if FileSignature.of(path.lstat()) != signature:
            return Weights(file, NO_CONTENT, reason="it has changed while it was read")
    except FileNotFoundError as error:
        return Weights(file, NO_CONTENT, reason=explained(error))
    except OSError as error:
        return Weights(file, signature, reason=explained(error), is_lasting=False)
    except (SdaError, MemoryError) as error:
        return Weights(file, signature, reason=str(error) or "it asks for more memory than there is")
    return Weights(file, signature, digest, is_own=bool(recorded))


NO_CONTENT = FileSignature(-1, -1, -1)
"""Of a file that is gone, or being written: nothing is to be remembered of it."""


def _recorded(header: ModelHeader) -> str:
    digest = header.origin.weights_digest
    return digest if digest.startswith("sha256:") else ""


def _digest_of(path: Path) -> str:
    from sda_daemon.conversion.worker import warm_up
    from sda_daemon.models.checkpoint import checked_weights
    from sda_daemon.models.digest import weights_digest
    from sda_daemon.models.torch_file import read_torch_file

    warm_up()
    file = read_torch_file(path, leave_out=lambda whole: [key for key in whole if key != "model_state_dict"])
    return weights_digest(checked_weights(file.content.get("model_state_dict"), path, file.size_bytes))


def analysis_of(path: Path) -> dict[str, Any] | None:
    """Return the latent analysis in a model file as a dict with arrays, None where there is none.

    Raises:
        ValueError: it cannot be used.
        CheckpointError, OSError: the file cannot be read.
    """
    from sda_daemon.controls.serialization import analysis_from_dict, analysis_to_dict
    from sda_daemon.models.torch_file import read_torch_file

    file = read_torch_file(path, leave_out=lambda whole: [key for key in whole if key != "latent_analysis"])
    values = file.content.get("latent_analysis")
    return None if values is None else analysis_to_dict(analysis_from_dict(values))


def write_sliders(path: Path, temporary: Path, analysis: dict[str, Any]) -> Sliders:
    """Write a copy of a model file that has sliders.

    Raises:
        UneditableModelError, BrokenModelError, OSError: see `models.editing.write_with_analysis`.
    """
    from sda_daemon.library.editing import write_with_analysis

    before = FileSignature.of(path.lstat())
    size_bytes = write_with_analysis(path, temporary, analysis)
    take_access(temporary, path)
    return Sliders(path.name, before, str(temporary), int(analysis["n_active_components"]), size_bytes)


def copy_sliders(models_dir: str, source: str, target: str, temporary: str) -> Sliders | str:
    """Write a copy of one model file with the sliders of another; or return why that cannot be.

    Args:
        models_dir: the folder.
        source: name of the file with sliders.
        target: name of the file that lacks them.
        temporary: path of the copy.
    """
    try:
        analysis = analysis_of(Path(models_dir) / source)
        if analysis is None:
            return "there are none"
        return write_sliders(Path(models_dir) / target, Path(temporary), analysis)
    except (SdaError, ValueError, MemoryError) as error:
        return str(error) or "it asks for more memory than there is"
    except OSError as error:
        return explained(error)
