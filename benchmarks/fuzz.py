"""`make fuzz`: hands mutated and hostile files to every reader and measures what each costs.

The exit code is 0 if there was no crash, no hang, no error but the program's own, nothing that a file set off, and
every file was judged within the limits of its size.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.judging import (
    READERS,
    Judge,
    Reading,
    breaks_a_limit,
    least,
    memory_limit_bytes,
    time_limit_s,
)
from benchmarks.fuzzing.mutations import mutated, seeds
from benchmarks.table import print_table

COUNT = 10_000
_FILES_PER_PROCESS = 400
_WALL_S = 120.0


@dataclass(slots=True)
class Worst:
    """The file that came nearest to a limit, or went furthest beyond it."""

    share: float = 0.0
    value: float = 0.0
    what: str = ""


@dataclass(slots=True)
class Tally:
    """What was found so far."""

    files: int = 0
    results: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    time: dict[str, Worst] = field(default_factory=dict)
    memory: dict[str, Worst] = field(default_factory=dict)

    def add(self, what: str, size_bytes: int, readings: list[Reading] | str) -> bool:
        """Count what the readers made of a file, or how they died of it; tell whether that breaks a rule."""
        self.files += 1
        before = len(self.violations)
        if isinstance(readings, str):
            self.violations.append(f"{readings} ({what})")
            return True
        for item in readings:
            self.results[item.result] = self.results.get(item.result, 0) + 1
            if item.foreign:
                self.violations.append(f"{item.reader}: {item.foreign} ({what})")
            self.violations += [f"{item.reader} set off {act} ({what})" for act in item.acts]
            self._note(self.time, item.reader, item.time_s, time_limit_s(size_bytes), what)
            self._note(self.memory, item.reader, item.memory_bytes, memory_limit_bytes(size_bytes), what)
            if breaks_a_limit(item, size_bytes):
                cost = f"{item.time_s:.2f} s and {item.memory_bytes / 1e6:.0f} MB of {size_bytes} bytes"
                self.violations.append(f"{item.reader} takes {cost} ({what})")
        return len(self.violations) > before

    def _note(self, where: dict[str, Worst], reader: str, value: float, limit: float, what: str) -> None:
        worst = where.setdefault(reader, Worst())
        if value / limit > worst.share:
            where[reader] = Worst(value / limit, value, what)


def _serve(pipe: Connection, warm_up: list[str], is_watched: bool) -> None:
    judge = Judge([Path(path) for path in warm_up], is_watched=is_watched)
    while (path := pipe.recv()) is not None:
        pipe.send(judge.judge(Path(path)))


class Bench:
    """A process that judges files; a new one takes the place of one that died."""

    def __init__(self, warm_up: list[str]) -> None:
        self._warm_up = warm_up
        self._left = 0
        self._process: Any = None
        self._pipe: Connection | None = None

    def judge(self, path: Path) -> list[Reading] | str:
        """Return what was read, or how the process ended of it.

        What seems to break a limit is read once more by a new process, which owes nothing to earlier files, and in
        which nobody listens: to be told of each `id()` takes longer than the call.
        """
        found = self._judge(path)
        size_bytes = path.stat().st_size
        if not isinstance(found, str) and any(breaks_a_limit(item, size_bytes) for item in found):
            self._left = 0
            again = self._judge(path, is_watched=False)
            self._left = 0
            return again if isinstance(again, str) else [*map(least, found, again)]
        return found

    def _judge(self, path: Path, *, is_watched: bool = True) -> list[Reading] | str:
        if self._left <= 0:
            self.close()
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other, self._warm_up, is_watched), daemon=True)
            self._process.start()
            other.close()
            self._left = _FILES_PER_PROCESS
        self._left -= 1
        assert self._pipe is not None
        try:
            self._pipe.send(str(path))
            if self._pipe.poll(_WALL_S):
                readings: list[Reading] = self._pipe.recv()
                return readings
            self._process.kill()
            how = "it hangs"
        except (EOFError, OSError):
            self._process.join(10)
            how = f"its reader ended with {self._process.exitcode}"
        self._left = 0
        stage = path.with_name(path.name + ".stage")
        return f"{how}, in {stage.read_text() if stage.exists() else 'the beginning'}"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def file_of(seed: int, number: int, begin: dict[str, bytes]) -> tuple[str, bytes]:
    """Return one of the files, the same for the same seed and number, and what was done to make it."""
    return mutated(random.Random(f"{seed}/{number}"), begin)


def run(count: int, seed: int, keep: Path | None, *, jobs: int = 1, quiet: bool = False) -> Tally:
    """Judge so many files and return what was found.

    Args:
        count: how many files.
        seed: the same one makes the same files.
        keep: where files that break a limit are kept; None for nowhere.
        jobs: how many processes judge at the same time; only their own CPU time counts.
        quiet: whether progress is not told.
    """
    tally, begin, numbers, began = Tally(), seeds(), iter(range(count)), time.monotonic()
    lock = threading.Lock()

    def work(folder: Path) -> None:
        bench, path = Bench(_warm_up(folder, begin)), folder / "file"
        try:
            while (number := _next(numbers, lock)) is not None:
                what, content = file_of(seed, number, begin)
                path.write_bytes(content)
                found = bench.judge(path)
                with lock:
                    if tally.add(f"{what}, number {number}", len(content), found) and keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(path, keep / f"{number:06}.pt")
                    if not quiet and tally.files % 500 == 0:
                        _tell_progress(tally, count, time.monotonic() - began)
        finally:
            bench.close()

    with tempfile.TemporaryDirectory(prefix="sda-fuzz-") as base, ThreadPoolExecutor(jobs) as pool:
        folders = [Path(base) / str(job) for job in range(jobs)]
        for done in [pool.submit(work, folder) for folder in folders]:
            done.result()
    return tally


def _next(numbers: Iterator[int], lock: threading.Lock) -> int | None:
    with lock:
        return next(numbers, None)


def _warm_up(folder: Path, begin: dict[str, bytes]) -> list[str]:
    """Write the honest files that each new process reads first, so that what it imports late is no file's fault."""
    folder.mkdir()
    paths = []
    for number, (name, content) in enumerate(begin.items()):
        if "sample" not in name:
            path = folder / f"seed{number}"
            path.write_bytes(content)
            paths.append(str(path))
    return paths


