"""The library against what a simple implementation does, in one run on one machine.

The simple one writes the whole index with `json.dump(indent=2)` for each change, loads a whole file with
`torch.load` to learn of an orphan, and builds a model, random weights first, before it loads its own.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sda_daemon.demo.checkpoints import made_up_analysis, small_model
from sda_daemon.library import ModelEntry, ModelLibrary
from sda_daemon.models import ConvVAE, ModelMetadata, load_model, save_model

ENTRIES = 10_000
ORPHANS = 100
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table; `limit` is what must hold."""

    what: str
    ours: str
    plain: str
    ratio: str
    limit: str
    holds: bool


def made_up_entry(number: int) -> ModelEntry:
    """An entry like real ones."""
    metadata = ModelMetadata(
        model_id=f"{number:08x}-1c4e-4a6b-9c3f-0123456789ab",
        name=f"Plucked strings {number}, epoch {number % 200}",
        description=f"Epoch {number % 200}, validation loss {1 / (number + 1):.4f}, recorded in the old hall",
        dataset_name=f"strings {number % 50}",
        dataset_file_count=120 + number,
        dataset_total_duration_s=3600.5,
        training_date="2026-05-04T03:02:01+00:00",
        save_date=f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}T03:02:01.123+00:00",
        training_epochs=number % 200,
        final_train_loss=0.1234567,
        final_val_loss=0.2345678,
        tags=["strings", f"hall-{number % 7}"],
        has_analysis=True,
        n_active_components=19,
    )
    return ModelEntry.from_metadata(metadata, f"plucked_strings_{number}.sda", 1)


class PlainLibrary:
    """What one would write first: correct as long as nothing goes wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "model_library.json"
        self.models: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            self.models = json.loads(self.path.read_text())["models"]

    def add_entry(self, entry: ModelEntry) -> None:
        """Add one and write everything, durably."""
        self.models[entry.model_id] = entry.to_dict()
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w") as file:
            json.dump({"version": 1, "models": self.models}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def adopt(self) -> int:
        """Load every file without an entry and add it."""
        known = {values["file_path"] for values in self.models.values()}
        adopted = 0
        for path in sorted(self.folder.glob("*.sda")):
            if path.name not in known:
                content = torch.load(path, map_location="cpu", weights_only=False)
                metadata = ModelMetadata.from_dict(content["metadata"])
                self.add_entry(ModelEntry.from_metadata(metadata, path.name, path.stat().st_size))
                adopted += 1
        return adopted


def seconds(action: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The median time of an action."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def shown(value_s: float) -> str:
    """A time as people read it."""
    return f"{value_s * 1000:.1f} ms" if value_s < 1 else f"{value_s:.2f} s"


def compare(what: str, ours_s: float, plain_s: float, at_least: float) -> Result:
    """A line for something that must be so many times faster."""
    ratio = plain_s / ours_s
    return Result(what, shown(ours_s), shown(plain_s), f"{ratio:.1f} x", f">= {at_least:g} x", ratio >= at_least)


def below(what: str, ours_s: float, limit_s: float, plain_s: float | None = None) -> Result:
    """A line for something that must take less than a time."""
    plain = "" if plain_s is None else shown(plain_s)
    ratio = "" if plain_s is None else f"{plain_s / ours_s:.1f} x"
    return Result(what, shown(ours_s), plain, ratio, f"< {shown(limit_s)}", ours_s < limit_s)


def measure_index(base: Path) -> list[Result]:
    """Changing, opening and searching an index of 10,000 entries."""
    entries = [made_up_entry(number) for number in range(ENTRIES)]
    ours_dir, plain_dir = base / "ours", base / "plain"
    library = ModelLibrary(ours_dir)
    library.add_entries(entries)
    plain_dir.mkdir()
    plain = PlainLibrary(plain_dir)
    plain.models = {entry.model_id: entry.to_dict() for entry in entries}
    numbers = iter(range(ENTRIES, ENTRIES + 10_000))
    added = seconds(lambda: library.add_entry(made_up_entry(next(numbers))), 20)
    added_plainly = seconds(lambda: plain.add_entry(made_up_entry(next(numbers))))
    return [
        compare("add_entry to 10,000 entries", added, added_plainly, 10),
        below("open 10,000 entries", seconds(lambda: ModelLibrary(ours_dir), 9), 0.150,
              seconds(lambda: PlainLibrary(plain_dir))),
        below("search by text, 10,000 entries", seconds(lambda: library.search("strings 77"), 20), 0.010),
        below("search by tag, 10,000 entries", seconds(lambda: library.search(tags=["HALL-3"]), 20), 0.010),
        below("search that finds all 10,000", seconds(lambda: library.search("hall"), 20), 0.010),
    ]  # fmt: skip


def measure_quiet_repair(base: Path) -> list[Result]:
    """A repair of 10,000 files that finds nothing to do: by the same process, and by one that starts anew."""
    folder = base / "quiet"
    folder.mkdir()
    for number in range(ENTRIES):
        (folder / f"plucked_strings_{number}.sda").write_bytes(b"x")
    time.sleep(0.1)  # files as old as their index are looked at once more
    library = ModelLibrary(folder)
    library.add_entries(made_up_entry(number) for number in range(ENTRIES))
    assert library.repair_index() == (0, 0)
    same = seconds(library.repair_index, 9)
    opened = ModelLibrary(folder)
    assert opened.repair_index() == (0, 0)
    anew = seconds(opened.repair_index, 9)
    (folder / ".model_library.scan.json").unlink()
    first = ModelLibrary(folder)
    without_cache = seconds(first.repair_index, 1)
    return [
        below("repair of 10,000 files, nothing to do", same, 0.150),
        below("… in a later process", anew, 0.150),
        below("… without its cache", without_cache, 0.150 * 2),
    ]


def bytes_read() -> int:
    """Bytes that this process has asked the kernel to read so far."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io has no rchar")


