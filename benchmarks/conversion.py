"""How long a drop takes, how fast a backlog goes, and what a plain loop or script would need for the same.

Everything is measured in one run on one machine: only the ratios mean anything.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.table import milliseconds, percentile, print_table

DROPS = 50
COLD_DROPS = 10
BACKLOG = 300


def large_checkpoints(folder: Path, count: int) -> list[Path]:
    """Write checkpoints of 19 MB, as a real training leaves them: default mels, optimizer state; no weights twice."""
    import torch

    from sda_daemon.audio.spectrogram import SpectrogramConfig
    from sda_daemon.demo.checkpoints import checkpoint_dict, small_model, write_checkpoint

    weights = small_model(0, latent_dim=64, columns=6, n_mels=128).state_dict()
    moments = {"state": {0: {"exp_avg": torch.randn(1_600_000)}}, "param_groups": []}
    content = checkpoint_dict(weights, latent_dim=64, epoch=1, spectrogram=SpectrogramConfig(), optimizer_state=moments)
    made = []
    for number in range(count):
        weights["decoder.fc.weight"][0, 0] = number / count
        made.append(write_checkpoint(folder / f"{number}.pt", {**content, "epoch": number}, sidecar=False))
    return made


def _lenient() -> Any:
    """A pickle module for plain `torch.load`s that do not know the application's enum."""
    import pickle
    from types import SimpleNamespace

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return str if module.startswith("small_dataset_audio") else super().find_class(module, name)

    return SimpleNamespace(Unpickler=Unpickler, load=pickle.load, __name__="lenient")