def _tell_progress(tally: Tally, count: int, taken_s: float) -> None:
    left_s = taken_s / tally.files * (count - tally.files)
    found_so_far = f"{len(tally.violations)} violations, {left_s:.0f} s left"
    print(f"  {tally.files} of {count}: {found_so_far}", file=sys.stderr, flush=True)


def _report(tally: Tally) -> None:
    rows = []
    for reader in READERS:
        slow, large = tally.time.get(reader, Worst()), tally.memory.get(reader, Worst())
        rows.append([reader, f"{slow.value:.3f} s", f"{slow.share:.2f}", slow.what, f"{large.value / 1e6:.0f} MB",
                     f"{large.share:.2f}", large.what])  # fmt: skip
    header = ["reader", "worst time", "of limit", "file", "worst memory", "of limit", "file"]
    print_table(f"{tally.files} files; limits 0.5 s + 20 ns/B of CPU, 50 MB + 3 B/B", header, rows)
    counts = sorted(tally.results.items(), key=lambda item: -item[1])
    print_table("results", ["result", "times"], counts)
    for line in tally.violations[:20]:
        print(f"VIOLATION {line}")
    if len(tally.violations) > 20:
        print(f"and {len(tally.violations) - 20} more")
    print(f"\n{tally.files} files, {len(tally.violations)} violations")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="folder for files that break a limit")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    tally = run(options.count, options.seed, options.keep, jobs=options.jobs)
    if options.json:
        worst = {name: {r: [w.value, w.share, w.what] for r, w in where.items()}
                 for name, where in (("time", tally.time), ("memory", tally.memory))}  # fmt: skip
        print(json.dumps({"files": tally.files, "results": tally.results, "violations": tally.violations, **worst}))
    else:
        _report(tally)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
