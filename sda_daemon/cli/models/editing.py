"""`sda-daemon models edit`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from sda_daemon.cli.library import entry_document, find_models, open_library
from sda_daemon.cli.options import AsJson, ConfigFile, Models, ModelsDir, examples
from sda_daemon.cli.output import LONGEST_CELL, print_json, print_list
from sda_daemon.wording import clean, quoted

if TYPE_CHECKING:
    from sda_daemon.library import ModelEntry

EXAMPLES = examples(
    "sda-daemon models edit 1a2ff958 --name 'Rain on tin' --tag keeper",
    "sda-daemon models edit 1a2ff958 9c0d41aa --untag draft --dataset 'field recordings 2026'",
)
_UNSET = {"show_default": False}


def edit_models(
    model: Models,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Its new name.", **_UNSET)] = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="A sentence or two.", **_UNSET)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="TEXT", help="The recordings that it was trained on.", **_UNSET)
    ] = None,
    files: Annotated[
        int | None, typer.Option("--dataset-files", min=0, metavar="N", help="How many recordings.", **_UNSET)
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option("--dataset-duration", min=0, metavar="SECONDS", help="How long they are in all.", **_UNSET),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Add a tag; may be given often.", **_UNSET)
    ] = None,
    untag: Annotated[
        list[str] | None, typer.Option("--untag", metavar="TAG", help="Take a tag away; likewise.", **_UNSET)
    ] = None,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> None:
    """Change what models are called and how they are described.

    Both the file and the index are rewritten, atomically; the weights stay as they are, bit for bit, and the
    file keeps its name.
    """
    from sda_daemon.library.batches import Batch, title
    from sda_daemon.library.editing import MetadataChange, edit_model

    change = MetadataChange(name, description, dataset, files, duration, tuple(tag or ()), tuple(untag or ()))
    if change.is_empty:
        raise typer.BadParameter("nothing to change: give --name, --description, --dataset, --tag or --untag")
    if name is not None and not name.strip():
        raise typer.BadParameter("a model needs a name")
    if duration is not None and not math.isfinite(duration):
        raise typer.BadParameter(f"--dataset-duration must be a number of seconds, not {duration:g}")
    library = open_library(models_dir, config)
    batch: Batch[ModelEntry] = Batch("edited")
    entries = find_models(library, model, batch)
    if name is not None and (count := len(entries) + len(batch.failures)) > 1:
        raise typer.BadParameter(f"{count} models cannot all be called {quoted(name)}")
    sentences = []
    for entry in entries:
        with batch.each(title(entry)):
            edited = edit_model(library, entry.model_id, change)
            batch.done.append(edited)
            sentences.append(_sentence(entry.name, edited.name, edited.file_path))
    if as_json and batch.done:
        print_json([entry_document(entry) for entry in batch.done])
    elif not as_json:
        print_list(sentences)
    batch.result()


def _sentence(old: str, new: str, file: str) -> str:
    renamed = f" (was {quoted(old)})" if old != new else ""
    return f"changed {quoted(new)}{renamed} in {clean(file, LONGEST_CELL)}"
