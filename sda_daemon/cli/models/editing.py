"""`sda-daemon models edit`."""

from __future__ import annotations

from typing import Annotated

import typer

from sda_daemon.cli.library import find_models, open_library
from sda_daemon.cli.options import AsJson, ConfigFile, Models, ModelsDir, examples
from sda_daemon.cli.output import print_json, say

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
    from sda_daemon.models.editing import MetadataChange, edit_model

    change = MetadataChange(name, description, dataset, files, duration, tuple(tag or ()), tuple(untag or ()))
    if change.is_empty:
        raise typer.BadParameter("nothing to change: give --name, --description, --dataset, --tag or --untag")
    if name is not None and not name.strip():
        raise typer.BadParameter("a model needs a name")
    library = open_library(models_dir, config)
    entries = find_models(library, model)
    if name is not None and len(entries) > 1:
        raise typer.BadParameter(f"{len(entries)} models cannot all be called {name!r}")
    edited = []
    for entry in entries:
        edited.append(edit_model(library, entry.model_id, change))
        if not as_json:
            say(_sentence(entry.name, edited[-1].name, edited[-1].file_path))
    if as_json:
        print_json([entry.to_dict() for entry in edited])


def _sentence(old: str, new: str, file: str) -> str:
    renamed = f" (was {old!r})" if old != new else ""
    return f"changed {new!r}{renamed} in {file}"
