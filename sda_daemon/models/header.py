"""Reads what a model file says about itself without torch and without touching its weights.

A model file is what `torch.save` writes: a zip of stored entries, one of which, `data.pkl`, holds
everything but the tensors' bytes. It is read here with an unpickler that can build nothing but
plain containers and inert stand-ins, after a walk over its opcodes that bounds memory.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sda_daemon.errors import BrokenModelError, ModelFileError, NewerModelError, NotAModelError, UnsafeModelError
from sda_daemon.models.contents import unknown_model_of
from sda_daemon.models.formats import OWN_KEYS, SDA, ModelFormat, format_of_marker, stored_activation, vocoder_fields
from sda_daemon.models.metadata import SAVED_MODEL_VERSION, ModelMetadata
from sda_daemon.models.provenance import Provenance
from sda_daemon.torchfile.archive import open_regular
from sda_daemon.torchfile.faults import COPY_AGAIN, Damaged, Fault, NotTorch, OtherKind, Oversized, Unsafe
from sda_daemon.torchfile.outlines import TensorOutline, tensor_outline
from sda_daemon.torchfile.plain import describe_foreign, plain_value
from sda_daemon.torchfile.reader import TorchContents, Wishes, read_contents
from sda_daemon.torchfile.values import fields_of, mapping_of, number_of, plain_analysis
from sda_daemon.wording import LONGEST_QUOTE, quoted, shortened

WISHES = Wishes(max_pickle_bytes=64 * 2**20)
"""Of a model's `data.pkl`; real ones have 20 kB."""
_BUFFER_BYTES = 4096
"""Small, so that next to nothing of the weights is read with what is wanted."""
_LONGEST_TEXTS = {"name": 1000, "model_id": 200, "dataset_name": 1000, "training_date": 100, "save_date": 100}
_LONGEST_TEXT = 100_000
"""Of a description."""
_MOST_TAGS = 1000
_LONGEST_TAG = 1000
_LONGEST_TAGS = 100_000
_LARGEST_INTEGER = 2**63
_MOST_COMPONENTS = 100_000
_MOST_FURTHER = 100
_IN_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_SHORTEN = "Save it again with fewer and shorter texts"


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """All of a model file but its tensors.

    `format` is what its marker says, `vocoder` what the index of the third generation says of a trained vocoder in it.
    `provenance` is empty for files that this program did not write, `further` are the keys that another program has put
    into one. `size_bytes` and `mtime_ns` are those of the very file that was read, not of whatever has its name by now.
    """

    metadata: ModelMetadata
    provenance: dict[str, Any]
    latent_dim: int
    size_bytes: int
    mtime_ns: int
    inode: int
    format: ModelFormat = SDA
    vocoder: dict[str, Any] | None = None
    further: tuple[str, ...] = ()

    @property
    def origin(self) -> Provenance:
        """Where the model came from, as this program writes it."""
        return Provenance.read(self.provenance)


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """A model's header and the rest that its file says, as plain values; of the weights only their outlines."""

    header: ModelHeader
    spectrogram_config: dict[str, Any]
    training_config: dict[str, Any]
    analysis: dict[str, Any] | None
    decoder_activation: str
    weights: dict[str, TensorOutline]


@contextlib.contextmanager
def raising_what_it_says(path: Path) -> Iterator[None]:
    """Let a reader raise nothing but what it promises: one odd file must not end the reading of many."""
    try:
        yield
    except (ModelFileError, OSError):
        raise
    except Fault as fault:  # it costs more than it is worth
        raise model_error(fault, path) from fault
    except Exception as error:
        raise BrokenModelError(f"{path} is damaged, or holds values that no model has", COPY_AGAIN) from error


def read_model_header(path: Path, wishes: Wishes = WISHES) -> ModelHeader:
    """Read the metadata of a model file.

    Never follows a symbolic link, never runs anything, reads about 1 % of the file.

    Raises:
        NotAModelError: no torch file, or one without the format marker.
        NewerModelError: saved by a later version.
        BrokenModelError: truncated or damaged.
        OSError: the file cannot be opened.
    """
    with raising_what_it_says(path):
        return _header(*read_pickled_dict(path, wishes), path)


