"""The training application that a library is shared with: where its folders are, and which generation it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sda_daemon.errors import NoApplicationError
from sda_daemon.models.formats import ENDINGS
from sda_daemon.small_files import read_small_file

CONFIG_NAME = "config.toml"
PROJECT_NAME = "pyproject.toml"
INDEX_NAME = "model_library.json"
MAX_TOML_BYTES = 2**20
MAX_INDEX_BYTES = 2**28
_FOLDERS = {
    "datasets": "data/datasets",
    "models": "data/models",
    "generated": "data/generated",
    "presets": "data/presets",
    "history": "data/history",
}
"""Keys of `[paths]`, each with the application's own default."""
_PACKAGES = ("small_dataset_audio", "distill")
_INDEX_VERSION_OF_GAN = 2


@dataclass(frozen=True, slots=True)
class Application:
    """An application that was found.

    Attributes:
        home: the folder that its paths are relative to.
        config: its config file; None where it has none yet and its defaults are meant.
        datasets, models, presets, history: its folders.
        generation: `sda`, `distill`, `distillgan`, or `auto` where nothing tells.
    """

    home: Path
    config: Path | None
    datasets: Path
    models: Path
    presets: Path
    history: Path
    generation: str


def find_application(place: Path) -> Application:
    """Find the application in a folder or in one above it, or by its config file.

    Raises:
        NoApplicationError: there is none, or its config cannot be read.
    """
    place = Path(os.path.abspath(place))  # noqa: PTH100 - links stay as they are
    if place.is_file():
        return _described(place.parent, place, _read_toml(place))
    if (place / CONFIG_NAME).is_file():
        return _described(place, place / CONFIG_NAME, _read_toml(place / CONFIG_NAME))
    for home in (place, *place.parents):
        with contextlib.suppress(NoApplicationError):  # another program's, on the way up
            content = _read_toml(home / CONFIG_NAME)
            if _is_ours(content):
                return _described(home, home / CONFIG_NAME, content)
        if _package(_project(home)) in _PACKAGES:
            return _described(home, None, {})
    raise NoApplicationError(
        f"there is no {CONFIG_NAME} of the training application in {place} or above it",
        f"Name the folder that the application was installed in, or its {CONFIG_NAME}",
    )


def _is_ours(content: Mapping[str, Any]) -> bool:
    """Tell whether a config file that was found on the way up is the application's."""
    paths = content.get("paths")
    return isinstance(paths, dict) and not paths.keys().isdisjoint(_FOLDERS)


def _described(home: Path, config: Path | None, content: Mapping[str, Any]) -> Application:
    paths = content.get("paths", {})
    if not isinstance(paths, dict):
        raise NoApplicationError(f"{config}: [paths] must hold folders, but it is {paths!r}", "Correct it there")
    folders = {}
    for name, default in _FOLDERS.items():
        value = paths.get(name, default)
        if not isinstance(value, str) or not value or "\0" in value:
            raise NoApplicationError(f"{config}: {name} must be a folder, but it is {value!r}", "Correct it there")
        folders[name] = Path(os.path.normpath(home / Path(value).expanduser()))
    return Application(
        home,
        config,
        folders["datasets"],
        folders["models"],
        folders["presets"],
        folders["history"],
        _generation(_project(home), folders["models"]),
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_small_file(path, MAX_TOML_BYTES).decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoApplicationError(f"{path} is not valid TOML: {error}", "Correct it there, or name another") from error
    except OSError as error:
        raise NoApplicationError(f"{path} cannot be read: {error.strerror}", "Check its permissions") from error


def _project(home: Path) -> dict[str, Any]:
    """Return the `project` table of the project in a folder; empty where there is none that can be read."""
    try:
        project = _read_toml(home / PROJECT_NAME).get("project")
    except NoApplicationError:
        return {}
    return project if isinstance(project, dict) else {}


def _package(project: Mapping[str, Any]) -> str:
    return re.sub(r"[-_.]+", "_", str(project.get("name", ""))).lower()


# --- generations ----------------------------------------------------------------------------------


def _generation(project: Mapping[str, Any], models_dir: Path) -> str:
    """Tell the generation: by the package, and between the two of one package by the library, then by the version."""
    package, shown = _package(project), generation_of(models_dir)
    if package == "small_dataset_audio":
        return "sda"
    if package != "distill":
        return shown or "auto"
    if shown in ("distill", "distillgan"):
        return shown
    found = re.match(r"(\d+)\.(\d+)", str(project.get("version", "")))
    if found is None:
        return "auto"
    return "distillgan" if (int(found[1]), int(found[2])) >= (1, 1) else "distill"


def count_models(models_dir: Path) -> Counter[str]:
    """Return how many model files of each generation lie in a folder; empty if it cannot be listed."""
    try:
        names = os.listdir(models_dir)
    except OSError:
        return Counter()
    endings = [ending for name in names if name[0] != "." for ending in ENDINGS if name.endswith(ending)]
    return Counter(ending.removeprefix(".") for ending in endings)


def generation_of(models_dir: Path) -> str:
    """Tell which generation of the application fills a library, by its index and its files; empty if nothing tells."""
    if index_version(models_dir) == _INDEX_VERSION_OF_GAN:
        return "distillgan"
    counted = count_models(models_dir)
    return max(counted, key=lambda name: counted[name], default="")


def index_version(models_dir: Path) -> int | None:
    """Return the version of a library's index, None if there is none that can be read."""
    try:
        content = json.loads(read_small_file(models_dir / INDEX_NAME, MAX_INDEX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    version = content.get("version") if isinstance(content, dict) else None
    return version if isinstance(version, int) and not isinstance(version, bool) else None
