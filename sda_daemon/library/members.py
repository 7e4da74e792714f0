"""Splits JSON objects into their members, each with the text that it stands there as. Pure.

What is not understood is written back as it was: with its order of keys, its spelling of numbers, and keys that are
there twice. A decoded value has lost all that.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from sda_daemon.plain_json import whole_number

_scan_quickly = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_scan_any = json.JSONDecoder(parse_int=whole_number).scan_once  # type: ignore[attr-defined]
_skip = re.compile(r"[ \t\n\r]*").match


class Member(NamedTuple):
    """One member of an object.

    `text` is all of it, `"key": value`, and `value_text` its value, both as they stand in the document. Of an object
    that was split itself `value` is a list of members, and both texts are empty.
    """

    key: str
    value: Any
    text: str
    value_text: str


def split_object(text: str, split_too: str | None = None) -> list[Member]:
    """Return the members of the object that a JSON document is, in order, those included whose key comes again.

    Args:
        text: the document.
        split_too: members of this key whose value is an object are split themselves.

    Raises:
        ValueError: it is not valid JSON, or not an object.
    """
    try:
        members, end = _split(text, _after_blanks(text, 0), split_too)
    except (StopIteration, IndexError) as error:
        raise ValueError("it is not valid JSON") from error
    if _after_blanks(text, end) != len(text):
        raise ValueError("there is something behind its end")
    return members


def _split(text: str, at: int, split_too: str | None) -> tuple[list[Member], int]:
    members: list[Member] = []
    at = _expect(text, at, "{")
    if text[at] == "}":
        return members, at + 1
    while True:
        begin = at
        if text[at] != '"':
            raise ValueError("a key is not a text")
        key, at = scanstring(text, at + 1, True)
        value_begin = _expect(text, _after_blanks(text, at), ":")
        if key == split_too and text[value_begin] == "{":
            inner, at = _split(text, value_begin, None)
            members.append(Member(key, inner, "", ""))
        else:
            value, at = _scan(text, value_begin)
            members.append(Member(key, value, text[begin:at], text[value_begin:at]))
        at = _after_blanks(text, at)
        if text[at] == "}":
            return members, at + 1
        at = _expect(text, at, ",")


def _scan(text: str, at: int) -> tuple[Any, int]:
    """Decode a value; return it with where it ends. Numbers of more digits than Python reads are `LongNumber`s."""
    try:
        found: tuple[Any, int] = _scan_quickly(text, at)
    except json.JSONDecodeError:
        raise
    except ValueError:
        found = _scan_any(text, at)
    return found


def _expect(text: str, at: int, sign: str) -> int:
    if text[at] != sign:
        raise ValueError(f"there is no {sign!r} where one should be")
    return _after_blanks(text, at + 1)


def _after_blanks(text: str, at: int) -> int:
    found = _skip(text, at)
    assert found is not None  # it also matches nothing
    return found.end()
