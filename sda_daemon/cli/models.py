"""`sda-daemon models`: looking at the library."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from sda_daemon.errors import UnknownModelError
from sda_daemon.library import ModelEntry, ModelLibrary

app = typer.Typer(no_args_is_help=True, help="Look at the library of models.")

ModelsDir = Annotated[
    Path | None,
    typer.Option(
        "--models-dir", metavar="DIR", help="The library's folder; without it, the config's.", show_default=False
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Config file (YAML).", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def open_library(models_dir: Path | None, config: Path | None) -> ModelLibrary:
    """Open the library of `--models-dir`, or else of the config.

    Raises:
        ConfigError, LibraryError: there is none, or it cannot be read.
        UnknownModelError: the folder does not exist.

    """
    if models_dir is None:
        from sda_daemon.config import find_config, load_config

        models_dir = load_config(find_config(config)).settings.models_dir
    if not models_dir.is_dir():
        raise UnknownModelError(f"there is no library at {models_dir}", "Check the path; `run` and `convert` make one")
    return ModelLibrary(models_dir)


@app.command("list")
def list_models(models_dir: ModelsDir = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List all models, the newest first."""
    entries = open_library(models_dir, config).list_all()
    if as_json:
        typer.echo(to_json([entry.to_dict() for entry in entries]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Name", "Dataset"):
        table.add_column(title, overflow="fold")
    for title in ("Epoch", "Val loss", "Sliders", "Size"):
        table.add_column(title, justify="right")
    table.add_column("Tags", overflow="fold")
    table.add_column("Id")
    for entry in entries:
        table.add_row(
            entry.name,
            entry.dataset_name or "-",
            str(entry.training_epochs),
            f"{entry.final_val_loss:.4g}",
            str(entry.n_active_components) if entry.has_analysis else "-",
            human_size(entry.file_size_bytes),
            ", ".join(entry.tags) or "-",
            entry.model_id[:8],
        )
    console = Console()
    if entries:
        console.print(table)
    else:
        console.print("There are no models yet.")


@app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(metavar="ID", help="The model's id, or the beginning of it.")],
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show everything about one model."""
    library = open_library(models_dir, config)
    entry = find_model(library, model)
    if as_json:
        typer.echo(to_json(entry.to_dict()))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for field in dataclasses.fields(entry):
        value = getattr(entry, field.name)
        text = ", ".join(value) if isinstance(value, list) else str(value)
        table.add_row(field.name.replace("_", " "), text)
    table.add_row("file", str(library.models_dir / entry.file_path))
    Console().print(table)


def find_model(library: ModelLibrary, text: str) -> ModelEntry:
    """Return the model with this id or unique beginning of an id.

    Raises:
        UnknownModelError: none or several match.

    """
    exact = library.get(text)
    if exact is not None:
        return exact
    found = [entry for entry in library.list_all() if text and entry.model_id.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{entry.model_id[:12]} ({entry.name})" for entry in found[:5])
        raise UnknownModelError(f"{text!r} is the beginning of several ids: {names}", "Give more of the id")
    raise UnknownModelError(f"there is no model {text!r} in {library.models_dir}", "See: sda-daemon models list")


def to_json(value: Any) -> str:
    """Return JSON that any program reads: a loss that is no number becomes null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def human_size(size_bytes: int) -> str:
    """Return a size as people read it, such as `12.6 MB`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
