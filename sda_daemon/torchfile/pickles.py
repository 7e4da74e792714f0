"""Looks at pickles without running them: their bounds, and the names that they would import. Pure."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from sda_daemon.torchfile.nesting import FEW_TUPLES, check_nesting

# Bytes that follow each opcode (https://docs.python.org/3/library/pickletools.html); sizes in `_SIZED` come first
# as a little-endian number of that many bytes. `c` (GLOBAL) and the text opcodes end with newlines.
_FIXED = {
    **dict.fromkeys(b"(0.12Nabdelosu]}t)\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94RQ", 0),
    **dict.fromkeys(b"Khq\x80\x82", 1),
    **dict.fromkeys(b"M\x83", 2),
    **dict.fromkeys(b"Jj\x84", 4),
    **dict.fromkeys(b"G\x95", 8),
}
_SIZED = {
    **dict.fromkeys(b"UC\x8a\x8c", 1),
    **dict.fromkeys(b"XTB\x8b", 4),
    **dict.fromkeys(b"\x8d\x8e\x96", 8),
}
_LINES = {**dict.fromkeys(b"FILSVgP", 1), **dict.fromkeys(b"ci", 2)}
_UNPACK = {1: struct.Struct("<B"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}
_LONG_PUT, _STOP, _TEXT_PUT = b"r.p"
# Most of a pickle are opcodes of a fixed length and short texts: whole runs of them are walked over at once. A regular
# expression cannot count, so it has an alternative for each length.
_SHORT_TEXT = rb"X(?:%s)" % b"|".join(rb"\x%02x\0\0\0.{%d}" % (length, length) for length in range(64))


def _runs_of(bare: bytes) -> re.Pattern[bytes]:
    """Return what matches a run of opcodes: these without arguments, and those with short ones."""
    return re.compile(
        rb"(?:%s|[%s]++|[Khq\x80\x82].|r..\0\0|[M\x83]..|[Jj\x84]....|[G\x95].{8})*+" % (_SHORT_TEXT, bare), re.DOTALL
    )


_RUN = _runs_of(rb"()012NQR\]abdelostu}\x81\x85-\x89\x8f-\x94")
_RUN_WITHOUT_TUPLES = _runs_of(rb"()012NQR\]abdelosu}\x81\x88\x89\x8f-\x94")
_TUPLES = b"t\x85\x86\x87"
_MOST_NAMES = 10_000
"""Names in one pickle; each becomes a class, which takes hundreds of times as much memory as its name."""
_LONGEST_LINE = 4096
"""A text opcode is an import name or a number; longer ones are attacks on the parser."""


@dataclass(frozen=True, slots=True)
class PickleOutline:
    """What a walk over a pickle's opcodes found.

    `names` are the classes and functions that it would import, as `module.name`; `end` is the offset
    behind its last byte.
    """

    names: frozenset[str]
    end: int


def outline_pickle(data: bytes | memoryview, start: int = 0) -> PickleOutline:
    """Walk over a pickle's opcodes; refuse one that makes an unpickler allocate more than its size.

    The C unpickler sizes its memo table by the largest index (`LONG_BINPUT`), so a pickle of ten bytes
    can ask for gigabytes; no honest pickle has an index larger than its length. Nor has any thousands of
    tuples one inside the other: Python computes the hash of a tuple, where it is a key, by recursion without
    a guard, and the process dies.

    Args:
        data: the pickle, and possibly more behind it.
        start: where it begins.

    Raises:
        ValueError: an opcode runs past the end, is unknown, or has an absurd memo index; or its tuples are
            nested too deeply, or its names too many.
    """
    names, end, _ = _walk(data, start, _RUN)
    if end - start > FEW_TUPLES:
        _check_tuples(data if isinstance(data, bytes) else bytes(data), start, end)
    return PickleOutline(frozenset(names), end)


def _check_tuples(data: bytes, start: int, end: int) -> None:
    """Look how deeply tuples are nested, if there are many; texts and numbers have such bytes too, which cost less."""
    if sum(data.count(opcode, start, end) for opcode in _TUPLES) > FEW_TUPLES:
        _, _, tuples = _walk(data, start, _RUN_WITHOUT_TUPLES)
        if tuples > FEW_TUPLES:
            check_nesting(data, start, end)


def _walk(data: bytes | memoryview, start: int, runs: re.Pattern[bytes]) -> tuple[set[str], int, int]:
    """Return the names, the end, and how many tuples are made outside of the runs that are walked over at once."""
    names: set[str] = set()
    position, length, tuples = start, len(data), 0
    while position < length:
        run = runs.match(data, position)
        position = position if run is None else run.end()
        if position >= length:
            break
        opcode = data[position]
        position += 1
        if opcode == _STOP:
            return names, position, tuples
        if opcode in _FIXED:
            position += _FIXED[opcode]
            tuples += opcode in _TUPLES
        elif opcode in _SIZED:
            width = _SIZED[opcode]
            position += width + _unpack(width, data, position)
        elif opcode == _LONG_PUT:
            if _unpack(4, data, position) > length:
                raise ValueError("absurd memo index")
            position += 4
        elif opcode in _LINES:
            lines = []
            for _ in range(_LINES[opcode]):
                end = _line_end(data, position)
                lines.append(bytes(data[position:end]))
                position = end + 1
            if len(lines) == 2:
                names.add(".".join(line.decode("utf-8", "replace") for line in lines))
                if len(names) > _MOST_NAMES:
                    raise ValueError("too many names")
        elif opcode == _TEXT_PUT:
            end = _line_end(data, position)
            if end - position > 10 or int(bytes(data[position:end])) > length:
                raise ValueError("absurd memo index")
            position = end + 1
        else:
            raise ValueError(f"unknown opcode {opcode:#04x}")
    raise ValueError("the pickle has no end")


def _unpack(width: int, data: bytes | memoryview, position: int) -> int:
    try:
        value: int = _UNPACK[width].unpack_from(data, position)[0]
    except struct.error as error:
        raise ValueError("an opcode runs past the end") from error
    return value


def _line_end(data: bytes | memoryview, position: int) -> int:
    window = bytes(data[position : position + _LONGEST_LINE])
    end = window.find(b"\n")
    if end < 0:
        raise ValueError("a name without an end")
    return position + end
