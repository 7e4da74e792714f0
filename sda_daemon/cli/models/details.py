"""`sda-daemon models show`: everything that is known of one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sda_daemon.cli.library import find_models, open_library
from sda_daemon.cli.options import AsJson, ConfigFile, Model, ModelsDir, examples
from sda_daemon.cli.output import (
    Column,
    clean,
    counted,
    human_date,
    human_duration,
    human_number,
    human_size,
    make_console,
    note,
    print_fields,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from rich.console import Console

    from sda_daemon.library import ModelEntry
    from sda_daemon.models.header import ModelDetails

EXAMPLES = examples(
    "sda-daemon models show 1a2ff958",
    "sda-daemon models show 'field-recordings epoch 190' --json | jq .provenance",
)
_BAR = 10


def show_model(model: Model, as_json: AsJson = False, models_dir: ModelsDir = None, config: ConfigFile = None) -> int:
    """Show everything about one model.

    What it is called, how it was trained, its sliders, and where it came from. Exits with 73 if its file may not
    be read: then only what the index says is shown.
    """
    from sda_daemon.errors import ExitCode, ModelFileError, explained, remedy
    from sda_daemon.models.header import read_model_details

    library = open_library(models_dir, config)
    (entry,) = find_models(library, [model])
    path = library.models_dir / entry.file_path
    details, problem, code = None, "", ExitCode.OK
    try:
        details = read_model_details(path)
    except ModelFileError as error:
        problem = str(error)
    except OSError as error:
        problem = explained(error)
        code = ExitCode.CANNOT_WRITE if remedy(error) else code
    if as_json:
        print_json(document(entry, path, details, problem))
        return code
    console = make_console()
    _print_description(console, entry, path)
    if details is None:
        note(f"sda-daemon: its file cannot be read: {clean(problem)}")
        return code
    _print_training(console, entry, details)
    if details.analysis is not None:
        console.print()
        print_sliders(console, details.analysis)
    if details.header.provenance:
        console.print("\nProvenance", style="bold")
        print_fields(console, [(key.replace("_", " "), str(value)) for key, value in details.header.provenance.items()])
    return code


def document(entry: ModelEntry, path: Path, details: ModelDetails | None, problem: str) -> dict[str, Any]:
    """Return what `--json` prints: the index's 16 fields and what the file says."""
    values = {**entry.to_dict(), "path": str(path), "problem": problem or None}
    if details is None:
        more: dict[str, Any] = dict.fromkeys(
            ("latent_dim", "decoder_activation", "spectrogram_config", "training_config", "analysis", "provenance")
        )
        return {**values, **more, "weights": []}
    return {
        **values,
        "latent_dim": details.header.latent_dim,
        "decoder_activation": details.decoder_activation or None,
        "spectrogram_config": details.spectrogram_config,
        "training_config": details.training_config,
        "analysis": details.analysis,
        "provenance": details.header.provenance,
        "weights": [
            {"name": name, "dtype": outline.dtype, "shape": list(outline.shape), "size_bytes": outline.size_bytes}
            for name, outline in details.weights.items()
        ],
    }


def _print_description(console: Console, entry: ModelEntry, path: Path) -> None:
    console.print(clean(entry.name), style="bold")
    if entry.description:
        console.print("\n".join("  " + clean(line) for line in entry.description.split("\n")))
    dataset = entry.dataset_name or "-"
    if entry.dataset_file_count:
        dataset += f", {counted(entry.dataset_file_count, 'file')}"
    if entry.dataset_total_duration_s:
        dataset += f", {human_duration(entry.dataset_total_duration_s)}"
    print_fields(
        console,
        [
            ("id", entry.model_id),
            ("file", str(path)),
            ("size", human_size(entry.file_size_bytes)),
            ("saved", human_date(entry.save_date)),
            ("tags", ", ".join(entry.tags) or "-"),
            ("dataset", dataset),
        ],
    )


