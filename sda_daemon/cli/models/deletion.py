"""`sda-daemon models delete`, `trash` and `restore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sda_daemon.cli.library import find_models, open_library
from sda_daemon.cli.options import AsJson, ConfigFile, Models, ModelsDir, TrashedModels, Yes, examples
from sda_daemon.cli.output import (
    Column,
    ask,
    counted,
    human_date,
    human_size,
    make_console,
    note,
    print_json,
    print_table,
    say,
)
from sda_daemon.errors import ExitCode

if TYPE_CHECKING:
    from sda_daemon.library import ModelEntry
    from sda_daemon.library.trash import TrashedModel

DELETE_EXAMPLES = examples(
    "sda-daemon models delete 1a2ff958            into the trash",
    "sda-daemon models delete rain --purge --yes  for good, without asking",
)
TRASH_EXAMPLES = examples(
    "sda-daemon models trash           what is in it",
    "sda-daemon models trash --empty   delete that for good",
)
RESTORE_EXAMPLES = examples("sda-daemon models restore 1a2ff958")


def delete_models(
    model: Models,
    purge: Annotated[bool, typer.Option("--purge", help="Delete for good instead of moving to the trash.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> int:
    """Delete models: into the trash, or for good.

    From the trash `restore` brings them back.
    """
    from sda_daemon.library import trash

    library = open_library(models_dir, config)
    entries = find_models(library, model)
    for entry in entries:
        note(f"  {entry.name}  ({entry.file_path}, {human_size(entry.file_size_bytes)}, {entry.model_id[:8]})")
    where = "for good" if purge else "into the trash"
    if not ask(f"Delete {counted(len(entries), 'model')} {where}?", yes=yes):
        note("Nothing was deleted.")
        return ExitCode.FAILED
    if purge:
        trash.purge(library, entries)
    else:
        trash.discard(library, entries)
    if as_json:
        print_json([_document(entry, trashed=not purge) for entry in entries])
        return ExitCode.OK
    for entry in entries:
        say(f"deleted {entry.name!r} for good" if purge else f"moved {entry.name!r} to the trash")
    if not purge:
        note(f"Bring back with: sda-daemon models restore {entries[0].model_id[:8]}")
    return ExitCode.OK


def _document(entry: ModelEntry, *, trashed: bool) -> dict[str, Any]:
    return {"model_id": entry.model_id, "name": entry.name, "file_path": entry.file_path, "trashed": trashed}


def show_trash(
    empty: Annotated[bool, typer.Option("--empty", help="Delete everything in the trash for good.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> int:
    """List the deleted models that can be restored.

    The last deleted first.
    """
    from sda_daemon.library import trash

    library = open_library(models_dir, config)
    items = trash.list_trash(library.models_dir)
    if as_json and not empty:
        print_json([_trashed_document(item) for item in items])
        return ExitCode.OK
    if not items:
        if as_json:
            print_json([])
        note("The trash is empty.")
        return ExitCode.OK
    if not as_json:
        _print_trash(items)
    if not empty:
        return ExitCode.OK
    total = human_size(sum(item.size_bytes for item in items))
    if not ask(f"Delete {counted(len(items), 'model')} ({total}) for good?", yes=yes):
        note("Nothing was deleted.")
        return ExitCode.FAILED
    trash.empty(library.models_dir, items)
    if as_json:
        print_json([_trashed_document(item) for item in items])
    else:
        say(f"deleted {counted(len(items), 'model')} for good, {total}")
    return ExitCode.OK


def _trashed_document(item: TrashedModel) -> dict[str, Any]:
    return {**item.entry.to_dict(), "path": str(item.path), "deleted_at": item.deleted_at}


def _print_trash(items: Sequence[TrashedModel]) -> None:
    console = make_console()
    columns = [
        Column("Name", least=18, style="bold"),
        Column("Dataset", least=10, rank=2),
        Column("Size", right=True, rank=1),
        Column("Deleted"),
        Column("Id", style="yellow"),
    ]
    rows = [
        (
            item.entry.name,
            item.entry.dataset_name or "-",
            human_size(item.size_bytes),
            human_date(item.deleted_at),
            item.entry.model_id[:8],
        )
        for item in items
    ]
    print_table(console, columns, rows)


def restore_models(
    model: TrashedModels, as_json: AsJson = False, models_dir: ModelsDir = None, config: ConfigFile = None
) -> None:
    """Bring models back from the trash."""
    from sda_daemon.library import trash
    from sda_daemon.library.lookup import find_entry

    library = open_library(models_dir, config)
    items = {id(item.entry): item for item in trash.list_trash(library.models_dir)}
    newest = list({item.entry.model_id: item.entry for item in reversed(items.values())}.values())
    wanted = [items[id(find_entry(newest, text, library.models_dir / trash.TRASH_FOLDER))] for text in model]
    restored = trash.restore(library, list({item.entry.model_id: item for item in wanted}.values()))
    if as_json:
        print_json([entry.to_dict() for entry in restored])
        return
    for entry in restored:
        say(f"restored {entry.name!r} as {entry.file_path}")
