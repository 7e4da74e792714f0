"""From hints to settled checkpoints: the watched folders, their rescans, and the waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sda_daemon import events
from sda_daemon.intake.probe import why_unfinished
from sda_daemon.intake.root import Root
from sda_daemon.intake.scan import CheckpointScan
from sda_daemon.intake.settling import Incomplete, Settled, Settling, Timing
from sda_daemon.settings.rules import skipped_by_path, watch_settings_for
from sda_daemon.settings.run_config import RunConfig, relative_to
from sda_daemon.settings.schema import WatchSettings
from sda_daemon.signature import FileSignature, signature_at
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.policy import Convert, LedgerRow, Status, decide
from sda_daemon.watching.hints import FileSeen, FolderSeen, Hint, RescanNeeded
from sda_daemon.watching.watcher import OverflowListener

FOLDER_RELOOK_S = (0.5, 2.0)
"""A new folder is looked into again after these pauses: files can come before its watch is in place."""
FILES_A_TURN = 2000
TURN_S = 0.25
"""So many files of a rescan are looked at before the loop does something else, or for so long, in seconds."""
_FILES_A_LOOK = 50
"""After so many files it is looked at the time."""
FORGET_AFTER_S = 30 * 86_400.0
"""A checkpoint that is gone for so long is forgotten, in seconds."""
_UNKNOWN = (-1, -1, -1)
"""Stands for a path that the ledger does not know; no file has such a size."""


@dataclass(frozen=True, slots=True)
class Done:
    """A checkpoint that was converted before, and is still where it was."""

    path: str
    root: str
    signature: FileSignature


@dataclass(frozen=True, slots=True)
class Aside:
    """A file under a private name: it is being dealt with, or a crash has left it so."""

    path: str
    root: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the watched folders has brought up.

    Attributes:
        settled: checkpoints that are complete and not known yet.
        done: those that were converted before, where they are to be deleted or moved.
        asides: files under private names.
    """

    settled: tuple[Settled, ...] = ()
    done: tuple[Done, ...] = ()
    asides: tuple[Aside, ...] = ()


class _Rescan:
    """A look through a whole folder, some files at a time."""

    def __init__(self, root: Root, reason: str, remembered: dict[str, tuple[int, int, int] | None], now: float) -> None:
        self.root = root
        self.reason = reason
        self.began = now
        self.remembered = remembered
        self.scan = CheckpointScan(root.path, root.path, root.names)
        self.files = self.news = 0
        self.turns = 0
        self._steps: Iterator[tuple[str, FileSignature] | None] = self.scan.steps()
        self.is_over = False

    def begin_turn(self) -> None:
        """Count a turn of the loop: what is remembered may be out of date after the first one."""
        self.turns += 1

    def next_file(self) -> tuple[str, FileSignature] | None:
        """Return the next file and its content; None where there is none yet, or none any more (`is_over`)."""
        try:
            found = next(self._steps)
        except StopIteration:
            self.is_over = True
            return None
        self.files += found is not None
        return found

    def count_news(self, is_new: bool) -> None:
        """Count a file that was not known."""
        self.news += is_new


