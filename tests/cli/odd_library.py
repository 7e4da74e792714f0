"""An index in which nearly every value is odd, as other programs, other versions and accidents leave them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

HUGE = 10**400
"""Beyond all floats."""
ODD: dict[str, dict[str, Any]] = {
    "year-1": {"save_date": "0001-01-01T00:00:00+14:00", "training_date": "0001-01-01"},
    "year-9999": {"save_date": "9999-12-31T23:59:59-14:00", "training_date": "9999-12-31T23:59:59-14:00"},
    "year-12026": {"save_date": "12026-01-01", "training_date": "+12026-01-01T00:00:00"},
    "no-date": {"save_date": "yesterday", "training_date": "0"},
    "surrogates": {"name": "R\ud800in \udcff", "description": "\udfff", "tags": ["\ud800", "a"],
                   "dataset_name": "\ud9ff"},
    "control": {"name": "\x1b[2Jevil\x07", "description": "a\x00b\nc\x9b31m", "tags": ["\u202e"],
                "save_date": "\x1b[31m"},
    "huge": {"file_size_bytes": HUGE, "training_epochs": HUGE, "final_val_loss": HUGE, "final_train_loss": -HUGE,
             "dataset_total_duration_s": HUGE, "n_active_components": HUGE, "dataset_file_count": HUGE,
             "has_analysis": True},
    "no-numbers": {"file_size_bytes": math.nan, "training_epochs": math.nan, "final_val_loss": math.nan,
                   "dataset_total_duration_s": math.nan, "n_active_components": math.inf,
                   "dataset_file_count": -math.inf, "has_analysis": math.nan},
    "negative": {"file_size_bytes": -1, "training_epochs": -2, "final_val_loss": -3, "dataset_file_count": -4,
                 "dataset_total_duration_s": -1e300},
    "fractions": {"file_size_bytes": 1.5, "training_epochs": 7.25, "dataset_file_count": 2.5,
                  "n_active_components": 0.5, "has_analysis": 1},
    "nothing": dict.fromkeys(
        ("name", "description", "dataset_name", "training_date", "save_date", "file_size_bytes", "training_epochs",
         "final_val_loss", "final_train_loss", "dataset_total_duration_s", "dataset_file_count",
         "n_active_components", "has_analysis", "tags")),
    "empty": {"name": "", "description": "", "dataset_name": "", "training_date": "", "save_date": "", "tags": [""]},
    "long": {"name": "n" * 10**6, "description": "d" * 10**6, "dataset_name": "s" * 10**6, "save_date": "2" * 10**6,
             "tags": ["t"] * 10_000},
    "lone-file": {"file_path": "\ud800.sda"},
    "bytes-file": {"file_path": "\udcff.sda"},
    "nul-file": {"file_path": "a\0b.sda"},
    "endless-file": {"file_path": "x" * 100_000 + ".sda"},
    "i\ud800d": {},
}  # fmt: skip
"""What differs from a sound entry, by its id."""
OUTSIDE = ("lone-file", "nul-file")
"""Those that name what no file can be called: they are foreign, stay in the index, and are not listed."""


def add_odd_entries(models: Path) -> None:
    """Put the odd entries into a library's index, each like a sound one but for its odd values."""
    index = models / "model_library.json"
    data = json.loads(index.read_bytes())
    sound = {**next(iter(data["models"].values())), "name": "Odd", "description": "", "tags": []}
    for model_id, values in ODD.items():
        file = "".join(char for char in model_id if char.isascii())
        data["models"][model_id] = {**sound, "model_id": model_id, "file_path": f"{file}.sda", **values}
    index.write_text(json.dumps(data))
