"""Tells what a file is that is no torch file, by its first bytes or by the parts of its archive. Pure.

People drop all sorts of things into a folder, and downloads and copies go wrong in a few well-known ways: each gets
its own sentence, and advice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from sda_daemon.torchfile.faults import Damaged, Fault, NotTorch, OtherKind
from sda_daemon.torchfile.zip_records import END_START, SPLIT_START

START_BYTES = 1024
"""So much of a file's beginning tells what it is."""
_SAVE_AGAIN = "Load it where it was made and save its state dict with torch.save"
_NOT_FOR_US = "Only checkpoints of a ConvVAE that torch.save wrote can be used"
_UNPACK = "Unpack it and use the file inside"


class _Magic(NamedTuple):
    """Bytes that a kind of file has at a certain place."""

    at: int
    magic: bytes
    what: str
    hint: str = _NOT_FOR_US


_MAGICS = (
    _Magic(0, b"\x89HDF\r\n\x1a\n", "is an HDF5 file (Keras writes such)", _NOT_FOR_US),
    _Magic(0, b"GGUF", "is a GGUF file (a language model)", _NOT_FOR_US),
    _Magic(0, b"tjgg", "is a GGML file (a language model)", _NOT_FOR_US),
    _Magic(0, b"lmgg", "is a GGML file (a language model)", _NOT_FOR_US),
    _Magic(0, b"\x1f\x8b", "is compressed with gzip, perhaps a tar archive",
           "Unpack it (gunzip, or tar -xzf) and use the file inside"),
    _Magic(0, b"BZh", "is compressed with bzip2, perhaps a tar archive",
           "Unpack it (bunzip2, or tar -xjf) and use the file inside"),
    _Magic(0, b"\xfd7zXZ\0", "is compressed with xz, perhaps a tar archive",
           "Unpack it (unxz, or tar -xJf) and use the file inside"),
    _Magic(0, b"\x28\xb5\x2f\xfd", "is compressed with Zstandard, perhaps a tar archive",
           "Unpack it (unzstd, or tar --zstd -xf) and use the file inside"),
    _Magic(0, b"\x04\x22\x4d\x18", "is compressed with LZ4, perhaps a tar archive",
           "Unpack it (unlz4) and use the file inside"),
    _Magic(0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive", _UNPACK),
    _Magic(0, b"Rar!\x1a\x07", "is a RAR archive", _UNPACK),
    _Magic(0, b"\x93NUMPY", "is a NumPy array (.npy)", _NOT_FOR_US),
    _Magic(4, b"TFL3", "is a TensorFlow Lite model", _NOT_FOR_US),
    _Magic(4, b"PTMF", "is a TorchScript program for mobile devices", _SAVE_AGAIN),
    _Magic(4, b"ET12", "is an ExecuTorch program", _SAVE_AGAIN),
    _Magic(0, b"SQLite format 3\0", "is an SQLite database", _NOT_FOR_US),
    _Magic(0, b"%PDF-", "is a PDF document", _NOT_FOR_US),
    _Magic(0, b"\x89PNG\r\n\x1a\n", "is a PNG picture", _NOT_FOR_US),
    _Magic(0, b"\xff\xd8\xff", "is a JPEG picture", _NOT_FOR_US),
    _Magic(0, b"GIF8", "is a GIF picture", _NOT_FOR_US),
    _Magic(8, b"WAVE", "is a WAV sound", _NOT_FOR_US),
    _Magic(8, b"AIFF", "is an AIFF sound", _NOT_FOR_US),
    _Magic(0, b"fLaC", "is a FLAC sound", _NOT_FOR_US),
    _Magic(0, b"OggS", "is an Ogg sound", _NOT_FOR_US),
    _Magic(0, b"ID3", "is an MP3 sound", _NOT_FOR_US),
    _Magic(4, b"ftyp", "is an MPEG-4 file", _NOT_FOR_US),
    _Magic(0, b"MThd", "is a MIDI file", _NOT_FOR_US),
    _Magic(0, b"\x7fELF", "is a program (ELF)", _NOT_FOR_US),
    _Magic(0, b"MZ", "is a program (Windows)", _NOT_FOR_US),
    _Magic(0, b"\xca\xfe\xba\xbe", "is a program or a Java class", _NOT_FOR_US),
    _Magic(0, b"#!", "is a script", _NOT_FOR_US),
    _Magic(0, b"\x00\x05\x16\x07", "is what macOS keeps beside a file (AppleDouble)", "Take the file without `._`"),
    _Magic(0, b"\xcf\xfa\xed\xfe", "is a program (macOS)", _NOT_FOR_US),
    _Magic(0, b"PAR1", "is a Parquet file", _NOT_FOR_US),
    _Magic(0, b"ARROW1", "is an Arrow file", _NOT_FOR_US),
    _Magic(0, END_START, "is an empty zip archive", _NOT_FOR_US),
    _Magic(0, SPLIT_START, "is a part of a split zip archive", "Put its parts together first"),
    _Magic(257, b"ustar", "is a tar archive: torch's oldest format, which cannot be read safely, or any other",
           "Load it where it was trained and save it again with a current torch; or unpack it and use the file inside"),
)  # fmt: skip

_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<meta", b"<script", b"<title", b"<style", b"<div")
_LONGEST_HEADER = 100_000_000
"""Of a safetensors file."""


def kind_of_start(start: bytes, size_bytes: int) -> Fault | None:
    """Tell what a file is that begins neither like a zip nor like a pickle.

    Args:
        start: its first bytes, `START_BYTES` of them where there are so many.
        size_bytes: of the whole file.
    """
    if not start:
        return Damaged("is empty", begin="")
    magic = kind_of_magic(start)
    if magic is not None:
        return magic
    if not start.strip(b"\0"):
        return Damaged("begins with zeros, as space that was set aside does", begin="")
    if _is_safetensors(start):
        return OtherKind("is a safetensors file", _SAVE_AGAIN)
    return _kind_of_message(start) or _kind_of_text(_as_utf8(start))


def kind_of_magic(start: bytes) -> Fault | None:
    """Tell what a file is by bytes that only files of one kind begin with."""
    for magic in _MAGICS:
        if start[magic.at : magic.at + len(magic.magic)] == magic.magic:
            return OtherKind(magic.what, magic.hint)
    return None


def _is_safetensors(start: bytes) -> bool:
    """Length of a JSON header in eight bytes, then the header (https://github.com/huggingface/safetensors)."""
    length = int.from_bytes(start[:8], "little")
    return 2 <= length <= _LONGEST_HEADER and re.match(rb'\s*\{\s*["}]', start[8:]) is not None


def _kind_of_message(start: bytes) -> Fault | None:
    """Tell what a protobuf message is: of ONNX, Core ML or TensorFlow; None for anything else.

    The first three begin with a version (`08`, then a small number). ONNX then has the name of a program or the graph;
    Core ML the description of its inputs, each of which begins with a name; TensorFlow its graphs, each of which begins
    with what is said about it. A bare graph of TensorFlow begins with an operation: its name, and its kind.
    """
    if start[:1] == b"\x08" and 1 <= start[1] <= 30:
        described = _field(start, 2, b"\x12")
        if start[2:3] in (b"\x1a", b":", b"B", b"\x22") or (described and _is_name(described)):
            return OtherKind("is an ONNX model", _SAVE_AGAIN)
        inner = _field(described, 0, b"\x0a")
        if inner[:1] == b"\x0a":
            return OtherKind("is a Core ML model", _NOT_FOR_US)
        return OtherKind("is a TensorFlow model (SavedModel)", _NOT_FOR_US) if inner and start[1] == 1 else None
    operation = _field(start, 0, b"\x0a")
    name = _field(operation, 0, b"\x0a")
    kind = _field(operation, 2 + len(name), b"\x12") if _is_name(name) else b""
    if _is_name(kind) and kind[:1].isupper():
        return OtherKind("is a TensorFlow graph (GraphDef)", _NOT_FOR_US)
    return None


def _field(message: bytes, at: int, tag: bytes) -> bytes:
    """Return the field of a message that begins there, as much as there is of it; nothing where it has another tag."""
    if message[at : at + 1] != tag:
        return b""
    length, shift, at = 0, 0, at + 1
    while at < len(message) and shift < 35:
        byte = message[at]
        length |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return message[at : at + length]
    return b""


def _is_name(text: bytes) -> bool:
    return 0 < len(text) < 200 and text.isascii() and text.decode("ascii").isprintable()


def _as_utf8(start: bytes) -> bytes:
    """Return a text in UTF-8 without its mark; one in UTF-16 as far as it can be read."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if start.startswith(mark):
            return start[2:].decode(encoding, "ignore").encode()
    return start.removeprefix(b"\xef\xbb\xbf")


def _kind_of_text(start: bytes) -> Fault | None:
    text = start.lstrip()
    low = text.lower()
    if low.startswith(b"version https://git-lfs.github.com/spec/"):
        return OtherKind("is a Git LFS pointer, not the file itself", "Fetch the file itself with: git lfs pull")
    if low.startswith(_HTML) or (low.startswith((b"<?xml", b"<!--")) and _has_html(low)):
        return OtherKind(
            "is a web page (HTML), not the file itself",
            "A download went wrong: open the page in a browser, perhaps it asks you to sign in",
        )
    if low.startswith((b"<?xml", b"<error")):
        return OtherKind("is an XML text, such as a server's error message", "Download the file again")
    if not _is_text(start):
        return None
    if low.startswith((b"{", b"[")):
        return OtherKind("is a JSON text", _NOT_FOR_US)
    if low.startswith((b"---", b"%yaml")):
        return OtherKind("is a YAML text", _NOT_FOR_US)
    return NotTorch("is a text file", _NOT_FOR_US)


def _has_html(low: bytes) -> bool:
    """Tell whether what begins with a comment or as XML is a web page; a long comment may hide what follows."""
    is_cut = low.startswith(b"<!--") and b"-->" not in low
    return is_cut or b"<html" in low or b"<!doctype html" in low


def _is_text(start: bytes) -> bool:
    """Tell whether it is a text a person could read: UTF-8 (perhaps cut at the end) without control characters."""
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in start):
        return False
    try:
        start[:-4].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def unknown_start(start: bytes) -> Fault:
    """Return the reason where nothing is known: what the file begins with."""
    return NotTorch(f"is no torch file: it begins with {start[:8]!r}", _NOT_FOR_US)


# --- zip archives -----------------------------------------------------------------------------------


class _Parts(NamedTuple):
    """How the parts of a kind of archive are recognised: by names behind its own folder, if it has one."""

    fits: Callable[[Collection[str]], bool]
    what: str
    hint: str = _NOT_FOR_US


def _has(*names: str) -> Callable[[Collection[str]], bool]:
    return lambda found: any(name in found for name in names)


def _has_ending(*endings: str) -> Callable[[Collection[str]], bool]:
    return lambda found: any(name.endswith(endings) for name in found)


_WITH_PICKLE = (
    _Parts(_has("constants.pkl"), "is a TorchScript program, not a checkpoint", _SAVE_AGAIN),
    _Parts(_has(".data/extern_modules", ".data/python_version"), "is a package of torch.package", _SAVE_AGAIN),
)
_WITHOUT_PICKLE = (
    *_WITH_PICKLE,
    _Parts(_has("model.json", "attributes.pkl"), "is a TorchScript program of an early version", _SAVE_AGAIN),
    _Parts(_has("archive_format", "serialized_exported_program.json", "models/model.json"),
           "is a program of torch.export (.pt2)", _SAVE_AGAIN),
    _Parts(_has("MAR-INF/MANIFEST.json"), "is an archive of TorchServe (.mar)", _UNPACK),
    _Parts(_has("model.weights.h5"), "is a Keras model", _NOT_FOR_US),
    _Parts(_has("Manifest.json"), "is a Core ML package", _NOT_FOR_US),
    _Parts(_has("[Content_Types].xml"), "is an Office document", _NOT_FOR_US),
    _Parts(_has("META-INF/MANIFEST.MF", "AndroidManifest.xml"), "is a Java or Android archive", _NOT_FOR_US),
    _Parts(_has("mimetype"), "is a document (OpenDocument or EPUB)", _NOT_FOR_US),
    _Parts(_has_ending(".distcp", ".metadata"), "is part of a distributed checkpoint", _SAVE_AGAIN),
    _Parts(_has_ending(".pt", ".pth", ".ckpt", ".sda", ".distill", ".distillgan"),
           "is a zip archive with checkpoints or models in it", _UNPACK),
)  # fmt: skip


def kind_of_torch_parts(names: Collection[str]) -> Fault | None:
    """Tell what an archive with a `data.pkl` is that is no file of torch.save; None for what is.

    Args:
        names: of its parts, in its own folder.
    """
    kind = next((kind for kind in _WITH_PICKLE if kind.fits(names)), None)
    return kind and OtherKind(kind.what, kind.hint)


def kind_of_parts(names: Sequence[str]) -> Fault:
    """Tell what a zip archive without a `data.pkl` is, by the names of its parts.

    Args:
        names: as they stand in the archive.
    """
    within = frozenset(names) | {name.partition("/")[2] for name in names}
    for kind in _WITHOUT_PICKLE:
        if kind.fits(within):
            return OtherKind(kind.what, kind.hint)
    files = [name for name in names if not name.endswith("/")]
    if files and all(name.endswith(".npy") for name in files):
        return OtherKind("is a NumPy archive (.npz)", _NOT_FOR_US)
    example = f" ({files[0][:60]!r})" if files else ""
    return OtherKind(f"is a zip archive, but not one of torch{example}", _NOT_FOR_US)
