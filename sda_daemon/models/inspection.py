"""Tells what is in a torch file without torch and without running anything of it.

Made for files that something is wrong with: each step that fails is noted, and what the earlier ones
found is still told.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sda_daemon.models.contents import FileKind, kind_of, kind_of_content, plain_names, unused_keys, unwrap_checkpoint
from sda_daemon.models.formats import format_of_marker
from sda_daemon.torchfile.allowance import spend
from sda_daemon.torchfile.archive import open_regular
from sda_daemon.torchfile.faults import Fault, OtherKind, Oversized, Unsafe
from sda_daemon.torchfile.globals import TENSOR_FUNCTIONS, NameKind, modern_name
from sda_daemon.torchfile.outlines import TensorOutline, tensor_call, tensor_outline
from sda_daemon.torchfile.plain import describe_foreign, plain_value
from sda_daemon.torchfile.reader import BARE_PICKLE, FROM_BYTES, TorchContents, Wishes, read_contents
from sda_daemon.torchfile.stand_ins import LargeInteger, StandIn, StorageRef
from sda_daemon.torchfile.survey import survey
from sda_daemon.torchfile.values import array_values, fields_of, list_of, mapping_of, number_of, plain_analysis
from sda_daemon.wording import quoted, text_of

_MOST_SHOWN = 10_000
"""Keys and names that are shown of one dict."""
_NO_MEMORY = "it asks for more memory than there is"
_VISIT_UNITS = 150
_HOLDER_UNITS = 100
_LEAVES = frozenset({bool, int, float, str, bytes, bytearray, LargeInteger})


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
        left_out: what is not shown, although nothing is wrong with it.
    """

    path: str
    size_bytes: int
    kind: FileKind = FileKind.UNKNOWN
    container: str = ""
    version: int | None = None
    parts: int = 0
    names: dict[str, NameKind] = field(default_factory=dict)
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
    left_out: list[str] = field(default_factory=list)

    def names_of(self, kind: NameKind) -> list[str]:
        """Return the names that were judged so."""
        return sorted(name for name, found in self.names.items() if found is kind)


def inspect_file(path: Path) -> Inspection:
    """Look into a file; never raises for what is in it.

    Raises:
        OSError: it cannot be read.
    """
    contents = TorchContents()
    found = Inspection(str(path), 0)
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123 - a descriptor
            found.size_bytes = os.fstat(file.fileno()).st_size
            read_contents(file, found.size_bytes, Wishes(lenient=True), contents)
    except Fault as fault:
        found.problems.append(_told(fault))
        found.kind = (
            FileKind.TORCHSCRIPT if isinstance(fault, OtherKind) and "TorchScript" in fault.what else found.kind
        )
    except MemoryError:
        found.problems.append(_NO_MEMORY)
    refused = next((name for name, judged in contents.names.items() if judged is NameKind.REFUSED), "")
    if refused and not (contents.container == BARE_PICKLE and modern_name(refused) == FROM_BYTES):
        found.problems.insert(0, _told(Unsafe(modern_name(refused))))
    found.container = contents.container
    found.parts = len(contents.archive.parts) if contents.archive is not None else 0
    found.names = contents.names
    if contents.content is not None or (contents.pickle_bytes and not found.problems):
        try:
            _survey(contents, found)
            _interpret(contents.content, found)
        except Fault as fault:
            found.problems.append(_told(fault))
        except MemoryError:
            found.problems.append(_NO_MEMORY)
    return found


def _survey(contents: TorchContents, found: Inspection) -> None:
    """Find out whether it is too costly, as whoever makes tensors of it does."""
    top = mapping_of(contents.content)
    is_model = kind_of(contents.content) is FileKind.MODEL
    try:
        survey(contents.content, () if top is None or is_model else unused_keys(top), contents.pickle_bytes)
    except Fault as fault:
        if not found.problems:
            found.problems.append(_told(fault))


@contextlib.contextmanager
def _leaving_out(found: Inspection, what: str) -> Iterator[None]:
    """Note what costs too much to be shown, and go on."""
    try:
        yield
    except (Oversized, MemoryError):
        found.left_out.append(f"{what}: it holds too much")
    except Exception:  # noqa: BLE001 - of values that nobody has thought of
        found.left_out.append(f"{what}: it holds odd values")


def _told(fault: Fault) -> str:
    """Return a fault as a sentence about "it", with its advice."""
    return f"it {fault.what}" + (f". {fault.hint}" if fault.hint else "")


# --- from pickle to what it means -----------------------------------------------------------------


