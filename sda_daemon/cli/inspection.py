"""`sda-daemon inspect`: what is in a file, without running anything of it."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sda_daemon.cli.options import ANY_PATH, AsJson, examples
from sda_daemon.cli.output import (
    LONGEST_CELL,
    Column,
    counted,
    human_count,
    human_date,
    human_number,
    human_size,
    make_console,
    print_fields,
    print_json,
    print_table,
    print_wrapped,
)
from sda_daemon.errors import ExitCode
from sda_daemon.wording import clean, listed

if TYPE_CHECKING:
    from rich.console import Console

    from sda_daemon.conversion.verification import Verdict
    from sda_daemon.models.inspection import Inspection

EXAMPLES = examples(
    "sda-daemon inspect checkpoint_epoch0190.pt",
    "sda-daemon inspect --no-check models/rain.sda    at once, without trying to open it",
    "sda-daemon inspect x.pt --json | jq .names",
)
_MAX_CHART_WIDTH = 100
_MOST_WEIGHTS = 200
"""Most tensors that are listed; this kind of model has some sixty."""
_INF = float("inf")


def inspect_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A checkpoint or a model file.", show_default=False, **ANY_PATH)
    ],
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Try in a process of its own whether it would convert or open.")
    ] = True,
    as_json: AsJson = False,
) -> int:
    """Show what is in a checkpoint or a model, and why it is refused.

    Nothing in the file is executed. Exits with 65 if the file cannot be used.
    """
    from sda_daemon.conversion.verification import inspect_apart

    found = inspect_apart(file)
    verdict = _check(found) if check else None
    is_bad = (verdict is not None and verdict.is_bad) or bool(found.problems)
    if as_json:
        print_json(document(found, verdict))
    else:
        _print(make_console(), found, verdict)
    return ExitCode.BAD_DATA if is_bad else ExitCode.OK


def _check(found: Inspection) -> Verdict:
    """Read the file the way a conversion, or whoever loads a model, does."""
    from sda_daemon.conversion.verification import check_checkpoint, check_files, check_model
    from sda_daemon.models.contents import FileKind

    (verdict,) = check_files(check_model if found.kind is FileKind.MODEL else check_checkpoint, [found.path])
    return verdict


def document(found: Inspection, verdict: Verdict | None) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "path": found.path,
        "size_bytes": found.size_bytes,
        "kind": found.kind.value,
        "container": found.container,
        "version": found.version,
        "parts": found.parts,
        "verdict": verdict
        and {
            "result": verdict.kind.value,
            "cause": verdict.cause or None,
            "reason": verdict.reason or None,
            "weights_digest": verdict.weights_digest or None,
        },
        "problems": found.problems,
        "left_out": found.left_out,
        "names": {name: kind.value for name, kind in sorted(found.names.items())},
        "keys": [{"key": key.key, "what": key.what, "size_bytes": key.size_bytes} for key in found.keys],
        "weights": [
            {"name": name, "dtype": outline.dtype, "shape": list(outline.shape), "size_bytes": outline.size_bytes}
            for name, outline in found.weights.items()
        ],
        "numbers": found.numbers,
        "training_config": found.training_config,
        "spectrogram_config": found.spectrogram_config,
        "metadata": found.metadata,
        "provenance": found.provenance,
        "analysis": found.analysis,
        "curves": {name: [list(point) for point in points] for name, points in found.curves.items()},
    }


def _print(console: Console, found: Inspection, verdict: Verdict | None) -> None:
    from sda_daemon.cli.models.details import MOST_FIELDS, config_fields, print_sliders

    _print_head(console, found, verdict)
    _print_names(console, found)
    if found.keys:
        _heading(console, f"Keys ({len(found.keys)})")
        rows = [(f"  {key.key}", key.what, human_size(key.size_bytes) if key.size_bytes else "") for key in found.keys]
        columns = [Column("  Key", least=20), Column("What", least=20), Column("Tensors", right=True)]
        print_table(console, columns, rows, "--json", MOST_FIELDS)
    for title, values in (
        ("Metadata", found.metadata),
        ("Provenance", found.provenance),
        ("Training", {**{key: _number_text(value) for key, value in found.numbers.items()}, **found.training_config}),
        ("Spectrogram", found.spectrogram_config),
    ):
        if values:
            _heading(console, title)
            print_fields(console, config_fields(values, _value_text))
    _print_curves(console, found)
    if found.analysis is not None:
        console.print()
        print_sliders(console, found.analysis)
    if found.weights:
        total = human_size(sum(outline.size_bytes for outline in found.weights.values()))
        _heading(console, f"Weights ({counted(len(found.weights), 'tensor')}, {total})")
        _print_weights(console, found)


def _heading(console: Console, text: str) -> None:
    console.print(f"\n{text}", style="bold")


def _print_head(console: Console, found: Inspection, verdict: Verdict | None) -> None:
    console.print(clean(found.path), style="bold")
    version = "" if found.version is None else f", version {human_count(found.version)}"
    parts = f", {counted(found.parts, 'part')}" if found.parts else ""
    container = f" ({found.container}{parts})" if found.container else ""
    lines = [("kind", f"{found.kind.value}{version}{container}"),
             ("size", human_size(found.size_bytes))]  # fmt: skip
    said = "" if verdict is None else _reason(found, verdict)
    problems = [problem for problem in found.problems if problem != said]
    lines += [("problem", problem) for problem in listed(problems, "--json", indent="")]
    lines += [("not shown", what) for what in listed(found.left_out, "--json", indent="")]
    print_fields(console, lines)
    if verdict is not None:
        style, text = _verdict_text(found, verdict)
        print_wrapped(console, text, style)


def _reason(found: Inspection, verdict: Verdict) -> str:
    """Return a verdict's reason as a sentence about "it"."""
    return verdict.reason.replace(f"{found.path} ", "it ", 1).replace(f"{found.path}: ", "", 1)


