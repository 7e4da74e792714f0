"""Tells what is in a torch file without torch and without running anything of it.

Made for files that something is wrong with: each step that fails is noted, and what the earlier ones
found is still told.
"""

from __future__ import annotations

import math
import os
import reprlib
import zipfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from sda_daemon.models.metadata import MODEL_FORMAT_MARKER
from sda_daemon.torchfile.archive import NotRegularError, Part, open_regular, read_part
from sda_daemon.torchfile.globals import Judgement, judge_name
from sda_daemon.torchfile.pickles import outline_pickle
from sda_daemon.torchfile.plain import StandIn, describe_foreign, plain_value
from sda_daemon.torchfile.unpickler import InertUnpickler, TensorOutline, array_values, plain_analysis, tensor_outline

MAX_PICKLE_BYTES = 64 * 2**20
"""Largest pickle that is loaded for a look; real ones have some tens of kB to a few MB."""
MAX_ENTRIES = 100_000
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PICKLES = 5
_OBJECT_PICKLE = 3
"""Before torch 1.6: magic number, protocol, system, then the object, then the keys of the storages."""


class FileKind(StrEnum):
    """What a file is."""

    CHECKPOINT = "training checkpoint"
    MODEL = "saved model"
    STATE_DICT = "bare weights"
    TORCH = "torch file of another kind"
    TORCHSCRIPT = "TorchScript program"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KeyOutline:
    """One key of the file's dict: what is under it in words, and the bytes of the tensors in it."""

    key: str
    what: str
    size_bytes: int


@dataclass(slots=True)
class Inspection:
    """All that could be found out about a file.

    Attributes:
        container: "zip", "old torch file", or what else it looks like.
        names: every name that its pickle would import, with what becomes of it.
        keys: of its dict, in order.
        numbers: epoch, losses and the like.
        curves: series of the metrics history, each a list of (epoch, value).
        problems: what went wrong while looking.
    """

    path: str
    size_bytes: int
    kind: FileKind = FileKind.UNKNOWN
    container: str = ""
    version: int | None = None
    parts: int = 0
    names: dict[str, Judgement] = field(default_factory=dict)
    keys: list[KeyOutline] = field(default_factory=list)
    weights: dict[str, TensorOutline] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    training_config: dict[str, Any] = field(default_factory=dict)
    spectrogram_config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    analysis: dict[str, Any] | None = None
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def names_of(self, judgement: Judgement) -> list[str]:
        """Return the names that were judged so."""
        return sorted(name for name, found in self.names.items() if found is judgement)


def inspect_file(path: Path) -> Inspection:
    """Look into a file; never raises for what is in it.

    Raises:
        OSError: it cannot be read.
    """
    try:
        descriptor = open_regular(path)
    except NotRegularError:
        return Inspection(str(path), 0, problems=["it is no regular file"])
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(file.fileno())
        found = Inspection(str(path), status.st_size)
        data = _pickle_of(file, found)
    if data is None:
        return found
    content = _load(data, found)
    if content is not None:
        try:
            _interpret(content, found)
        except Exception as error:  # noqa: BLE001 - numbers of a million digits, and what else one may think of
            found.problems.append(f"not all of it can be shown: {type(error).__name__}: {error}")
    return found


# --- from file to pickle --------------------------------------------------------------------------


def _pickle_of(file: BinaryIO, found: Inspection) -> bytes | None:
    """Return the pickle that holds the file's dict, None where there is none to be had."""
    start = file.read(512)
    file.seek(0)
    if not start:
        found.problems.append("it is empty")
        return None
    if start.startswith(b"PK"):
        found.container = "zip"
        return _zip_pickle(file, found)
    if start[257:262] == b"ustar":
        found.container = "tar"
        found.problems.append("it is in torch's oldest format, a tar file, which cannot be read safely")
        return None
    if start.startswith(b"\x80"):
        found.container = "old torch file" if start[2:].startswith(_LEGACY_MAGIC) else "bare pickle"
        return _legacy_pickle(file, found)
    found.container = "no torch file"
    found.problems.append(f"it begins with {start[:8]!r}, as no torch file does")
    return None


def _zip_pickle(file: BinaryIO, found: Inspection) -> bytes | None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            found.parts = len(entries)
            if len(entries) > MAX_ENTRIES:
                found.problems.append(f"it has {len(entries)} parts, more than any torch file")
                return None
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                found.problems.append("it has compressed parts, which torch never writes")
            by_name = {entry.filename.partition("/")[2]: entry for entry in entries}
            if len({name.casefold() for name in by_name}) < len(entries):
                found.problems.append("it has parts of the same name, which torch never writes")
            if "constants.pkl" in by_name:
                found.kind = FileKind.TORCHSCRIPT
                return None
            entry = by_name.get("data.pkl")
            if entry is None:
                found.problems.append("it is a zip file, but torch did not write it: there is no data.pkl")
                return None
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > MAX_PICKLE_BYTES:
                found.problems.append(f"its data.pkl of {entry.file_size} bytes is not looked into")
                return None
            size = entry.file_size
            return read_part(
                file, Part(entry.filename, entry.compress_type, entry.CRC, size, size, entry.header_offset)
            )
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, EOFError) as error:
        found.problems.append(f"it begins like a torch file, but is truncated or damaged: {error}")
        return None