def read_model_details(path: Path) -> ModelDetails:
    """Read all of a model file but its tensors; see `read_model_header`, also for what is raised."""
    with raising_what_it_says(path):
        payload, status = read_pickled_dict(path)
        header = _header(payload, status, path)
        training_config = _plain_dict(payload.get("training_config"))
        raw_weights = payload.get("model_state_dict")
        outlines = {name: tensor_outline(value) for name, value in dict_items(raw_weights) if isinstance(name, str)}
        return ModelDetails(
            header=header,
            spectrogram_config=_plain_dict(payload.get("spectrogram_config")),
            training_config=training_config,
            analysis=plain_analysis(payload.get("latent_analysis")),
            decoder_activation=stored_activation(payload, training_config),
            weights={name: outline for name, outline in outlines.items() if outline is not None},
        )


def dict_items(value: Any) -> list[tuple[Any, Any]]:
    """Return the items of a dict, none of anything else."""
    return list((mapping_of(value) or {}).items())


def metadata_of(payload: Any, path: Path) -> ModelMetadata:
    """Return the metadata of what a torch file holds, if that is a saved model that can be read.

    Raises:
        NotAModelError, NewerModelError, BrokenModelError: see `read_model_header`.
    """
    payload = mapping_of(payload) or {}
    if format_of_marker(payload.get("format")) is None:
        if (fault := unknown_model_of(payload)) is not None:
            raise NotAModelError(f"{path} {fault.what}", fault.hint)
        raise NotAModelError(
            f"{path} is not a saved model: it has no {SDA.marker!r} marker, nor that of another generation",
            "A training checkpoint must be converted first",
        )
    version = number_of(payload.get("version"))
    if isinstance(version, bool) or not isinstance(version, int):
        raise BrokenModelError(f"{path} has no usable version number, but {quoted(version)}")
    if version > SAVED_MODEL_VERSION:
        raise NewerModelError(
            f"{path} has version {quoted(version)}, newer than supported version {SAVED_MODEL_VERSION}",
            "Update sda-daemon",
        )
    raw = fields_of(payload.get("metadata"))
    if raw is None:
        raise BrokenModelError(f"{path} has no metadata")
    return checked_metadata(raw, path)


def _header(payload: dict[str, Any], status: os.stat_result, path: Path) -> ModelHeader:
    metadata = metadata_of(payload, path)
    analysis = mapping_of(payload.get("latent_analysis"))
    if analysis is not None:
        metadata.has_analysis = True
        count = number_of(analysis.get("n_active_components"))
        if isinstance(count, int) and 0 <= count <= _MOST_COMPONENTS:
            metadata.n_active_components = int(count)
    latent_dim = number_of(payload.get("latent_dim"))
    return ModelHeader(
        metadata=metadata,
        provenance=_plain_dict(payload.get("provenance")),
        latent_dim=latent_dim if isinstance(latent_dim, int) and 0 <= latent_dim < _LARGEST_INTEGER else 0,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino,
        format=format_of_marker(payload.get("format")) or SDA,
        vocoder=vocoder_fields(payload),
        further=_further(payload),
    )


