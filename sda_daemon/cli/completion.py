"""Shell completion: the script for each shell, and the model names that it offers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sda_daemon.wording import LONGEST_QUOTE, clean

if TYPE_CHECKING:
    from sda_daemon.library import ModelLibrary

COMPLETE_VARIABLE = "_SDA_DAEMON_COMPLETE"
EXAMPLES = "\n".join(
    (
        "\b",
        "Examples:",
        '  eval "$(sda-daemon completion bash)"    in ~/.bashrc',
        '  eval "$(sda-daemon completion zsh)"     in ~/.zshrc, after compinit',
        "  sda-daemon completion fish | source     in ~/.config/fish/config.fish",
    )
)


def enable() -> None:
    """Answer the shell where it asks for completions; costs nothing where it does not."""
    if COMPLETE_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()


def print_script(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)
    ],
) -> None:
    """Print the completion script of a shell.

    It completes commands, options and the names of your models.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    typer.echo(get_completion_script(prog_name="sda-daemon", complete_var=COMPLETE_VARIABLE, shell=shell))


def complete_model(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the names and ids that a beginning fits, each with what tells it from others."""
    library = _library_of(ctx)
    entries = [] if library is None else library.list_all()
    found = [(entry.name, f"{entry.dataset_name or '-'}, {entry.model_id[:8]}") for entry in entries]
    if incomplete:
        found += [(entry.model_id, entry.name) for entry in entries]
    return _offered(found, incomplete)


def complete_trashed(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the names of models in the trash that a beginning fits."""
    from sda_daemon.library.trash import list_trash

    library = _library_of(ctx)
    try:
        items = [] if library is None else list_trash(library.models_dir)
    except OSError:
        return []
    return _offered([(item.entry.name, item.entry.model_id[:8]) for item in items], incomplete)


def _offered(found: Sequence[tuple[str | None, str | None]], incomplete: str) -> list[tuple[str, str]]:
    """Return what can be typed: no name that is missing, endless or not text."""
    beginning = incomplete.casefold()
    return [
        (name, clean(help_text or "-", LONGEST_QUOTE))
        for name, help_text in found
        if name and len(name) <= _LONGEST_NAME and name.isprintable() and name.casefold().startswith(beginning)
    ]


_LONGEST_NAME = 300


def _library_of(ctx: typer.Context) -> ModelLibrary | None:
    """Open the library of the command line so far; completion stays silent where that fails."""
    from sda_daemon.cli.library import open_library

    def path(name: str) -> Path | None:
        value = ctx.params.get(name)
        return Path(value) if value else None

    try:
        return open_library(path("models_dir"), path("config"))
    except Exception:  # noqa: BLE001 - a completion that complains would spoil the line being typed
        return None
