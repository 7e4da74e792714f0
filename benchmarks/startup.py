"""How long commands take from their start to their end: none of them waits for torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import milliseconds, percentile, print_table

RUNS = 15
MODELS = 3
LIMIT_S = 0.3


def main() -> None:
    """Run each command several times on a small library."""
    from sda_daemon.demo.checkpoints import write_small_checkpoint
    from sda_daemon.models import ModelMetadata, save_model_from_checkpoint

    command = Path(sys.executable).with_name("sda-daemon")
    with tempfile.TemporaryDirectory(prefix="sda-daemon-startup-") as name:
        base = Path(name)
        for seed in range(MODELS):
            path = write_small_checkpoint(base / "runs" / f"{seed}.pt", seed, with_analysis=True)
            save_model_from_checkpoint(path, ModelMetadata(f"{seed}-id", f"Model {seed}"), base / "models")
        (base / "c.yaml").write_text("models_dir: models\nwatch: [{path: runs}]\n")
        library = ["--models-dir", "models"]
        commands = {
            "--version": ["--version"],
            "--help": ["--help"],
            "events": ["events"],
            "models list": ["models", "list", *library],
            "models list --json": ["models", "list", "--json", *library],
            "models list --config": ["models", "list", "--config", "c.yaml"],
            "models search": ["models", "search", "model", *library],
            "models show": ["models", "show", "Model 1", *library],
            "models path": ["models", "path", "Model 1", *library],
            "models edit": ["models", "edit", "Model 1", "--tag", "x", *library],
            "inspect --no-check": ["inspect", "--no-check", "runs/1.pt"],
        }
        rows = []
        for title, arguments in commands.items():
            times = [_time([str(command), *arguments], base) for _ in range(RUNS)]
            median = percentile(times, 0.5)
            rows.append([title, milliseconds(min(times)), milliseconds(median), milliseconds(percentile(times, 0.95)),
                         "yes" if median < LIMIT_S else "NO"])  # fmt: skip
    print_table(
        f"Commands, from start to end, {RUNS} runs", ["command", "best", "p50", "p95", "p50 under 300 ms"], rows
    )


def _time(command: list[str], folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
