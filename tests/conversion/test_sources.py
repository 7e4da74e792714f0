"""b35: deleting and moving checkpoints, step by step, with real files on real file systems."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from sda_daemon.conversion.sources import PART_ENDING, DestinationError, delete_source, move_source, sweep_parts
from sda_daemon.files import rename_by_link, rename_new
from sda_daemon.intake import aside
from sda_daemon.intake.aside import (
    ASIDE_ENDING,
    SourceChangedError,
    free_names,
    original_of,
    put_back_abandoned,
    sidecar_of,
    taken_aside,
)
from sda_daemon.intake.probe import has_writer
from sda_daemon.intake.scan import CheckpointNames, CheckpointScan, find_asides
from sda_daemon.signature import FileSignature, signature_at


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A watched folder."""
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


def written(path: Path, content: str = "weights", *, sidecar: str | None = "{}") -> Path:
    """Write a file and its sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    if sidecar is not None:
        sidecar_of(path).write_text(sidecar)
    return path


def signature_of(path: Path) -> FileSignature:
    """Return what a file is now."""
    found = signature_at(str(path))
    assert found is not None
    return found


def everything(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_moving_keeps_the_place_and_replaces_nothing(drop: Path, done: Path) -> None:
    """The sidecar goes along, the place below the watch is kept, a name that is taken gets a number."""
    for number, content in enumerate(("first", "second", "third")):
        path = written(drop / "run" / "x.pt", content, sidecar=f"{number}")
        os.utime(path, ns=(10**18, 10**18 + 123_456_789))
        moved = move_source(path, drop, done, signature_of(path))
        assert moved.stat().st_mtime_ns == 10**18 + 123_456_789
    assert everything(done) == {
        "run/x.pt": "first",
        "run/x.pt.meta.json": "0",
        "run/x_1.pt": "second",
        "run/x_1.pt.meta.json": "1",
        "run/x_2.pt": "third",
        "run/x_2.pt.meta.json": "2",
    }
    assert everything(drop) == {}


def test_a_pair_gets_a_name_that_is_free_for_both(drop: Path, done: Path) -> None:
    """A sidecar that lies at the destination without its checkpoint is not replaced either."""
    written(done / "x.pt.meta.json", "someone else's", sidecar=None)
    assert move_source(written(drop / "x.pt"), drop, done) == done / "x_1.pt"
    alone = written(drop / "x.pt", "alone", sidecar=None)
    assert move_source(alone, drop, done) == done / "x.pt"
    assert everything(done) == {
        "x.pt": "alone",
        "x.pt.meta.json": "someone else's",
        "x_1.pt": "weights",
        "x_1.pt.meta.json": "{}",
    }


@pytest.mark.parametrize("taken", ["a folder", "a dangling link", "a pipe"])
def test_whatever_has_the_name_stays(drop: Path, done: Path, taken: str) -> None:
    """Not only files are in the way."""
    done.mkdir(parents=True)
    place = done / "x.pt"
    if taken == "a folder":
        place.mkdir()
    elif taken == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("nowhere")
    before = place.lstat()
    assert move_source(written(drop / "x.pt"), drop, done) == done / "x_1.pt"
    assert (place.lstat().st_ino, place.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_deleting(drop: Path) -> None:
    """With the sidecar; what is beside it stays."""
    written(drop / "x.pt")
    written(drop / "x_1.pt")
    delete_source(drop / "x.pt")
    assert sorted(everything(drop)) == ["x_1.pt", "x_1.pt.meta.json"]


@pytest.mark.parametrize("way", ["delete", "move"])
@pytest.mark.parametrize("change", ["replaced", "rewritten", "gone"])
def test_another_content_stays(drop: Path, done: Path, way: str, change: str) -> None:
    """Only what the signature tells of is deleted or moved; all else stays where it is."""
    path = written(drop / "x.pt", "old")
    signature = signature_of(path)
    if change == "replaced":
        written(drop / "new", "new", sidecar=None).replace(path)
    elif change == "rewritten":
        path.write_text("longer than it was")
    else:
        path.unlink()
    before = everything(drop)
    clear = partial(delete_source, path) if way == "delete" else partial(move_source, path, drop, done)
    with pytest.raises(SourceChangedError) as caught:
        clear(signature)
    assert caught.value.back_as == path
    assert everything(drop) == before
    assert not done.exists()


def test_a_wrong_one_that_was_taken_is_put_back(drop: Path) -> None:
    """Under its name; where that is taken again, under a number: none of the three contents is lost."""
    path = written(drop / "x.pt", "old", sidecar=None)
    signature = signature_of(path)
    taken = aside._prepare(path)
    written(drop / "second", "second", sidecar=None).replace(path)
    aside.take(taken)
    with pytest.raises(aside._OtherContentError):
        aside._check(taken, signature)
    written(path, "third")
    assert aside.put_back(taken, is_same=False) == drop / "x_1.pt"
    taken.let_go()
    assert everything(drop) == {"x.pt": "third", "x.pt.meta.json": "{}", "x_1.pt": "second"}


def test_one_that_is_being_written_stays(drop: Path) -> None:
    """Although nothing of it has changed yet: a program has it open for writing."""
    path = written(drop / "x.pt")
    with path.open("r+b") as writer:
        if not _tells_of_writers(path):
            pytest.skip("the kernel does not tell of writers here")
        with pytest.raises(SourceChangedError):
            delete_source(path)
        writer.write(b"W")
    assert everything(drop) == {"x.pt": "Weights", "x.pt.meta.json": "{}"}


def _tells_of_writers(path: Path) -> bool:
    with path.open("rb") as reader:
        return has_writer(reader.fileno())


def test_a_failure_in_the_middle_puts_both_back(drop: Path, done: Path) -> None:
    """Asked to stop while it is copied, or in the body: names and contents are as before, and no copy is left."""
    path = written(drop / "x.pt", "w" * 1000)
    before = everything(drop)

    def fail() -> None:
        with taken_aside(path, signature_of(path)) as taken:
            assert not path.exists()
            assert taken.sidecar is not None
            assert taken.private.parent == drop
            assert taken.private.name.startswith(".x.pt.")
            assert taken.private.name.endswith(ASIDE_ENDING)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert everything(drop) == before
    if done.parent == Path("/dev/shm"):
        with pytest.raises(InterruptedError):
            move_source(path, drop, done, is_stopping=lambda: True)
        assert everything(drop) == before
        assert everything(done) == {}


def test_private_names_are_never_checkpoints(drop: Path) -> None:
    """b11: neither for a scan nor for an event, whatever the patterns."""
    path = written(drop / "run" / "x.pt")
    names = CheckpointNames(("*", ".*"))
    with taken_aside(path, signature_of(path)) as taken:
        assert taken.sidecar is not None
        for private in (taken.private, taken.sidecar):
            assert not names.matches(str(drop), str(private))
        scan = CheckpointScan(str(drop), str(drop), names)
        assert list(scan) == []
        assert sorted(scan.asides) == sorted(map(str, (taken.private, taken.sidecar)))


def test_what_someone_is_at_is_not_abandoned(drop: Path) -> None:
    """The private name is put back only when its lock is free."""
    path = written(drop / "x.pt")
    with taken_aside(path, signature_of(path)) as taken:
        assert put_back_abandoned(taken.private) is None
        assert put_back_abandoned(taken.sidecar) is None  # type: ignore[arg-type]
        assert not path.exists()
    assert put_back_abandoned(taken.private) == path
    assert everything(drop) == {"x.pt": "weights", "x.pt.meta.json": "{}"}


@pytest.mark.parametrize("name", ["x.pt", "ünï cöde.pt", "n" * 252 + ".pt", "n" * 230 + ".pt", "no-ending", "a.b.c.pt"])
def test_names_survive_a_crash(drop: Path, name: str) -> None:
    """Whatever a checkpoint is called, its private name tells what that was: checkpoint and sidecar come back."""
    path = drop / name
    path.write_text("weights")
    has_sidecar = len(os.fsencode(sidecar_of(path).name)) <= 255
    if has_sidecar:
        sidecar_of(path).write_text("{}")
    before = everything(drop)
    taken = aside._prepare(path)
    aside._take_sidecar(taken)
    aside.take(taken)
    os.close(taken.descriptor)  # type: ignore[arg-type] # what the end of a process does
    assert original_of(taken.private) == path
    assert len(find_asides(str(drop))) == 1 + has_sidecar
    for private in find_asides(str(drop)):
        put_back_abandoned(Path(private))
    assert everything(drop) == before
    assert sorted(item.name for item in drop.iterdir()) == sorted(before)


def test_a_pair_comes_back_together(drop: Path) -> None:
    """Where the name was taken meanwhile, both get the same number, whichever is found first."""
    for first in ("checkpoint", "sidecar"):
        path = written(drop / first / "x.pt", "old", sidecar="old's")
        taken = aside._prepare(path)
        aside._take_sidecar(taken)
        aside.take(taken)
        taken.let_go()
        written(path, "new", sidecar="new's")
        found = taken.private if first == "checkpoint" else taken.sidecar
        assert found is not None
        assert put_back_abandoned(found) == drop / first / "x_1.pt"
        assert everything(drop / first) == {
            "x.pt": "new",
            "x.pt.meta.json": "new's",
            "x_1.pt": "old",
            "x_1.pt.meta.json": "old's",
        }


def test_a_sidecar_that_was_taken_alone(drop: Path) -> None:
    """It comes back, unless the trainer has written another since."""
    path = written(drop / "x.pt")
    taken = aside._prepare(path)
    aside._take_sidecar(taken)
    assert taken.sidecar is not None
    put_back_abandoned(taken.sidecar)
    assert everything(drop) == {"x.pt": "weights", "x.pt.meta.json": "{}"}
    aside._take_sidecar(taken)
    sidecar_of(path).write_text("newer")
    put_back_abandoned(taken.sidecar)
    assert everything(drop) == {"x.pt": "weights", "x.pt.meta.json": "newer"}


def test_a_move_that_was_finished_before_is_recognised(drop: Path, done: Path) -> None:
    """The copy had its name, then came a crash: done again, the original goes, and there is no second copy."""
    path = written(drop / "run" / "x.pt", "w" * 10_000)
    (done / "run").mkdir(parents=True)
    for item in (path, sidecar_of(path)):
        shutil.copy2(item, done / "run" / item.name)
    before = everything(done)
    assert move_source(path, drop, done) == done / "run" / "x.pt"
    assert (everything(done), everything(drop)) == (before, {})
    other = written(drop / "run" / "x.pt", "v" * 10_000)  # of the same size and time, but another
    os.utime(other, ns=(1, (done / "run" / "x.pt").stat().st_mtime_ns))
    assert move_source(other, drop, done) == done / "run" / "x_1.pt"


def test_a_link_leads_where_it_led(drop: Path, done: Path, tmp_path: Path) -> None:
    """Relative or absolute, through folders that are links themselves; its target stays where it is."""
    target = written(tmp_path / "store" / "w.pt", "the weights")
    (drop / "run").mkdir()
    (tmp_path / "way").symlink_to("store")
    for name, goal in {
        "relative.pt": "../../store/w.pt",
        "absolute.pt": str(target),
        "through.pt": "../../way/w.pt",
        "beside.pt": "real.pt",
    }.items():
        link = drop / "run" / name
        if name == "beside.pt":
            written(drop / "run" / "real.pt", "beside it")
        link.symlink_to(goal)
        content = link.read_text()
        moved = move_source(link, drop, done, signature_of(link))
        assert moved.is_symlink()
        assert moved.read_text() == content
        assert moved.readlink().is_absolute() == (name == "absolute.pt")
        assert not link.is_symlink()
    assert target.read_text() == "the weights"
    again = drop / "run" / "again.pt"
    again.symlink_to(target)
    delete_source(again)
    assert target.exists()
    assert not again.is_symlink()


def test_hard_links_stay(drop: Path, done: Path) -> None:
    """Another name of the same file is another checkpoint: it stays, with its content."""
    path = written(drop / "x.pt")
    os.link(path, drop / "y.pt")
    move_source(path, drop, done)
    assert (drop / "y.pt").read_text() == "weights"
    if done.parent != Path("/dev/shm"):
        os.link(drop / "y.pt", drop / "z.pt")
        (done / "z.pt").hardlink_to(drop / "y.pt")
        assert move_source(drop / "z.pt", drop, done) == done / "z.pt"  # it is there already
        assert not (drop / "z.pt").exists()
    delete_source(drop / "y.pt")
    assert (done / "x.pt").read_text() == "weights"


def test_a_mode_and_an_unreadable_folder(drop: Path, done: Path) -> None:
    """A copy has the mode of its original; where nothing can be made, all stays as it was."""
    path = written(drop / "x.pt")
    path.chmod(0o640)
    assert move_source(path, drop, done).stat().st_mode & 0o777 == 0o640
    path = written(drop / "y.pt")
    before = everything(drop)
    (done / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        move_source(path, drop, done / "file")
    assert everything(drop) == before


def test_what_is_wrong_with_the_destination_is_told_apart(drop: Path) -> None:
    """A full device: the next checkpoint need not be tried at once. Names and content are as before."""
    full = Path("/dev/shm") / f"sda-daemon-full-{os.getpid()}"
    path = written(drop / "x.pt")
    os.truncate(path, 2**40)  # sparse: more than any disk has room for
    before = signature_of(path)
    if not full.parent.is_dir() or full.parent.stat().st_dev == drop.stat().st_dev:
        pytest.skip("there is no second file system here")
    try:
        with pytest.raises(DestinationError) as caught:
            move_source(path, drop, full)
        assert caught.value.errno == errno.ENOSPC
        assert signature_of(path) == before
        assert sidecar_of(path).read_text() == "{}"
        assert list(full.iterdir()) == []
    finally:
        shutil.rmtree(full, ignore_errors=True)


def test_unfinished_copies_are_swept(done: Path) -> None:
    """Those of a crash go, the one that someone is writing stays, and so does everything else."""
    done.mkdir(parents=True)
    names = (f".aaaa{PART_ENDING}", f".bbbb{PART_ENDING}", "x.pt", f"mine{PART_ENDING}")
    for name in names:
        (done / name).write_text("x")
    with (done / names[1]).open() as held:
        fcntl.flock(held.fileno(), fcntl.LOCK_EX)
        assert sweep_parts(done) == 1
    assert sorted(path.name for path in done.iterdir()) == sorted(names[1:])
    assert sweep_parts(done / "nothing") == 0


@pytest.mark.parametrize("rename", [rename_new, rename_by_link])
def test_renaming_never_replaces(tmp_path: Path, rename: object) -> None:
    """By the kernel's own way and by the one for file systems without it: files, links, folders."""
    assert callable(rename)
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("a", "folder", "link"):
        for taken in ("b", "folder", "link"):
            if name != taken:
                with pytest.raises(FileExistsError):
                    rename(tmp_path / name, tmp_path / taken)
        rename(tmp_path / name, tmp_path / f"{name}-new")
        rename(tmp_path / f"{name}-new", tmp_path / name)
    with pytest.raises(FileNotFoundError):
        rename(tmp_path / "none", tmp_path / "c")
    assert (tmp_path / "a").read_text() == "a"
    assert (tmp_path / "link").readlink() == Path("nowhere")


