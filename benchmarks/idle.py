"""What an idle daemon costs: CPU time, memory, wake-ups, over a minute."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.conversion import Daemon
from benchmarks.table import print_table

IDLE_S = 60.0


def main() -> None:
    """Convert one checkpoint, let the workers go, then watch the daemon do nothing."""
    from sda_daemon.demo.checkpoints import write_small_checkpoint

    with tempfile.TemporaryDirectory(prefix="sda-daemon-idle-") as name:
        base = Path(name)
        daemon = Daemon(base / "daemon", settle_s=0.5, idle_close_s=0.5)
        write_small_checkpoint(base / "x.pt", 1).rename(daemon.drop / "x.pt")
        daemon.wait_for("conversion.succeeded")
        time.sleep(5.0)
        main_process = psutil.Process(daemon.process.pid)
        processes = [main_process, *main_process.children(recursive=True)]
        before = [(process.cpu_times(), process.num_ctx_switches()) for process in processes]
        time.sleep(IDLE_S)
        rows = []
        for process, (times, switches) in zip(processes, before, strict=True):
            now, switched = process.cpu_times(), process.num_ctx_switches()
            rows.append(
                [
                    "daemon" if process == main_process else " ".join(process.cmdline())[-60:],
                    f"{(now.user + now.system - times.user - times.system) * 1000:.0f} ms",
                    f"{process.memory_info().rss / 1e6:.1f} MB",
                    switched.voluntary - switches.voluntary,
                    process.num_threads(),
                ]
            )
        daemon.stop()
    print_table(f"{IDLE_S:.0f} s of idleness", ["process", "CPU time", "RSS", "wake-ups", "threads"], rows)


if __name__ == "__main__":
    main()
