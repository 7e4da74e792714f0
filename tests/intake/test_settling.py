"""The pure state machine that decides when a file has settled: no clock, no sleeping."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.intake.settling import WHOLE_SETTLE_S, Incomplete, Settled, Settling, Timing
from sda_daemon.signature import FileSignature

TIMING = Timing(settle_s=2.0, incomplete_after_s=10.0)


def signature(version: int) -> FileSignature:
    return FileSignature(100 + version, version, 7)


def observe(settling: Settling, version: int, now: float, *, is_whole: bool = False) -> bool:
    return settling.observe("x", "root", signature(version), TIMING, now, is_whole=is_whole)


def test_a_quiet_file_settles_after_the_quiet_time() -> None:
    """Not before, and each change begins it anew."""
    settling = Settling()
    assert observe(settling, 1, 0.0)
    assert settling.due(1.9) == []
    assert observe(settling, 2, 1.9)
    assert settling.due(3.8) == []
    assert settling.due(3.9) == ["x"]
    assert settling.examined("x", signature(2), "", 3.9) == Settled("x", "root", signature(2), 3.9)
    assert len(settling) == 0


def test_an_event_without_a_change_changes_nothing() -> None:
    """Twenty touches of the same content do not push the moment away."""
    settling = Settling()
    observe(settling, 1, 0.0)
    for tick in range(20):
        assert not observe(settling, 1, tick * 0.1)
    assert settling.next_look() == 2.0


def test_a_closed_file_need_not_wait_the_full_time() -> None:
    """Closed at once, or closed while it is waited for; a change after that takes it back."""
    settling = Settling()
    observe(settling, 1, 0.0, is_whole=True)
    assert settling.next_look() == WHOLE_SETTLE_S
    settling = Settling()
    observe(settling, 1, 0.0)
    observe(settling, 1, 1.0, is_whole=True)
    assert settling.next_look() == 1.0 + WHOLE_SETTLE_S
    observe(settling, 2, 1.1)
    assert settling.next_look() == 3.1


def test_a_look_that_finds_another_content_begins_anew() -> None:
    """A change that no event told of is found by the look itself."""
    settling = Settling()
    observe(settling, 1, 0.0)
    assert settling.due(2.0) == ["x"]
    assert settling.examined("x", signature(2), "", 2.0) is None
    assert settling.next_look() == 4.0


def test_an_unfinished_file_is_reported_once_for_each_content() -> None:
    """Looks grow rarer; the report comes once after the limit, again only after a change."""
    settling = Settling()
    observe(settling, 1, 0.0)
    reports, now = [], 0.0
    while now < 200.0:
        now = settling.next_look() or 1e9
        assert settling.due(now) == ["x"]
        verdict = settling.examined("x", signature(1), "no end", now)
        if verdict is not None:
            reports.append(verdict)
    assert [type(report) for report in reports] == [Incomplete]
    assert settling.unfinished() == {"x": "no end"}
    assert settling.waiting == 0
    observe(settling, 2, now)
    assert settling.waiting == 1
    while now < 400.0:
        now = settling.next_look() or 1e9
        settling.due(now)
        if (verdict := settling.examined("x", signature(2), "no end", now)) is not None:
            reports.append(verdict)
    assert len(reports) == 2


def test_forgetting() -> None:
    """A file, or all files of a root, are no longer waited for."""
    settling = Settling()
    observe(settling, 1, 0.0)
    settling.observe("y", "other", signature(1), TIMING, 0.0)
    assert settling.forget("x")
    assert not settling.forget("x")
    settling.forget_root("other")
    assert settling.due(100.0) == []
    assert settling.next_look() is None


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 3), st.floats(0.0, 3.0), st.booleans())))
def test_nothing_settles_early_and_nothing_is_forgotten(steps: list[tuple[str, int, float, bool]]) -> None:
    """Whatever is observed in whatever order: each file settles exactly once, never before it was quiet."""
    settling = Settling()
    now = 0.0
    changed_at: dict[str, float] = {}
    current: dict[str, FileSignature] = {}
    settled: set[str] = set()

    def examine_due() -> None:
        for path in settling.due(now):
            verdict = settling.examined(path, current[path], "", now)
            if isinstance(verdict, Settled):
                assert now - changed_at[path] >= WHOLE_SETTLE_S - 1e-9
                assert verdict.signature == current[path]
                settled.add(path)

    for path, version, pause_s, is_whole in steps:
        now += pause_s
        examine_due()
        if current.get(path) != signature(version):
            changed_at[path] = now
            settled.discard(path)
            current[path] = signature(version)
        if path not in settled:
            settling.observe(path, "root", current[path], TIMING, now, is_whole=is_whole)
    for _ in range(10):
        now += TIMING.settle_s
        examine_due()
    assert settled == set(current)
    assert len(settling) == 0
