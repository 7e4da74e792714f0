"""Walks over pickles without running them: finds the names that they would import, and makes them safe to load. Pure.

Python's unpickler computes the hash of whatever is a key of a dict, or in a set. That of a tuple is computed by
recursion, anew each time: tuples inside tuples can take hours or overflow the stack, and tuples and large integers can
be made that all have the same hash. So behind each tuple, frozen set and large integer an operation is put (BINPERSID)
that hands it to the unpickler's `persistent_load`, which wraps it into something that is hashed by what it *is*, at no
cost; sets, which hash their items, become lists; and dicts become ones that count keys which are no texts, by the same
operation. What is left costs time and memory in proportion to the pickle's size.

In a small pickle with few tuples it is enough, and quicker, to keep them out of the memo: then none is in two places.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

# Bytes that follow each opcode (https://docs.python.org/3/library/pickletools.html); sizes in `_SIZED` come first
# as a little-endian number of that many bytes. The text opcodes in `_LINES` end with newlines.
_SIZED = {
    **dict.fromkeys(b"UC\x8a\x8c", 1),
    **dict.fromkeys(b"XTB\x8b", 4),
    **dict.fromkeys(b"\x8d\x8e\x96", 8),
}
_LINES = {**dict.fromkeys(b"FILSVPgp", 1), **dict.fromkeys(b"ci", 2)}
_UNPACK = {1: struct.Struct("<B"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}
_STOP, _LONG_PUT, _GLOBAL, _INSTANCE, _INT_LINE, _LONG_LINE, _PUT_LINE = b".rciILp"
_DICT, _EMPTY_SET, _ADD_ITEMS, _FROZENSET, _FRAME, _STACK_GLOBAL = b"d\x8f\x90\x91\x95\x93"
_LONG1, _LONG4 = b"\x8a\x8b"
_WRAPPED = frozenset(b"}t\x85\x86\x87")
"""An empty dict and tuples: `_WRAP` comes behind them."""
_OTHER_PUTS = frozenset(b"rp\x94")
_WRAP = b"Q"
_LARGE_INTEGER_BYTES = 8
_LARGE_INTEGER_DIGITS = 18
"""From 2**61 on, different integers can have the same hash."""


def _counted(opcode: bytes, head: bytes, longest: int) -> bytes:
    """Return what matches a short counted argument: an alternative for each length, as an expression cannot count."""
    return rb"%s(?:%s)" % (opcode, b"|".join(rb"\x%02x%s.{%d}" % (n, head, n) for n in range(longest)))


def _one_of(*alternatives: bytes) -> bytes:
    """Return what matches one of these, and may be repeated without being tried again.

    Before Python 3.11.5 what the last of the alternatives had begun with, and failed at, was taken for matched: so
    there is a further one, which never begins.
    """
    return b"(?:" + b"|".join((*alternatives, b"(?!)")) + b")"


_ANY_NUMBER = b"*+"
_AT_MOST_ONE = b"?+"


# Most of a pickle are opcodes of a fixed length and short texts: whole runs of them are walked over at once.
def _usual(bare: bytes, puts: bytes) -> bytes:
    """Return alternatives for opcodes: these without arguments, and those with short ones; the usual ones first.

    Args:
        bare: opcodes without arguments, as they stand between brackets.
        puts: what matches a long index of the memo behind `r`.
    """
    return rb"[Khq\x80\x82].|[%s]|G.{8}|[M\x83]..|r%s|[Jj\x84]....|%s|%s|%s" % (
        bare,
        puts,
        _counted(rb"X", rb"\0\0\0", 64),
        _counted(rb"\x8c", b"", 64),
        _counted(rb"\x8a", b"", _LARGE_INTEGER_BYTES),
    )


_BARE = rb"()012NQR\]abelosu\x81\x88\x89\x92"
_TUPLES = rb"t\x85-\x87"
_DICTS = rb"d}"
_MEMOIZE = rb"\x94"
_LOW_PUTS = rb"..\0\0"
_RUN_WITH_TUPLES = re.compile(_one_of(_usual(_BARE + _DICTS + _TUPLES, _LOW_PUTS)) + _ANY_NUMBER, re.DOTALL)
# Within a run: what comes up to a tuple, and the operation behind it that puts it into the memo.
_TO_TUPLE = re.compile(
    rb"(%s[%s]?)" % (_one_of(_usual(_BARE + _DICTS, _LOW_PUTS)) + _ANY_NUMBER, _TUPLES)
    + _one_of(rb"q.", rb"r" + _LOW_PUTS)
    + _AT_MOST_ONE,
    re.DOTALL,
)
_LARGEST_INDEX = 2**24
_BYTES_PER_INDEX = 8
"""An index of the memo is not larger than one for so many bytes: what is put takes some, and so does the operation."""


class _Runs(NamedTuple):
    """Expressions for a pickle in which tuples and dicts are wrapped.

    Attributes:
        plain: a run without these.
        mixed: a run of both, which is not longer than its pieces are bearable.
        pieces: within such a run: what comes up to one.
        open: what has none.
    """

    plain: re.Pattern[bytes]
    mixed: re.Pattern[bytes]
    pieces: re.Pattern[bytes]
    open: re.Pattern[bytes]


_LONGEST_MIXED = 50_000
_BARE_AND_WRAPPED = _BARE + rb"}" + _TUPLES + _MEMOIZE


@cache
def _runs(high_bytes: int) -> _Runs:
    """Return the expressions that allow so many different third bytes of an index."""
    puts = rb"..[\0-\x%02x]\0" % (high_bytes - 1)
    bare = _usual(_BARE + _MEMOIZE, puts)
    plain = _one_of(bare) + _ANY_NUMBER
    mixed = _one_of(_usual(_BARE_AND_WRAPPED, puts)) + b"{1,%d}+" % _LONGEST_MIXED
    # What is called with a tuple at once takes it apart: nobody else ever sees it.
    free = _one_of(bare, rb"[%s][R\x81]" % _TUPLES) + _ANY_NUMBER
    texts = (plain, mixed, free + rb"[}%s]?" % _TUPLES, free)
    return _Runs(*(re.compile(text, re.DOTALL) for text in texts))


_MOST_GETS = 100
"""Objects that are asked for again and again, such as the names of a record's fields; where there are more, and what
looks like one, nothing is gained."""


def _kept_puts(data: bytes) -> re.Pattern[bytes] | None:
    """Return what matches, within a mixed run, all up to a long put that no get asks for, and that put behind it.

    Whatever looks like a get is taken for one. None where there are many.
    """
    first, second = set[bytes](), set[bytes]()
    kept, at = rb".\0\0\0", 0
    for _ in range(_MOST_GETS):
        found = re.compile(rb"j(?!%s)..[\0-\xff]\0" % kept, re.DOTALL).search(data, at)
        if found is None:
            run = _one_of(_usual(_BARE_AND_WRAPPED, rb"(?:%s)" % kept)) + _ANY_NUMBER
            return re.compile(rb"(%s)" % run + _one_of(rb"r....") + _AT_MOST_ONE, re.DOTALL)
        at = found.start()
        first.add(re.escape(data[at + 1 : at + 2]))
        second.add(re.escape(data[at + 2 : at + 3]))
        kept = rb".\0\0\0|[%s][%s].." % (b"".join(first), b"".join(second))
    return None


_MOST_NAMES = 10_000
"""Names in one pickle, also the same again; each becomes a class, which takes hundreds of times as much memory."""
_LONGEST_LINE = 4096
"""A name or a number; longer ones are attacks on the parser. Texts may be longer."""
_FEW_STEPS = 250_000
_BYTES_PER_STEP = 30
"""A step in Python for so many bytes of the file is what other pickles stay below."""
_GAP_IN_MEMO = 1000
_SMALL_BYTES = 64 * 1024
_FEW_TUPLES = 1000
"""So many tuples in so small a pickle can be hashed in no time, whatever they are, if none is in two places."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk over a pickle's opcodes found.

    Attributes:
        names: the classes and functions that it would import, as `module.name`, but for those that it puts together
        while
            it is loaded.
        end: the offset behind its last byte.
        safe: the pickle as it may be loaded, by an unpickler whose `persistent_load` wraps; see the module.
        wraps: whether tuples are wrapped; else those that are in two places are missing in one of them.
    """

    names: frozenset[str]
    end: int
    safe: bytes
    wraps: bool = True


class PickleTooCostlyError(ValueError):
    """It would make an unpickler take more time or memory than its size is worth."""


def check_mentions(count: int) -> None:
    """Refuse a pickle that mentions too many names, also the same again.

    Raises:
        PickleTooCostlyError: these are too many.
    """
    if count > _MOST_NAMES:
        raise PickleTooCostlyError(f"it names more than {_MOST_NAMES:,} classes and functions")


def walk_pickle(
    data: bytes, start: int = 0, size_bytes: int = 0, *, wrap: bool | None = None, drop_puts: bool = False
) -> Walk:
    """Walk over a pickle's opcodes.

    The C unpickler sizes its memo by the largest index (`LONG_BINPUT`), so a pickle of ten bytes can ask for
    gigabytes: an index beyond what came before is refused.

    Args:
        data: the pickle, and possibly more behind it.
        start: where it begins.
        size_bytes: of the file that it is in; what a pickle may cost grows with that.
        wrap: whether tuples are wrapped; without it, where that is necessary.
        drop_puts: whether what nothing asks for is left out of the memo, so that it goes when it is not needed any
            more; only where there is nothing behind the pickle.

    Raises:
        PickleTooCostlyError: more names or operations than its size is worth.
        ValueError: an opcode runs past the end, is unknown, or has an absurd memo index.
    """
    size_bytes = max(size_bytes, len(data))
    if not wrap and (wrap is False or len(data) - start <= _SMALL_BYTES):
        walker = _Walker(data, start, size_bytes, wrap=False)
        if walker.walk():
            return Walk(frozenset(walker.names), walker.position, walker.safe.getvalue(), wraps=False)
    walker = _Walker(data, start, size_bytes, wrap=True, drop_puts=drop_puts)
    walker.walk()
    return Walk(frozenset(walker.names), walker.position, walker.safe.getvalue())


class _Walker:
    def __init__(self, data: bytes, start: int, size_bytes: int, *, wrap: bool, drop_puts: bool = False) -> None:
        self.data = data
        self.position = start
        self.copied = start
        self.safe = io.BytesIO()  # which gives what is in it without a copy
        self.names: set[str] = set()
        self.mentions = 0
        largest = min(len(data) // _BYTES_PER_INDEX, _LARGEST_INDEX)
        high_bytes = max(1, largest >> 16)
        self.runs = _runs(high_bytes)
        self.kept_puts = _kept_puts(data) if drop_puts else None
        self.memo = 0x10000 * high_bytes - 1
        """The largest index that may be used without more ado."""
        self.steps = self.steps_left = _FEW_STEPS + size_bytes // _BYTES_PER_STEP
        self.wrap = wrap

    def walk(self) -> bool:
        """Walk to the pickle's end; False where tuples must be wrapped, and were not to be."""
        data, length = self.data, len(self.data)
        tuples_left = _FEW_TUPLES
        run = (self.runs.plain if self.wrap else _RUN_WITH_TUPLES).match
        while True:
            matched = run(data, self.position)
            assert matched is not None  # it may be empty
            if not self.wrap:
                kept = _TO_TUPLE.findall(matched.group())
                tuples_left -= len(kept)
                if tuples_left < 0:
                    return False
                self._write(data[self.copied : self.position], b"".join(kept))
                self.copied = matched.end()
            self.position = matched.end()
            if self.position >= length:
                raise ValueError("the pickle has no end")
            opcode = data[self.position]
            if opcode in _WRAPPED:
                self._wrap_run()
                continue
            self.position += 1
            if opcode == _STOP:
                self._put(b"")
                return True
            if not self.wrap and opcode in _OTHER_PUTS:
                return False
            self._step(opcode)
            self.steps_left -= 1
            if self.steps_left < 0:
                raise PickleTooCostlyError(
                    f"it has more than {self.steps:,} odd values, the most for a file of its size"
                )

    def _wrap_run(self) -> None:
        """Walk over a run that begins with what is wrapped, and wrap all that is in it."""
        matched = self.runs.mixed.match(self.data, self.position)
        assert matched is not None
        self._put(b"")
        run = matched.group()
        if self.kept_puts is not None:
            run = b"".join(self.kept_puts.findall(run))
        pieces = self.runs.pieces.findall(run)
        pieces.pop()  # the empty one at the end
        last = pieces[-1]
        is_wrapped = last[-1] in _WRAPPED and self.runs.open.fullmatch(last) is None  # or it only looks like it
        self._write(_WRAP.join(pieces), _WRAP if is_wrapped else b"")
        self.position = self.copied = matched.end()

    def _step(self, opcode: int) -> None:
        if opcode in _SIZED:
            self._skip_sized(opcode)
        elif opcode in _LINES:
            self._skip_lines(opcode)
        elif opcode == _LONG_PUT:
            self._check_index(self._unpack(4))
            self.position += 4
        elif opcode == _STACK_GLOBAL:
            self._count_name()
        elif opcode == _DICT:  # a list in a tuple in a tuple: what is wrapped is in no other way in one
            self._replace(b"l\x85\x85" + _WRAP)
        elif opcode == _EMPTY_SET:
            self._replace(b"]")
        elif opcode == _ADD_ITEMS:
            self._replace(b"e")
        elif opcode == _FROZENSET:
            self._replace(b"l" + _WRAP)
        elif opcode == _FRAME:  # its length is not right any more
            self._replace(b"", 8)
        else:
            raise ValueError(f"unknown operation {opcode:#04x}")

    def _write(self, copied: bytes, others: bytes) -> None:
        self.safe.write(copied)
        self.safe.write(others)

    def _put(self, inserted: bytes) -> None:
        """Take what came up to here, and insert something behind it."""
        self._write(self.data[self.copied : self.position], inserted)
        self.copied = self.position

    def _replace(self, other: bytes, argument_bytes: int = 0) -> None:
        """Put other operations in the place of the one that was just read."""
        self._write(self.data[self.copied : self.position - 1], other)
        self.position += argument_bytes
        self.copied = self.position

    def _skip_sized(self, opcode: int) -> None:
        width = _SIZED[opcode]
        count = self._unpack(width)
        self.position += width + count
        if self.position > len(self.data):
            raise ValueError("an operation runs past the end")
        if opcode in (_LONG1, _LONG4) and count >= _LARGE_INTEGER_BYTES:
            self._put(_WRAP)

    def _skip_lines(self, opcode: int) -> None:
        lines = [self._line(None if opcode in b"VS" else _LONGEST_LINE) for _ in range(_LINES[opcode])]
        if opcode in (_GLOBAL, _INSTANCE):
            self._count_name()
            self.names.add(".".join(line.decode("utf-8", "replace") for line in lines))
        elif opcode == _PUT_LINE:
            if len(lines[0]) > 10:
                raise ValueError("absurd memo index")
            self._check_index(int(lines[0]))
        elif opcode in (_INT_LINE, _LONG_LINE) and len(lines[0]) > _LARGE_INTEGER_DIGITS:
            self._put(_WRAP)

    def _count_name(self) -> None:
        self.mentions += 1
        check_mentions(self.mentions)

    def _check_index(self, index: int) -> None:
        """Refuse a place in the memo that is not one of the next: places are counted up."""
        if index > self.memo + _GAP_IN_MEMO or index > len(self.data):
            raise ValueError("absurd memo index")
        self.memo = max(self.memo, index)

    def _unpack(self, width: int) -> int:
        try:
            value: int = _UNPACK[width].unpack_from(self.data, self.position)[0]
        except struct.error as error:
            raise ValueError("an operation runs past the end") from error
        return value

    def _line(self, longest: int | None) -> bytes:
        limit = len(self.data) if longest is None else self.position + longest
        end = self.data.find(b"\n", self.position, limit)
        if end < 0:
            raise ValueError("a line without an end")
        line = self.data[self.position : end]
        self.position = end + 1
        return line
