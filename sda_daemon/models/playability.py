"""Which format a model is written in, and what the application that opens it cannot play right. Pure.

An application decodes every model with its own activation, and computes the size of a model's feature maps from one
second of sound; a file cannot tell it otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sda_daemon.models.formats import (
    DISTILL,
    DISTILLGAN,
    SDA,
    Activation,
    ModelFormat,
    format_called,
    format_of_name,
)

AUTO = "auto"
"""The format of the generation that a checkpoint was trained with."""
_STRIDE = 16
"""A decoder's feature maps are so many times smaller than its spectrograms, in each direction."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an application will not play a model right, and what to do."""

    reason: str
    hint: str

    def __str__(self) -> str:
        return f"{self.reason}. {self.hint}"


@dataclass(frozen=True, slots=True)
class LibraryUse:
    """What tells which later generation uses a library: the version of its index and the names of its models."""

    index_version: int = 1
    files: Collection[str] = ()


def training_package(item: ModelFormat) -> str:
    """Return the package whose enum the checkpoints of a generation name."""
    return item.enum_module.partition(".")[0]


def choose_format(
    wanted: str, activation: Activation, trained_by: str, library: Callable[[], LibraryUse]
) -> tuple[ModelFormat, Trouble | None]:
    """Return the format that a model is written in, and why it is another than the one that is wanted.

    Args:
        wanted: the name of a format, or `AUTO`.
        activation: what the model's decoder ended in while it was trained.
        trained_by: package of the application that trained it, empty where the checkpoint does not tell.
        library: looks at the library that the model goes into; only called where that decides.
    """
    if wanted != AUTO:
        choice = format_called(wanted)
    elif trained_by == training_package(SDA) or (not trained_by and activation == SDA.activation):
        choice = SDA
    else:
        choice = _later_generation(library())
    if choice is SDA or choice.activation == activation:
        return choice, None
    return SDA, Trouble(
        f"its decoder was trained to end in a {activation}, and the application that opens {choice.ending} files would "
        f"end it in a {choice.activation}: it is written as {SDA.ending} instead",
        f"Nothing need be done; where that is to be expected, say models_format: {SDA.name} in a rule",
    )


def _later_generation(library: LibraryUse) -> ModelFormat:
    """Tell the second and the third generation apart, which share a package."""
    used = {format_of_name(file) for file in library.files}
    if library.index_version >= DISTILLGAN.index_version or (DISTILLGAN in used and DISTILL not in used):
        return DISTILLGAN
    return DISTILL


def activation_trouble(chosen: ModelFormat, activation: str) -> Trouble | None:
    """Return what is wrong with a model in a format whose application ends every decoder in another activation."""
    if chosen.activation == activation:
        return None
    later = f"{DISTILL.name}, {DISTILLGAN.name} or {AUTO}"
    return Trouble(
        f"its decoder was trained to end in a {activation}, and the application that opens {chosen.ending} files ends "
        f"it in a {chosen.activation}: it sounds wrong there",
        f"For the generation that it was trained with, set models_format: {later}",
    )


def troubles(
    chosen: ModelFormat, activation: Activation, columns: int, sample_rate: int, hop_length: int
) -> list[Trouble]:
    """Return what the application that opens a format does wrong with a model.

    Args:
        chosen: what it is written in.
        activation: what its decoder was trained to end in.
        columns: of its innermost feature maps.
        sample_rate: of its sounds, in Hz.
        hop_length: of its spectrograms, in samples.
    """
    trouble = activation_trouble(chosen, activation)
    found = [] if trouble is None else [trouble]
    expected = math.ceil((sample_rate // hop_length + 1) / _STRIDE)
    if columns != expected:
        found.append(
            Trouble(
                f"it was trained on chunks of another length than one second (feature maps {columns} wide, where the "
                f"application computes {expected}): the application cannot load it",
                "Train with chunk_duration_s: 1.0 to play it there",
            )
        )
    return found
