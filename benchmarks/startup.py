"""How long commands take from their start to their end, and how much CPU time: none of them waits for torch.

On a machine that is busy with something else the CPU time tells more than the clock.
"""

from __future__ import annotations

import resource
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
            measured = [_time([str(command), *arguments], base) for _ in range(RUNS)]
            times, cpu = [wall for wall, _ in measured], [used for _, used in measured]
            quantiles = [milliseconds(value) for value in (min(times), percentile(times, 0.5), percentile(times, 0.95))]
            rows.append([title, *quantiles, milliseconds(percentile(cpu, 0.5)), percentile(times, 0.5) < LIMIT_S])
    print_table(
        f"Commands, from start to end, {RUNS} runs", ["command", "best", "p50", "p95", "CPU p50", "under 300 ms"], rows
    )


def _time(command: list[str], folder: Path) -> tuple[float, float]:
    """Return wall and CPU time of a command, in seconds."""
    used = _cpu_s()
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began, _cpu_s() - used


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
