"""`sda-daemon config`: checking, showing and writing the config file, and trying its templates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sda_daemon.cli.options import ANY_PATH, Everything
from sda_daemon.cli.output import LONGEST_CELL, note, print_list, say
from sda_daemon.errors import ConfigError, ExitCode
from sda_daemon.wording import LONGEST_VALUE, clean, shortened, text_of

if TYPE_CHECKING:
    from sda_daemon.settings.schema import Settings

app = typer.Typer(no_args_is_help=True, help="Check, show and write the config file, and try its templates.")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Config file (YAML).", show_default=False, **ANY_PATH),
]


@app.command("check")
def check(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Config file.", show_default=False, **ANY_PATH)
    ] = None,
    config: ConfigFile = None,
    everything: Everything = False,
) -> int:
    """Say everything that is wrong with a config file: exit code 0 if nothing is, else 78.

    73 if it may not be read. It also warns of what is valid, but hardly meant.
    """
    from sda_daemon.files import is_folder
    from sda_daemon.settings.advice import advice_on
    from sda_daemon.settings.loading import find_config, load_config

    try:
        path = find_config(file or config)
        loaded = load_config(path)
    except ConfigError as error:
        how = "sda-daemon config check --all"
        print_list(str(error).split("\n"), how, everything=everything, to=note)
        if len(error.problems) > 1:
            note(f"{len(error.problems)} problems")
        return error.exit_code
    settings = loaded.settings
    say(f"{path}: this config is valid")
    say(f"models go to {settings.models_dir}")
    for watch in settings.watch:
        try:
            state = "" if is_folder(watch.path) else " (not there yet)"
        except OSError as error:  # the daemon may well be another user, who is let in
            state = f" (you cannot look there: {error.strerror})"
        say(f"watched: {watch.path}{state}")
    for item in advice_on(settings):
        note(f"warning: {item}")
    for line in _on_selection(settings):
        note(f"warning: {line}")
    return ExitCode.OK


def _on_selection(settings: Settings) -> Iterator[str]:
    """Tell what `select` would remove of a library that is there, in folders in which it has removed nothing yet."""
    from sda_daemon.settings.loading import state_folder

    watches = {str(watch.path): watch for watch in settings.watch}
    state_dir = state_folder(settings)
    is_there = settings.models_dir.is_dir() and (state_dir / "ledger.sqlite3").exists()
    if not is_there or all(watch.select == "all" for watch in settings.watch):
        return
    from sda_daemon.conversion.retention import folders_of, leaving
    from sda_daemon.errors import SdaError
    from sda_daemon.library.catalog import ModelLibrary
    from sda_daemon.library.in_use import InUse
    from sda_daemon.state.ledger import Ledger

    try:
        ledger = Ledger(state_dir, owned=False)
        try:
            library = ModelLibrary(settings.models_dir)
            in_use = InUse(settings.application.presets, settings.application.history)
            for found in leaving(ledger, library, folders_of(ledger, watches), in_use):
                if not ledger.has_superseded(found.folder):
                    yield (
                        f"select: {found.select} would move {len(found.models)} of the {found.made} models made in "
                        f"{found.folder} into the trash, such as {found.models[0].name!r}"
                    )
        finally:
            ledger.close()
    except SdaError as error:
        yield f"what select would remove cannot be told: {error}"


@app.command("show")
def show(config: ConfigFile = None) -> None:
    """Print the config that is in force, with every default and override marked as such."""
    from sda_daemon.settings.loading import find_config, load_config
    from sda_daemon.settings.writing import write_effective

    path = find_config(config)
    loaded = load_config(path)
    say(f"# {path.absolute()}")
    typer.echo(write_effective(loaded.settings, loaded.origins), nl=False)


@app.command("init")
def init(
    user: Annotated[bool, typer.Option("--user", help="At the user's usual place (this is the default).")] = False,
    path: Annotated[
        Path | None,
        typer.Option("--path", metavar="FILE", help="At this place instead.", show_default=False, **ANY_PATH),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            "--beside",
            metavar="DIR",
            help="For the training application in this folder: its models, data sets, presets and history.",
            show_default=False,
            **ANY_PATH,
        ),
    ] = None,
) -> int:
    """Write a config file that explains itself; never over one that is there."""
    from sda_daemon.settings.application import find_application
    from sda_daemon.settings.loading import config_beside, user_config, write_new_config

    if user and path is not None:
        note("sda-daemon: --user and --path do not go together; give one of them")
        return ExitCode.USAGE
    target = path or user_config()
    application = find_application(beside) if beside is not None else None
    text = config_beside(application) if application is not None else None
    for written in write_new_config(target, text):
        say(f"wrote {written}")
    place = f" {target}" if path is not None else ""
    option = f" --config {target}" if path is not None else ""
    if application is not None:
        kind = "" if application.generation == "auto" else f", of the generation {application.generation!r}"
        source = application.config or f"{application.home} (its defaults: it has no config.toml yet)"
        say(f"for the application of {source}{kind}")
        say(f"models go to {application.models}")
        say(f"watched: {application.datasets} and {application.models}")
        say(f"Look at it, then: sda-daemon config check{place}")
    else:
        say(f"Set models_dir and the watched folders in it, then: sda-daemon config check{place}")
    say(f"and start the daemon: sda-daemon run{option}")
    return ExitCode.OK


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the config file, by which editors check and complete it."""
    from sda_daemon.settings.annotated import config_json_schema

    typer.echo(config_json_schema(), nl=False)


