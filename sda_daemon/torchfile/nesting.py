"""Tells how deeply the tuples of a pickle are nested, without making any of them. Pure."""

from __future__ import annotations

import struct

FEW_TUPLES = 20_000
"""So many cannot be nested deeply enough to overflow the stack (100,000 can); real models have some hundreds."""
_DEEPEST_TUPLE = 1000
_MOST_STEPS = 30_000_000

# How long an opcode's argument is: so many bytes, or so many lines, or what the number before it says.
_ARGUMENT = {**dict.fromkeys(b"Khq\x80\x82", 1), **dict.fromkeys(b"M\x83", 2), **dict.fromkeys(b"Jjr\x84", 4),
             **dict.fromkeys(b"G\x95", 8)}  # fmt: skip
_LINES = {**dict.fromkeys(b"FILSVPgp", 1), **dict.fromkeys(b"ci", 2)}
_LENGTH = {
    **dict.fromkeys(b"UC\x8a\x8c", struct.Struct("<B")),
    **dict.fromkeys(b"XTB\x8b", struct.Struct("<I")),
    **dict.fromkeys(b"\x8d\x8e\x96", struct.Struct("<Q")),
}
_WITHOUT_ARGUMENT = frozenset(range(256)) - _ARGUMENT.keys() - _LINES.keys() - _LENGTH.keys()
# What an unpickler does to its stack: how many values an opcode takes from it (or all from the last mark on), and
# whether it puts one there that is no tuple.
_PUSHING = frozenset(b"IJKLMN\x8a\x8bSTUVX\x8c\x8d\x96BC\x8eFG]}\x8f)cP\x82\x83\x84\x88\x89")
_TAKING = {**dict.fromkeys(b"ab", (1, False)), **dict.fromkeys(b"s", (2, False)),
           **dict.fromkeys(b"R\x81\x93", (2, True)), **dict.fromkeys(b"\x92", (3, True))}  # fmt: skip
_CLOSING = {**dict.fromkeys(b"eu\x90", False), **dict.fromkeys(b"ldoi\x91", True)}
_TUPLE_OF = {0x85: 1, 0x86: 2, 0x87: 3}
_MARK, _CLOSE_TUPLE, _POP, _POP_MARK, _DUPLICATE = b"(t012"
_MEMOIZE = 0x94
_PUTS = {ord("p"): None, ord("q"): struct.Struct("<B"), ord("r"): struct.Struct("<I")}
_GETS = {ord("g"): None, ord("h"): struct.Struct("<B"), ord("j"): struct.Struct("<I")}


def check_nesting(data: bytes, start: int, end: int) -> None:
    """Refuse a pickle whose tuples are nested more deeply than any honest one's.

    Python hashes a tuple that is a key by recursion without a guard: with a hundred thousand levels the stack
    overflows, and the process dies. (Lists and dicts are no keys, frozen sets remember the hashes of their
    items, and comparing and taking apart have guards.) This looks at each opcode, which takes long: it is for
    the few pickles with more than `FEW_TUPLES`.

    Args:
        data: the pickle, already walked over: its opcodes are known and none runs past the end.
        start: where it begins.
        end: behind its last byte.

    Raises:
        ValueError: nested too deeply, or no unpickler could load it.
    """
    try:
        _follow(data, start, end)
    except (LookupError, struct.error) as error:  # an empty stack, a missing mark, nothing in the memo
        raise ValueError("its opcodes do not fit together") from error


def _follow(data: bytes, start: int, end: int) -> None:
    """Do to a stack of depths what an unpickler would do to its stack of values; what is no tuple has depth 0."""
    stack: list[int] = []
    below: list[list[int]] = []  # what is under each mark
    memo: dict[int, int] = {}
    position, steps = start, 0
    while position < end:
        opcode = data[position]
        position += 1
        steps += 1
        if steps > _MOST_STEPS:
            raise ValueError("too many opcodes")
        argument = position
        if opcode not in _WITHOUT_ARGUMENT:
            position = _argument_end(data, position, opcode)

        if opcode in _PUSHING:
            stack.append(0)
        elif opcode in _PUTS:
            memo[_index(data, argument, position, _PUTS[opcode])] = stack[-1]
        elif opcode in _GETS:
            stack.append(memo[_index(data, argument, position, _GETS[opcode])])
        elif opcode in _TUPLE_OF:
            items = stack[-_TUPLE_OF[opcode] :]
            del stack[-_TUPLE_OF[opcode] :]
            stack.append(_tuple_depth(items))
        elif opcode == _MARK:
            below.append(stack)
            stack = []
        elif opcode == _CLOSE_TUPLE:
            items, stack = stack, below.pop()
            stack.append(_tuple_depth(items))
        elif opcode in _CLOSING:
            stack = below.pop()
            if _CLOSING[opcode]:
                stack.append(0)
        elif opcode in _TAKING:
            count, puts = _TAKING[opcode]
            del stack[-count:]
            if puts:
                stack.append(0)
        elif opcode == _MEMOIZE:
            memo[len(memo)] = stack[-1]
        elif opcode == _DUPLICATE:
            stack.append(stack[-1])
        elif opcode == _POP_MARK or (opcode == _POP and not stack):
            stack = below.pop()
        elif opcode == _POP:
            stack.pop()
        # Nothing else changes the stack; a persistent id (Q) stays what it is, a tuple.


def _argument_end(data: bytes, position: int, opcode: int) -> int:
    """Return where the next opcode begins."""
    if opcode in _LENGTH:
        length = _LENGTH[opcode]
        return int(position + length.size + length.unpack_from(data, position)[0])
    for _ in range(_LINES.get(opcode, 0)):
        position = data.index(b"\n", position) + 1
    return position + _ARGUMENT.get(opcode, 0)


def _tuple_depth(items: list[int]) -> int:
    depth = 1 + max(items, default=0)
    if depth > _DEEPEST_TUPLE:
        raise ValueError("tuples nested too deeply")
    return depth


def _index(data: bytes, begin: int, end: int, binary: struct.Struct | None) -> int:
    """Return the place in the memo, which is written in binary or as a line."""
    number: int = int(data[begin:end]) if binary is None else binary.unpack_from(data, begin)[0]
    return number
