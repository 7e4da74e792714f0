"""`sda-daemon convert`: checkpoints to models at once, without a daemon."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sda_daemon.cli.options import AsJson, ConfigFile, Everything, ModelsDir, examples
from sda_daemon.cli.output import human_duration, make_console, note, print_json, print_list
from sda_daemon.cli.progress import progress
from sda_daemon.errors import ExitCode, TemplateError
from sda_daemon.wording import LONGEST_VALUE, MOST_LINES, clean, quoted, shortened

if TYPE_CHECKING:
    from sda_daemon.conversion.batch import BatchResult, Source
    from sda_daemon.conversion.job import ConversionJob
    from sda_daemon.conversion.pool import WorkerPool
    from sda_daemon.library import ModelLibrary
    from sda_daemon.settings.schema import MetadataSettings, RuleSettings, Settings
    from sda_daemon.signature import FileSignature

EXAMPLES = examples(
    "sda-daemon convert checkpoint_epoch0190.pt --models-dir models",
    "sda-daemon convert runs/ 'old/**/*.pt' --jobs 4    as the config says",
    "sda-daemon convert runs/ --dry-run                 what would happen",
    "sda-daemon convert x.pt --name '{{ run }} take {{ epoch }}' --tag rain",
    "sda-daemon convert runs/ --format auto             for the application that trained them",
)
DEFAULT_FORMAT = "sda"
DEFAULT_PATTERNS = ("*.pt", "*.pth", "*.ckpt")
_UNSET = {"show_default": False}
_SHORTEST_PATH = 20
_SCREEN = 20
"""More lines than this push the first ones out of sight."""


def convert(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT", help="Files, folders or globs.", show_default=False)
    ],
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            max=64,
            metavar="N",
            help="How many at once; without it, the config's or 2.",
            **_UNSET,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and name everything, write nothing.")] = False,
    name: Annotated[
        str | None, typer.Option("--name", metavar="TEMPLATE", help="What a model is called.", **_UNSET)
    ] = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEMPLATE", help="A sentence or two.", **_UNSET)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="TEMPLATE", help="What it was trained on.", **_UNSET)
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TEMPLATE", help="A tag, beside the config's; may be given often.", **_UNSET),
    ] = None,
    models_format: Annotated[
        Literal["sda", "distill", "distillgan", "auto"] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="sda, distill, distillgan or auto: for which generation of the application; without it, the config's "
            "or sda.",
            **_UNSET,
        ),
    ] = None,
    everything: Everything = False,
    as_json: AsJson = False,
) -> int:
    """Convert checkpoints into models now, without a daemon.

    Names and descriptions come from the config's templates, or from the options, which are templates too.
    With --models-dir and without --config no config file is read. Exits with 1 if a conversion fails, with 73 if
    those that fail only may not be read or written.
    """
    from sda_daemon.conversion.batch import BatchAction, convert_batch, find_sources
    from sda_daemon.conversion.pool import WorkerPool
    from sda_daemon.intake.scan import CheckpointNames
    from sda_daemon.settings.rules import watch_of
    from sda_daemon.settings.schema import ConversionSettings

    began = time.monotonic()
    plan = _plan(models_dir, config, name, description, dataset, tag, models_format)
    workers = jobs or (plan.settings.workers if plan.settings else 2)
    watches = plan.settings.watch if plan.settings else ()
    own = _own_folders(plan)

    def names_at(folder: str) -> CheckpointNames:
        """What checkpoints are called there: as in the watched folder that it lies in, else as in the first one."""
        watch = watch_of(folder, watches) or next(iter(watches), None)
        return CheckpointNames(watch.patterns if watch is not None else DEFAULT_PATTERNS, (), own)

    sources, results = find_sources(checkpoints, names_at, watches)
    printer = _Printer(quiet=as_json, dry_run=dry_run, everything=everything)
    for result in results:
        printer.tell(result, typer.echo)
    limits = plan.settings.conversion if plan.settings else ConversionSettings()
    pool = WorkerPool(min(workers, max(1, len(sources))), limits.time_limit_s, limits.memory_limit)
    try:
        with (
            _destination(plan.models_dir, dry_run=dry_run) as (library, work_dir),
            _known(library, pool if sources else None, dry_run=dry_run, quiet=as_json),
            progress("Converting", len(sources), quiet=as_json) as bar,
        ):

            def make_job(source: Source, signature: FileSignature, temporary_name: str) -> ConversionJob:
                return _job(plan, library, work_dir, source, signature, "" if dry_run else temporary_name)

            for result in convert_batch(sources, library, pool, make_job, in_flight=2 * workers):
                results.append(result)
                printer.tell(result, bar.say)
                bar()
    except KeyboardInterrupt:
        done = _summary(results, dry_run=dry_run) or "nothing converted"
        note(f"interrupted: {done}; {len(sources) - len(results)} left")
        raise
    finally:
        pool.close()
    if as_json:
        print_json(_document(results, time.monotonic() - began, dry_run=dry_run))
    elif len(results) == 1:
        printer.tell_ignored(results)
        printer.tell_troubles(results)
    else:
        printer.tell_failures(results)
        printer.tell_ignored(results)
        printer.tell_troubles(results)
        summary = _summary(results, dry_run=dry_run) or "nothing to convert"
        note(f"{summary} in {human_duration(time.monotonic() - began)}")
    return _exit_code({result.cause for result in results if result.action is BatchAction.FAILED})


def _exit_code(causes: set[str]) -> ExitCode:
    """Return the exit code for the causes of what failed."""
    from sda_daemon.conversion.job import REFUSED_KINDS

    if not causes:
        return ExitCode.OK
    return ExitCode.CANNOT_WRITE if causes <= REFUSED_KINDS else ExitCode.FAILED


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where models go and what they are called; `settings` is None where no config is used."""

    models_dir: Path
    metadata: MetadataSettings
    rules: tuple[RuleSettings, ...]
    settings: Settings | None
    models_format: str


