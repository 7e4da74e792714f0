"""From hints to settled checkpoints: the watched folders, their rescans, and the waiting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sda_daemon import events
from sda_daemon.intake.probe import why_unfinished
from sda_daemon.intake.scan import CheckpointNames, CheckpointScan
from sda_daemon.intake.settling import Incomplete, Settled, Settling, Timing
from sda_daemon.settings.rules import skipped_by_path, watch_settings_for
from sda_daemon.settings.schema import RuleSettings, WatchSettings
from sda_daemon.signature import FileSignature, signature_at
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.policy import Convert, LedgerRow, Status, decide
from sda_daemon.watching.hints import FileSeen, FolderSeen, Hint, RescanNeeded
from sda_daemon.watching.reach import why_unwatchable
from sda_daemon.watching.watcher import OverflowListener, RootWatch, refuses_watches

FOLDER_RELOOK_S = (0.5, 2.0)
"""A new folder is looked into again after these pauses: files can come before its watch is in place."""
CHECK_LIMIT_S = 1.0
"""After new folders appeared, so much later it is checked whether the kernel had watches for them."""
RECOVER_S = 15.0
"""How often native watching is tried again where only polling was possible."""
FORGET_AFTER_S = 30 * 86_400.0
"""A checkpoint that is gone for so long is forgotten, in seconds."""
_UNKNOWN = (-1, -1, -1)
"""Stands for a path that the ledger does not know; no file has such a size."""
LIMIT_HINT = "raise fs.inotify.max_user_watches and max_user_instances with sysctl; then it recovers by itself"


@dataclass(slots=True)
class Root:
    """A watched folder and what belongs to it."""

    settings: WatchSettings
    path: str
    names: CheckpointNames
    watch: RootWatch
    rescan_at: float = 0.0
    recover_at: float = 0.0
    check_limit_at: float = math.inf
    folders: int = 0
    was_missing: bool = False
    shortage: str = ""


class Intake:
    """All watched folders.

    Args:
        ledger: what was done before.
        enqueue: takes hints for the loop; called from other threads.
        is_taken: tells whether this content of a path is being converted or waits for it.
        on_settled: called for each checkpoint that is complete and not known yet.
        on_candidate: called when a checkpoint is first seen.
    """

    def __init__(
        self,
        ledger: Ledger,
        enqueue: Callable[[Hint], None],
        is_taken: Callable[[str, FileSignature], bool],
        on_settled: Callable[[Settled], None],
        on_candidate: Callable[[], None],
    ) -> None:
        self.roots: dict[str, Root] = {}
        self.settling = Settling()
        self.template_digest = ""
        self.rules: tuple[RuleSettings, ...] = ()
        self.own_folders: tuple[str, ...] = ()
        self.rescan_interval_s = 300.0
        self.on_progress: Callable[[], None] = lambda: None  # called while something long goes on
        self.on_done: Callable[[str, str, FileSignature], None] = lambda *_: None  # (path, root, signature)
        self.on_aside: Callable[[str, str], None] = lambda *_: None  # (private path, root)
        self._ledger = ledger
        self._enqueue = enqueue
        self._is_taken = is_taken
        self._on_settled = on_settled
        self._on_candidate = on_candidate
        self._relooks: list[tuple[float, FolderSeen]] = []
        self._overflow = OverflowListener(self._overflowed)
        self._live = False

    # --- life -------------------------------------------------------------------------------------

    def start(self, watches: Iterable[WatchSettings], *, live: bool) -> None:
        """Begin to watch (only if `live`), and look at everything once."""
        self._live = live
        if live:
            self._overflow.install()
        for settings in watches:
            self.add(settings)

    def add(self, settings: WatchSettings) -> None:
        """Begin to watch one folder."""
        path = str(settings.path)
        root = Root(
            settings,
            path,
            CheckpointNames(settings.patterns, settings.ignore, self.own_folders),
            RootWatch(path, settings.observer, settings.poll_interval_s, self._enqueue),
            rescan_at=time.monotonic() + self.rescan_interval_s,
        )
        self.roots[path] = root
        if self._live:
            self._start_watch(root)
        self._enqueue(RescanNeeded(path, "start"))

    def rescan_all(self, reason: str) -> None:
        """Look at everything."""
        for path in list(self.roots):
            self.rescan(path, reason)

    def remove(self, path: str) -> None:
        """Stop watching one folder."""
        root = self.roots.pop(path, None)
        if root is not None:
            root.watch.stop()
            self.settling.forget_root(path)

    def configure(
        self, watches: Iterable[WatchSettings], rules: tuple[RuleSettings, ...], own_folders: tuple[str, ...]
    ) -> None:
        """Watch what another config wants, as it wants it; the caller has everything looked at afterwards.

        Folders that both configs watch in the same way go on being watched without a gap.
        """
        wanted = {str(watch.path): watch for watch in watches}
        is_otherwise = (rules, own_folders) != (self.rules, self.own_folders)
        self.rules, self.own_folders = rules, own_folders
        for path in [path for path in self.roots if path not in wanted]:
            self.remove(path)
        for path, settings in wanted.items():
            root = self.roots.get(path)
            if root is None:
                self.add(settings)
            elif root.settings != settings or is_otherwise:
                self._change(root, settings)

    def _change(self, root: Root, settings: WatchSettings) -> None:
        old, root.settings = root.settings, settings
        root.names = CheckpointNames(settings.patterns, settings.ignore, self.own_folders)
        if (old.observer, old.poll_interval_s) != (settings.observer, settings.poll_interval_s):
            root.watch.stop()
            root.watch = RootWatch(root.path, settings.observer, settings.poll_interval_s, self._enqueue)
            root.shortage = ""
            if self._live:
                self._start_watch(root)
        self.settling.forget_root(root.path)  # they are waited for anew, with the new times

    def wants(self, root_path: str, path: str) -> bool:
        """Tell whether a file is a checkpoint that is to be converted, as far as its path tells."""
        root = self.roots.get(root_path)
        return (
            root is not None
            and root.names.matches(root_path, path)
            and not skipped_by_path(self.rules, _below(root_path, path))
        )

    def stop(self) -> None:
        """Stop watching."""
        for root in self.roots.values():
            root.watch.stop()
        self._overflow.uninstall()

    @property
    def waiting(self) -> int:
        """How many checkpoints are waited for that may still settle soon."""
        return self.settling.waiting

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is waited for but files that stay unfinished."""
        return not self.waiting and not self._relooks

    # --- the loop's side --------------------------------------------------------------------------

    def handle(self, hint: Hint) -> None:
        """Follow a hint."""
        match hint:
            case FileSeen(root, path, is_whole):
                self._look_at(root, path, is_whole=is_whole)
            case FolderSeen(root, path):
                self._look_into(root, path)
                now = time.monotonic()
                self._relooks += [(now + pause_s, hint) for pause_s in FOLDER_RELOOK_S]
                if (of := self.roots.get(root)) is not None:
                    of.check_limit_at = min(of.check_limit_at, now + CHECK_LIMIT_S)
            case RescanNeeded(root, reason):
                self.rescan(root, reason)

    def next_moment(self) -> float | None:
        """Return when `tick` has something to do, in monotonic seconds."""
        moments = [min(root.rescan_at, root.check_limit_at) for root in self.roots.values()]
        moments += [at for at, _ in self._relooks]
        if (look_at := self.settling.next_look()) is not None:
            moments.append(look_at)
        return min(moments, default=None)

    def tick(self, now: float) -> None:
        """Look at what is due."""
        for path in self.settling.due(now):
            self._examine(path)
        relooks, self._relooks = self._relooks, []
        for at, hint in relooks:
            if at <= now:
                self._look_into(hint.root, hint.path)
            else:
                self._relooks.append((at, hint))
        for root in list(self.roots.values()):
            if root.rescan_at <= now:
                self.rescan(root.path, "interval")
            elif root.check_limit_at <= now:
                self._suspect_watch_limit(root)

    def supervise(self) -> None:
        """Watch again where a watch has been lost, and look at everything there."""
        now = time.monotonic()
        for root in self.roots.values():
            lost = root.watch.why_lost()
            if lost:
                if root.watch.state.observer:
                    events.WATCH_LOST(path=root.path, reason=lost)
                    root.watch.stop()
                if self._start_watch(root):
                    self.rescan(root.path, f"watch restarted: {lost}")
            elif root.watch.state.can_recover and root.recover_at <= now:
                root.recover_at = now + RECOVER_S
                if root.watch.recover():
                    events.WATCH_RECOVERED(path=root.path)
                    self.rescan(root.path, "native watching works again")

    def _suspect_watch_limit(self, root: Root) -> None:
        """Where a new folder may not have got a watch, have all folders counted now rather than some time later."""
        root.check_limit_at = math.inf
        if root.watch.state.observer == "native" and not root.shortage and refuses_watches(root.path):
            self.rescan(root.path, "inotify watch limit reached")

    def _check_watch_limit(self, root: Root) -> None:
        """Notice folders that the kernel refused to watch: watchdog passes over them in silence."""
        if root.watch.state.observer != "native":
            return
        lacking = root.folders - root.watch.watched_folders()
        if lacking <= 0:
            if root.shortage:
                root.shortage = ""
                events.WATCH_RECOVERED(path=root.path)
            return
        folders = "1 folder is" if lacking == 1 else f"{lacking} folders are"
        reason = f"inotify watch limit reached: {folders} not watched"
        if not root.shortage:
            events.WATCH_DEGRADED(path=root.path, reason=reason, hint=LIMIT_HINT)
        now = time.monotonic()
        if root.shortage and root.recover_at <= now:
            root.recover_at = now + RECOVER_S
            root.watch.stop()
            root.watch.start()
        root.shortage = reason
        root.rescan_at = min(root.rescan_at, now + root.settings.poll_interval_s)

    def report_unfinished(self) -> None:
        """Tell of every file that is still half written."""
        for path, reason in self.settling.unfinished().items():
            signature = signature_at(path)
            size_bytes = signature.size_bytes if signature else 0
            events.CHECKPOINT_INCOMPLETE(path=path, size_bytes=size_bytes, waited_s=None, reason=reason)

    # --- watching ---------------------------------------------------------------------------------

    def _overflowed(self) -> None:
        for path in list(self.roots):
            self._enqueue(RescanNeeded(path, "event queue overflow"))

    def _start_watch(self, root: Root) -> bool:
        if not root.watch.start():
            if not root.was_missing:
                reason = why_unwatchable(Path(root.path)) or "it is not there"
                events.WATCH_MISSING(path=root.path, reason=reason)
            root.was_missing = True
            return False
        root.was_missing = False
        state = root.watch.state
        if state.problem:
            hint = LIMIT_HINT if state.can_recover else ""
            events.WATCH_DEGRADED(path=root.path, reason=state.problem, hint=hint)
            root.recover_at = time.monotonic() + RECOVER_S
        events.WATCH_STARTED(path=root.path, observer=state.observer)
        return True

    def rescan(self, path: str, reason: str) -> None:
        """Compare all that lies in a watched folder with what is remembered of it."""
        root = self.roots.get(path)
        if root is None:
            return
        began = time.monotonic()
        root.rescan_at, root.check_limit_at = began + self.rescan_interval_s, math.inf
        events.RESCAN_STARTED(path=path, reason=reason)
        remembered = self._ledger.contents_of_root(path)
        files = news = 0
        clears = root.settings.after != "keep" or any(rule.after not in (None, "keep") for rule in self.rules)
        shares = any(f"{other}/".startswith(f"{path}/") or f"{path}/".startswith(f"{other}/")
                     for other in self.roots if other != path)  # fmt: skip
        scan = CheckpointScan(path, path, root.names)
        for file, signature in scan:
            if files % 1000 == 0:
                self.on_progress()
            files += 1
            content = remembered.pop(file, _UNKNOWN)
            if content == (signature.size_bytes, signature.mtime_ns, signature.inode):
                if clears:
                    self.on_done(file, path, signature)
            elif content is _UNKNOWN and not shares:
                news += self._observe(root, file, signature, is_whole=False)
            else:
                news += self._consider(root, file, signature, is_whole=False)
        if remembered:
            # Not at once: a folder that is unmounted, or that cannot be read for a moment, comes back.
            self._ledger.forget_missing(remembered, time.time() - FORGET_AFTER_S)
        root.folders = scan.folders
        for private in scan.asides:
            self.on_aside(private, path)
        self._check_watch_limit(root)
        events.RESCAN_FINISHED(
            path=path, reason=reason, files=files, news=news, duration_s=round(time.monotonic() - began, 3)
        )

    def _look_into(self, root_path: str, folder: str) -> None:
        root = self.roots.get(root_path)
        if root is not None:
            scan = CheckpointScan(folder, root_path, root.names)
            for file, signature in scan:
                self._consider(root, file, signature, is_whole=False)
            for private in scan.asides:
                self.on_aside(private, root_path)

    def _look_at(self, root_path: str, path: str, *, is_whole: bool) -> None:
        root = self.roots.get(root_path)
        if root is None or not root.names.matches(root_path, path):
            return
        signature = signature_at(path)
        if signature is not None:
            self._consider(root, path, signature, is_whole=is_whole)
        elif self.settling.forget(path):
            events.CHECKPOINT_VANISHED(path=path)

    def _consider(self, root: Root, path: str, signature: FileSignature, *, is_whole: bool) -> bool:
        """Wait for a file, unless this very content is done with already; tell whether it is a new one."""
        known = path not in self.settling and not isinstance(
            decide(signature, self._ledger.get(path), self.template_digest), Convert
        )
        return not known and self._observe(root, path, signature, is_whole=is_whole)

    def _observe(self, root: Root, path: str, signature: FileSignature, *, is_whole: bool) -> bool:
        """Begin or go on waiting for a file; tell whether it is a new one."""
        if self._is_taken(path, signature):
            return False
        relpath = _below(root.path, path)
        if reason := skipped_by_path(self.rules, relpath):
            self._skip(root, path, signature, reason)
            return False
        is_new = path not in self.settling
        settings = watch_settings_for(root.settings, self.rules, relpath)
        timing = Timing(settings.settle_s, settings.incomplete_after_s)
        self.settling.observe(path, root.path, signature, timing, time.monotonic(), is_whole=is_whole)
        if is_new:
            events.CHECKPOINT_SEEN(path=path, size_bytes=signature.size_bytes, watch=root.path)
            self._on_candidate()
        return is_new

    def _skip(self, root: Root, path: str, signature: FileSignature, reason: str) -> None:
        """Say once that a rule leaves this content of a file alone."""
        events.CHECKPOINT_SKIPPED(path=path, reason=reason)
        before = self._ledger.get(path)
        row = LedgerRow(path, root.path, signature, Status.SKIPPED, reason=reason)
        model_id = before.model_id if before else ""
        self._ledger.put([replace(row, template_digest=self.template_digest, model_id=model_id)])

    # --- waiting ----------------------------------------------------------------------------------

    def _examine(self, path: str) -> None:
        signature = signature_at(path)
        if signature is None:
            self.settling.forget(path)
            events.CHECKPOINT_VANISHED(path=path)
            return
        try:
            unfinished = why_unfinished(path)
        except OSError:
            unfinished = ""  # the conversion will say what is wrong with it, and try again
        verdict = self.settling.examined(path, signature, unfinished, time.monotonic())
        if verdict is None:
            return
        facts = {"path": path, "size_bytes": signature.size_bytes, "waited_s": round(verdict.waited_s, 3)}
        match verdict:
            case Settled():
                events.CHECKPOINT_SETTLED(**facts)
                self._on_settled(verdict)
            case Incomplete(reason=reason):
                events.CHECKPOINT_INCOMPLETE(**facts, reason=reason)


def _below(root: str, path: str) -> str:
    return path[len(root) :].lstrip("/")
