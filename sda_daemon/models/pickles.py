"""Looks at pickles without running them: their bounds, and the names that they would import. Pure."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

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
_RUN = re.compile(
    rb"(?:%s|[()012NQR\]abdelostu}\x81\x85-\x89\x8f-\x94]++|[Khq\x80\x82].|r..\0\0|[M\x83]..|[Jj\x84]....|[G\x95].{8})*+"
    % _SHORT_TEXT,
    re.DOTALL,
)
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
    can ask for gigabytes; no honest pickle has an index larger than its length.

    Args:
        data: the pickle, and possibly more behind it.
        start: where it begins.

    Raises:
        ValueError: an opcode runs past the end, is unknown, or has an absurd memo index.
    """
    names: set[str] = set()
    position, length = start, len(data)
    while position < length:
        run = _RUN.match(data, position)
        position = position if run is None else run.end()
        if position >= length:
            break
        opcode = data[position]
        position += 1
        if opcode == _STOP:
            return PickleOutline(frozenset(names), position)
        if opcode in _FIXED:
            position += _FIXED[opcode]
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
