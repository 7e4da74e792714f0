"""`sda-daemon convert`: checkpoints to models at once, without a daemon."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sda_daemon.errors import ExitCode


def convert(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CHECKPOINT...", help="Checkpoints to convert.")],
    models_dir: Annotated[Path, typer.Option("--models-dir", metavar="DIR", help="The library's folder.")],
) -> int:
    """Convert checkpoints into models of a library, now and without a daemon."""
    from sda_daemon.conversion.job import ConversionJob, Failed
    from sda_daemon.conversion.pool import WorkerPool
    from sda_daemon.conversion.publish import Action, publish
    from sda_daemon.files import work_folder
    from sda_daemon.intake.probe import look
    from sda_daemon.library import ModelLibrary
    from sda_daemon.settings.schema import MetadataSettings

    library = ModelLibrary(models_dir)
    failures = 0
    pool = WorkerPool(workers=1, time_limit_s=300.0, memory_limit=None)
    try:
        with work_folder(models_dir) as workspace:
            for number, checkpoint in enumerate(checkpoints):
                path = checkpoint.absolute()
                signature = look(str(path))
                if signature is None:
                    print(f"sda-daemon: there is no file {checkpoint}", file=sys.stderr)
                    failures += 1
                    continue
                job = ConversionJob(
                    str(path), signature, "", str(models_dir), str(workspace), f"{number}.tmp", MetadataSettings()
                )
                outcome = pool.submit(job).result()
                if isinstance(outcome, Failed):
                    print(f"sda-daemon: {outcome.message}", file=sys.stderr)
                    failures += 1
                    continue
                (published,) = publish(library, [outcome])
                entry = published.entry
                if entry is not None:
                    verb = "is already" if published.action is Action.DUPLICATE else published.action.value
                    typer.echo(f"{checkpoint}: {verb} {entry.name!r} ({entry.file_path}, {entry.model_id[:8]})")
    finally:
        pool.close()
    return ExitCode.FAILED if failures else ExitCode.OK
