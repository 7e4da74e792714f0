"""The formats in which the generations of the training application keep their models: one table for all of them. Pure.

All of them hold the same things: a model of one is read, listed, edited and deleted like a model of another. What is
different stands here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Activation = Literal["sigmoid", "softplus"]
"""What the decoder of a model ends in. The weights do not tell, and an application always uses its own."""


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """What one generation of the training application reads and writes.

    Attributes:
        name: as it is called in the config and on the command line.
        ending: of the names of its files.
        marker: value of the `format` key in them.
        index_version: of the index that it writes.
        activation: what its decoder ends in, whatever a file says.
        entry_fields: fields of its entries in the index beyond the 16 that all have; null where nothing is known.
        enum_module: module of the enum that its checkpoints name.
    """

    name: str
    ending: str
    marker: str
    index_version: int
    activation: Activation
    entry_fields: tuple[str, ...]
    enum_module: str


SDA = ModelFormat("sda", ".sda", "sda_model", 1, "sigmoid", (), "small_dataset_audio.training.config")
DISTILL = ModelFormat("distill", ".distill", "distill_model", 1, "softplus", (), "distill.training.config")
DISTILLGAN = ModelFormat(
    "distillgan", ".distillgan", "distillgan_model", 2, "softplus", ("vocoder",), "distill.training.config"
)
FORMATS = (SDA, DISTILL, DISTILLGAN)
"""Every format that is known, in the order in which the generations came."""
ENDINGS = tuple(item.ending for item in FORMATS)
NEWEST_INDEX_VERSION = max(item.index_version for item in FORMATS)


def format_of_name(file_name: str) -> ModelFormat | None:
    """Return the format that a file's name tells, None where it is not that of a model."""
    return next((item for item in FORMATS if file_name.endswith(item.ending)), None)


def format_of_marker(marker: object) -> ModelFormat | None:
    """Return the format with this marker, None where there is no such."""
    if not isinstance(marker, str):  # an array is compared one by one
        return None
    return next((item for item in FORMATS if item.marker == marker), None)


def format_called(name: str) -> ModelFormat:
    """Return the format of this name.

    Raises:
        KeyError: there is no such.
    """
    return {item.name: item for item in FORMATS}[name]


def has_model_ending(file_name: str) -> bool:
    """Tell whether a file's name ends like that of a model, of whatever generation."""
    return file_name.endswith(ENDINGS)


def without_ending(file_name: str) -> str:
    """Return a model file's name without its ending; another name as it is."""
    found = format_of_name(file_name)
    return file_name if found is None else file_name.removesuffix(found.ending)


def index_fields(version: int) -> tuple[str, ...]:
    """Return what each entry of an index of this version has beyond the 16 fields."""
    return tuple(field for item in FORMATS if item.index_version <= version for field in item.entry_fields)


def trained_activation(training_config: Mapping[str, Any]) -> Activation:
    """Return what the decoder of a training ended in.

    The application changed it when it introduced `kl_weight_max`.
    """
    return "softplus" if "kl_weight_max" in training_config else "sigmoid"


def stored_activation(payload: Mapping[str, Any], training_config: Mapping[str, Any]) -> Activation:
    """Return what the decoder of a saved model ends in.

    This program writes it down. In a file of the later generations it is what their application uses, whatever the
    training config has; a `.sda` file may have been made of a later training, which its training config tells.

    Args:
        payload: what the file holds.
        training_config: its training config, as plain values.
    """
    written = payload.get("decoder_activation")
    if isinstance(written, str) and written in ("sigmoid", "softplus"):
        return "sigmoid" if written == "sigmoid" else "softplus"
    found = format_of_marker(payload.get("format"))
    if found is not None and found is not SDA:
        return found.activation
    return trained_activation(training_config)


VOCODER_KEY = "vocoder_state"
"""Under which the third generation puts a trained vocoder into a finished model."""
OWN_KEYS = frozenset(
    {
        "format",
        "version",
        "model_state_dict",
        "latent_dim",
        "spectrogram_config",
        "latent_analysis",
        "training_config",
        "metadata",
        "provenance",
        "decoder_activation",
    }
)
"""What this program writes into a model file; all else there is another program's."""


def vocoder_fields(payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the third generation's index says of a trained vocoder that is in a model file, None without one.

    Args:
        payload: what the file holds, as plain values; its `vocoder_state` has `type` and `training_metadata`.
    """
    state = payload.get(VOCODER_KEY)
    if not isinstance(state, dict):
        return None
    trained = state.get("training_metadata")
    kind = state.get("type")
    if not isinstance(trained, dict) or not isinstance(kind, str):
        return None
    epochs, loss, date = (trained.get(key) for key in ("epochs", "final_loss", "training_date"))
    if type(epochs) is not int or type(loss) not in (int, float) or not isinstance(date, str):
        return None
    return {"type": kind, "epochs": epochs, "final_loss": loss, "training_date": date}
