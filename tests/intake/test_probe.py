"""Whether a file is completely written, asked of real files and real writers."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sda_daemon.intake.probe import why_unfinished
from sda_daemon.signature import signature_at


def test_a_whole_checkpoint_is_finished(small_checkpoints: Callable[..., Path]) -> None:
    """Nothing speaks against a file that torch has written and closed."""
    assert why_unfinished(str(small_checkpoints(1))) == ""


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_part_of_a_checkpoint_is_not(small_checkpoints: Callable[..., Path], tmp_path: Path, share: float) -> None:
    """Whatever is missing at the end, it is noticed."""
    data = small_checkpoints(1).read_bytes()
    path = tmp_path / "x.pt"
    path.write_bytes(data[: int(len(data) * share)])
    assert why_unfinished(str(path)) != ""
    path.write_bytes(data[:-1])
    assert why_unfinished(str(path)) != ""


def test_space_set_aside_is_not_a_file(tmp_path: Path) -> None:
    """Zeros are what a preallocated file consists of before its first byte."""
    path = tmp_path / "x.pt"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 10_000)
    assert "zeros" in why_unfinished(str(path))


def test_an_open_writer_is_noticed(small_checkpoints: Callable[..., Path], tmp_path: Path) -> None:
    """A file with all its bytes, but open for writing somewhere, is not finished; closed, it is."""
    path = tmp_path / "x.pt"
    with path.open("wb") as file:
        file.write(small_checkpoints(1).read_bytes())
        file.flush()
        assert "open for writing" in why_unfinished(str(path))
    assert why_unfinished(str(path)) == ""


def test_other_zips_and_old_files(tmp_path: Path) -> None:
    """A zip with a comment, a zip64 and a file of torch's old format are complete as they are."""
    commented = tmp_path / "commented.pt"
    with zipfile.ZipFile(commented, "w") as archive:
        archive.writestr("a", "b")
        archive.comment = b"hello"
    assert why_unfinished(str(commented)) == ""
    large = tmp_path / "large.pt"
    with zipfile.ZipFile(large, "w") as archive:
        for number in range(70_000):
            archive.writestr(str(number), "")
    assert why_unfinished(str(large)) == ""
    old = tmp_path / "old.pth"
    torch.save({"a": torch.zeros(3)}, old, _use_new_zipfile_serialization=False)
    assert why_unfinished(str(old)) == ""


def test_look_sees_regular_files_only(tmp_path: Path) -> None:
    """Folders, pipes and missing files are nothing to convert; links to files are."""
    file = tmp_path / "x.pt"
    file.write_bytes(b"1234")
    link = tmp_path / "link.pt"
    link.symlink_to(file)
    os.mkfifo(tmp_path / "pipe.pt")
    seen = signature_at(str(file))
    assert seen is not None
    assert seen.size_bytes == 4
    assert signature_at(str(link)) == seen
    for nothing in (tmp_path, tmp_path / "pipe.pt", tmp_path / "none.pt", Path("nul\0.pt")):
        assert signature_at(str(nothing)) is None
