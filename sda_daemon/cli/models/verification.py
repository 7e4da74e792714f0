"""`sda-daemon models verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sda_daemon.cli.library import find_models, open_library
from sda_daemon.cli.options import AsJson, ConfigFile, Everything, ModelsDir, examples
from sda_daemon.cli.output import Column, counted, make_console, note, print_json, print_list, print_table, say
from sda_daemon.cli.progress import progress
from sda_daemon.errors import ExitCode
from sda_daemon.wording import MOST_LINES, listed

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
    everything: Everything = False,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> int:
    """Open every model and check its weights against the recorded digest.

    Exits with 65 if a model is broken, missing, or has other weights than it was made with; with 73 if the only
    thing wrong is that files may not be read.
    """
    from sda_daemon.conversion.verification import VerdictKind, check_files, check_model
    from sda_daemon.library.batches import Batch
    from sda_daemon.library.entry import is_bare_model_name

    library = open_library(models_dir, config)
    batch: Batch[Verdict] = Batch("verified")
    entries = find_models(library, model, batch) if model else library.list_all(sort_by="file_path", reverse=False)
    inside = [entry.file_path for entry in entries if is_bare_model_name(entry.file_path)]
    paths = [str(library.models_dir / file) for file in inside]
    with progress("Verifying", len(paths), quiet=as_json) as advance:
        for verdict in check_files(check_model, paths, jobs):
            batch.done.append(verdict)
            advance()
    found = dict(zip(inside, batch.done, strict=True))
    verdicts = [found.get(entry.file_path) or _outside(library.models_dir, entry.file_path) for entry in entries]
    bad = {verdict.kind for verdict in verdicts if verdict.is_bad}
    if as_json:
        print_json([_document(entry, verdict) for entry, verdict in zip(entries, verdicts, strict=True)])
    else:
        _print_verdicts(list(zip(entries, verdicts, strict=True)), everything=everything)
    if not bad:
        batch.result()
    elif batch.failures:
        note("\n".join(listed([f"sda-daemon: {error}" for _, error in batch.failures])))
    if bad == {VerdictKind.UNREADABLE}:
        return ExitCode.CANNOT_WRITE
    return ExitCode.BAD_DATA if bad else ExitCode.OK


def _outside(models_dir: Path, file: str) -> Verdict:
    """Return the verdict on an entry that leads out of the folder: what it points to is not looked at."""
    from sda_daemon.conversion.verification import Verdict, VerdictKind

    reason = "its entry names no file of the library; run: sda-daemon models repair"
    return Verdict(str(models_dir / file), VerdictKind.MISSING, reason, "outside")


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


def _print_verdicts(found: Sequence[tuple[ModelEntry, Verdict]], *, everything: bool) -> None:
    if not found:
        note("There are no models to verify.")
        return
    console = make_console()
    columns = [Column("Result", style="bold"), Column("Name", least=18), Column("File", least=18, rank=1), Column("Id")]
    is_long = len(found) > MOST_LINES and not everything
    # Where not all are shown, those that something is wrong with come first.
    ordered = sorted(found, key=lambda pair: not pair[1].is_bad) if is_long else found
    rows = [(verdict.kind.value, entry.name or "-", entry.file_path, entry.model_id[:8]) for entry, verdict in ordered]
    how = "sda-daemon models verify --all"
    print_table(console, columns, rows, how, None if everything else MOST_LINES)
    verdicts = [verdict for _, verdict in ordered]
    lines = [f"sda-daemon: {verdict.path}: {verdict.reason}" for verdict in verdicts if verdict.is_bad]
    print_list(lines, how, everything=everything, to=note)
    counts = {kind: sum(v.kind == kind for v in verdicts) for kind in dict.fromkeys(v.kind for _, v in found)}
    say(f"{counted(len(verdicts), 'model')}: " + ", ".join(f"{n} {kind.value}" for kind, n in counts.items()))
