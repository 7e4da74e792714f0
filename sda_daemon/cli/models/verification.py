"""`sda-daemon models verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sda_daemon.cli.library import find_models, open_library
from sda_daemon.cli.options import AsJson, ConfigFile, ModelsDir, examples
from sda_daemon.cli.output import Column, counted, make_console, note, print_json, print_table, say
from sda_daemon.cli.progress import progress
from sda_daemon.errors import ExitCode

if TYPE_CHECKING:
    from sda_daemon.conversion.verification import Verdict
    from sda_daemon.library import ModelEntry

EXAMPLES = examples(
    "sda-daemon models verify             every model",
    "sda-daemon models verify 1a2ff958    this one",
    "sda-daemon models verify --jobs 8 --json > verified.json",
)


def verify_library(
    model: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Only these models; without any, all.", show_default=False),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="How many at the same time.")] = 1,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> int:
    """Open every model and check its weights against the recorded digest.

    Exits with 65 if a model is broken, missing, or has other weights than it was made with; with 73 if the only
    thing wrong is that files may not be read.
    """
    from sda_daemon.conversion.verification import VerdictKind, check_files, check_model

    library = open_library(models_dir, config)
    entries = find_models(library, model) if model else library.list_all(sort_by="file_path", reverse=False)
    paths = [str(library.models_dir / entry.file_path) for entry in entries]
    verdicts: list[Verdict] = []
    with progress("Verifying", len(paths), quiet=as_json) as advance:
        for verdict in check_files(check_model, paths, jobs):
            verdicts.append(verdict)
            advance()
    bad = {verdict.kind for verdict in verdicts if verdict.is_bad}
    if as_json:
        print_json([_document(entry, verdict) for entry, verdict in zip(entries, verdicts, strict=True)])
    else:
        _print_verdicts(entries, verdicts)
    if bad == {VerdictKind.UNREADABLE}:
        return ExitCode.CANNOT_WRITE
    return ExitCode.BAD_DATA if bad else ExitCode.OK


def _document(entry: ModelEntry, verdict: Verdict) -> dict[str, object]:
    return {
        "model_id": entry.model_id,
        "name": entry.name,
        "file_path": entry.file_path,
        "result": verdict.kind.value,
        "reason": verdict.reason,
        "recorded_digest": verdict.recorded_digest or None,
        "weights_digest": verdict.weights_digest or None,
    }


def _print_verdicts(entries: Sequence[ModelEntry], verdicts: Sequence[Verdict]) -> None:
    if not verdicts:
        note("There are no models to verify.")
        return
    console = make_console()
    columns = [Column("Result", style="bold"), Column("Name", least=18), Column("File", least=18, rank=1), Column("Id")]
    rows = [
        (verdict.kind.value, entry.name, entry.file_path, entry.model_id[:8])
        for entry, verdict in zip(entries, verdicts, strict=True)
    ]
    print_table(console, columns, rows)
    for verdict in verdicts:
        if verdict.is_bad:
            note(f"sda-daemon: {verdict.path}: {verdict.reason}")
    counts = {kind: sum(v.kind == kind for v in verdicts) for kind in dict.fromkeys(v.kind for v in verdicts)}
    say(f"{counted(len(verdicts), 'model')}: " + ", ".join(f"{n} {kind.value}" for kind, n in counts.items()))