class Intake:
    """All watched folders.

    Args:
        config: the config in force; see `configure`.
        ledger: what was done before.
        is_taken: tells whether this content of a path is being converted or waits for it.
        enqueue: takes hints for the loop; called from other threads.
        now: monotonic seconds.
        live: whether changes are watched for; else everything is looked at once.
    """

    def __init__(
        self,
        config: RunConfig,
        ledger: Ledger,
        is_taken: Callable[[str, FileSignature], bool],
        enqueue: Callable[[Hint], None],
        now: float,
        *,
        live: bool,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._is_taken = is_taken
        self._enqueue = enqueue
        self._live = live
        self._roots: dict[str, Root] = {}
        self._settling = Settling()
        self._relooks: list[tuple[float, FolderSeen]] = []
        self._wanted: dict[str, str] = {}  # folders that are to be looked through, and why
        self._rescan: _Rescan | None = None
        self._settled: list[Settled] = []
        self._done: list[Done] = []
        self._asides: list[Aside] = []
        self._overflow = OverflowListener(self._overflowed)
        try:
            if live:
                self._overflow.install()
            for settings in config.settings.watch:
                self._add(settings, now)
        except BaseException:
            self.stop()
            raise

    # --- life -------------------------------------------------------------------------------------

    def _add(self, settings: WatchSettings, now: float) -> None:
        root = Root(settings, self._config, self._enqueue, now, live=self._live)
        self._roots[root.path] = root
        self._wanted.setdefault(root.path, "start")

    def configure(self, config: RunConfig, now: float) -> None:
        """Watch what another config wants, as it wants it, and look at everything.

        Folders that both configs watch in the same way go on being watched without a gap.
        """
        old, self._config = self._config, config
        wanted = {str(watch.path): watch for watch in config.settings.watch}
        is_otherwise = (config.settings.rules, config.own_folders) != (old.settings.rules, old.own_folders)
        for path in [path for path in self._roots if path not in wanted]:
            self._roots.pop(path).stop()
            self._settling.forget_root(path)
            self._wanted.pop(path, None)
        self._rescan = None
        for path, settings in wanted.items():
            root = self._roots.get(path)
            if root is None:
                self._add(settings, now)
                continue
            is_changed = root.settings != settings or is_otherwise
            root.configure(settings, config, now)
            if is_changed:
                self._settling.forget_root(path)  # they are waited for anew, with the new times
        self.rescan_all("config reloaded")

    def rescan_all(self, reason: str) -> None:
        """Have everything looked at."""
        for path in self._roots:
            self._wanted.setdefault(path, reason)

    def stop(self) -> None:
        """Stop watching."""
        for root in self._roots.values():
            root.stop()
        self._overflow.uninstall()

    # --- questions --------------------------------------------------------------------------------

    @property
    def roots(self) -> Mapping[str, Root]:
        """The watched folders by path; not to be changed."""
        return self._roots

    @property
    def settling(self) -> Settling:
        """What is waited for."""
        return self._settling

    def wants(self, root_path: str, path: str) -> bool:
        """Tell whether a file is a checkpoint that is to be converted, as far as its path tells."""
        root = self._roots.get(root_path)
        return (
            root is not None
            and root.names.matches(root_path, path)
            and not skipped_by_path(self._config.settings.rules, relative_to(root_path, path))
        )

    @property
    def waiting(self) -> int:
        """How many checkpoints are waited for that may still settle soon."""
        return self._settling.waiting

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be looked at, or waited for but files that stay unfinished."""
        return not (self.waiting or self._relooks or self._wanted or self._rescan)

    def next_moment(self) -> float | None:
        """Return when `poll` has something to do, in monotonic seconds."""
        if self._wanted or self._rescan:
            return 0.0
        moments = [root.next_moment() for root in self._roots.values()]
        moments += [at for at, _ in self._relooks]
        if (look_at := self._settling.next_look()) is not None:
            moments.append(look_at)
        return min(moments, default=None)

    # --- a turn -----------------------------------------------------------------------------------

    def poll(self, hints: Iterable[Hint], now: float) -> Found:
        """Follow hints, look at what is due, and return what that has brought up.

        A rescan looks at so many files a turn, so that nothing else waits for it.

        Args:
            hints: what the watchers have told.
            now: monotonic seconds.
        """
        for hint in hints:
            self._follow(hint, now)
        self._look_again(now)
        for root in self._roots.values():
            if reason := root.why_rescan(now):
                self._wanted.setdefault(root.path, reason)
                root.begin_rescan(now)
        self._go_on_rescanning(now)
        for path in self._settling.due(
            now
        ):  # last: what settles is the queue's from now on, and nothing sees it between
            self._examine(path, now)
        found = Found(tuple(self._settled), tuple(self._done), tuple(self._asides))
        self._settled, self._done, self._asides = [], [], []
        return found

    def supervise(self, now: float) -> None:
        """Watch again where a watch has been lost, and have everything there looked at."""
        for root in self._roots.values():
            if reason := root.supervise(now):
                self._wanted.setdefault(root.path, reason)

    def report_unfinished(self) -> None:
        """Tell of every file that is still half written."""
        for path, reason in self._settling.unfinished().items():
            signature = signature_at(path)
            size_bytes = signature.size_bytes if signature else 0
            events.CHECKPOINT_INCOMPLETE(path=path, size_bytes=size_bytes, waited_s=None, reason=reason)

    def _follow(self, hint: Hint, now: float) -> None:
        match hint:
            case FileSeen(root, path, is_whole):
                self._look_at(root, path, now, is_whole=is_whole)
            case FolderSeen(root, path):
                self._look_into(root, path, now)
                self._relooks += [(now + pause_s, hint) for pause_s in FOLDER_RELOOK_S]
                if (of := self._roots.get(root)) is not None:
                    of.has_new_folder(now)
            case RescanNeeded(root, reason):
                if root in self._roots:
                    self._wanted.setdefault(root, reason)

    def _look_again(self, now: float) -> None:
        relooks, self._relooks = self._relooks, []
        for at, hint in relooks:
            if at <= now:
                self._look_into(hint.root, hint.path, now)
            else:
                self._relooks.append((at, hint))

    def _overflowed(self) -> None:
        for path in list(self._roots):
            self._enqueue(RescanNeeded(path, "event queue overflow"))

    # --- rescans ----------------------------------------------------------------------------------

    def _go_on_rescanning(self, now: float) -> None:
        """Compare what lies in the watched folders with what is remembered of it, so many files at a time."""
        left, end = FILES_A_TURN, time.monotonic() + TURN_S
        while left > 0 and time.monotonic() < end:
            if self._rescan is None:
                if not self._wanted:
                    return
                path = next(iter(self._wanted))
                self._rescan = self._begin_rescan(self._roots[path], self._wanted.pop(path), now)
            rescan = self._rescan
            before = rescan.files
            rescan.begin_turn()
            self._look_through(rescan, left, end, now)
            left -= max(1, rescan.files - before)
            if rescan.is_over:
                self._rescan = None
                self._end_rescan(rescan, now)

    def _begin_rescan(self, root: Root, reason: str, now: float) -> _Rescan:
        root.begin_rescan(now)
        events.RESCAN_STARTED(path=root.path, reason=reason)
        return _Rescan(root, reason, self._ledger.contents_of_root(root.path), time.monotonic())

    def _look_through(self, rescan: _Rescan, most: int, end: float, now: float) -> None:
        """Look at some files of a folder, or until a moment (monotonic seconds)."""
        root, path = rescan.root, rescan.root.path
        rules = self._config.settings.rules
        clears = root.settings.after != "keep" or any(rule.after not in (None, "keep") for rule in rules)
        must_ask = rescan.turns > 1 or any(_is_one_in_the_other(path, other) for other in self._roots)
        for number in range(most):
            if number % _FILES_A_LOOK == _FILES_A_LOOK - 1 and time.monotonic() >= end:
                return
            found = rescan.next_file()
            if rescan.is_over:
                return
            if found is None:
                continue
            file, signature = found
            content = rescan.remembered.pop(file, _UNKNOWN)
            if content == (signature.size_bytes, signature.mtime_ns, signature.inode):
                if clears:
                    self._done.append(Done(file, path, signature))
            elif content is _UNKNOWN and not must_ask:
                rescan.count_news(self._observe(root, file, signature, now, is_whole=False))
            else:
                rescan.count_news(self._consider(root, file, signature, now, is_whole=False))

    def _end_rescan(self, rescan: _Rescan, now: float) -> None:
        root = rescan.root
        if rescan.remembered:
            # Not at once: a folder that is unmounted, or that cannot be read for a moment, comes back.
            self._ledger.forget_missing(rescan.remembered, time.time() - FORGET_AFTER_S)
        self._asides += [Aside(private, root.path) for private in rescan.scan.asides]
        root.end_rescan(rescan.scan.folders, now)
        events.RESCAN_FINISHED(
            path=root.path,
            reason=rescan.reason,
            files=rescan.files,
            news=rescan.news,
            duration_s=round(time.monotonic() - rescan.began, 3),
        )

    # --- one file ---------------------------------------------------------------------------------

    def _look_into(self, root_path: str, folder: str, now: float) -> None:
        root = self._roots.get(root_path)
        if root is not None:
            scan = CheckpointScan(folder, root_path, root.names)
            for file, signature in scan:
                self._consider(root, file, signature, now, is_whole=False)
            self._asides += [Aside(private, root_path) for private in scan.asides]

    def _look_at(self, root_path: str, path: str, now: float, *, is_whole: bool) -> None:
        root = self._roots.get(root_path)
        if root is None or not root.names.matches(root_path, path):
            return
        signature = signature_at(path)
        if signature is not None:
            self._consider(root, path, signature, now, is_whole=is_whole)
        elif self._settling.forget(path):
            events.CHECKPOINT_VANISHED(path=path)

    def _consider(self, root: Root, path: str, signature: FileSignature, now: float, *, is_whole: bool) -> bool:
        """Wait for a file, unless this very content is done with already; tell whether it is a new one."""
        known = path not in self._settling and not isinstance(
            decide(signature, self._ledger.get(path), self._config.template_digest), Convert
        )
        return not known and self._observe(root, path, signature, now, is_whole=is_whole)

    def _observe(self, root: Root, path: str, signature: FileSignature, now: float, *, is_whole: bool) -> bool:
        """Begin or go on waiting for a file; tell whether it is a new one."""
        if self._is_taken(path, signature):
            return False
        rules, relpath = self._config.settings.rules, relative_to(root.path, path)
        if reason := skipped_by_path(rules, relpath):
            self._skip(root, path, signature, reason)
            return False
        is_new = path not in self._settling
        settings = watch_settings_for(root.settings, rules, relpath)
        timing = Timing(settings.settle_s, settings.incomplete_after_s)
        self._settling.observe(path, root.path, signature, timing, now, is_whole=is_whole)
        if is_new:
            events.CHECKPOINT_SEEN(path=path, size_bytes=signature.size_bytes, watch=root.path)
        return is_new

    def _skip(self, root: Root, path: str, signature: FileSignature, reason: str) -> None:
        """Say once that a rule leaves this content of a file alone."""
        events.CHECKPOINT_SKIPPED(path=path, reason=reason)
        before = self._ledger.get(path)
        row = LedgerRow(path, root.path, signature, Status.SKIPPED, reason=reason)
        model_id = before.model_id if before else ""
        self._ledger.put([replace(row, template_digest=self._config.template_digest, model_id=model_id)])

    def _examine(self, path: str, now: float) -> None:
        """Look at a file that has been quiet for long enough."""
        signature = signature_at(path)
        if signature is None:
            self._settling.forget(path)
            events.CHECKPOINT_VANISHED(path=path)
            return
        try:
            unfinished = why_unfinished(path)
        except OSError:
            unfinished = ""  # the conversion will say what is wrong with it, and try again
        verdict = self._settling.examined(path, signature, unfinished, now)
        if verdict is None:
            return
        facts = {"path": path, "size_bytes": signature.size_bytes, "waited_s": round(verdict.waited_s, 3)}
        match verdict:
            case Settled():
                events.CHECKPOINT_SETTLED(**facts)
                self._settled.append(verdict)
            case Incomplete(reason=reason):
                events.CHECKPOINT_INCOMPLETE(**facts, reason=reason)


def _is_one_in_the_other(path: str, other: str) -> bool:
    return path != other and (f"{other}/".startswith(f"{path}/") or f"{path}/".startswith(f"{other}/"))
