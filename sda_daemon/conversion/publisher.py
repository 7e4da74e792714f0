"""What becomes of conversions that have ended: models in the library, and what is to be remembered of the rest.

The order of durable steps is file, index, ledger, and only then the checkpoints themselves: the first two are done
here, and it is said what the others have to do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sda_daemon import events
from sda_daemon.conversion.failures import Consequence, Verdict, consequence_of
from sda_daemon.conversion.job import Converted, Failed
from sda_daemon.conversion.publish import Action, Published, failure_of, publish
from sda_daemon.conversion.work import RunContext, RunningWork, Work
from sda_daemon.errors import SdaError
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.os_errors import with_sandbox_hint
from sda_daemon.signature import signature_at
from sda_daemon.state.ledger import SLIDERS_KIND, Ledger
from sda_daemon.state.policy import LedgerRow, Status
from sda_daemon.watching.hints import FileSeen
from sda_daemon.wording import LONGEST_QUOTE, clean

GIVEN_UP_HINT = "it is tried again when the file changes"


@dataclass(slots=True)
class Result:
    """What has become of some conversions, and what is to be done about it.

    Attributes:
        rows: what is to be remembered of their checkpoints.
        forgotten: checkpoints that are no more.
        published: those that were published, each with its model.
        again: checkpoints that are to be converted once more, at once or after a pause.
        hints: files that are to be looked at again.
        failed: how many attempts failed.
        succeeded: how many models were added or changed.
        newest: name of the last of these, empty for none.
    """

    rows: list[LedgerRow] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    published: list[tuple[RunningWork, Published]] = field(default_factory=list)
    again: list[Work] = field(default_factory=list)
    hints: list[FileSeen] = field(default_factory=list)
    failed: int = 0
    succeeded: int = 0
    newest: str = ""

    def count_failure(self) -> None:
        """Count a failed attempt."""
        self.failed += 1

    def count_model(self, entry: ModelEntry) -> None:
        """Count a model that was added or changed."""
        self.succeeded += 1
        self.newest = clean(entry.name or entry.file_path, LONGEST_QUOTE)


class Publisher:
    """Publishes what was converted.

    Args:
        ledger: is asked what the daemon made before; nothing is put into it here.
        retries: whether failures that may pass are tried again.
    """

    def __init__(self, ledger: Ledger, *, retries: bool) -> None:
        self._ledger = ledger
        self._with_retries = retries

    def publish(self, ended: Sequence[RunningWork], context: RunContext, now: float, *, is_cut: bool = False) -> Result:
        """Publish what was converted, with one write of each index, and say what follows.

        Args:
            ended: conversions that have ended.
            context: what is in force now, which may not be what they began with.
            now: monotonic seconds.
            is_cut: whether the workers have been ended: then nothing has failed.
        """
        result = Result()
        for library in {id(item.context.library): item.context.library for item in ended}.values():
            here = {item.work.path: item for item in ended if item.context.library is library}
            published, failed = self._publish_in(library, here, context)
            for one in published:
                _take(one, here[one.converted.job.path], result)
            for outcome in failed if not is_cut else ():
                self._failed(outcome, here[outcome.job.path], context, result, now)
        return result

    def _publish_in(
        self, library: ModelLibrary, ended: dict[str, RunningWork], context: RunContext
    ) -> tuple[list[Published], list[Failed]]:
        """Publish what was converted for one library; return that, and what failed, then or before."""
        converted = [item.outcome for item in ended.values() if isinstance(item.outcome, Converted)]
        failed = [item.outcome for item in ended.values() if isinstance(item.outcome, Failed)]
        if not converted:
            return [], failed
        try:
            published = publish(library, converted, self._replacements(ended, converted, context))
        except (OSError, SdaError) as error:
            kind = error.kind if isinstance(error, SdaError) else "cannot_publish"
            return [], [*failed, *(Failed(item.job, kind, False, with_sandbox_hint(error)) for item in converted)]
        failed += [failure_of(one) for one in published if one.action is Action.FAILED]
        return [one for one in published if one.action is not Action.FAILED], failed

    def _failed(self, failed: Failed, item: RunningWork, context: RunContext, result: Result, now: float) -> None:
        """Do what follows from a failed attempt; see `failures`."""
        before = self._ledger.get(item.work.path)
        found = consequence_of(
            failed,
            item.work,
            model_id=before.model_id if before is not None else "",
            digest_in_force=context.config.template_digest,
            max_attempts=item.context.config.settings.conversion.max_attempts,
            spread=random.random(),  # noqa: S311 - jitter
        )
        pause_s = found.pause_s if self._with_retries else None
        _tell_failed(failed, item.work, found, pause_s)
        if found.row is None:
            result.forgotten.append(item.work.path)
        elif found.pause_s is not None:
            result.rows.append(replace(found.row, next_try_at=time.time() + found.pause_s))
        else:
            result.rows.append(found.row)
        if found.look_again:
            result.hints.append(FileSeen(item.work.root, item.work.path, False))
        if found.verdict in (Verdict.FAILED, Verdict.GIVEN_UP):
            result.count_failure()
        if pause_s is not None and context.config.watch_at(item.work.root) is not None:
            result.again.append(replace(item.work, not_before=now + pause_s))

    def _replacements(
        self, items: dict[str, RunningWork], converted: Iterable[Converted], context: RunContext
    ) -> dict[str, str]:
        """Paths whose earlier model is to be replaced: made of this path, of no other that is there, not in use."""
        found: dict[str, str] = {}
        wanted = {one.metadata.model_id for one in converted}  # what others of these have just been found to be
        for one in converted:
            path, item = one.job.path, items[one.job.path]
            row = self._ledger.get(path)
            if item.watch is None or item.watch.on_overwrite != "replace" or row is None or not row.model_id:
                continue
            known = self._ledger.paths_of_model(row.model_id)
            others = [other for other, _ in known if other != path and signature_at(other)]
            made = self._ledger.made_model(row.model_id)
            is_of_path = made is not None and made.source_path == path
            library = item.context.library
            library.refresh()  # what people have done meanwhile counts
            old = library.get(row.model_id)
            in_use = old is not None and context.in_use.why(library, old)
            if is_of_path and row.model_id not in wanted and not others and not in_use:
                found[path] = row.model_id
        return found


def _take(published: Published, item: RunningWork, result: Result) -> None:
    """Note what follows from a conversion that was published, or must be done once more, and say it."""
    _tell_ignored_notes(published.converted)
    if published.entry is None:
        result.again.append(replace(item.work, not_before=0.0))
        return
    result.published.append((item, published))
    result.rows.append(_row_of(item.work, published, published.entry))
    _tell_published(published, published.entry)
    if published.action is not Action.DUPLICATE:
        result.count_model(published.entry)


def _row_of(work: Work, published: Published, entry: ModelEntry) -> LedgerRow:
    """Return what is to be remembered of a checkpoint whose model is in the library."""
    converted = published.converted
    status = Status.DUPLICATE if published.action is Action.DUPLICATE else Status.DONE
    kind = SLIDERS_KIND if converted.metadata.has_analysis else ""
    row = LedgerRow(work.path, work.root, work.signature, status, work.attempt, kind)
    return replace(row, model_id=entry.model_id, weights_digest=converted.weights_digest)


def _tell_ignored_notes(converted: Converted) -> None:
    for notes, reason in converted.ignored_notes:
        events.NOTES_IGNORED(path=notes, checkpoint=converted.job.path, reason=reason)


def _tell_published(published: Published, entry: ModelEntry) -> None:
    converted = published.converted
    path = converted.job.path
    names = {"model_id": entry.model_id, "name": entry.name, "file": entry.file_path}
    if published.action is Action.DUPLICATE:
        is_twin = entry.model_id != converted.metadata.model_id
        reason = "the library has this model already"
        if is_twin:
            reason = "another program has saved the same weights in the library"
        events.CHECKPOINT_SKIPPED(path=path, reason=reason, **names)
        if converted.no_sliders and not entry.has_analysis:
            events.MODEL_WITHOUT_SLIDERS(**names, reason=converted.no_sliders)
        return
    for key, foreign_name in converted.dropped:
        events.CONVERSION_DROPPED_VALUE(path=path, key=key, foreign_name=foreign_name)
    if published.action is Action.ADDED:
        events.LIBRARY_ENTRY_ADDED(**names)
    duration_s = round(converted.duration_s, 3)
    events.CONVERSION_SUCCEEDED(path=path, action=published.action.value, duration_s=duration_s, **names)
    for trouble in converted.troubles:
        events.CONVERSION_NOT_PLAYABLE(
            path=path,
            model_id=entry.model_id,
            file=entry.file_path,
            format=converted.format_name,
            reason=trouble.reason,
            hint=trouble.hint,
        )


def _tell_failed(failed: Failed, work: Work, found: Consequence, pause_s: float | None) -> None:
    """Say what a failed attempt turned out to be."""
    match found.verdict:
        case Verdict.VANISHED:
            events.CHECKPOINT_VANISHED(path=work.path)
        case Verdict.SKIPPED:
            events.CHECKPOINT_SKIPPED(path=work.path, reason=failed.message)
        case Verdict.FAILED | Verdict.GIVEN_UP:
            facts = {"path": work.path, "kind": failed.kind, "reason": failed.message}
            events.CONVERSION_FAILED(
                **facts,
                permanent=failed.permanent,
                attempt=work.attempt,
                retry_in_s=None if pause_s is None else round(pause_s, 1),
            )
            if found.verdict is Verdict.GIVEN_UP:
                events.CONVERSION_GIVEN_UP(**facts, attempts=work.attempt, hint=GIVEN_UP_HINT)
        case Verdict.CHANGED:
            pass