def _further(payload: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the keys under which another program has put something; None is nothing."""
    found = (key for key, value in payload.items() if key not in OWN_KEYS and value is not None)
    return tuple(shortened(str(key), LONGEST_QUOTE) for key in islice(found, _MOST_FURTHER))


def checked_metadata(raw: dict[str, Any], path: Path) -> ModelMetadata:
    """Build the metadata of a file from its raw dict, turning foreign and odd values into plain ones.

    Raises:
        BrokenModelError: a field has a value that is neither of its type nor convertible.
    """
    too_much: list[str] = []

    def note(where: str, what: str) -> None:
        if what.startswith("too m"):
            too_much.append(f"{where or 'it'}: {what}")

    values = plain_value(raw, note)
    if too_much:
        raise BrokenModelError(f"{path} has more in its metadata than is read ({too_much[0]})", _SHORTEN)
    defaults = ModelMetadata().to_dict()
    for name, default in defaults.items():
        value = values.get(name)
        if value is None or name == "tags":
            values[name] = default if value is None else _checked_tags(value, path)
            continue
        try:
            values[name] = _as_type(value, type(default), _LONGEST_TEXTS.get(name, _LONGEST_TEXT))
        except (TypeError, ValueError, OverflowError) as error:
            raise BrokenModelError(f"{path} has {name} = {quoted(value)} in its metadata: {error}") from error
    return ModelMetadata.from_dict(values)


def _checked_tags(tags: Any, path: Path) -> Any:
    if not isinstance(tags, list):
        return []
    longest = max((len(tag) for tag in tags if isinstance(tag, str)), default=0)
    total = sum(len(tag) for tag in tags if isinstance(tag, str))
    if len(tags) > _MOST_TAGS or longest > _LONGEST_TAG or total > _LONGEST_TAGS:
        raise BrokenModelError(
            f"{path} has {len(tags)} tags of {total} characters in its metadata "
            f"(at most {_MOST_TAGS} of {_LONGEST_TAG} characters are read, {_LONGEST_TAGS} in all)",
            _SHORTEN,
        )
    return tags


def readable_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a model's fields that can be read again once they are in a file; an index may hold others."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        try:
            read = getattr(checked_metadata({name: value}, Path()), name)
        except BrokenModelError:
            continue
        if read == value or value != value:  # noqa: PLR0124 - only NaN is not itself
            kept[name] = read
    return kept


def _as_type(value: Any, wanted: type, longest: int) -> Any:
    expected = _IN_WORDS[wanted]
    if isinstance(value, dict | list):
        raise TypeError(f"expected {expected}")
    if wanted is str:
        if len(text := str(value)) > longest:
            raise ValueError(f"{len(text)} characters are too many, {longest} are allowed")
        return text
    if isinstance(value, str):
        raise TypeError(f"expected {expected}, not text")
    if wanted is int and isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a whole number")
    number = wanted(value)
    if wanted is int and abs(number) > _LARGEST_INTEGER:
        raise ValueError("too large")
    return number


def _plain_dict(value: Any) -> dict[str, Any]:
    plain = plain_value(fields_of(value), lambda _where, _what: None)
    return plain if isinstance(plain, dict) else {}


def read_pickled_dict(path: Path, wishes: Wishes = WISHES) -> tuple[dict[str, Any], os.stat_result]:
    """Read all that a torch file holds but its tensors, into plain containers and stand-ins.

    Raises:
        NotAModelError: not a torch file, not even a regular one, or its content is no dict.
        UnsafeModelError: it names something that can act.
        BrokenModelError: truncated, damaged, or built to exhaust memory.
        OSError: the file cannot be opened, or is a symbolic link.
    """
    try:
        with open(open_regular(path, os.O_NOFOLLOW), "rb", buffering=_BUFFER_BYTES) as file:  # noqa: PTH123 - a descriptor
            status = os.fstat(file.fileno())
            found = read_contents(file, status.st_size, wishes)
    except Fault as fault:
        raise model_error(fault, path) from fault
    except MemoryError as error:
        raise BrokenModelError(f"{path} asks for more memory than there is") from error
    return dict_of(found, path), status


def dict_of(found: TorchContents, path: Path) -> dict[str, Any]:
    """Return the dict that a torch file holds.

    Raises:
        NotAModelError: it holds something else.
    """
    content = mapping_of(found.content)
    if content is None:
        raise NotAModelError(f"{path} is not a saved model: it holds a {describe_foreign(found.content)}")
    return content


def model_error(fault: Fault, path: Path) -> ModelFileError:
    """Return the error of a model file that has this fault."""
    kinds: dict[type[Fault], type[ModelFileError]] = {
        Damaged: BrokenModelError,
        Oversized: BrokenModelError,
        OtherKind: NotAModelError,
        NotTorch: NotAModelError,
        Unsafe: UnsafeModelError,
    }
    kind = next(kinds[cause] for cause in type(fault).__mro__ if cause in kinds)
    return kind(f"{path} {fault.what}", fault.hint)
