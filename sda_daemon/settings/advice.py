"""What is valid in a config, and yet hardly what is meant.

It is told by `config check`, and when a config comes into force.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sda_daemon.settings.application import count_models, generation_of
from sda_daemon.settings.exclusion import is_at_or_below
from sda_daemon.settings.schema import MetadataOverrides, MetadataSettings, Settings
from sda_daemon.templates import ShallowPathError, try_condition, try_number, try_text

_NUMBERS = ("dataset_file_count", "dataset_total_duration_s")


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of it: the key that it is about, and what is to be said."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


def advice_on(settings: Settings) -> list[Advice]:
    """Return everything that is to be said of a config."""
    return [*_on_templates(settings), *_on_library_below(settings), *_on_generation(settings)]


# --- templates ------------------------------------------------------------------------------------


def _on_templates(settings: Settings) -> Iterator[Advice]:
    """Tell of templates that ask for folders which few checkpoints will have above them."""
    yield from _on_metadata(settings.metadata, "metadata")
    for index, rule in enumerate(settings.rules):
        yield from _on_metadata(rule.metadata, f"rules[{index}].metadata")
        if rule.when is not None:
            yield from _tried(try_condition, rule.when, f"rules[{index}].when")


def _on_metadata(section: MetadataSettings | MetadataOverrides, key: str) -> Iterator[Advice]:
    for name in type(section).model_fields:
        value: Any = getattr(section, name)
        if isinstance(value, tuple):
            for index, item in enumerate(value):
                yield from _tried(try_text, item, f"{key}.{name}[{index}]")
        elif isinstance(value, str):
            yield from _tried(try_number if name in _NUMBERS else try_text, value, f"{key}.{name}")


def _tried(trial: Callable[[str], None], template: str, key: str) -> Iterator[Advice]:
    try:
        trial(template)
    except ShallowPathError as error:
        message = (
            f"{template!r}: {error.what}; a checkpoint that has not so many folders between itself and the watched "
            "folder cannot be converted"
        )
        yield Advice(key, message)


# --- folders --------------------------------------------------------------------------------------


def _on_library_below(settings: Settings) -> Iterator[Advice]:
    """Tell of trainings inside the library that no one watches, although they lie below a watched folder."""
    models_dir = settings.models_dir
    if any(is_at_or_below(str(watch.path), str(models_dir)) for watch in settings.watch):
        return
    for index, watch in enumerate(settings.watch):
        if is_at_or_below(str(models_dir), str(watch.path)) and (found := _trainings_in(models_dir)):
            message = (
                f"{str(models_dir)!r} lies in this folder and is not looked into, but there are trainings in it "
                f"({found[0]!r}{f' and {len(found) - 1} more' if len(found) > 1 else ''}); to convert these too, watch "
                "it as well"
            )
            yield Advice(f"watch[{index}].path", message)


def _on_generation(settings: Settings) -> Iterator[Advice]:
    """Tell of a library in which another generation of the application is at home than models are written for."""
    # The key may be missing in a version that writes one format only.
    wanted, has_key = getattr(settings, "models_format", "sda"), "models_format" in Settings.model_fields
    counted = count_models(settings.models_dir)
    home = generation_of(settings.models_dir)
    if wanted == "auto" or home in ("", wanted) or counted[wanted] > counted[home]:
        return
    sign = f"{counted[home]} of its models are .{home} files" if counted[home] else "its index is of version 2"
    remedy = f"set models_format: {home}, or auto" if has_key else "give new models a folder of their own"
    message = (
        f"in {str(settings.models_dir)!r} another generation of the application is at home ({sign}); it will not show "
        f"the .{wanted} files that are written there: {remedy}"
    )
    yield Advice("models_dir", message)


def _trainings_in(folder: Path) -> list[str]:
    """Return the names of the folders directly inside another that hold a training's checkpoints."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [name for name in names if name[0] != "." and (folder / name / "checkpoints").is_dir()]
