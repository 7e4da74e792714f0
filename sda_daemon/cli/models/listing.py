"""`sda-daemon models list` and `search`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sda_daemon.cli.library import entry_document, open_library
from sda_daemon.cli.options import AsJson, ConfigFile, ModelsDir, examples
from sda_daemon.cli.output import (
    Column,
    counted,
    human_count,
    human_date,
    human_number,
    human_size,
    make_console,
    note,
    print_json,
    print_table,
)
from sda_daemon.wording import clean

if TYPE_CHECKING:
    from sda_daemon.library import ModelEntry, ModelLibrary

LIST_EXAMPLES = examples(
    "sda-daemon models list --sort val_loss --limit 10   the ten best",
    "sda-daemon models list --tag rain --tag drone       with any of these",
    "sda-daemon models list --format id,val_loss,file    for scripts",
    "sda-daemon models list --json | jq '.[].name'",
)
SEARCH_EXAMPLES = examples(
    "sda-daemon models search rain",
    "sda-daemon models search 'epoch 19' --sort val_loss",
)


@dataclass(frozen=True, slots=True)
class _Key:
    """A name for `--sort` and `--format`: the field that it means, and whether the largest comes first."""

    field: str
    descending: bool = False


KEYS = {
    "name": _Key("name"),
    "dataset": _Key("dataset_name"),
    "epochs": _Key("training_epochs", descending=True),
    "val_loss": _Key("final_val_loss"),
    "train_loss": _Key("final_train_loss"),
    "tags": _Key("tags"),
    "sliders": _Key("n_active_components", descending=True),
    "size": _Key("file_size_bytes", descending=True),
    "saved": _Key("save_date", descending=True),
    "trained": _Key("training_date", descending=True),
    "id": _Key("model_id"),
    "file": _Key("file_path"),
    "description": _Key("description"),
    "files": _Key("dataset_file_count", descending=True),
    "duration": _Key("dataset_total_duration_s", descending=True),
}


def _known_keys(text: str) -> str:
    """Check a list of columns.

    Raises:
        typer.BadParameter: one of them does not exist.
    """
    for key in text.split(","):
        if key.strip() not in KEYS:
            raise typer.BadParameter(f"there is no column {key.strip()!r}; choose from: {', '.join(KEYS)}")
    return text


def _known_key(text: str) -> str:
    if text not in KEYS:
        raise typer.BadParameter(f"cannot sort by {text!r}; choose from: {', '.join(KEYS)}")
    return text


Sort = Annotated[
    str,
    typer.Option(
        "--sort",
        metavar="COLUMN",
        callback=_known_key,
        autocompletion=lambda: list(KEYS),
        help="Order by this column: the best, the newest or the largest first; names from A to Z.",
    ),
]
Reverse = Annotated[bool, typer.Option("--reverse", help="The other way round.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Only with one of these tags.", show_default=False)
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="At most so many.", show_default=False)]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="COLUMNS",
        callback=lambda text: text and _known_keys(text),
        help=f"Only these columns, tab-separated and without a head: {', '.join(KEYS)}.",
        show_default=False,
    ),
]


def list_models(
    sort: Sort = "saved",
    reverse: Reverse = False,
    tag: Tags = None,
    limit: Limit = None,
    columns: Format = None,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> None:
    """List the models, the newest first."""
    _print_found("", sort, reverse, tag, limit, columns, as_json, models_dir, config)


def search_models(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Text in the name or the description.")],
    sort: Sort = "saved",
    reverse: Reverse = False,
    tag: Tags = None,
    limit: Limit = None,
    columns: Format = None,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> None:
    """List the models whose name or description contains a text.

    Case does not matter.
    """
    _print_found(query, sort, reverse, tag, limit, columns, as_json, models_dir, config)


def _print_found(
    query: str,
    sort: str,
    reverse: bool,
    tags: list[str] | None,
    limit: int | None,
    columns: str | None,
    as_json: bool,
    models_dir: Path | None,
    config: Path | None,
) -> None:
    library = open_library(models_dir, config)
    key = KEYS[sort]
    found = library.search(query, tags=tags, sort_by=key.field, reverse=key.descending != reverse)
    shown = found[:limit]
    if as_json:
        print_json([entry_document(entry) for entry in shown])
    elif columns:
        for entry in shown:
            typer.echo("\t".join(_raw(entry, KEYS[key.strip()].field) for key in columns.split(",")))
    elif shown:
        _print_table(shown, library.list_all())
        if len(shown) < len(found):
            note(f"{counted(len(found) - len(shown), 'more model')}; see them with --limit {len(found)}")
        _note_foreign(library, is_whole=not query and not tags)
    elif query or tags:
        note(f"None of {counted(library.count(), 'model')} fits.")
    else:
        note(f"There are no models in {library.models_dir} yet.")
        _note_foreign(library, is_whole=True)


def _note_foreign(library: ModelLibrary, *, is_whole: bool) -> None:
    """Say that the index has entries which are not listed, to one who wants to see all."""
    count = len(library.foreign())
    if is_whole and count:
        others = counted(count, "other entry", "other entries")
        note(f"{others} in the index: not of models that this program knows, and left as they are.\n"
             "Listed by: sda-daemon models repair --dry-run")  # fmt: skip


def _raw(entry: ModelEntry, field: str) -> str:
    """Return a value for a script, whole."""
    value: Any = getattr(entry, field)
    if isinstance(value, list):
        return clean(",".join(value))
    return "" if value is None else clean(value)


COLUMNS: tuple[tuple[Column, Callable[[ModelEntry], str]], ...] = (
    (Column("Name", least=18, style="bold"), lambda entry: entry.name or "-"),
    (Column("Dataset", least=8, rank=4), lambda entry: entry.dataset_name or "-"),
    (Column("Epoch", right=True), lambda entry: human_count(entry.training_epochs)),
    (Column("Val loss", right=True), lambda entry: human_number(entry.final_val_loss)),
    (Column("Tags", least=10, rank=3, style="cyan"), lambda entry: ", ".join(entry.tags) or "-"),
    (
        Column("Sliders", right=True, rank=1),
        lambda entry: human_count(entry.n_active_components) if entry.has_analysis else "-",
    ),
    (Column("Size", right=True, rank=5), lambda entry: human_size(entry.file_size_bytes)),
    (Column("Saved", rank=2), lambda entry: human_date(entry.save_date)),
)


_ROOM_FOR_TIMES = 100
"""In a narrower terminal the day alone says when a model was saved."""


def _print_table(entries: Sequence[ModelEntry], everyone: Sequence[ModelEntry]) -> None:
    from sda_daemon.library.lookup import short_ids

    short = short_ids(everyone)
    console = make_console()
    columns = [column for column, _ in COLUMNS] + [Column("Id", style="yellow")]
    rows = [[*(show(entry) for _, show in COLUMNS), short[entry.model_id]] for entry in entries]
    if console.width < _ROOM_FOR_TIMES:
        at = [column.title for column in columns].index("Saved")
        rows = [[*row[:at], row[at][:10], *row[at + 1 :]] for row in rows]
    print_table(console, columns, rows)
