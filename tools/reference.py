"""Writes the reference documents and the repository's config from their sources: `make docs`.

The config reference, the annotated config and its JSON Schema come from the schema, the event reference from the
catalogue, the command reference from `--help` and from the exit codes, the JSON reference from the schemas of the
output. A test checks that what lies in `docs/` and `config/` is what this module would write.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel, RootModel

from sda_daemon.cli.app import PROGRAM, app
from sda_daemon.cli.event_list import level_name
from sda_daemon.cli.schemas import SCHEMAS
from sda_daemon.errors import ExitCode
from sda_daemon.events import catalogue
from sda_daemon.settings.annotated import SCHEMA_FILE_NAME, annotated_config, config_json_schema
from sda_daemon.settings.schema import Settings
from sda_daemon.templates import EXAMPLES, FACTS

MADE_BY = "<!-- Written by `make docs` from {source}; changes here are lost. -->"
HELP_WIDTH = 100
ROOT = Path(__file__).parents[1]


def documents() -> dict[str, str]:
    """Return the text of every generated file by its path in the repository."""
    return {
        "docs/config.md": config_reference(),
        "docs/events.md": event_reference(),
        "docs/commands.md": command_reference(),
        "docs/json.md": json_reference(),
        "config/sda-daemon.yaml": annotated_config("../data/models", "../data/checkpoints", "../data/state"),
        f"config/{SCHEMA_FILE_NAME}": config_json_schema(),
    }


# --- the config -----------------------------------------------------------------------------------


def config_reference() -> str:
    """Return the reference of every key that a config file may have."""
    lines = [
        "# Config reference",
        MADE_BY.format(source="sda_daemon/settings/schema.py"),
        "",
        "Every key of the YAML file. Durations may be written `500ms`, `2s`, `5m`, `1h` or as a number of seconds,",
        "sizes `500MB`, `2GiB` or as a number of bytes. Relative paths are relative to the file; `~` and `${VAR}` (or",
        "`${VAR:-default}`) expand. The annotated default is [config/sda-daemon.yaml](../config/sda-daemon.yaml).",
        "",
    ]
    for title, model in _sections(Settings, ""):
        lines += [f"## {title or 'The file'}", "", _first_line(model), "", "| key | type | default | meaning |",
                  "| --- | --- | --- | --- |"]  # fmt: skip
        for name, field in model.model_fields.items():
            inner, unit = _inner(field.annotation), _unit(field.metadata, field.annotation)
            value = None if field.is_required() else field.get_default(call_default_factory=True)
            default = "needed" if field.is_required() else _default_text(value, unit)
            if inner is not None:
                default = "see below" if not field.is_required() else "needed; see below"
            meaning = _cell(field.description or "")
            lines.append(f"| `{name}` | {unit or _type_text(field.annotation)} | {_cell(default)} | {meaning} |")
        lines.append("")
    return "\n".join([*lines, *_facts()]) + "\n"


def _facts() -> Iterator[str]:
    """Yield the table of what templates can use, with the example on which they are tried."""
    yield "## Facts for templates"
    yield ""
    yield "Templates are Jinja2 in a sandbox. They can use these facts of a checkpoint; a fact that is not there is an"
    yield "error, found when the config is read, because every template is tried on made-up checkpoints. Write"
    yield "`{{ sidecar.files | default(0) }}` for a key that only some checkpoints have."
    yield ""
    yield "| fact | what it is | example |"
    yield "| --- | --- | --- |"
    for name, meaning in FACTS.items():
        yield f"| `{name}` | {_cell(meaning)} | `{_cell(str(EXAMPLES[0].facts[name]))}` |"


def _sections(model: type[BaseModel], title: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield a section and all sections inside it, each under its place in the file."""
    yield title, model
    for name, field in model.model_fields.items():
        inner = _inner(field.annotation)
        if inner is not None:
            is_list = _is_sequence(field.annotation)
            yield from _sections(inner, f"{title + '.' if title else ''}{name}{'[]' if is_list else ''}")