def _own_folders(plan: _Plan) -> tuple[str, ...]:
    """Return the folders that are not looked into on the way, unless one of them is named."""
    from sda_daemon.files import TRASH_FOLDER
    from sda_daemon.settings.loading import own_folders

    library = (str(plan.models_dir), str(plan.models_dir / TRASH_FOLDER))
    return (*library, *(own_folders(plan.settings) if plan.settings else ()))


def _plan(
    models_dir: Path | None,
    config: Path | None,
    name: str | None,
    description: str | None,
    dataset: str | None,
    tags: list[str] | None,
    models_format: str | None,
) -> _Plan:
    from sda_daemon.settings.schema import MetadataOverrides, MetadataSettings, RuleSettings

    settings = None
    if config is not None or models_dir is None:
        from sda_daemon.settings.loading import find_config, load_config

        settings = load_config(find_config(config)).settings
    metadata = settings.metadata if settings else MetadataSettings()
    # Who names a checkpoint on the command line wants it, whatever rules there are for the daemon to skip it.
    given = settings.rules if settings else ()
    without = {"skip": None} if models_format is None else {"skip": None, "models_format": None}
    rules = tuple(rule.model_copy(update=without) for rule in given)
    wanted: dict[str, Any] = {"name": name, "description": description, "dataset_name": dataset}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    if tags:
        wanted["tags"] = tuple(tags)
    if wanted:
        for option, template in (("--name", name), ("--description", description), ("--dataset", dataset)):
            _try(option, template or "")
        for tag in tags or []:
            _try("--tag", tag)
        rules = (*rules, RuleSettings(match="*", metadata=MetadataOverrides(**wanted)))
    if models_dir is None:
        assert settings is not None
        models_dir = settings.models_dir
    models_format = models_format or (settings.models_format if settings else DEFAULT_FORMAT)
    # Absolute now: where the working folder is closed, the pool of workers leaves it.
    return _Plan(models_dir.absolute(), metadata, rules, settings, models_format)


def _try(option: str, template: str) -> None:
    from sda_daemon.templates import ShallowPathError, try_text

    try:
        try_text(template)
    except ShallowPathError:
        pass  # the checkpoints may well lie deeper
    except TemplateError as error:
        raise TemplateError(f"{option}: {error.what}", error.hint) from error


@contextlib.contextmanager
def _destination(models_dir: Path, *, dry_run: bool) -> Iterator[tuple[ModelLibrary, str]]:
    """Open the library and a folder for unfinished files; a dry run makes neither."""
    from sda_daemon.files import is_folder, work_folder
    from sda_daemon.library import ModelLibrary

    if not dry_run:
        library = ModelLibrary(models_dir)
        with work_folder(models_dir) as workspace:
            yield library, str(workspace)
    elif is_folder(models_dir):
        yield ModelLibrary(models_dir), ""
    else:
        with tempfile.TemporaryDirectory(prefix="sda-daemon-dry-run-") as nothing:
            yield ModelLibrary(Path(nothing)), ""


@contextlib.contextmanager
def _known(library: ModelLibrary, pool: WorkerPool | None, *, dry_run: bool, quiet: bool) -> Iterator[None]:
    """Make known, before anything is converted, which weights the library has under ids of other programs."""
    from sda_daemon.conversion.batch import count_unknown, learn_weights

    if pool is not None and (count := count_unknown(library)):
        with progress("Reading what is there", count, quiet=quiet) as bar:
            for _ in learn_weights(library, pool, save=not dry_run):
                bar()
    yield
    if not dry_run:
        library.weights.save()