def _interpret(content: Any, found: Inspection) -> None:
    found.kind = kind_of(content)
    top = mapping_of(content)
    is_known = top is not None and format_of_marker(top.get("format")) is not None
    fault = None if found.problems or is_known else kind_of_content(content)
    if fault is not None:
        found.problems.append(_told(fault))
    if top is None:
        return
    shown = dict(list(top.items())[:_MOST_SHOWN])
    wrapped = unwrap_checkpoint(top)
    known: Mapping[Any, Any] = top if wrapped is None else wrapped.content
    with _leaving_out(found, "its weights"):
        found.weights = _weights(known)
    version = number_of(known.get("version"))
    found.version = version if isinstance(version, int) and not isinstance(version, bool) else None
    for name in ("epoch", "step", "train_loss", "val_loss", "kl_weight", "latent_dim"):
        with _leaving_out(found, f"its {name}"):
            number = _number(known.get(name))
            if number is not None:
                found.numbers[name] = number
    for name in ("training_config", "spectrogram_config", "metadata", "provenance"):
        with _leaving_out(found, f"its {name}"):
            setattr(found, name, _plain_dict(known.get(name)))
    with _leaving_out(found, "its latent_analysis"):
        found.analysis = plain_analysis(known.get("latent_analysis"))
    for key, value in shown.items():
        outline = KeyOutline(_key_text(key), "not looked at", 0)
        with _leaving_out(found, f"what is under {quoted(key)}"):
            outline = replace(outline, what=describe(value))
            outline = replace(outline, size_bytes=tensor_bytes(value))
        found.keys.append(outline)
    with _leaving_out(found, "the curves of its losses"):
        history = mapping_of(top.get("metrics_history"))
        if history is not None:
            found.curves = loss_curves(list_of(history.get("epoch_metrics")))


def _weights(known: Mapping[Any, Any]) -> dict[str, TensorOutline]:
    weights = mapping_of(known.get("model_state_dict")) or {}
    names = plain_names(weights).weights
    shown = list(weights.items())[:_MOST_SHOWN]
    outlines = {names.get(name, _key_text(name)): tensor_outline(value) for name, value in shown}
    return {name: outline for name, outline in outlines.items() if outline is not None}


def _key_text(key: Any) -> str:
    return key if isinstance(key, str) else quoted(key)


def _number(value: Any) -> float | None:
    number = number_of(value)
    return None if isinstance(number, bool) else number


def _plain_dict(value: Any) -> dict[str, Any]:
    plain = plain_value(fields_of(value), lambda _where, _what: None)
    return plain if isinstance(plain, dict) else {}


def describe(value: Any) -> str:
    """Return in a few words what a value of a pickle is."""
    outline = tensor_outline(value)
    if outline is not None:
        return f"tensor {outline.dtype} {shape_text(outline.shape)}"
    call = tensor_call(value)
    if call is not None:
        return TENSOR_FUNCTIONS[call[0]] or "tensor"
    if isinstance(value, StorageRef):
        return "a tensor's storage"
    if isinstance(value, StandIn | type):
        number = array_values(value)
        if number is not None:
            if isinstance(number, list):
                return "array"
            return f"{number:g}" if isinstance(number, float) else describe(number)
        items = mapping_of(value)
        return describe_foreign(value) + (f" of {len(items)}" if items is not None else "")
    if isinstance(value, dict):
        spend(_VISIT_UNITS * len(value))
        tensors = sum(tensor_outline(item) is not None for item in value.values())
        count, thing = (tensors, "tensor") if tensors and tensors == len(value) else (len(value), "key")
        return f"dict of {count} {thing}{'' if count == 1 else 's'}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"{'tuple' if isinstance(value, tuple) else type(value).__name__} of {len(value)}"
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:57]!r}..."
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f"{value:g}" if isinstance(value, float) else text_of(value)


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as `[64, 12288]`."""
    return f"[{', '.join(map(str, shape))}]"


def tensor_bytes(value: Any) -> int:
    """Return the bytes of all tensors inside a value, each container looked at once."""
    total, waiting, seen = 0, [value], set()
    while waiting:
        item = waiting.pop()
        if item is None or item.__class__ in _LEAVES:
            continue
        if isinstance(item, dict | list | tuple):
            spend(_HOLDER_UNITS)
            place = id(item)
            if place not in seen:
                seen.add(place)
                waiting += item.values() if isinstance(item, dict) else item
            continue
        spend(_VISIT_UNITS)
        outline = tensor_outline(item)
        if outline is not None:
            total += outline.size_bytes
        elif (place := id(item)) not in seen:
            seen.add(place)
            held = mapping_of(item)
            waiting += (list_of(item) if held is None else held.values()) or ()
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
    for item in epoch_metrics or ():
        spend(_VISIT_UNITS)
        record = fields_of(item)
        if record is not None:
            yield record
