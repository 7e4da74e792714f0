"""`sda-daemon models path` and `export`: for scripts, and for taking a model elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sda_daemon.cli.library import find_models, open_library
from sda_daemon.cli.options import ANY_PATH, AsJson, ConfigFile, Model, Models, ModelsDir, examples
from sda_daemon.cli.output import note, print_file_path, print_json
from sda_daemon.wording import LONGEST_QUOTE, shortened

if TYPE_CHECKING:
    from sda_daemon.library import ModelEntry
    from sda_daemon.models.playability import Trouble

PATH_EXAMPLES = examples('cp "$(sda-daemon models path rain)" /media/stick/')
EXPORT_EXAMPLES = examples(
    "sda-daemon models export rain --to ~/Desktop            under its own file name",
    "sda-daemon models export rain --to ~/Desktop/rain.sda   under this one",
    "sda-daemon models export rain --format distill --to ~/other/models",
)


def print_path(model: Model, models_dir: ModelsDir = None, config: ConfigFile = None) -> None:
    """Print the path of a model's file."""
    from sda_daemon.library.transfer import model_path

    library = open_library(models_dir, config)
    (entry,) = find_models(library, [model])
    print_file_path(model_path(library.models_dir, entry))


def export_model(
    model: Models,
    to: Annotated[
        Path,
        typer.Option(
            "--to", metavar="DIR|FILE", help="A folder, or the new file's name.", show_default=False, **ANY_PATH
        ),
    ],
    model_format: Annotated[
        Literal["sda", "distill", "distillgan"] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="sda, distill or distillgan: for another generation of the application. Without it, what the new "
            "name's ending says, or as it is.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> None:
    """Copy model files to another place, whole or not at all.

    For another generation of the application only marker and ending change: the weights stay as they are, bit for bit,
    and so does whatever else is in the file. A model is not exported for one that would decode it with the wrong
    activation, but for .sda, whose application opens it and plays it wrong: that is said.
    """
    from sda_daemon.files import is_folder
    from sda_daemon.library.batches import Batch, title
    from sda_daemon.library.exporting import export_model as export
    from sda_daemon.models.formats import format_called

    library = open_library(models_dir, config)
    batch: Batch[tuple[ModelEntry, Path, Sequence[Trouble]]] = Batch("exported")
    entries = find_models(library, model, batch)
    if (count := len(entries) + len(batch.failures)) > 1 and not is_folder(to):
        raise typer.BadParameter(f"{count} models need an existing folder to go to, {to} is none")
    wanted = None if model_format is None else format_called(model_format)
    for entry in entries:
        with batch.each(title(entry)):
            batch.done.append((entry, *export(library.models_dir, entry, to, wanted, replace=force)))
    if as_json and batch.done:
        print_json(
            [
                {
                    "model_id": entry.model_id,
                    "name": entry.name,
                    "path": str(path),
                    "warnings": [str(trouble) for trouble in troubles],
                }
                for entry, path, troubles in batch.done
            ]
        )
    elif not as_json:
        for entry, path, troubles in batch.done:
            print_file_path(path)
            for trouble in troubles:
                note(f"sda-daemon: {shortened(title(entry), LONGEST_QUOTE)}: {trouble}.")
    batch.result()
