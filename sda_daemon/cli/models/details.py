"""`sda-daemon models show`: everything that is known of one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sda_daemon.cli.library import entry_document, find_models, open_library
from sda_daemon.cli.options import AsJson, ConfigFile, Model, ModelsDir, examples
from sda_daemon.cli.output import (
    LONGEST_CELL,
    LONGEST_FIELD,
    Column,
    counted,
    human_count,
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
from sda_daemon.wording import LONGEST_VALUE, MOST_LINES, and_more, clean, listed, real, shortened, text_of

if TYPE_CHECKING:
    from rich.console import Console

    from sda_daemon.library import ModelEntry
    from sda_daemon.models.header import ModelDetails

EXAMPLES = examples(
    "sda-daemon models show 1a2ff958",
    "sda-daemon models show 'field-recordings epoch 190' --json | jq .provenance",
)
_BAR = 10
_MOST_STEPS = 10_000
MOST_FIELDS = 50
"""Most values of a config that are shown; real ones have some thirty."""


def show_model(model: Model, as_json: AsJson = False, models_dir: ModelsDir = None, config: ConfigFile = None) -> int:
    """Show everything about one model.

    What it is called, how it was trained, its sliders, and where it came from. Exits with 73 if its file may not
    be read: then only what the index says is shown.
    """
    from sda_daemon.errors import ExitCode, LibraryError, ModelFileError
    from sda_daemon.library.transfer import model_path
    from sda_daemon.models.header import read_model_details
    from sda_daemon.os_errors import explained, remedy

    library = open_library(models_dir, config)
    (entry,) = find_models(library, [model])
    path = library.models_dir / entry.file_path
    details, problem, code = None, "", ExitCode.OK
    try:
        details = read_model_details(model_path(library.models_dir, entry))
    except (ModelFileError, LibraryError) as error:
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
        note(f"sda-daemon: its file cannot be read: {problem}")
        return code
    _print_training(console, entry, details)
    if details.analysis is not None:
        console.print()
        print_sliders(console, details.analysis)
    if details.header.provenance:
        console.print("\nProvenance", style="bold")
        print_fields(console, config_fields(details.header.provenance))
    return code


def document(entry: ModelEntry, path: Path, details: ModelDetails | None, problem: str) -> dict[str, Any]:
    """Return what `--json` prints: the index's 16 fields and what the file says."""
    values = {**entry_document(entry), "path": str(path), "problem": problem or None}
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
    console.print(clean(entry.name or "-", LONGEST_CELL), style="bold")
    if entry.description:
        lines = shortened(entry.description, LONGEST_VALUE).split("\n")
        console.print("\n".join("  " + clean(line) for line in listed(lines, "--json", indent="")))
    dataset = entry.dataset_name or "-"
    for value, text in (
        (entry.dataset_file_count, counted(entry.dataset_file_count, "file")),
        (entry.dataset_total_duration_s, human_duration(entry.dataset_total_duration_s)),
    ):
        dataset += f", {text}" if value and not text.startswith("-") else ""
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
            ("epoch", human_count(entry.training_epochs)),
            ("training loss", human_number(entry.final_train_loss)),
            ("validation loss", human_number(entry.final_val_loss)),
            *config_fields(details.training_config),
        ],
    )
    console.print("\nModel", style="bold")
    print_fields(
        console,
        [
            ("latent dimensions", human_count(details.header.latent_dim or None)),
            ("decoder activation", details.decoder_activation or "-"),
            ("weights", f"{counted(len(details.weights), 'tensor')}, {_grouped(parameters)} numbers"),
            ("spectrogram", config_text(details.spectrogram_config)),
        ],
    )


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _grouped(count: int) -> str:
    return f"{count:,}" if count < 10**15 else human_count(count)


def config_text(value: Any) -> str:
    """Return a value of a config on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {config_text(item)}" for key, item in _first(value.items())) or "-"
    if isinstance(value, list):
        return ", ".join(config_text(item) for item in _first(value)) or "-"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else text_of(value)


def _first(items: Iterable[Any]) -> Iterator[Any]:
    """More of them would not be shown on one line anyway."""
    return islice(items, LONGEST_FIELD)


def config_fields(values: Mapping[str, Any], text: Callable[[str, Any], str] | None = None) -> list[tuple[str, str]]:
    """Return the values of a config as names and texts, of very many the first.

    Args:
        values: the config.
        text: returns the text for a key and its value; by default `config_text`.
    """
    shown = [
        (key.replace("_", " "), text(key, value) if text else config_text(value))
        for key, value in islice(values.items(), MOST_FIELDS)
    ]
    left = len(values) - len(shown)
    return [*shown, ("…", and_more(left, "--json"))] if left else shown


def print_sliders(console: Console, analysis: Mapping[str, Any]) -> None:
    """Print the sliders of an analysis that was read without numpy; odd values show as dashes."""
    count = analysis.get("n_active_components")
    shares = _list(analysis, "explained_variance_ratio")
    total = count if isinstance(count, int) and 0 <= count <= 10_000 else len(shares)
    console.print(f"Sliders ({total})", style="bold")
    if not total:
        return
    rows = []
    first = _item(shares, 0)
    for index in range(total):
        share = _item(shares, index)
        low, high = (_steps(analysis, key, index) for key in ("safe_min", "safe_max"))
        rows.append(
            (
                f"  {index + 1}",
                _label(analysis, index),
                f"{share:.1%}" if share is not None else "-",
                "█" * round(_BAR * _part(share, first)),
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
    print_table(console, columns, rows, "--json", MOST_LINES)


def _part(share: float | None, first: float | None) -> float:
    """Return how long a bar is in comparison with the first one, from 0 to 1."""
    return min(1.0, max(0.0, share / max(first or 1.0, 1e-9))) if share is not None else 0.0


def _list(analysis: Mapping[str, Any], key: str) -> list[Any]:
    value = analysis.get(key)
    return value if isinstance(value, list) else []


def _item(values: list[Any], index: int) -> float | None:
    value = real(values[index]) if index < len(values) else None
    return value if value is not None and math.isfinite(value) else None


def _steps(analysis: Mapping[str, Any], key: str, index: int) -> str:
    """Return an end of a range in whole slider positions."""
    value, step = _item(_list(analysis, key), index), _item(_list(analysis, "step_size"), index)
    steps = analysis.get("n_steps")
    reach = steps // 2 if isinstance(steps, int) and 1 < steps <= _MOST_STEPS else 10
    if value is None or not step:
        return "-"
    position = max(-reach, min(reach, value / step))
    return f"{math.ceil(position) if key.endswith('min') else math.floor(position):+d}"


def _label(analysis: Mapping[str, Any], index: int) -> str:
    default = f"Axis {index + 1}"
    for key in ("component_labels", "suggested_labels"):
        labels = _list(analysis, key)
        label = text_of(labels[index]).strip() if index < len(labels) else ""
        if label not in ("", default):
            return label
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
    return f"{name.replace('_', ' ')} {value:+.2f}" if abs(value) < 1e6 else f"{name} {value:+.2g}"
