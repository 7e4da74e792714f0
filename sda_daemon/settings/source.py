"""From YAML text to checked settings, with errors that name line, key, value and what would be right. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sda_daemon.errors import ConfigError
from sda_daemon.settings.document import Document, Origin, parse_document
from sda_daemon.settings.environment import apply_environment
from sda_daemon.settings.messages import explain
from sda_daemon.settings.own_output import IsWithin, refuse_own_output
from sda_daemon.settings.schema import MetadataOverrides, Settings
from sda_daemon.settings.structure import Where, dotted, keys_of

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class ParsedSettings:
    """Settings and where each value was given; what has no origin is a default."""

    settings: Settings
    origins: Mapping[Where, Origin]


def parse_settings(
    text: str,
    file: str,
    base_dir: Path,
    environment: Mapping[str, str],
    resolve: Callable[[str], str] = lambda path: path,
    is_within: IsWithin | None = None,
) -> ParsedSettings:
    """Read a config; templates are compiled and tried on made-up checkpoints.

    Args:
        text: YAML.
        file: the file's name, for messages.
        base_dir: folder that relative paths are relative to.
        environment: variables for `${VAR}`, `~` and overrides.
        resolve: follows symbolic links; by default they are left alone.
        is_within: tells whether a path is a folder or lies in it; by default as their names say.

    Raises:
        ConfigError: not YAML or not a valid config; it holds all problems at once.
    """
    hint = "it needs at least models_dir and one watch path; see sda-daemon config init"
    document = parse_document(text, file, empty_hint=hint)
    apply_environment(document, Settings, environment)
    _expand_paths(document, base_dir, environment)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        explain(error, Settings, document)
    _refuse_repeated_watches(document, resolve)
    refuse_own_output(document, is_within or (lambda path, folder: Path(path).is_relative_to(folder)))
    if document.problems or settings is None:
        raise ConfigError(problems=sorted(set(document.problems)))
    return ParsedSettings(settings, document.origins)


def parse_notes(text: str, file: str) -> MetadataOverrides:
    """Read a `sda.yaml` file.

    Raises:
        ConfigError: not YAML or not valid; it holds all problems at once.
    """
    document = parse_document(text, file, aliases=False, empty_hint="it may hold name, description, tags and so on")
    notes: MetadataOverrides | None = None
    try:
        notes = MetadataOverrides.model_validate(document.data)
    except ValidationError as error:
        explain(error, MetadataOverrides, document)
    if document.problems or notes is None:
        raise ConfigError(problems=sorted(set(document.problems)))
    return notes


def _refuse_repeated_watches(document: Document, resolve: Callable[[str], str]) -> None:
    """Complain of a folder that is given twice, be it under two names."""
    watches = document.data.get("watch")
    known_bad = {problem.key for problem in document.problems}
    first: dict[str, int] = {}
    for index, watch in enumerate(watches if isinstance(watches, list) else []):
        path, where = watch.get("path") if isinstance(watch, dict) else None, ("watch", index, "path")
        if not isinstance(path, str) or dotted(where) in known_bad:
            continue
        folder = resolve(path)
        if folder in first:
            link = f" leads to {folder!r}, which" if folder != path else ""
            advice = "keep one of them; rules say what differs inside it"
            document.complain(where, f"{path!r}{link} is watched by watch[{first[folder]}] already; {advice}")
        else:
            first[folder] = index


# --- paths ----------------------------------------------------------------------------------------


def _expand_paths(document: Document, base_dir: Path, environment: Mapping[str, str]) -> None:
    """Expand `~` and `${VAR}` in the path settings and make them absolute, in place.

    A section or list whose lines are all commented out is null in YAML; its defaults are meant.
    """

    def expand(holder: Any, section: Any, before: Where) -> None:
        if not isinstance(holder, dict):
            return
        for key in keys_of(section):
            value, where = holder.get(key.name), (*before, key.name)
            if value is None and key.name in holder and not key.is_scalar and not key.is_required:
                del holder[key.name]
            if isinstance(value, str) and _is_path(key.field.annotation):
                try:
                    holder[key.name] = str(expand_path(value, base_dir, environment))
                except ValueError as error:
                    document.complain(where, f"{value!r}: {error}")
                    holder[key.name] = str(base_dir)
            elif isinstance(value, list) and key.is_list and key.inner is not None:
                for index, item in enumerate(value):
                    expand(item, key.inner, (*where, index))
            elif key.inner is not None and not key.is_list:
                expand(value, key.inner, where)

    expand(document.data, Settings, ())


def _is_path(annotation: Any) -> bool:
    return annotation is Path or annotation == Path | None


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
    if "\0" in text:
        raise ValueError("a path has no null characters")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError("no file can have this name: a part of it is not a character") from error
    if text == "~" or text.startswith("~/"):
        home = environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - the environment goes first
        text = home + text[1:]
    return Path(os.path.normpath(base_dir / text))