def _verdict_text(found: Inspection, verdict: Verdict) -> tuple[str, str]:
    from sda_daemon.conversion.verification import VerdictKind
    from sda_daemon.models.contents import FileKind

    is_model = found.kind is FileKind.MODEL
    reason = _reason(found, verdict)
    match verdict.kind:
        case VerdictKind.OK:
            return "green", "It opens, and its weights are as recorded." if is_model else "It would convert."
        case VerdictKind.UNRECORDED:
            return "green", "It opens; no digest of its weights was recorded."
        case VerdictKind.CHANGED:
            return "red", f"It opens, but {reason}."
        case _:
            return "red", f"{'It does not open' if is_model else 'It would be refused'}: {reason}"


def _print_names(console: Console, found: Inspection) -> None:
    from sda_daemon.torchfile.globals import NameKind

    if not found.names:
        return
    lines = [
        ("refused", found.names_of(NameKind.REFUSED), "red"),
        ("foreign, replaced by stand-ins", found.names_of(NameKind.FOREIGN), "yellow"),
        ("of torch and numpy", found.names_of(NameKind.TORCH) + found.names_of(NameKind.NUMPY), ""),
        ("harmless", found.names_of(NameKind.SAFE), ""),
    ]
    _heading(console, f"Names that it would import ({len(found.names)})")
    for title, names, style in lines:
        if names:
            console.print(f"  {title}:", style=style or "dim")
            for name in listed(names, "--json", indent=""):
                console.print(f"    {clean(name, LONGEST_CELL)}", style=style)


def _print_weights(console: Console, found: Inspection) -> None:
    from sda_daemon.models.inspection import shape_text

    rows = [
        (f"  {name}", shape_text(outline.shape), outline.dtype, human_size(outline.size_bytes))
        for name, outline in found.weights.items()
    ]
    columns = [Column("  Name", least=20), Column("Shape"), Column("Type", rank=1), Column("Size", right=True)]
    print_table(console, columns, rows, "--json", _MOST_WEIGHTS)


def _number_text(value: float) -> str:
    is_infinite = isinstance(value, float) and value == _INF
    return "infinite (training was cancelled in mid-epoch)" if is_infinite else human_number(value)


def _value_text(key: str, value: Any) -> str:
    from sda_daemon.cli.models.details import config_text

    if key.endswith("_date") and isinstance(value, str):
        return human_date(value)
    return config_text(value)


def _print_curves(console: Console, found: Inspection) -> None:
    from sda_daemon.cli.chart import draw_curves

    # An epoch may be anything; only along finite numbers a curve can be drawn.
    finite = {name: [point for point in points if math.isfinite(point[0])] for name, points in found.curves.items()}
    curves = {name: points for name, points in finite.items() if len(points) > 1}
    if not curves:
        return
    is_ascii = not (sys.stdout.encoding or "ascii").lower().startswith("utf")
    names = {"train_loss": "training loss", "val_loss": "validation loss"}
    lines = draw_curves(
        {names.get(name, name): points for name, points in curves.items()},
        width=min(console.width, _MAX_CHART_WIDTH) - 2,
        ascii_only=is_ascii,
    )
    if lines:
        _heading(console, "Loss by epoch")
        for line in lines:
            console.print(f"  {clean(line)}")
