"""Overrides from environment variables: `SDA_DAEMON__LOGGING__LEVEL=debug`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from sda_daemon.errors import Problem
from sda_daemon.settings.document import Document, Origin
from sda_daemon.settings.messages import did_you_mean
from sda_daemon.settings.structure import Where, key_at, section_at

PREFIX = "SDA_DAEMON__"
SEPARATOR = "__"


def variable_for(where: Where) -> str:
    """Return the variable that overrides the value at a place."""
    return PREFIX + SEPARATOR.join(str(part).upper() for part in where)


def apply_environment(document: Document, root: type[BaseModel], environment: Mapping[str, str]) -> None:
    """Put the values of all `SDA_DAEMON__…` variables into a document; misspelt ones are problems."""
    for variable in sorted(name for name in environment if name.startswith(PREFIX)):
        parts = variable.removeprefix(PREFIX).split(SEPARATOR)
        where: Where = tuple(int(part) if part.isdecimal() else part.lower() for part in parts)
        problem = _why_not(document, root, where)
        if problem:
            document.problems.append(Problem(variable, 0, 0, "", problem))
            continue
        value = environment[variable]
        _put(document.data, where, None if value == "null" else value)
        document.origins[where] = Origin(variable)


def _why_not(document: Document, root: type[BaseModel], where: Where) -> str:
    for length in range(1, len(where) + 1):
        part = where[length - 1]
        before, here = where[: length - 1], key_at(root, where[:length])
        if isinstance(part, int):
            items = _get(document.data, before)
            if here is None or not here.is_list:
                return f"{part} is no key; a number stands only behind the name of a list"
            if not isinstance(items, list) or part >= len(items):
                count = len(items) if isinstance(items, list) else 0
                return f"there is no item {part}; {'.'.join(map(str, before))} has {count} in the file, counted from 0"
        elif here is None or section_at(root, before) is None:
            section = section_at(root, before)
            if section is None:
                return f"{variable_for(before)} is a single value, there is nothing inside it"
            known = [variable_for((*before, name, *where[length:])) for name in section.model_fields]
            return f"there is no such key; {did_you_mean(variable_for(where), known)}"
    last = key_at(root, where)
    is_item = isinstance(where[-1], int)
    if last is None or last.inner is not None or last.is_list != is_item:
        return "this is not a single value; name a key inside it, or change it in the file"
    return ""


def _get(data: Any, where: Where) -> Any:
    for part in where:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _put(data: Any, where: Where, value: Any) -> None:
    for part in where[:-1]:
        if isinstance(data, dict):
            if data.get(part) is None:
                data[part] = {}
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part]
    if isinstance(data, dict | list):
        data[where[-1]] = value  # type: ignore[index]
