"""`make fuzz` in small: files as it makes them, and one of each kind that was made to be costly."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz import Bench, Tally, file_of, run
from benchmarks.fuzzing.hostile import KINDS, hostile_pickle
from benchmarks.fuzzing.judging import READERS
from benchmarks.fuzzing.mutations import packed_pickle, seeds

FILES = 100
SIZE_BYTES = 30_000


def violations(tally: Tally) -> list[str]:
    """Return what may never be: crashes, hangs, foreign errors, acts. What it costs is for `make fuzz` to measure."""
    return [line for line in tally.violations if " takes " not in line]


def test_mutated_files_do_no_harm() -> None:
    """No reader dies, hangs, raises what it must not, or lets a file act."""
    tally = run(FILES, 11, None, quiet=True)
    assert tally.files == FILES
    assert violations(tally) == []
    assert sum(tally.results.values()) == FILES * len(READERS)
    assert tally.results["ok"] < FILES * len(READERS)
    assert set(tally.time) == set(tally.memory) == set(READERS)


def test_costly_files_do_no_harm(tmp_path: Path) -> None:
    """Each kind, where every reader looks."""
    tally, bench, path = Tally(), Bench([]), tmp_path / "file"
    try:
        for number, kind in enumerate(KINDS):
            pickled = hostile_pickle(kind, ("training_config.k", "metadata.k")[number % 2], SIZE_BYTES)
            path.write_bytes(packed_pickle(pickled))
            tally.add(kind, path.stat().st_size, bench.judge(path))
    finally:
        bench.close()
    assert violations(tally) == []


def test_the_same_number_is_the_same_file() -> None:
    """So that what was found can be found again."""
    begin = seeds()
    assert file_of(3, 5, begin) == file_of(3, 5, begin)
    assert file_of(3, 5, begin) != file_of(3, 6, begin)


def test_a_reader_that_dies_is_told() -> None:
    """With the file that did it."""
    tally = Tally()
    assert tally.add("a file", 10, "it hangs, in header")
    assert tally.violations == ["it hangs, in header (a file)"]
