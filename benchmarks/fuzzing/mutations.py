"""Files to begin with, and what is done to them: with their checksums repaired, so that it gets deeper than those."""

from __future__ import annotations

import io
import pickletools
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fuzzing.hostile import any_hostile
from sda_daemon.controls.serialization import analysis_to_dict
from sda_daemon.demo.checkpoints import checkpoint_dict, made_up_analysis, small_model
from sda_daemon.models.formats import FORMATS
from sda_daemon.models.metadata import ModelMetadata

Parts = list[tuple[str, bytes]]
_SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"


def _saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    """Return checkpoints in every protocol and both formats, models of all generations, and samples where they are."""
    model = small_model(latent_dim=4)
    state = model.state_dict()
    found: dict[str, bytes] = {}
    for protocol in range(6):
        content = checkpoint_dict(state, analysis=made_up_analysis(4) if protocol % 2 else None)
        found[f"checkpoint of protocol {protocol}"] = _saved(content, pickle_protocol=protocol)
        old = _saved(content, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
        found[f"old checkpoint of protocol {protocol}"] = old
    config = checkpoint_dict(state)["spectrogram_config"]
    for item in FORMATS:
        payload = {
            "format": item.marker, "version": 1, "model_state_dict": state, "latent_dim": 4,
            "spectrogram_config": config, "latent_analysis": analysis_to_dict(made_up_analysis(4)),
            "training_config": {"kl_weight_max": np.float32(0.1)},
            "metadata": ModelMetadata("id", "Rain", tags=["a"], final_val_loss=float("inf")).to_dict(),
            "vocoder_state": {"w": torch.arange(5.0)},
        }  # fmt: skip
        found[f"model {item.name}"] = _saved(payload)
    for path in sorted(_SAMPLES.glob("application/*/data/models/*.distill*")):
        found[f"sample {path.name}"] = path.read_bytes()
    return found


def parts_of(content: bytes) -> Parts:
    """Return the parts of a zip file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def packed(parts: Parts, sizes: Callable[[int, int], int] = lambda _index, size: size) -> bytes:
    """Write parts as torch does, aligned; `sizes` may lie about them."""
    body, directory = bytearray(), bytearray()
    for index, (name, content) in enumerate(parts):
        raw, at, crc = name.encode(), len(body), zlib.crc32(content)
        size = sizes(index, len(content)) & 0xFFFFFFFF
        pad = -(at + 30 + len(raw) + 4) % 64
        extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
        numbers = struct.pack("<3L", crc, size, size)
        body += struct.pack("<4s5H", b"PK\x03\x04", 20, 0, 0, 0, 0) + numbers + struct.pack("<2H", len(raw), len(extra))
        body += raw + extra + content
        directory += struct.pack("<4s6H", b"PK\x01\x02", 20, 20, 0, 0, 0, 0) + numbers
        directory += struct.pack("<5H2L", len(raw), 0, 0, 0, 0, 0, at) + raw
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(parts), len(parts), len(directory), len(body), 0)
    return bytes(body + directory + end)


def packed_pickle(pickled: bytes) -> bytes:
    """Write a torch file with this pickle and no tensors."""
    return packed([("x/data.pkl", pickled), ("x/version", b"3\n"), ("x/byteorder", b"little")])


# --- what is done to them -----------------------------------------------------------------------------


def _flip(chance: random.Random, content: bytes) -> bytes:
    raw = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)


def _flip_near_the_end(chance: random.Random, content: bytes) -> bytes:
    raw = bytearray(content)
    for _ in range(chance.choice([1, 2, 4])):
        raw[-1 - chance.randrange(min(len(raw), 6000))] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
    return bytes(raw)


def _truncate(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content))] + bytes(chance.choice([0, 0, 0, 22, 5000]))


def _pickle_index(parts: Parts) -> int:
    return next(index for index, (name, _) in enumerate(parts) if name.endswith("data.pkl"))


def _in_pickle(change: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random, bytes], bytes]:
    def changed(chance: random.Random, content: bytes) -> bytes:
        parts = parts_of(content)
        index = _pickle_index(parts)
        parts[index] = (parts[index][0], change(chance, parts[index][1]))
        return packed(parts)

    return changed


def _change_operations(chance: random.Random, pickled: bytes) -> bytes:
    """Remove, double, swap or exchange whole operations, or what follows one."""
    starts = [at or 0 for _, _, at in pickletools.genops(pickled)]
    pieces = [pickled[begin:end] for begin, end in zip(starts, [*starts[1:], len(pickled)], strict=True)]
    for _ in range(chance.choice([1, 1, 2, 5])):
        at, other = chance.randrange(len(pieces)), chance.randrange(len(pieces))
        match chance.randrange(6):
            case 0:
                pieces[at] = b""
            case 1:
                pieces[at] *= chance.choice([2, 50])
            case 2:
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 3:
                pieces[at] = bytes([chance.randrange(256)]) + pieces[at][1:]
            case 4:
                pieces[at] = pieces[at] + chance.choice(
                    [
                        b"0",
                        b"2",
                        b"(",
                        b"t",
                        b"\x85",
                        b"R",
                        b"b",
                        b"Q",
                        b"h\x00",
                        b"j\xff\xff\xff\x00",
                        b"r\xff\xff\0\0",
                        b"N",
                        b"}",
                        b"s",
                    ]
                )
            case _:
                pieces[at] = pieces[at][:1] + _flip(chance, pieces[at][1:]) if len(pieces[at]) > 1 else pieces[at]
    return b"".join(pieces)


def _double_a_part(chance: random.Random, content: bytes) -> bytes:
    parts = parts_of(content)
    name, part = chance.choice(parts)
    parts.insert(chance.randrange(len(parts)), (chance.choice([name, name.upper(), f"other/{name}"]), part))
    return packed(parts)


def _swap_parts(chance: random.Random, content: bytes) -> bytes:
    parts = parts_of(content)
    one, other = chance.randrange(len(parts)), chance.randrange(len(parts))
    parts[one], parts[other] = (parts[one][0], parts[other][1]), (parts[other][0], parts[one][1])
    return packed(parts)


def _lie_about_sizes(chance: random.Random, content: bytes) -> bytes:
    parts = parts_of(content)
    which, by = chance.randrange(len(parts)), chance.choice([-1, 1, 64, 2**20, 2**31, -(2**31)])
    return packed(parts, lambda index, size: size + by if index == which else size)


def _lose_a_part(chance: random.Random, content: bytes) -> bytes:
    parts = parts_of(content)
    del parts[chance.randrange(len(parts))]
    return packed(parts)


def _change_numbers(chance: random.Random, content: bytes) -> bytes:
    """Make weights infinite, or anything else."""
    parts = parts_of(content)
    index = chance.randrange(len(parts))
    name, part = parts[index]
    parts[index] = (name, _flip(chance, part) if part else part)
    return packed(parts)


_OF_ALL = {"flip": _flip, "truncate": _truncate, "flip near the end": _flip_near_the_end}
_OF_ZIPS = {
    "flip in the pickle": _in_pickle(_flip),
    "change operations": _in_pickle(_change_operations),
    "double a part": _double_a_part,
    "swap parts": _swap_parts,
    "lie about sizes": _lie_about_sizes,
    "lose a part": _lose_a_part,
    "change numbers": _change_numbers,
}


def mutated(chance: random.Random, begin: dict[str, bytes]) -> tuple[str, bytes]:
    """Return a file and what was done to make it: one in five is built to be costly, the others began honest."""
    if chance.random() < 0.2:
        what, pickled = any_hostile(chance)
        return f"built: {what}", packed_pickle(pickled)
    seed = chance.choice(list(begin))
    content = begin[seed]
    changes = _OF_ALL | _OF_ZIPS if content.startswith(b"PK") else _OF_ALL
    # Operations are what a reader follows: they are changed as often as all else together.
    name = "change operations" if content.startswith(b"PK") and chance.random() < 0.5 else chance.choice(list(changes))
    return f"{seed}: {name}", changes[name](chance, content)
