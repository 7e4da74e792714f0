"""Opening the library that a command is about, and finding the models that it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sda_daemon.errors import NoLibraryError

if TYPE_CHECKING:
    from sda_daemon.library import ModelEntry, ModelLibrary


def find_models_dir(models_dir: Path | None, config: Path | None) -> Path:
    """Return the folder of `--models-dir`, or else of the config.

    Raises:
        ConfigError: there is no config, or it is wrong.
    """
    if models_dir is not None:
        return models_dir
    from sda_daemon.config import find_config, load_config

    return load_config(find_config(config)).settings.models_dir


def open_library(models_dir: Path | None, config: Path | None) -> ModelLibrary:
    """Open an existing library.

    Raises:
        ConfigError, LibraryError: there is no config, or the library cannot be read.
        NoLibraryError: the folder does not exist; it is not made by looking at it.
        OSError: a folder on the way to it may not be entered.
    """
    from sda_daemon.files import is_folder

    folder = find_models_dir(models_dir, config)
    if not is_folder(folder):
        raise NoLibraryError(f"there is no library at {folder}", "Check the path; `run` and `convert` make one")
    from sda_daemon.library import ModelLibrary

    return ModelLibrary(folder)


def find_models(library: ModelLibrary, texts: list[str]) -> list[ModelEntry]:
    """Return the models that these texts name, each once.

    Raises:
        UnknownModelError, AmbiguousModelError: none or several fit one of the texts.
    """
    from sda_daemon.library.lookup import find_entry

    entries = library.list_all()
    found = [find_entry(entries, text, library.models_dir) for text in texts]
    return list({entry.model_id: entry for entry in found}.values())
