"""The model file: what goes into it, and writing it so that it survives a crash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sda_daemon import __version__
from sda_daemon.controls.analysis import AnalysisResult
from sda_daemon.controls.serialization import analysis_to_dict
from sda_daemon.files import begin_writeback
from sda_daemon.models.metadata import MODEL_FORMAT_MARKER, SAVED_MODEL_VERSION, ModelMetadata
from sda_daemon.models.vae import OutputActivation

TOOL_NAME = "sda-daemon"


def model_payload(
    state_dict: Mapping[str, Tensor],
    latent_dim: int,
    spectrogram_config: Mapping[str, Any],
    training_config: Mapping[str, Any],
    metadata: ModelMetadata,
    analysis: AnalysisResult | None,
    decoder_activation: OutputActivation,
    provenance: Mapping[str, Any],
    marker: str = MODEL_FORMAT_MARKER,
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the dict that a model file holds: plain values, CPU tensors and numpy arrays only.

    `further` is what other programs have put into the file that this one takes the place of, by key.
    """
    return {
        "format": marker,
        "version": SAVED_MODEL_VERSION,
        "model_state_dict": {name: _compact(tensor) for name, tensor in state_dict.items()},
        "latent_dim": latent_dim,
        "spectrogram_config": dict(spectrogram_config),
        "latent_analysis": None if analysis is None else analysis_to_dict(analysis),
        "training_config": dict(training_config),
        "metadata": metadata.to_dict(),
        "provenance": {**provenance, "tool": f"{TOOL_NAME} {__version__}", "torch": str(torch.__version__)},
        "decoder_activation": decoder_activation,
        **(further or {}),
    }


def _compact(tensor: Tensor) -> Tensor:
    """A CPU tensor without the rest of the storage that it may be a view of."""
    tensor = tensor.detach().cpu()
    is_whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if is_whole else tensor.clone(memory_format=torch.contiguous_format)


def write_model_file(path: Path, payload: Mapping[str, Any]) -> int:
    """Write a new model file and return its size in bytes.

    It is not durable before `fsync_large`: so the kernel can write it while the next one is made, and several can share
    the wait for the disk.

    Raises:
        OSError: it cannot be written; nothing is left at `path`.
    """
    try:
        with path.open("xb") as file:
            torch.save(dict(payload), file)
            file.flush()
            begin_writeback(file.fileno())
            return file.tell()
    except RuntimeError as error:  # torch reports a failed write of its zip file this way
        path.unlink(missing_ok=True)
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError):
            raise cause from error
        raise OSError(f"{path} could not be written: {str(error).splitlines()[0]}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
