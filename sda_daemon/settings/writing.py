"""Writes settings as the YAML that a person would write. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from sda_daemon.settings.document import Origin
from sda_daemon.settings.schema import RuleSettings, Settings
from sda_daemon.settings.structure import Key, Where, keys_of

_PLAIN_TEXT = re.compile(r"[A-Za-z/~.][\w/.~+-]*")
_NOT_PLAIN = {"null", "true", "false", "yes", "no", "on", "off", "~", "y", "n", ".inf", ".nan"}


def write_value(value: Any, key: Key | None = None) -> str:
    """Return a single value, or a list of such, as it stands behind a key."""
    unit = key.unit if key else None
    if isinstance(value, list | tuple):
        return f"[{', '.join(write_value(item, key) for item in value)}]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(unit.write(value)) if unit else f"{value:g}" if isinstance(value, float) else str(value)
    text = str(value)
    is_plain = _PLAIN_TEXT.fullmatch(text) and text.lower() not in _NOT_PLAIN
    if is_plain and (isinstance(value, PurePath) or (key is not None and (key.choices or _is_path(key)))):
        return text
    if unit:
        return text
    return json.dumps(text, ensure_ascii=False)


def _is_path(key: Key) -> bool:
    return "Path" in str(key.field.annotation)


def write_effective(settings: Settings, origins: Mapping[Where, Origin]) -> str:
    """Return a whole config with all values in force; what is a default or from the environment is marked."""
    lines: list[str] = []
    _write_section(lines, settings, (), "", origins)
    return "\n".join(lines) + "\n"


def _write_section(
    lines: list[str], section: BaseModel, where: Where, indent: str, origins: Mapping[Where, Origin]
) -> None:
    for key in keys_of(type(section)):
        value, place = getattr(section, key.name), (*where, key.name)
        if _is_left_out(section, key):
            continue
        if isinstance(value, BaseModel):
            lines.append(f"{indent}{key.name}:")
            _write_section(lines, value, place, indent + "  ", origins)
        elif key.inner is not None and value:
            lines.append(f"{indent}{key.name}:")
            for index, item in enumerate(value):
                inner: list[str] = []
                _write_section(inner, item, (*place, index), f"{indent}    ", origins)
                inner[0] = f"{indent}  - {inner[0].lstrip()}"
                lines += inner
        else:
            lines.append(_marked(f"{indent}{key.name}: {write_value(value, key)}", _mark(place, origins)))


def _is_left_out(section: BaseModel, key: Key) -> bool:
    """In rules and overrides only what is given means anything."""
    is_override = isinstance(section, RuleSettings) or "replace_tags" in type(section).model_fields
    return is_override and key.name not in section.model_fields_set


def _mark(where: Where, origins: Mapping[Where, Origin]) -> str:
    origin = origins.get(where)
    if origin is None:
        return "default"
    return "" if origin.line else f"from {origin.source}"


def _marked(line: str, mark: str) -> str:
    return f"{line:<48}  # {mark}" if mark else line


# --- one that explains itself ---------------------------------------------------------------------


def write_explained(section: type[BaseModel], values: Mapping[str, Any], explain: Callable[[Key], list[str]]) -> str:
    """Return a section with every key, its default, and what it means in front of it.

    Args:
        section: the schema.
        values: what to write instead of a default, by dotted name; lists have one item and no number. What more items
            hold stands under the name with `[]` behind it.
        explain: returns the comment of a key, without `#`.
    """
    lines: list[str] = []
    _explain_section(lines, section, "", "", values, explain)
    return "\n".join(lines).strip() + "\n"


def _explain_section(
    lines: list[str],
    section: type[BaseModel],
    before: str,
    indent: str,
    values: Mapping[str, Any],
    explain: Callable[[Key], list[str]],
) -> None:
    for key in keys_of(section):
        name = f"{before}.{key.name}" if before else key.name
        value = values.get(name, key.default)
        comment = [f"{indent}# {line}".rstrip() for line in explain(key)]
        if name in values and not key.is_required:
            comment.append(f"{indent}# Default: {write_value(key.default, key)}")
        lines += [*([] if indent else [""]), *comment]
        if key.inner is not None and (not key.is_list or any(given.startswith(f"{name}.") for given in values)):
            lines.append(f"{indent}{key.name}:")
            inner: list[str] = []
            _explain_section(inner, key.inner, name, indent + ("    " if key.is_list else "  "), values, explain)
            if key.is_list:
                first = next(index for index, line in enumerate(inner) if not line.lstrip().startswith("#"))
                inner[first] = f"{indent}  - {inner[first].lstrip()}"
                inner[:first] = [f"{indent}  {line.lstrip()}" for line in inner[:first]]
                inside = {other.name: other for other in keys_of(key.inner)}
                for item in values.get(f"{name}[]", ()):
                    texts = [f"{other}: {write_value(given, inside[other])}" for other, given in item.items()]
                    inner += [f"{indent}  - {texts[0]}", *(f"{indent}    {text}" for text in texts[1:])]
            lines += inner
        else:
            lines.append(f"{indent}{key.name}: {write_value(value, key)}")