def _inner(annotation: Any) -> type[BaseModel] | None:
    """Return the section inside an annotation, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part)) is not None), None)


def _is_sequence(annotation: Any) -> bool:
    return get_origin(annotation) in (tuple, list) or any(map(_is_sequence, get_args(annotation)))


_TYPE_NAMES = {str: "text", int: "number", float: "number", bool: "true or false", Path: "path", NoneType: "null"}


def _type_text(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(f"`{part}`" for part in parts)
    if origin in (UnionType, Union):
        return " or ".join(dict.fromkeys(_type_text(part) for part in parts))
    if origin in (tuple, list):
        return f"list of {_type_text(parts[0])}"
    if origin in (dict, Mapping):
        return "mapping"
    if hasattr(annotation, "__metadata__"):
        return _type_text(parts[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _TYPE_NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _unit(metadata: list[Any], annotation: Any) -> str:
    """Return "duration" or "size" for keys that may be written with units."""
    validators = [*metadata, *(item for part in get_args(annotation) for item in getattr(part, "__metadata__", ()))]
    names = {getattr(getattr(item, "func", None), "__name__", "") for item in validators}
    tail = " or null" if NoneType in get_args(annotation) else ""
    return next((kind + tail for kind in ("duration", "size") if f"parse_{kind}" in names), "")


def _with_unit(value: float, unit: str) -> str:
    """Return a default the way a person would write it."""
    steps = [("h", 3600), ("m", 60)] if unit.startswith("duration") else [("GiB", 2**30), ("MiB", 2**20)]
    name, size = next(((name, size) for name, size in steps if value >= size and value % size == 0), ("", 1))
    return f"`{value / size:g}{name or ('s' if unit.startswith('duration') else '')}`"


def _default_text(value: Any, unit: str = "") -> str:
    if unit and isinstance(value, int | float):
        return _with_unit(value, unit)
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, Path):
        return f"`{value}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value, ensure_ascii=False, default=str)}`"


# --- events ---------------------------------------------------------------------------------------


def event_reference() -> str:
    """Return the reference of every event."""
    lines = [
        "# Event reference",
        MADE_BY.format(source="sda_daemon/events.py"),
        "",
        "What the daemon logs, one line each, on stderr: as JSON, in words, or as native entries of the journal.",
        "Names are static and values are fields, so that a log can be queried. Beside the fields listed here each",
        "line has `timestamp`, `level` and `event`. The same list in the terminal: `sda-daemon events`.",
        "",
    ]
    group = ""
    for event in catalogue():
        first = event.name.split(".")[0]
        if first != group:
            group = first
            lines += [f"## {group}", "", "| event | level | when | fields |", "| --- | --- | --- | --- |"]
        fields = ", ".join(f"`{field}`" for field in event.fields)
        lines.append(f"| `{event.name}` | {level_name(event)} | {_cell(event.when)} | {fields} |")
    return "\n".join(_spaced(lines)) + "\n"


def _spaced(lines: list[str]) -> Iterator[str]:
    """Yield the lines with an empty one before each heading."""
    for number, line in enumerate(lines):
        if line.startswith("## ") and number and lines[number - 1]:
            yield ""
        yield line


# --- commands -------------------------------------------------------------------------------------


def command_reference() -> str:
    """Return the help of every command and the exit codes."""
    lines = [
        "# Command reference",
        MADE_BY.format(source="the commands' own --help"),
        "",
        f"`{PROGRAM} COMMAND --help` says the same. What `--json` prints is in [json.md](json.md).",
        "",
    ]
    for path, text in command_helps():
        lines += [f"## {path}", "", "```text", text, "```", ""]
    lines += ["## Exit codes", "", "| code | name | when |", "| --- | --- | --- |"]
    comments = _enum_comments(ExitCode)
    lines += [f"| {int(code)} | {code.name} | {_cell(comments.get(code.name, ''))} |" for code in ExitCode]
    return "\n".join(lines) + "\n"


def command_helps() -> Iterator[tuple[str, str]]:
    """Yield every command line and what its `--help` prints."""
    yield from _helps(typer.main.get_command(app), PROGRAM, None)


def _helps(command: Any, path: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = command.make_context(
        path.rpartition(" ")[2] if parent else path,
        [],
        parent=parent,
        resilient_parsing=True,
        terminal_width=HELP_WIDTH,
        max_content_width=HELP_WIDTH,
    )
    yield path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for name, inner in getattr(command, "commands", {}).items():
        yield from _helps(inner, f"{path} {name}", context)


def _enum_comments(enum: type) -> dict[str, str]:
    """Return the text below each member of an enum; the language itself keeps none."""
    found = re.findall(r'^    (\w+) = \d+\n    """(.*?)"""$', inspect.getsource(enum), re.MULTILINE | re.DOTALL)
    return {"OK": "It worked.", **{name: " ".join(text.split()) for name, text in found}}


# --- JSON -----------------------------------------------------------------------------------------


def json_reference() -> str:
    """Return the schemas of what `--json` prints."""
    lines = [
        "# JSON output",
        MADE_BY.format(source="sda_daemon/cli/schemas.py"),
        "",
        "What each command prints with `--json`, on stdout and alone there; messages go to stderr. Keys are only",
        "ever added. It is UTF-8, whatever the terminal's encoding; what UTF-8 cannot express (bytes of a file name,",
        "lone surrogates of a text) is U+FFFD. Numbers that JSON cannot express (an infinite loss) or that are beyond",
        "1.8e308 are `null`. `number` is a float, `integer` a whole number. Lists are complete, however long; people",
        "get the first of them, and how many more there are.",
        "",
    ]
    shown: dict[str, type[BaseModel]] = {}
    lines += ["| command | prints |", "| --- | --- |"]
    for command, model in SCHEMAS.items():
        inner, is_list = _root(model)
        shown.setdefault(inner.__name__, inner)
        prints = f"[{inner.__name__}](#{inner.__name__.lower()})"
        lines.append(f"| `{command}` | {'a list of ' if is_list else ''}{prints} |")
    waiting = list(shown.values())
    for model in waiting:
        for field in model.model_fields.values():
            inner_model = _inner(field.annotation)
            if inner_model is not None and inner_model.__name__ not in shown:
                shown[inner_model.__name__] = inner_model
                waiting.append(inner_model)
    for name, model in shown.items():
        lines += ["", f"## {name}", "", _first_line(model), "", "| key | type | meaning |", "| --- | --- | --- |"]
        for key, field in model.model_fields.items():
            lines.append(f"| `{key}` | {_json_type(field.annotation)} | {_cell(field.description or '')} |")
    return "\n".join(lines) + "\n"


def _root(model: type[BaseModel]) -> tuple[type[BaseModel], bool]:
    if issubclass(model, RootModel):
        inner = _inner(model.model_fields["root"].annotation)
        assert inner is not None
        return inner, True
    return model, False


_JSON_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null", Any: "any"}


def _json_type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (UnionType, Union):
        return " or ".join(_json_type(part) for part in parts)
    if origin is list:
        return f"list of {_json_type(parts[0])}"
    if origin is dict:
        return f"object of {_json_type(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return _JSON_NAMES[annotation]


def _first_line(model: type[BaseModel]) -> str:
    return " ".join(inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    """Return a text that can stand in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def main(say: Callable[[str], None] = print) -> None:
    """Write all generated files of the repository."""
    for name, text in documents().items():
        (ROOT / name).write_text(text, encoding="utf-8")
        say(f"wrote {name}")


if __name__ == "__main__":
    main()
