"""From YAML text to checked settings, with errors that name line, key, value and what would be right. Pure."""

from __future__ import annotations

import difflib
import os.path
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sda_daemon.errors import ConfigError
from sda_daemon.settings.schema import Settings

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a config file. Lines and columns count from 1; 0 means the file as a whole."""

    line: int
    column: int
    key: str
    message: str

    def render(self, file: str) -> str:
        """Return the problem as one line, like a compiler's."""
        where = f"{file}:{self.line}:{self.column}" if self.line else file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


def parse_settings(text: str, file: str, base_dir: Path, environment: Mapping[str, str]) -> Settings:
    """Read a config.

    Args:
        text: YAML.
        file: the file's name, for messages.
        base_dir: folder that relative paths are relative to.
        environment: variables for `${VAR}` and `~`.

    Raises:
        ConfigError: not YAML or not a valid config; the message lists all problems at once.

    """
    data, positions = _parse_yaml(text, file)
    problems: list[Problem] = []
    _expand_paths(data, base_dir, environment, positions, problems)
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problems.append(_problem(detail, positions))
    if problems:
        lines = sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column))
        raise ConfigError("\n".join(problem.render(file) for problem in lines))
    return settings


# --- YAML with positions --------------------------------------------------------------------------


def _parse_yaml(text: str, file: str) -> tuple[dict[str, Any], dict[tuple[str | int, ...], _Position]]:
    """Parse with the safe loader and remember where each key stands."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise ConfigError(f"{place}: this is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: this is not YAML: {error}") from error
    if data is None:
        raise ConfigError(f"{file}: the file is empty", "It needs at least models_dir and one watch path")
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: the config must be a mapping of keys to values, not a {type(data).__name__}")
    positions: dict[tuple[str | int, ...], _Position] = {}
    for path, mark in _positions(node, ()):
        positions[path] = (mark.line + 1, mark.column + 1)
    return data, positions


def _positions(node: yaml.Node | None, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, str(key.value)), key.start_mark
            yield from _positions(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark
            yield from _positions(value, (*path, index))


# --- paths ----------------------------------------------------------------------------------------


def _expand_paths(
    data: dict[str, Any],
    base_dir: Path,
    environment: Mapping[str, str],
    positions: Mapping[tuple[str | int, ...], _Position],
    problems: list[Problem],
) -> None:
    """Expand `~` and `${VAR}` in the path settings and make them absolute, in place."""

    def expand(holder: dict[str, Any], key: str, where: tuple[str | int, ...]) -> None:
        value = holder.get(key)
        if not isinstance(value, str):
            return
        try:
            holder[key] = str(expand_path(value, base_dir, environment))
        except ValueError as error:
            line, column = positions.get(where, (0, 0))
            problems.append(Problem(line, column, _dotted(where), str(error)))

    for key in ("models_dir", "state_dir"):
        expand(data, key, (key,))
    watches = data.get("watch")
    if isinstance(watches, list):
        for index, watch in enumerate(watches):
            if isinstance(watch, dict):
                expand(watch, "path", ("watch", index, "path"))
                expand(watch, "move_to", ("watch", index, "move_to"))


def expand_path(value: str, base_dir: Path, environment: Mapping[str, str]) -> Path:
    """Return an absolute path from a setting.

    Raises:
        ValueError: a variable is not set and has no default (`${VAR:-default}`), or the path is empty.

    """

    def variable(match: re.Match[str]) -> str:
        found = environment.get(match[1]) or match[2]
        if found is None:
            raise ValueError(
                f"the environment variable {match[1]} is not set; set it or write ${{{match[1]}:-default}}"
            )
        return found

    text = _VARIABLE.sub(variable, value).strip()
    if not text:
        raise ValueError("a path is needed, this one is empty")
    if text == "~" or text.startswith("~/"):
        home = environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - the environment goes first
        text = home + text[1:]
    return Path(os.path.normpath(base_dir / text))


# --- messages -------------------------------------------------------------------------------------


def _problem(detail: Mapping[str, Any], positions: Mapping[tuple[str | int, ...], _Position]) -> Problem:
    where = tuple(part for part in detail["loc"] if not _is_union_tag(part))
    line, column = 0, 0
    for length in range(len(where), 0, -1):
        if where[:length] in positions:
            line, column = positions[where[:length]]
            break
    return Problem(line, column, _dotted(where), _message(detail, where))


def _is_union_tag(part: object) -> bool:
    """Pydantic puts the branch of a union into the location; it is no key of the file."""
    return isinstance(part, str) and (part in ("int", "float", "str", "none") or "[" in part or "(" in part)


def _message(detail: Mapping[str, Any], where: tuple[str | int, ...]) -> str:
    kind, value = detail["type"], detail.get("input")
    shown = f"{value!r}" if len(repr(value)) <= 60 else f"{value!r:.57}..."
    if kind == "extra_forbidden":
        known = list(_fields_at(where[:-1]))
        near = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"there is no such key; {hint}"
    if kind == "missing":
        return "this key is needed"
    context = detail.get("ctx") or {}
    if kind == "literal_error":
        return f"{shown} must be one of {context.get('expected')}"
    text = str(context["error"]) if "error" in context else str(detail["msg"])
    text = text[:1].lower() + text[1:]
    return f"{shown} does not fit: {text}"


def _fields_at(where: tuple[str | int, ...]) -> Iterator[str]:
    model: Any = Settings
    for part in where:
        if isinstance(part, str):
            model = _inner_model(model.model_fields[part].annotation) if part in model.model_fields else None
        if model is None:
            return
    yield from model.model_fields


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner_model(part)) is not None), None)


def _dotted(where: tuple[str | int, ...]) -> str:
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text
