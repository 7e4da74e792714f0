"""`sda-daemon models delete`, `trash` and `restore`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sda_daemon.cli.library import entry_document, find_models, open_library
from sda_daemon.cli.options import AsJson, ConfigFile, Everything, Models, ModelsDir, TrashedModels, Yes, examples
from sda_daemon.cli.output import (
    LONGEST_CELL,
    Column,
    ask,
    counted,
    human_date,
    human_size,
    human_total,
    make_console,
    note,
    print_json,
    print_list,
    print_table,
    say,
)
from sda_daemon.errors import ExitCode
from sda_daemon.wording import MOST_LINES, clean, quoted

if TYPE_CHECKING:
    from sda_daemon.library import ModelEntry, ModelLibrary
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
    from sda_daemon.library.batches import Batch, title

    library = open_library(models_dir, config)
    batch: Batch[ModelEntry] = Batch("deleted")
    entries = find_models(library, model, batch)
    if not yes:  # whoever is asked must know what is not among them
        print_list([f"sda-daemon: {error}" for _, error in batch.failures], to=note)
    print_list([_outline(entry) for entry in entries], to=note)
    where = "for good" if purge else "into the trash"
    if not ask(f"Delete {counted(len(entries), 'model')} {where}?", yes=yes):
        note("Nothing was deleted.")
        return ExitCode.FAILED
    with batch.each(title(entries[0])):
        if purge:
            trash.purge(library, entries)
        else:
            trash.discard(library, entries)
    batch.done = [entry for entry in entries if library.get(entry.model_id) is None]
    if as_json and batch.done:
        print_json([_document(entry, trashed=not purge) for entry in batch.done])
    elif not as_json:
        sentence = "deleted {} for good" if purge else "moved {} to the trash"
        print_list([sentence.format(quoted(title(entry))) for entry in batch.done])
        if batch.done and not purge:
            note(f"Bring back with: sda-daemon models restore {batch.done[0].model_id[:8]}")
    batch.result()
    return ExitCode.OK


def _outline(entry: ModelEntry) -> str:
    name, file = clean(entry.name or "-", LONGEST_CELL), clean(entry.file_path, LONGEST_CELL)
    return f"  {name}  ({file}, {human_size(entry.file_size_bytes)}, {entry.model_id[:8]})"


def _document(entry: ModelEntry, *, trashed: bool) -> dict[str, Any]:
    return {"model_id": entry.model_id, "name": entry.name, "file_path": entry.file_path, "trashed": trashed}


def show_trash(
    empty: Annotated[bool, typer.Option("--empty", help="Delete everything in the trash for good.")] = False,
    yes: Yes = False,
    everything: Everything = False,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> int:
    """List the deleted models that can be restored.

    The last deleted first.
    """
    from sda_daemon.library import trash
    from sda_daemon.library.batches import Batch, title

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
        _print_trash(items, everything=everything)
    if not empty:
        return ExitCode.OK
    total = human_total(item.size_bytes for item in items)
    if not ask(f"Delete {counted(len(items), 'model')} ({total}) for good?", yes=yes):
        note("Nothing was deleted.")
        return ExitCode.FAILED
    batch: Batch[TrashedModel] = Batch("deleted")
    with batch.each(title(items[0].entry)):
        trash.empty(library.models_dir, items)
    batch.done = [item for item in items if not os.path.lexists(item.path)]
    if as_json and batch.done:
        print_json([_trashed_document(item) for item in batch.done])
    elif batch.done:
        total = human_total(item.size_bytes for item in batch.done)
        say(f"deleted {counted(len(batch.done), 'model')} for good, {total}")
    batch.result()
    return ExitCode.OK


def _trashed_document(item: TrashedModel) -> dict[str, Any]:
    return {**entry_document(item.entry), "path": str(item.path), "deleted_at": item.deleted_at}


def _print_trash(items: Sequence[TrashedModel], *, everything: bool) -> None:
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
            item.entry.name or "-",
            item.entry.dataset_name or "-",
            human_size(item.size_bytes),
            human_date(item.deleted_at),
            item.entry.model_id[:8],
        )
        for item in items
    ]
    print_table(console, columns, rows, "sda-daemon models trash --all", None if everything else MOST_LINES)


def restore_models(
    model: TrashedModels, as_json: AsJson = False, models_dir: ModelsDir = None, config: ConfigFile = None
) -> None:
    """Bring models back from the trash."""
    from sda_daemon.library import trash
    from sda_daemon.library.batches import Batch, title
    from sda_daemon.library.lookup import find_entry

    library = open_library(models_dir, config)
    items = {id(item.entry): item for item in trash.list_trash(library.models_dir)}
    newest = list({item.entry.model_id: item.entry for item in reversed(items.values())}.values())
    batch: Batch[ModelEntry] = Batch("restored")
    wanted: dict[str, TrashedModel] = {}
    for text in model:
        with batch.each(text):
            item = items[id(find_entry(newest, text, library.models_dir / trash.TRASH_FOLDER))]
            wanted[item.entry.model_id] = item
    if wanted:
        with batch.each(title(next(iter(wanted.values())).entry)):
            batch.done += trash.restore(library, list(wanted.values()))
    if as_json and batch.done:
        print_json([entry_document(entry) for entry in batch.done])
    elif not as_json:
        print_list(
            [f"restored {quoted(title(entry))} as {clean(entry.file_path, LONGEST_CELL)}" for entry in batch.done]
        )
    _tell_names(library, batch.done, {item.entry.model_id: item.entry.name for item in wanted.values()})
    batch.result()


def _tell_names(library: ModelLibrary, restored: Sequence[ModelEntry], before: Mapping[str, str]) -> None:
    """Say which of the restored models have another name now, or share theirs; of many, only the first."""
    from sda_daemon.library.naming import shared_names

    renamed = [entry for entry in restored if entry.name != before.get(entry.model_id, entry.name)]
    if renamed:
        rest = f" (and {len(renamed) - 1} more)" if len(renamed) > 1 else ""
        note(
            f"Another model is called {quoted(before[renamed[0].model_id])} by now: the restored one is called "
            f"{quoted(renamed[0].name)}{rest}."
        )
    ids = {entry.model_id for found in shared_names(library.entries()) for entry in found}
    shared = [entry for entry in restored if entry.model_id in ids]
    if not shared:
        return
    rest = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
    note(
        f"Another model is called {quoted(shared[0].name)}, too{rest}, and the training application finds models by "
        f"name. Give one another name: sda-daemon models edit {shared[0].model_id[:8]} --name …"
    )