@app.command("render")
def render(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint.", **ANY_PATH)],
    config: ConfigFile = None,
    facts: Annotated[bool, typer.Option("--facts", help="Also show everything that templates can use.")] = False,
) -> int:
    """Show the metadata that a checkpoint's model would get, and what gave each field. Nothing is written."""
    from sda_daemon.conversion.interrupts import wait_for_first
    from sda_daemon.conversion.job import REFUSED_KINDS, ConversionJob, Failed
    from sda_daemon.conversion.pool import WorkerPool
    from sda_daemon.files import is_file
    from sda_daemon.settings.loading import find_config, load_config
    from sda_daemon.settings.rules import watch_of
    from sda_daemon.signature import signature_at

    settings = load_config(find_config(config)).settings
    path = checkpoint.absolute()
    signature = signature_at(str(path)) if is_file(path) else None
    if signature is None:
        note(f"sda-daemon: there is no file {checkpoint}")
        return ExitCode.FAILED
    watch = watch_of(path, settings.watch)
    root = str(watch.path) if watch else ""
    job = ConversionJob(
        str(path),
        signature,
        root,
        str(settings.models_dir),
        "",
        "",
        settings.metadata,
        rules=settings.rules,
        models_format=settings.models_format,
    )
    limits = settings.conversion
    pool = WorkerPool(1, limits.time_limit_s, limits.memory_limit)
    try:
        (preview,) = wait_for_first([pool.preview(job)])
        result = preview.result()
    finally:
        pool.close()
    if isinstance(result, Failed):
        note(f"sda-daemon: {result.message}")
        refused = ExitCode.CANNOT_WRITE if result.kind in REFUSED_KINDS else ExitCode.BAD_DATA
        return ExitCode.BAD_CONFIG if result.kind == "template" else refused
    if watch is None:
        typer.echo("It lies in no watched folder: rules match its bare name, notes only in its own folder.")
    if result.skip:
        say(f"It is not converted: {result.skip}.")
    if result.known_as:
        known_as = shortened(result.known_as, LONGEST_CELL)
        say(f"The library has this model already, as {known_as}; its name and words stay as they are.")
    print_list([f"{notes} is ignored: {shortened(reason, LONGEST_VALUE)}" for notes, reason in result.ignored_notes])
    for trouble in result.troubles if not result.skip and not result.known_as else ():
        say(f"As {result.format_name}: {trouble}.")
    rows = [
        (field.name, text_of(getattr(result.metadata, field.name)), _source(field.name, result.sources, root))
        for field in dataclasses.fields(result.metadata)
        if field.name != "tags"
    ]
    tags = [
        ("tags", tag, _source(f"tags[{index}]", result.sources, root)) for index, tag in enumerate(result.metadata.tags)
    ]
    rows += tags or [("tags", "-", "")]
    _print_table(("Field", "Value", "From"), rows)
    if facts:
        typer.echo()
        _print_table(("Fact", "Value"), [(name, _written(value)) for name, value in result.facts.items()])
    return ExitCode.OK


def _source(field: str, sources: Mapping[str, str], root: str) -> str:
    own = {"model_id": "the weights", "save_date": "the conversion"}
    source = sources.get(field) or own.get(field, "the checkpoint")
    return source.removeprefix(f"{root}/") if root else source


def _written(value: Any) -> str:
    return value.isoformat(sep=" ", timespec="seconds") if hasattr(value, "isoformat") else text_of(value)


def _print_table(titles: tuple[str, ...], rows: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell, LONGEST_VALUE)) for cell in row))
    Console().print(table)