def _job(
    plan: _Plan,
    library: ModelLibrary,
    work_dir: str,
    source: Source,
    signature: FileSignature,
    temporary_name: str,
) -> ConversionJob:
    from sda_daemon.conversion.job import ConversionJob

    return ConversionJob(
        path=source.path,
        signature=signature,
        watch_root=source.root,
        models_dir=str(library.models_dir),
        work_dir=work_dir,
        temporary_name=temporary_name,
        metadata=plan.metadata,
        rules=plan.rules,
        is_watched=source.is_watched,
        models_format=plan.models_format,
    )


class _Printer:
    """Says what became of each checkpoint: results on stdout, failures on stderr, of very many the first."""

    def __init__(self, *, quiet: bool, dry_run: bool, everything: bool) -> None:
        self._quiet = quiet
        self._everything = everything
        self._failures = 0
        self._width = make_console().width
        self._verbs = (
            {"added": "would add", "updated": "would give sliders to", "duplicate": "has already"}
            if dry_run
            else {"added": "added", "updated": "gave sliders to", "duplicate": "has already"}
        )

    def tell(self, result: BatchResult, say: Callable[[str], None]) -> None:
        """Print one result on one line; on a narrow terminal the beginning of the path goes."""
        if self._quiet:
            return
        if result.entry is None:
            self._failures += 1
            if self._everything or self._failures <= MOST_LINES:
                note(f"sda-daemon: {shortened(_short(result.reason), LONGEST_VALUE)}")
            return
        entry = result.entry
        head = clean(f"{self._verbs[result.action.value]} {quoted(entry.name)} ({entry.model_id[:8]}) from ")
        path = clean(_short(result.path))
        room = max(_SHORTEST_PATH, self._width - len(head))
        say(head + (path if len(path) <= room else "…" + path[len(path) - room + 1 :]))

    def tell_failures(self, results: list[BatchResult]) -> None:
        """Name the failures once more where other lines have pushed them out of sight, and count those not told of."""
        failed = [result for result in results if result.entry is None]
        if self._quiet or not failed or len(results) <= _SCREEN:
            return
        note("failed:")
        how = "with --all each with its reason, or --json"
        print_list([f"  {_short(result.path)}" for result in failed], how, everything=self._everything, to=note)

    def tell_ignored(self, results: list[BatchResult]) -> None:
        """Name, each once, the notes and sidecars that could not be used."""
        if not self._quiet:
            ignored = dict.fromkeys(item for result in results for item in result.ignored_notes)
            lines = [f"sda-daemon: {shortened(_short(_ignored(*item)), LONGEST_VALUE)}" for item in ignored]
            print_list(lines, "with --all", everything=self._everything, to=note)

    def tell_troubles(self, results: list[BatchResult]) -> None:
        """Say, once for all models that it is true of, what an application will not play right."""
        if self._quiet:
            return
        counts = Counter(trouble for result in results for trouble in result.troubles)
        for trouble, count in counts.items():
            which = "" if len(results) == 1 else f"{count} of {len(results)}: "
            note(f"sda-daemon: {which}{trouble}.")


def _ignored(path: str, reason: str) -> str:
    return f"{path} is ignored: {reason}"


def _short(text: str) -> str:
    """Return a text in which paths below the working folder are relative."""
    return text.replace(f"{Path.cwd()}/", "")


def _summary(results: list[BatchResult], *, dry_run: bool) -> str:
    words = {
        "added": "to convert" if dry_run else "converted",
        "updated": "to give sliders to" if dry_run else "given sliders",
        "duplicate": "in the library already",
        "failed": "would fail" if dry_run else "failed",
    }
    counts = {action: sum(result.action.value == action for result in results) for action in words}
    return ", ".join(f"{count} {words[action]}" for action, count in counts.items() if count)


def _document(results: list[BatchResult], duration_s: float, *, dry_run: bool) -> dict[str, Any]:
    actions = ("added", "updated", "duplicate", "failed")
    return {
        "dry_run": dry_run,
        "duration_s": round(duration_s, 3),
        "summary": {action: sum(result.action.value == action for result in results) for action in actions},
        "results": [
            {
                "path": result.path,
                "action": result.action.value,
                "model_id": result.entry.model_id if result.entry else None,
                "name": result.entry.name if result.entry else None,
                "file_path": result.entry.file_path if result.entry else None,
                "cause": result.cause or None,
                "reason": result.reason or None,
                "duration_s": round(result.duration_s, 3),
                "warnings": [
                    *(_ignored(*item) for item in result.ignored_notes),
                    *(str(trouble) for trouble in result.troubles),
                ],
            }
            for result in results
        ],
    }
