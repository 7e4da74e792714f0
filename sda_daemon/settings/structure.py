"""Walks the schema: which keys there are at a place, and of what kind. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sda_daemon.settings.units import unit_of

Where = tuple[str | int, ...]
"""Place in a config: keys and list indices."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the schema: the section that it is in, its name and what pydantic knows of it."""

    section: type[BaseModel]
    name: str
    field: FieldInfo

    @property
    def inner(self) -> type[BaseModel] | None:
        """The section that it holds, directly or in a list."""
        return inner_section(self.field.annotation)

    @property
    def is_list(self) -> bool:
        """Whether it holds a list."""
        return _holds_list(self.field.annotation)

    @property
    def is_scalar(self) -> bool:
        """Whether it holds one value."""
        return not self.is_list and self.inner is None

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.field.is_required()

    @property
    def default(self) -> Any:
        """Its default; None where it has none."""
        found = self.field.get_default(call_default_factory=True)
        return None if found is PydanticUndefined else found

    @property
    def description(self) -> str:
        """What it means."""
        return self.field.description or ""

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a key that has only a few."""
        annotation = self.field.annotation
        options = (annotation, *get_args(annotation))
        return next((get_args(option) for option in options if get_origin(option) is Literal), ())

    @property
    def unit(self) -> Any:
        """The unit of a duration or size, None for others."""
        return unit_of(_annotations(self.field.annotation, self.field.metadata))


def _annotations(annotation: Any, metadata: Any) -> Iterator[Any]:
    yield from metadata
    for part in get_args(annotation):
        yield from getattr(part, "__metadata__", ())
        yield from _annotations(part, ())


def _holds_list(annotation: Any) -> bool:
    return get_origin(annotation) in (tuple, list) or any(_holds_list(part) for part in get_args(annotation))


def inner_section(annotation: Any) -> type[BaseModel] | None:
    """Return the section in an annotation, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := inner_section(part)) is not None), None)


def keys_of(section: type[BaseModel]) -> list[Key]:
    """Return the keys of a section in the order in which they are defined."""
    return [Key(section, name, field) for name, field in section.model_fields.items()]


def section_at(root: type[BaseModel], where: Where) -> type[BaseModel] | None:
    """Return the section that a place leads to, None if it leads elsewhere."""
    section: type[BaseModel] | None = root
    for part in where:
        if isinstance(part, str) and section is not None:
            field = section.model_fields.get(part)
            section = inner_section(field.annotation) if field else None
    return section


def key_at(root: type[BaseModel], where: Where) -> Key | None:
    """Return the key at a place, None if there is no such key."""
    names = [index for index, part in enumerate(where) if isinstance(part, str)]
    if not names:
        return None
    section, name = section_at(root, where[: names[-1]]), str(where[names[-1]])
    field = section.model_fields.get(name) if section else None
    return Key(section, name, field) if section and field else None


def dotted(where: Where) -> str:
    """Write a place as people do: `watch[0].path`."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text
