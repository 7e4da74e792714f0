"""What is wrong with a value and what would be right, in words. Pure."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ValidationError

from sda_daemon.settings.document import Document
from sda_daemon.settings.structure import Key, Where, key_at, section_at

_short = reprlib.Repr()
_short.maxlevel, _short.maxlist, _short.maxdict, _short.maxstring, _short.maxother = 2, 4, 4, 70, 70
_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def shown(value: Any) -> str:
    """Write a value the way it stands in YAML, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, date):
        return value.isoformat()
    return _short.repr(value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the nearest known name as a question, or else all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"


def explain(error: ValidationError, root: type[BaseModel], document: Document) -> None:
    """Add what pydantic complains about to the document's problems."""
    for detail in error.errors(include_url=False):
        where = tuple(part for part in detail["loc"] if not _is_union_tag(part))
        if detail["type"] == "too_short" and detail["input"]:
            continue  # its items are what is wrong
        if detail["type"] == "invalid_key":
            where = (*where[:-1], str(where[-1]))
        document.complain(where, message_for(detail, root, where))


def _is_union_tag(part: object) -> bool:
    """Pydantic puts the branch of a union and the like into the location; it is no key of the file."""
    return isinstance(part, str) and (part in ("int", "float", "str", "none") or "[" in part or "(" in part)


def message_for(detail: Mapping[str, Any], root: type[BaseModel], where: Where) -> str:
    """Return the message for one of pydantic's errors."""
    kind, value = str(detail["type"]), shown(detail.get("input"))
    context: Mapping[str, Any] = detail.get("ctx") or {}
    key = key_at(root, where)
    name = str(where[-1]) if where else ""
    if kind == "extra_forbidden":
        section = section_at(root, where[:-1])
        known = list(section.model_fields) if section else []
        return f"there is no such key (with the value {value}); {did_you_mean(name, known)}"
    if kind == "invalid_key":
        return f"{value} is no key; keys are text"
    if kind == "missing":
        example = next(iter((key.field.examples or []) if key else []), "...")
        return f"it is missing; write for example {name}: {example}"
    if kind in _LIMITS:
        limit, words = _LIMITS[kind]
        bound = context[limit]
        unit = key.unit if key else None
        return f"{value} must be {words} {unit.write(bound) if unit else bound}"
    if kind == "literal_error":
        return f"{value} must be one of {', '.join(key.choices) if key else context.get('expected')}"
    if kind == "value_error":
        return f"{value}: {context['error']}"
    return f"{value} {_expected(kind, detail, key)}"


def _expected(kind: str, detail: Mapping[str, Any], key: Key | None) -> str:
    value = detail.get("input")
    if kind.startswith("int_"):
        return "must be a whole number"
    if kind.startswith("bool_"):
        return "must be true or false"
    if kind == "string_type":
        is_single = isinstance(value, int | float) or value is None or hasattr(value, "isoformat")
        return f'must be text; put it in quotes: "{shown(value)}"' if is_single else "must be text"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "path_type":
        return "must be the path of a folder"
    if kind in ("tuple_type", "list_type"):
        if key is not None and key.inner is not None:
            required = next((name for name, field in key.inner.model_fields.items() if field.is_required()), "")
            return f"must be a list; begin each item with - {required}:"
        return f"must be a list; write [{shown(value)}]" if isinstance(value, str) else "must be a list"
    if kind == "too_short":
        return "must have at least one item"
    if kind.startswith(("model_", "dict_")):
        known = f": {', '.join(key.inner.model_fields)}" if key is not None and key.inner is not None else ""
        return f"must be a mapping with keys{known}"
    text = str(detail["msg"])
    return f"does not fit: {text[:1].lower()}{text[1:]}"
