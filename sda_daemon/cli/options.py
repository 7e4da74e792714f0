"""Options that several commands share, so that they are called and described the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sda_daemon.cli.completion import complete_model, complete_trashed

ANY_PATH = {"readable": False}
"""For every parameter that is a path: typer would call one that may not be read a mistake in the command line.

Commands open what they are given, and say with the exit code for it why that is impossible.
"""
ModelsDir = Annotated[
    Path | None,
    typer.Option(
        "--models-dir",
        metavar="DIR",
        help="The library's folder; without it, the config's.",
        show_default=False,
        **ANY_PATH,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Config file; without it, the one that `run` finds.",
        show_default=False,
        **ANY_PATH,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Everything = Annotated[bool, typer.Option("--all", help="Print every line, however many there are.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Its id, the beginning of its id, its name or its file.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="Ids, beginnings of ids, names or files.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
TrashedModels = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="Ids, beginnings of ids, names or files of models in the trash.",
        autocompletion=complete_trashed,
        show_default=False,
    ),
]


def examples(*lines: str) -> str:
    """Return the end of a command's help: what one would type, one line each."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
