"""Reads files that `torch.save` wrote, with their tensors, and never runs anything that is in them.

All but the tensors' bytes is read by `torchfile.reader`, which makes inert stand-ins of what is foreign; `tensors`
makes tensors and arrays of these. Torch's own reader is not used: it is slower, compares no checksums, and reads what
nobody wants.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sda_daemon.errors import (
    BrokenCheckpointError,
    CheckpointError,
    ForeignCheckpointError,
    OversizedCheckpointError,
    UnsafeCheckpointError,
)
from sda_daemon.models.tensors import LeaveOut, build_tensors
from sda_daemon.torchfile.archive import open_regular
from sda_daemon.torchfile.faults import Damaged, Fault, NotTorch, OtherKind, Oversized, Unsafe
from sda_daemon.torchfile.reader import TorchContents, Wishes, read_contents


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What a torch file holds.

    Attributes:
        content: the object that was saved; foreign values are stand-ins.
        digest: tells this content from any other; see `torchfile.reader.TorchContents`.
        size_bytes: of the file.
    """

    content: Any
    digest: str
    size_bytes: int


def _nothing(_content: Mapping[Any, Any]) -> tuple[()]:
    return ()


def read_torch_file(path: Path, leave_out: LeaveOut = _nothing) -> TorchFile:
    """Load what `torch.save` wrote, with stand-ins for all that is foreign; nothing in it is executed.

    Args:
        path: the file.
        leave_out: tells which keys of the dict at the top are not wanted: they are not read, and become None.

    Raises:
        UnsafeCheckpointError: it names something that can act.
        OversizedCheckpointError: it promises more than it holds, or would cost more than its size is worth.
        BrokenCheckpointError: truncated or damaged, or nothing that is known.
        ForeignCheckpointError: something else than a file of torch.save.
        OSError: it cannot be read.
    """
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123 - a descriptor
            size_bytes = os.fstat(file.fileno()).st_size
            found: TorchContents = read_contents(file, size_bytes, Wishes(with_digest=True))
            content = build_tensors(file.fileno(), found, leave_out)
    except Fault as fault:
        raise checkpoint_error(fault, path) from fault
    except MemoryError as error:
        raise OversizedCheckpointError(f"{path} asks for more memory than there is") from error
    return TorchFile(content, found.digest, size_bytes)


def checkpoint_error(fault: Fault, path: Path) -> CheckpointError:
    """Return the error of a checkpoint that has this fault."""
    kinds: dict[type[Fault], type[CheckpointError]] = {
        Damaged: BrokenCheckpointError,
        Oversized: OversizedCheckpointError,
        OtherKind: ForeignCheckpointError,
        NotTorch: BrokenCheckpointError,
        Unsafe: UnsafeCheckpointError,
    }
    kind = next(kinds[cause] for cause in type(fault).__mro__ if cause in kinds)
    return kind(f"{path} {fault.what}", fault.hint)