def _print_training(console: Console, entry: ModelEntry, details: ModelDetails) -> None:
    parameters = sum(_count(outline.shape) for outline in details.weights.values())
    console.print("\nTraining", style="bold")
    print_fields(
        console,
        [
            ("date", human_date(entry.training_date)),
            ("epoch", str(entry.training_epochs)),
            ("training loss", human_number(entry.final_train_loss)),
            ("validation loss", human_number(entry.final_val_loss)),
            *((key.replace("_", " "), config_text(value)) for key, value in details.training_config.items()),
        ],
    )
    console.print("\nModel", style="bold")
    print_fields(
        console,
        [
            ("latent dimensions", str(details.header.latent_dim or "-")),
            ("decoder activation", details.decoder_activation or "-"),
            ("weights", f"{counted(len(details.weights), 'tensor')}, {parameters:,} numbers"),
            ("spectrogram", config_text(details.spectrogram_config)),
        ],
    )


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def config_text(value: Any) -> str:
    """Return a value of a config on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {config_text(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(config_text(item) for item in value) or "-"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def print_sliders(console: Console, analysis: Mapping[str, Any]) -> None:
    """Print the sliders of an analysis that was read without numpy; odd values show as dashes."""
    count = analysis.get("n_active_components")
    shares = _list(analysis, "explained_variance_ratio")
    total = count if isinstance(count, int) and 0 <= count <= 10_000 else len(shares)
    console.print(f"Sliders ({total})", style="bold")
    if not total:
        return
    rows = []
    for index in range(total):
        share = _item(shares, index)
        low, high = (_steps(analysis, key, index) for key in ("safe_min", "safe_max"))
        rows.append(
            (
                f"  {index + 1}",
                _label(analysis, index),
                f"{share:.1%}" if share is not None else "-",
                "█" * max(0, min(_BAR, round((share or 0.0) * _BAR / max(_item(shares, 0) or 1.0, 1e-9)))),
                f"{low} … {high}",
                _strongest(analysis, index),
            )
        )
    columns = [
        Column("  #"),
        Column("Label", least=10),
        Column("Variance", right=True),
        Column("", rank=2, style="green"),
        Column("Safe range"),
        Column("Goes with", least=12, rank=1),
    ]
    print_table(console, columns, rows)


def _list(analysis: Mapping[str, Any], key: str) -> list[Any]:
    value = analysis.get(key)
    return value if isinstance(value, list) else []


def _item(values: list[Any], index: int) -> float | None:
    value = values[index] if index < len(values) else None
    return float(value) if isinstance(value, int | float) else None


def _steps(analysis: Mapping[str, Any], key: str, index: int) -> str:
    """Return an end of a range in whole slider positions."""
    value, step = _item(_list(analysis, key), index), _item(_list(analysis, "step_size"), index)
    steps = analysis.get("n_steps")
    reach = steps // 2 if isinstance(steps, int) and steps > 1 else 10
    if value is None or not step or math.isnan(value):
        return "-"
    position = -(-value // step) if key.endswith("min") else value // step
    return f"{int(max(-reach, min(reach, position))):+d}"


def _label(analysis: Mapping[str, Any], index: int) -> str:
    default = f"Axis {index + 1}"
    for key in ("component_labels", "suggested_labels"):
        labels = _list(analysis, key)
        if index < len(labels) and str(labels[index]).strip() not in ("", default):
            return str(labels[index]).strip()
    return default


def _strongest(analysis: Mapping[str, Any], index: int) -> str:
    """Return the audio feature that a slider goes with most."""
    features = analysis.get("feature_correlations")
    if not isinstance(features, Mapping):
        return "-"
    found = [(value, str(name)) for name, row in features.items() if isinstance(row, list)
             and (value := _item(row, index)) is not None]  # fmt: skip
    if not found:
        return "-"
    value, name = max(found, key=lambda pair: abs(pair[0]))
    return f"{name.replace('_', ' ')} {value:+.2f}"