def measure_adoption(base: Path) -> list[Result]:
    """Adopting 100 files of 12 MB that have no entry."""
    folder = base / "orphans"
    model = small_model(latent_dim=64, columns=6, n_mels=128)
    first = save_model(model, {}, {"kl_weight_max": 0.01}, ModelMetadata(name="strings"), folder, made_up_analysis(64))
    content = torch.load(first, weights_only=False)
    first.unlink()
    for number in range(ORPHANS):
        content["metadata"] = {**content["metadata"], "model_id": f"id{number}", "name": f"strings {number}"}
        torch.save(content, folder / f"strings_{number}.sda")
    total = sum(path.stat().st_size for path in folder.glob("*.sda"))
    times, read = [], 0
    for _ in range(3):
        for cache in folder.glob("*model_library*"):
            cache.unlink()
        library = ModelLibrary(folder)
        before, began = bytes_read(), time.perf_counter()
        assert library.repair_index() == (0, ORPHANS)
        times.append(time.perf_counter() - began)
        read = bytes_read() - before
    ours = statistics.median(times)
    (folder / "model_library.json").unlink()
    plain = seconds(lambda: PlainLibrary(folder).adopt(), 1)
    share = 100 * read / total
    return [
        compare(f"adopt {ORPHANS} orphans of {total / ORPHANS / 1e6:.1f} MB", ours, plain, 10),
        Result("… bytes read", f"{read / 1e6:.1f} MB", f"{total / 1e6:.0f} MB", f"{share:.2f} %", "< 1 %", share < 1),
    ]


def load_plainly(path: Path) -> ConvVAE:
    """What one would write first."""
    content = torch.load(path, map_location="cpu", weights_only=False)
    weights = content["model_state_dict"]
    model = ConvVAE(latent_dim=content["latent_dim"])
    model.encoder._init_linear(weights["encoder.fc_mu.weight"].shape[1])
    model.decoder._init_linear((8, weights["decoder.fc.weight"].shape[0] // 256 // 8))
    model.load_state_dict(weights)
    return model.eval()


def measure_loading(base: Path) -> list[Result]:
    """Loading a model, everything in it checked, against `torch.load` and building it."""
    model = small_model(latent_dim=64, columns=6, n_mels=128)
    path = save_model(model, {}, {}, ModelMetadata(name="strings"), base / "load", made_up_analysis(64))
    load_model(path), load_plainly(path)
    ours, plain = [], []
    for _ in range(15):  # in turns, so that a busy moment meets both
        ours.append(seconds(lambda: load_model(path), 1))
        plain.append(seconds(lambda: load_plainly(path), 1))
    return [compare("load_model, 12.6 MB", statistics.median(ours), statistics.median(plain), 1)]


def run() -> list[Result]:
    """Measure everything in a temporary folder."""
    base = Path(tempfile.mkdtemp(prefix="sda-bench-library-"))
    try:
        return [*measure_index(base), *measure_quiet_repair(base), *measure_adoption(base), *measure_loading(base)]
    finally:
        shutil.rmtree(base)


def table(results: list[Result]) -> str:
    """The results as aligned columns."""
    rows = [("", "ours", "plain", "ratio", "must be", "")]
    rows += [(r.what, r.ours, r.plain, r.ratio, r.limit, "ok" if r.holds else "MISSED") for r in results]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = []
    for row in rows:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first, *(cell.strip().rjust(len(cell)) for cell in others)]))
    return "\n".join(lines)


def main() -> int:
    """Print the table; 0 if every limit holds."""
    logging.getLogger("sda_daemon").setLevel(logging.ERROR)  # the plain reference tells nothing either
    results = run()
    print(table(results))
    return 0 if all(result.holds for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
