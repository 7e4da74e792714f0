"""`sda-daemon models repair`."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sda_daemon.cli.library import open_library
from sda_daemon.cli.options import AsJson, ConfigFile, Everything, ModelsDir, Yes, examples
from sda_daemon.cli.output import Column, ask, counted, make_console, note, print_json, print_table, say
from sda_daemon.errors import ExitCode
from sda_daemon.wording import MOST_LINES, quoted

if TYPE_CHECKING:
    from sda_daemon.library import ModelLibrary
    from sda_daemon.library.repair import Finding, RepairPlan
    from sda_daemon.state.missing_library import MissingLibrary

EXAMPLES = examples(
    "sda-daemon models repair --dry-run    what is wrong, and what would be done",
    "sda-daemon models repair",
)


def repair_library(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    yes: Yes = False,
    everything: Everything = False,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> int:
    """Make the index agree with the files in the folder.

    Shows the plan and asks before it does anything. No model file is changed or deleted, and entries of other programs
    stay as they are. Where the whole folder is lost, it asks whether that was meant, so that the daemon need not wait
    for it.
    """
    if (missing := _find_missing(models_dir, config)) is not None:
        return _forget(missing, dry_run=dry_run, yes=yes, as_json=as_json)
    library = open_library(models_dir, config)
    plan = library.plan_repair()
    if not as_json:
        _print_plan(plan, everything=everything)
    done: list[Finding] | None = None
    if plan.changes_index and not dry_run:
        if not ask(f"Make {counted(_changes(plan), 'change')} of the index?", yes=yes):
            note("Nothing was changed.")
            return ExitCode.FAILED
        logging.getLogger("sda_daemon").setLevel(logging.ERROR)  # the plan has told all of it already
        done = library.apply_repair(plan)
    if as_json:
        print_json({"applied": done is not None, "entries": plan.entries, "findings": _documents(plan)})
    elif done is not None:
        _say_done(plan, done, library.count())
    elif plan.changes_index:
        note("Nothing was changed: this was a dry run.")
    if not as_json:
        _note_shared_names(library)
    return ExitCode.OK


def _say_done(plan: RepairPlan, done: list[Finding], models: int) -> None:
    """Say what was done, which is less than was planned where another program has changed something meanwhile."""
    removed, added = sum(finding.removes for finding in done), sum(finding.adds for finding in done)
    back = f", {len(plan.put_back)} put back" if plan.put_back else ""
    say(f"repaired: {removed} removed, {added} added{back}; now {counted(models, 'model')}")
    if len(done) < len(plan.findings):
        note(f"{counted(len(plan.findings) - len(done), 'finding')} had changed meanwhile. Look again: models repair")


def _note_shared_names(library: ModelLibrary) -> None:
    """Say which models cannot be told apart by their names: of many names only the first. No repair changes a name."""
    from sda_daemon.library.naming import shared_names

    shared = shared_names(library.entries())
    if shared:
        rest = f" (and so on for {counted(len(shared) - 1, 'more name')})" if len(shared) > 1 else ""
        note(
            f"{counted(len(shared[0]), 'model')} are called {quoted(shared[0][0].name)}{rest}, "
            "and the training application finds models by name.\n"
            f"Give one another name: sda-daemon models edit {shared[0][-1].model_id[:8]} --name …"
        )


def _find_missing(models_dir: Path | None, config: Path | None) -> MissingLibrary | None:
    """Look whether the config's models folder is missing; of another the ledger knows nothing."""
    if models_dir is not None:
        return None
    from sda_daemon.settings.loading import find_config, load_config, state_folder
    from sda_daemon.state.missing_library import find_missing_library

    settings = load_config(find_config(config)).settings
    return find_missing_library(settings.models_dir, state_folder(settings), at_least=1)


def _forget(missing: MissingLibrary, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Tell the daemon that a missing folder's models were deleted on purpose, if they were."""
    from sda_daemon.state.missing_library import forget_missing_library

    if not as_json:
        say(f"{missing.models_dir}: {missing}.")
        say("If it is not mounted, mount it, and nothing needs repair.")
    if not dry_run:
        if not ask(f"Was that on purpose, and the daemon is to forget {counted(missing.models, 'model')}?", yes=yes):
            note("Nothing was changed.")
            return ExitCode.FAILED
        forget_missing_library(missing)
    if as_json:
        finding = {"kind": "lost", "file": str(missing.models_dir), "reason": str(missing), "action": "forget"}
        print_json(
            {
                "applied": not dry_run,
                "entries": missing.models,
                "findings": [{**finding, "old_model_id": None, "new_model_id": None}],
            }
        )
    elif dry_run:
        note("Nothing was changed: this was a dry run.")
    else:
        say("forgotten: the daemon begins a new library there; what it has converted is not converted again by itself")
    return ExitCode.OK


def _changes(plan: RepairPlan) -> int:
    return sum(1 for finding in plan.findings if finding.old_id or finding.new) + len(plan.put_back)


def _documents(plan: RepairPlan) -> list[dict[str, Any]]:
    """Return all that a plan says: what is wrong, what is put back, and what belongs to other programs."""
    nothing = {"old_model_id": None, "new_model_id": None}
    found = [
        {
            "kind": finding.kind.value,
            "file": finding.file,
            "reason": finding.reason,
            "action": _action(finding),
            "old_model_id": finding.old_id or None,
            "new_model_id": finding.new.model_id if finding.new else None,
        }
        for finding in plan.findings
    ]
    why = "another program has left it out of the index without knowing it"
    found += [{"kind": "left_out", "file": what, "reason": why, "action": "put_back", **nothing}
              for what in plan.put_back]  # fmt: skip
    found += [
        {"kind": "foreign", "file": entry.file, "reason": entry.reason, "action": "none", **nothing,
         "old_model_id": entry.key}
        for entry in plan.foreign
    ]  # fmt: skip
    return found


def _action(finding: Finding) -> str:
    if finding.old_id and finding.new:
        return "update"
    if finding.new:
        return "add"
    return "remove" if finding.old_id else "none"


_WORDS = {
    "update": "refresh entry",
    "add": "add entry",
    "remove": "remove entry",
    "put_back": "put back",
    "none": "leave alone",
}


def _print_plan(plan: RepairPlan, *, everything: bool) -> None:
    if not plan.findings and not plan.put_back:
        say(f"The index agrees with the folder: {counted(plan.entries, 'model')}.")
    found = _documents(plan)
    if not found:
        return
    console = make_console()
    columns = [
        Column("What", style="bold"),
        Column("Would do"),
        Column("File", least=20),
        Column("Why", least=24, rank=1),
    ]
    rows = [
        (item["kind"].replace("_", " "), _WORDS[item["action"]], item["file"] or item["old_model_id"], item["reason"])
        for item in found
    ]
    how = "sda-daemon models repair --dry-run --all"
    print_table(console, columns, rows, how, None if everything else MOST_LINES)
    if len(rows) > MOST_LINES and not everything:
        counts = Counter(row[0] for row in rows)
        say(f"{len(rows)} findings: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
