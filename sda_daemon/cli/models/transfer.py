"""`sda-daemon models path` and `export`: for scripts, and for taking a model elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sda_daemon.cli.library import find_models, open_library
from sda_daemon.cli.options import ANY_PATH, AsJson, ConfigFile, Model, Models, ModelsDir, examples
from sda_daemon.cli.output import print_json

PATH_EXAMPLES = examples('cp "$(sda-daemon models path rain)" /media/stick/')
EXPORT_EXAMPLES = examples(
    "sda-daemon models export rain --to ~/Desktop            under its own file name",
    "sda-daemon models export rain --to ~/Desktop/rain.sda   under this one",
)


def print_path(model: Model, models_dir: ModelsDir = None, config: ConfigFile = None) -> None:
    """Print the path of a model's file."""
    from sda_daemon.library.transfer import model_path

    library = open_library(models_dir, config)
    (entry,) = find_models(library, [model])
    typer.echo(model_path(library.models_dir, entry))


def export_model(
    model: Models,
    to: Annotated[
        Path,
        typer.Option(
            "--to", metavar="DIR|FILE", help="A folder, or the new file's name.", show_default=False, **ANY_PATH
        ),
    ],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> None:
    """Copy model files to another place, whole or not at all."""
    from sda_daemon.files import is_folder
    from sda_daemon.library.transfer import export

    library = open_library(models_dir, config)
    entries = find_models(library, model)
    if len(entries) > 1 and not is_folder(to):
        raise typer.BadParameter(f"{len(entries)} models need an existing folder to go to, {to} is none")
    done = [(entry, export(library.models_dir, entry, to, replace=force)) for entry in entries]
    if as_json:
        print_json([{"model_id": entry.model_id, "name": entry.name, "path": str(path)} for entry, path in done])
        return
    for _, path in done:
        typer.echo(path)