def test_free_names() -> None:
    """The number stands before the ending; long names are cut so that the sidecar's fits too."""
    names = free_names(Path("/x/take.one.pt"))
    assert [next(names).name for _ in range(3)] == ["take.one.pt", "take.one_1.pt", "take.one_2.pt"]
    names = free_names(Path("/x/take.one.pt.meta.json"))
    assert [next(names).name for _ in range(2)] == ["take.one.pt.meta.json", "take.one_1.pt.meta.json"]
    names = free_names(Path("/x") / ("n" * 252 + ".pt"))
    next(names)
    assert len(sidecar_of(next(names)).name) == 255


def test_moving_where_ten_thousand_have_the_name(drop: Path, tmp_path: Path) -> None:
    """Nothing is replaced, however many there are; and names as long as names can be are shortened."""
    done = tmp_path / "done"
    done.mkdir()
    for name in ("x.pt", *(f"x_{number}.pt" for number in range(1, 10_001))):
        (done / name).touch()
    path = drop / "x.pt"
    path.write_text("moved")
    assert move_source(path, drop, done) == done / "x_10001.pt"
    assert (done / "x_10001.pt").read_text() == "moved"
    assert all(other.stat().st_size == 0 for other in done.iterdir() if other.name != "x_10001.pt")
    long = drop / ("y" * 252 + ".pt")
    for content in ("first", "second"):
        long.write_text(content)
        assert move_source(long, drop, done).read_text() == content
    long.write_text("third")
    delete_source(long)
    assert not long.exists()
