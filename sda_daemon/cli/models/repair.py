"""`sda-daemon models repair`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sda_daemon.cli.library import open_library
from sda_daemon.cli.options import AsJson, ConfigFile, ModelsDir, Yes, examples
from sda_daemon.cli.output import Column, ask, counted, make_console, note, print_json, print_table, say
from sda_daemon.errors import ExitCode

if TYPE_CHECKING:
    from sda_daemon.library.repair import Finding, RepairPlan

EXAMPLES = examples(
    "sda-daemon models repair --dry-run    what is wrong, and what would be done",
    "sda-daemon models repair",
)


def repair_library(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    models_dir: ModelsDir = None,
    config: ConfigFile = None,
) -> int:
    """Make the index agree with the files in the folder.

    Shows the plan and asks before it does anything. No model file is changed or deleted.
    """
    library = open_library(models_dir, config)
    plan = library.plan_repair()
    if not as_json:
        _print_plan(plan)
    applied = False
    if plan.changes_index and not dry_run:
        if not ask(f"Make {counted(_changes(plan), 'change')} of the index?", yes=yes):
            note("Nothing was changed.")
            return ExitCode.FAILED
        logging.getLogger("sda_daemon").setLevel(logging.ERROR)  # the plan has told all of it already
        library.apply_repair(plan)
        applied = True
    if as_json:
        print_json({"applied": applied, "entries": plan.entries, "findings": [_document(f) for f in plan.findings]})
    elif applied:
        say(f"repaired: {plan.removed} removed, {plan.added} added; now {counted(library.count(), 'model')}")
    elif plan.changes_index:
        note("Nothing was changed: this was a dry run.")
    return ExitCode.OK


def _changes(plan: RepairPlan) -> int:
    return sum(1 for finding in plan.findings if finding.old or finding.new)


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "file": finding.file,
        "reason": finding.reason,
        "action": _action(finding),
        "old_model_id": finding.old.model_id if finding.old else None,
        "new_model_id": finding.new.model_id if finding.new else None,
    }


def _action(finding: Finding) -> str:
    if finding.old and finding.new:
        return "update"
    if finding.new:
        return "add"
    return "remove" if finding.old else "none"


_WORDS = {"update": "refresh entry", "add": "add entry", "remove": "remove entry", "none": "leave alone"}


def _print_plan(plan: RepairPlan) -> None:
    if not plan.findings:
        say(f"The index agrees with the folder: {counted(plan.entries, 'model')}.")
        return
    console = make_console()
    columns = [
        Column("What", style="bold"),
        Column("Would do"),
        Column("File", least=20),
        Column("Why", least=24, rank=1),
    ]
    rows = [(finding.kind.value, _WORDS[_action(finding)], finding.file, finding.reason) for finding in plan.findings]
    print_table(console, columns, rows)