def _legacy_pickle(file: BinaryIO, found: Inspection) -> bytes | None:
    data = file.read(MAX_PICKLE_BYTES)
    position, pickles = 0, []
    try:
        for _ in range(_LEGACY_PICKLES):
            outline = outline_pickle(data, position)
            _note_names(outline.names, found)
            pickles.append(data[position : outline.end])
            position = outline.end
            if position >= len(data):
                break
    except ValueError as error:
        if not pickles:
            found.problems.append(f"its pickle is damaged: {error}")
            return None
    found.parts = len(pickles)
    return pickles[min(_OBJECT_PICKLE, len(pickles) - 1)]


def _note_names(names: Set[str], found: Inspection) -> None:
    found.names.update((name, judge_name(name)) for name in names)


def _load(data: bytes, found: Inspection) -> Any:
    unpickler = InertUnpickler(data)
    try:
        _note_names(outline_pickle(data).names, found)
        return unpickler.load()
    except Exception as error:  # noqa: BLE001 - a hostile pickle can make an unpickler raise anything
        found.problems.append(f"its pickle cannot be read: {type(error).__name__}: {error}")
        return None
    finally:
        _note_names(unpickler.names, found)  # also those that it puts together while it is loaded


# --- from pickle to what it means -----------------------------------------------------------------


def _interpret(content: Any, found: Inspection) -> None:
    if not isinstance(content, dict):
        found.kind = FileKind.TORCH
        found.problems.append(f"it holds a {describe_foreign(content)}, not a dict")
        return
    found.keys = [KeyOutline(_key_text(key), describe(value), tensor_bytes(value)) for key, value in content.items()]
    found.kind = _kind(content)
    weights = content if found.kind is FileKind.STATE_DICT else content.get("model_state_dict")
    if isinstance(weights, dict):
        outlines = {_key_text(name): tensor_outline(value) for name, value in weights.items()}
        found.weights = {name: outline for name, outline in outlines.items() if outline is not None}
    version = content.get("version")
    found.version = version if isinstance(version, int) and not isinstance(version, bool) else None
    for name in ("epoch", "step", "train_loss", "val_loss", "kl_weight", "latent_dim"):
        number = _number(content.get(name))
        if number is not None:
            found.numbers[name] = number
    found.training_config = _plain_dict(content.get("training_config"))
    found.spectrogram_config = _plain_dict(content.get("spectrogram_config"))
    found.metadata = _plain_dict(content.get("metadata"))
    found.provenance = _plain_dict(content.get("provenance"))
    found.analysis = plain_analysis(content.get("latent_analysis"))
    history = content.get("metrics_history")
    if isinstance(history, dict):
        found.curves = loss_curves(history.get("epoch_metrics"))


def _kind(content: Mapping[Any, Any]) -> FileKind:
    if content.get("format") == MODEL_FORMAT_MARKER:
        return FileKind.MODEL
    if "model_state_dict" in content:
        return FileKind.CHECKPOINT
    names = [_key_text(key).removeprefix("module.").removeprefix("_orig_mod.") for key in content]
    if names and all(name.startswith(("encoder.", "decoder.")) for name in names):
        return FileKind.STATE_DICT
    return FileKind.TORCH


def _key_text(key: Any) -> str:
    return key if isinstance(key, str) else reprlib.repr(key)


def _number(value: Any) -> float | None:
    if isinstance(value, StandIn):
        value = array_values(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _plain_dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {}
    plain = plain_value(value, lambda _where, _what: None)
    assert isinstance(plain, dict)
    return plain


def describe(value: Any) -> str:
    """Return in a few words what a value of a pickle is."""
    outline = tensor_outline(value)
    if outline is not None:
        return f"tensor {outline.dtype} {shape_text(outline.shape)}"
    if isinstance(value, StandIn):
        number = array_values(value)
        if number is not None:
            return "array" if isinstance(number, list) else f"{number:g}"
        return value.foreign_name or "a tensor's storage"
    if isinstance(value, dict):
        tensors = sum(tensor_outline(item) is not None for item in value.values())
        count, thing = (tensors, "tensor") if tensors and tensors == len(value) else (len(value), "key")
        return f"dict of {count} {thing}{'' if count == 1 else 's'}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:57]!r}..."
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f"{value:g}" if isinstance(value, float) else str(value)


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as `[64, 12288]`."""
    return f"[{', '.join(map(str, shape))}]"


def tensor_bytes(value: Any) -> int:
    """Return the bytes of all tensors inside a value, each container looked at once."""
    total, waiting, seen = 0, [value], set()
    while waiting:
        item = waiting.pop()
        outline = tensor_outline(item)
        if outline is not None:
            total += outline.size_bytes
        elif isinstance(item, dict | list | tuple):
            if id(item) in seen:
                continue
            seen.add(id(item))
            waiting += item.values() if isinstance(item, dict) else item
    return total


def loss_curves(epoch_metrics: Any) -> dict[str, list[tuple[float, float]]]:
    """Return training and validation loss by epoch; what is missing or no number is left out."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for index, record in enumerate(_records(epoch_metrics)):
        epoch = _number(record.get("epoch"))
        for name in ("train_loss", "val_loss"):
            value = _number(record.get(name))
            if value is not None and math.isfinite(value):
                curves.setdefault(name, []).append((float(index if epoch is None else epoch), float(value)))
    return curves


def _records(epoch_metrics: Any) -> Iterator[Mapping[str, Any]]:
    """Yield records, which may be dicts or instances of a foreign class."""
    for item in epoch_metrics if isinstance(epoch_metrics, list) else []:
        record = item.state if isinstance(item, StandIn) else item
        if isinstance(record, dict):
            yield record
