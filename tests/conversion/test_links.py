"""b35: a link and what it leads to move in any order, and the link goes on leading there."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from sda_daemon.conversion import links, sources
from sda_daemon.conversion.sources import move_source
from sda_daemon.intake.aside import SourceChangedError, put_back_abandoned, sidecar_of
from sda_daemon.intake.scan import find_asides
from sda_daemon.signature import signature_at

LINKS = {
    "relative": {"best.pt": "z.pt"},
    "absolute": {"best.pt": "{drop}/run/z.pt"},
    "a link to a link": {"best.pt": "last.pt", "last.pt": "z.pt"},
    "absolute links to links": {"best.pt": "{drop}/run/last.pt", "last.pt": "{drop}/run/z.pt"},
    "through another name of the folder": {"best.pt": "{drop}/../way/run/z.pt"},
    "from above": {"../best.pt": "run/z.pt"},
}
CASES = [(case, order) for case in LINKS for order in itertools.permutations(["z.pt", *LINKS[case]])]


def made(drop: Path, wanted: dict[str, str]) -> Path:
    """Make a run folder with a checkpoint and links to it; return the folder."""
    run = drop / "run"
    run.mkdir(parents=True)
    (drop.parent / "way").symlink_to(drop)
    (run / "z.pt").write_text("weights")
    sidecar_of(run / "z.pt").write_text("{}")
    for name, goal in wanted.items():
        (run / name).symlink_to(goal.format(drop=drop))
    return run


@pytest.mark.parametrize(("case", "order"), CASES, ids=[f"{case}: {', '.join(order)}" for case, order in CASES])
def test_b35_a_link_moves_with_its_target(case: str, order: tuple[str, ...], tmp_path: Path, done: Path) -> None:
    """In every order: after each step each link leads to the weights, and at last to where they are now."""
    drop = tmp_path / "drop"
    run = made(drop, LINKS[case])
    places = {name: Path(os.path.normpath(run / name)) for name in order}
    for name in order:
        places[name] = move_source(places[name], drop, done)
        assert all(place.read_text() == "weights" for place in places.values())
    assert {name: place.relative_to(done) for name, place in places.items()} == {
        name: Path(os.path.normpath(f"run/{name}")) for name in order
    }
    for name in LINKS[case]:
        assert places[name].is_symlink()
        assert places[name].resolve() == places["z.pt"].resolve()
        assert places[name].readlink().is_absolute() == LINKS[case][name].startswith("{drop}")
    shutil.rmtree(drop)
    assert all(place.read_text() == "weights" for place in places.values())
    left = sorted(path.name for path in done.rglob("*") if not path.is_dir())
    assert left == sorted([*(place.name for place in places.values()), "z.pt.meta.json"])


def test_b35_a_link_that_stays_leads_to_the_new_place(tmp_path: Path, done: Path) -> None:
    """Also where the target gets another name, because its own is taken; other links are left alone."""
    drop = tmp_path / "drop"
    run = made(drop, {"best": "z.pt", "other": "y.pt", "nothing": "none.pt", "round": "round"})
    (run / "y.pt").write_text("y")
    (done / "run").mkdir(parents=True)
    (done / "run" / "z.pt").write_text("another")
    (done / "run" / "theirs").symlink_to("z.pt")
    assert move_source(run / "z.pt", drop, done) == done / "run" / "z_1.pt"
    assert (run / "best").read_text() == "weights"
    assert {name: str((run / name).readlink()) for name in ("other", "nothing", "round")} == {
        "other": "y.pt", "nothing": "none.pt", "round": "round"
    }  # fmt: skip
    assert (done / "run" / "theirs").read_text() == "another"


def test_b35_a_link_that_cannot_be_changed_keeps_its_target(
    tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leads to stays where it is, and so do the links that could be changed."""
    drop = tmp_path / "drop"
    run = made(drop, {"a.pt": "z.pt", "b.pt": "z.pt"})
    replace = links._replace
    calls: list[Path] = []

    def fails_at_the_second(link: Path, says: Path, token: str) -> None:
        calls.append(link)
        if len(calls) == 2:
            raise PermissionError(13, "Permission denied", str(link))
        replace(link, says, token)

    monkeypatch.setattr(links, "_replace", fails_at_the_second)
    with pytest.raises(PermissionError):
        move_source(run / "z.pt", drop, done)
    assert not (run / "z.pt").is_symlink()
    assert {name: (run / name).read_text() for name in ("a.pt", "b.pt", "z.pt")} == dict.fromkeys(
        ("a.pt", "b.pt", "z.pt"), "weights"
    )
    assert [str((run / name).readlink()) for name in ("a.pt", "b.pt")] == ["z.pt", "z.pt"]
    assert sidecar_of(run / "z.pt").read_text() == "{}"
    assert [path for path in done.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("moment", ["before the links", "after the links"])
def test_b35_a_crash_while_links_are_led(
    moment: str, tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that the links may lead to is there until all of them lead to the new place."""
    drop = tmp_path / "drop"
    run = made(drop, {"best.pt": "z.pt"})
    lead = links.lead

    class Killed(BaseException):
        pass

    def dies(*arguments: object) -> None:
        if moment == "after the links":
            lead(*arguments)  # type: ignore[arg-type]
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sources, "lead", dies)
        patch.setattr("sda_daemon.intake.aside.put_back", lambda *_args, **_more: None)  # a killed process does nothing
        with pytest.raises(Killed):
            move_source(run / "z.pt", drop, done)
    for private in find_asides(str(drop)):
        put_back_abandoned(Path(private))
    assert (run / "best.pt").read_text() == "weights"
    assert move_source(run / "z.pt", drop, done) == done / "run" / "z.pt"
    assert (run / "best.pt").resolve() == (done / "run" / "z.pt").resolve()


def test_b35_a_link_to_another_content_is_not_moved(tmp_path: Path, done: Path) -> None:
    """What is checked is what it leads to."""
    drop = tmp_path / "drop"
    run = made(drop, {"best.pt": "z.pt"})
    before = signature_at(str(run / "best.pt"))
    (run / "y.pt").write_text("other weights")
    (run / "best.pt").unlink()
    (run / "best.pt").symlink_to("y.pt")
    with pytest.raises(SourceChangedError):
        move_source(run / "best.pt", drop, done, before)
    assert (run / "best.pt").readlink() == Path("y.pt")


@pytest.mark.parametrize("order", [*itertools.permutations(["z.pt", "best.pt"])], ids=", ".join)
@pytest.mark.parametrize("goal", ["z.pt.meta.json", "{drop}/run/z.pt.meta.json"], ids=["relative", "absolute"])
def test_b35_a_link_to_a_sidecar_moves_with_it(order: tuple[str, ...], goal: str, tmp_path: Path, done: Path) -> None:
    """`best.pt` is a link to a checkpoint, `best.pt.meta.json` to its sidecar: both lead there all the time."""
    drop = tmp_path / "drop"
    run = made(drop, {"best.pt": "z.pt", "best.pt.meta.json": goal, "notes.json": "z.pt.meta.json"})
    places = {name: run / name for name in order}
    for name in order:
        places[name] = move_source(places[name], drop, done)
        assert places["best.pt"].read_text() == "weights"
        assert sidecar_of(places["best.pt"]).read_text() == "{}"
        assert (run / "notes.json").read_text() == "{}"
    assert sidecar_of(places["best.pt"]).resolve() == sidecar_of(places["z.pt"]).resolve()
    assert sorted(path.name for path in run.iterdir()) == ["notes.json"]


def test_b35_a_link_to_a_sidecar_that_cannot_be_changed_keeps_both(
    tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is as before, the links to the checkpoint included."""
    drop = tmp_path / "drop"
    run = made(drop, {"best.pt": "z.pt", "notes.json": "z.pt.meta.json"})
    replace = links._replace

    def refuse(link: Path, says: Path, token: str) -> None:
        if link.name == "notes.json":
            raise PermissionError(1, "Operation not permitted", str(link))
        replace(link, says, token)

    monkeypatch.setattr(links, "_replace", refuse)
    before = {path.name: path.read_text() for path in run.iterdir()}
    with pytest.raises(PermissionError):
        move_source(run / "z.pt", drop, done)
    assert {path.name: path.read_text() for path in run.iterdir()} == before
    assert (run / "best.pt").readlink() == Path("z.pt")
    assert not [path for path in done.rglob("*") if not path.is_dir()]