class Daemon:
    """A real daemon process whose events are read as they come."""

    def __init__(self, base: Path, *, settle_s: float, idle_close_s: float = 600.0, workers: int = 2) -> None:
        self.drop = base / "drop"
        self.drop.mkdir(parents=True)
        config = {
            "models_dir": "models",
            "state_dir": "state",
            "watch": [{"path": "drop", "settle_s": settle_s}],
            "workers": workers,
            "conversion": {"idle_close_s": idle_close_s},
        }
        (base / "config.yaml").write_text(json.dumps(config))
        self.models_dir = base / "models"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sda_daemon", "run", "--config", str(base / "config.yaml")],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.wait_for("rescan.finished")

    def wait_for(self, name: str) -> dict[str, Any]:
        """Read events until one of this name."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event
            if event["event"] == "conversion.failed":
                raise SystemExit(line)
        raise SystemExit(f"the daemon ended before {name}")

    def stop(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.communicate()


def measure_drops(base: Path, sources: list[Path]) -> None:
    """From `close()` of a dropped checkpoint to its entry in the index, with the settle time told apart."""
    rows = []
    for title, count, idle_close_s in (("warm worker", DROPS, 600.0), ("cold worker", COLD_DROPS, 0.01)):
        daemon = Daemon(base / title.replace(" ", "-"), settle_s=2.0, idle_close_s=idle_close_s)
        if idle_close_s > 1:
            shutil.copyfile(sources[-1], daemon.drop / "warm-up.pt")
            daemon.wait_for("conversion.succeeded")
        totals, settles = [], []
        for number in range(count):
            target = daemon.drop / f"run{number}.pt"
            with target.open("wb") as file:
                file.write(sources[number].read_bytes())
            closed = time.perf_counter()
            settled = daemon.wait_for("checkpoint.settled")
            daemon.wait_for("conversion.succeeded")
            totals.append(time.perf_counter() - closed)
            settles.append(min(settled["waited_s"], totals[-1]))
            time.sleep(1.0 if idle_close_s < 1 else 0.0)  # lets the workers go
        daemon.stop()
        rest = [total - settle for total, settle in zip(totals, settles, strict=True)]
        rows.append(
            [
                title,
                count,
                *(milliseconds(percentile(totals, share)) for share in (0.5, 0.95)),
                milliseconds(percentile(settles, 0.5)),
                *(milliseconds(percentile(rest, share)) for share in (0.5, 0.95)),
            ]
        )
    header = ["", "drops", "total p50", "total p95", "of it settling p50", "the rest p50", "the rest p95"]
    print_table("From close() of a dropped 19 MB checkpoint to its entry in the index", header, rows)


def plain_loop(sources: list[Path], models_dir: Path) -> float:
    """What a simple program does: load, save, write the index, one after the other, unchecked; return seconds."""
    import torch

    models_dir.mkdir()
    lenient = _lenient()
    index: dict[str, Any] = {"version": 1, "models": {}}
    began = time.perf_counter()
    for number, source in enumerate(sources):
        content = torch.load(source, map_location="cpu", weights_only=False, pickle_module=lenient)
        kept = {key: content[key] for key in ("model_state_dict", "spectrogram_config", "latent_analysis")}
        target = models_dir / f"{number}.sda"
        torch.save({"format": "sda_model", "version": 1, **kept}, target)
        index["models"][str(number)] = {"name": source.stem, "file_path": target.name, "size": target.stat().st_size}
        with (models_dir / "model_library.json").open("w") as file:
            json.dump(index, file, indent=2)
    return time.perf_counter() - began


def daemon_backlog(base: Path, sources: list[Path]) -> float:
    """Seconds from the first conversion's start to the last one's end, for a backlog that is there at the start."""
    for link in (base / "drop").iterdir() if (base / "drop").exists() else []:
        link.unlink()
    daemon = Daemon(base, settle_s=0.1)
    shutil.copyfile(sources[0], daemon.drop / "warm-up.pt")
    daemon.wait_for("conversion.succeeded")
    stage = base / "stage"
    stage.mkdir()
    for number, source in enumerate(sources[1:], start=1):
        (stage / f"{number}.pt").hardlink_to(source)
    stage.rename(daemon.drop / "stage")
    daemon.wait_for("conversion.started")
    began = time.perf_counter()
    for _ in sources[1:]:
        daemon.wait_for("conversion.succeeded")
    took = time.perf_counter() - began
    daemon.stop()
    return took * len(sources) / (len(sources) - 1)


def copy_and_fsync(source: Path, folder: Path, count: int) -> float:
    """Seconds to copy a finished model file `count` times, each made durable."""
    folder.mkdir()
    began = time.perf_counter()
    for number in range(count):
        target = folder / str(number)
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
    return time.perf_counter() - began


SCRIPT = """
import sys
from pathlib import Path
from sda_daemon.models import ModelMetadata, save_model_from_checkpoint
save_model_from_checkpoint(Path(sys.argv[1]), ModelMetadata(name=Path(sys.argv[1]).stem), Path(sys.argv[2]))
"""


def interpreter_per_file(sources: list[Path], models_dir: Path) -> float:
    """Seconds for a fresh Python per file, as a shell script around inotifywait would start."""
    began = time.perf_counter()
    for source in sources:
        subprocess.run([sys.executable, "-c", SCRIPT, str(source), str(models_dir)], check=True)
    return time.perf_counter() - began


def measure_backlog(base: Path, sources: list[Path]) -> None:
    """A backlog, beside a plain loop, a copy, and an interpreter per file."""
    import torch

    torch.set_num_threads(2)
    os.sync()  # here and below: what others wrote before must not slow down who is measured
    loop_s = plain_loop(sources, base / "plain") / len(sources)
    os.sync()
    daemon_s = daemon_backlog(base / "backlog", sources) / len(sources)
    os.sync()
    some = sources[:10]
    script_s = interpreter_per_file(some, base / "script") / len(some)
    model = next((base / "backlog" / "models").glob("*.sda"))
    copy_s = copy_and_fsync(model, base / "copies", 50) / 50
    rows = [
        [title, milliseconds(seconds), f"{1 / seconds:.1f}", f"{loop_s / seconds:.2f} x"]
        for title, seconds in (
            ("plain loop: torch.load, torch.save, index", loop_s),
            ("the daemon, 2 workers: checked, digested, fsynced", daemon_s),
            ("a fresh interpreter per file (10 files)", script_s),
            ("cp and fsync of the same model file", copy_s),
        )
    ]
    print_table(
        f"A backlog of {len(sources)} checkpoints of {sources[0].stat().st_size / 1e6:.0f} MB",
        ["", "per checkpoint", "per second", "speed beside the plain loop"],
        rows,
    )


def measure_rescan(base: Path) -> None:
    """A rescan of 100,000 known files; no content is touched."""
    from sda_daemon.intake.scan import CheckpointNames, CheckpointScan

    folder = base / "many"
    for run in range(100):
        (folder / str(run)).mkdir(parents=True)
        for number in range(1000):
            (folder / str(run) / f"{number}.pt").touch()
    began = time.perf_counter()
    count = sum(1 for _ in CheckpointScan(str(folder), str(folder), CheckpointNames(("*.pt",))))
    listed = time.perf_counter() - began
    from sda_daemon.state.ledger import Ledger
    from sda_daemon.state.policy import LedgerRow, Status

    ledger = Ledger(base / "ledger")
    scan = CheckpointScan(str(folder), str(folder), CheckpointNames(("*.pt",)))
    ledger.put(LedgerRow(path, str(folder), signature, Status.DONE, 1) for path, signature in scan)
    began = time.perf_counter()
    known = ledger.contents_of_root(str(folder))
    scan = CheckpointScan(str(folder), str(folder), CheckpointNames(("*.pt",)))
    news = sum(known.pop(path) != (s.size_bytes, s.mtime_ns, s.inode) for path, s in scan)
    whole = time.perf_counter() - began
    ledger.close()
    assert news == 0
    print_table(
        f"A rescan of {count:,} files",
        ["", "time"],
        [["listing", milliseconds(listed)], ["listing and comparing with the ledger", milliseconds(whole)]],
    )


def main() -> None:
    """Run all of it."""
    with tempfile.TemporaryDirectory(prefix="sda-daemon-bench-") as name:
        base = Path(name)
        (base / "sources").mkdir()
        sources = large_checkpoints(base / "sources", BACKLOG)
        measure_drops(base / "drops", sources)
        measure_backlog(base, sources)
        measure_rescan(base)


if __name__ == "__main__":
    main()
