"""`sda-daemon models`: everything that one does with a library."""

from __future__ import annotations

import typer

from sda_daemon.cli.models import deletion, details, editing, listing, repair, transfer, verification
from sda_daemon.cli.options import examples

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at the library of models and look after it.",
    epilog=examples(
        "sda-daemon models list",
        "sda-daemon models search rain --tag drone",
        "sda-daemon models show 'field-recordings epoch 190'",
        "sda-daemon models edit 1a2ff958 --name 'Rain on tin' --tag keeper",
        "sda-daemon models delete 1a2ff958",
    ),
)
app.command("list", epilog=listing.LIST_EXAMPLES)(listing.list_models)
app.command("search", epilog=listing.SEARCH_EXAMPLES)(listing.search_models)
app.command("show", epilog=details.EXAMPLES)(details.show_model)
app.command("path", epilog=transfer.PATH_EXAMPLES)(transfer.print_path)
app.command("export", epilog=transfer.EXPORT_EXAMPLES)(transfer.export_model)
app.command("edit", epilog=editing.EXAMPLES)(editing.edit_models)
app.command("delete", epilog=deletion.DELETE_EXAMPLES)(deletion.delete_models)
app.command("trash", epilog=deletion.TRASH_EXAMPLES)(deletion.show_trash)
app.command("restore", epilog=deletion.RESTORE_EXAMPLES)(deletion.restore_models)
app.command("repair", epilog=repair.EXAMPLES)(repair.repair_library)
app.command("verify", epilog=verification.EXAMPLES)(verification.verify_library)
