"""Opening the library that a command is about, and finding the models that it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sda_daemon.errors import ForeignEntryError, NoLibraryError, UnknownModelError
from sda_daemon.wording import quoted

if TYPE_CHECKING:
    from sda_daemon.library import ModelEntry, ModelLibrary
    from sda_daemon.library.batches import Batch


def find_models_dir(models_dir: Path | None, config: Path | None) -> Path:
    """Return the folder of `--models-dir`, or else of the config.

    Raises:
        ConfigError: there is no config, or it is wrong.
    """
    if models_dir is not None:
        return models_dir
    from sda_daemon.settings.loading import find_config, load_config

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


def find_models(library: ModelLibrary, texts: list[str], batch: Batch[Any] | None = None) -> list[ModelEntry]:
    """Return the models that these texts name, each once.

    Args:
        library: the library.
        texts: what was typed.
        batch: takes note of what is not found; the others are dealt with.

    Raises:
        UnknownModelError, AmbiguousModelError: none or several fit one of the texts; with a batch, fit all of them.
        ForeignEntryError: it names an entry that is not that of a model of the library; likewise.
    """
    from sda_daemon.library.batches import Batch
    from sda_daemon.library.lookup import find_entry

    entries = library.list_all()
    finding: Batch[Any] = batch if batch is not None else Batch("found")
    found: dict[str, ModelEntry] = {}
    for text in texts:
        with finding.each(text):
            try:
                entry = find_entry(entries, text, library.models_dir)
            except UnknownModelError:
                _explain_foreign(library, text)
                raise
            found[entry.model_id] = entry
    if batch is None or not found:
        finding.result()
    return list(found.values())


def _explain_foreign(library: ModelLibrary, text: str) -> None:
    """Say why an entry that is in the index cannot be used.

    Raises:
        ForeignEntryError: there is such an entry.
    """
    for entry in library.foreign():
        if text and (entry.key.startswith(text) or text in (entry.file, entry.key)):
            names = (
                f"names {quoted(entry.file)}, which is no file of the library" if entry.file else "is none of a model"
            )
            raise ForeignEntryError(
                f"the entry {quoted(entry.key)} of the index {names}: {entry.reason}",
                "It is left as it is; see: sda-daemon models repair --dry-run",
            )


def entry_document(entry: ModelEntry) -> dict[str, Any]:
    """Return what `--json` prints of an entry: the index's 16 fields, of the documented types."""
    values = entry.to_dict()
    numbers = {name: int(value) for name, value in values.items() if isinstance(value, bool)}
    return {**values, **numbers, "has_analysis": bool(entry.has_analysis)}
