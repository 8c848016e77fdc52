"""`quant reconcile`: what differs between ledger and broker, and confirming what explains it."""

from __future__ import annotations

import getpass
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings

if TYPE_CHECKING:
    from quant_assets.orders.drift import Drift, Explanation

_DIFFERS = 1


def reconcile(
    confirm: Annotated[
        str | None,
        typer.Option("--confirm", metavar="KEY", help="Book the explanation of this key."),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Why it is right; kept in the ledger.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compare orders, fills, positions, average prices and cash with the broker, now.

    What differs is shown with what explains it, if anything does: a trade that was made at the broker by hand, a
    split, a dividend, a rename. Such an explanation is booked as an adjustment when it is confirmed, and trading goes
    on. What nothing explains halts trading; a comparison by this command alone changes no trading state.

    The exit code is 1 while anything differs.
    """
    from quant_assets.cli.platform import running_platform
    from quant_assets.definitions import trading_policy
    from quant_assets.orders.comparison import looked_at
    from quant_assets.orders.confirmation import confirm as confirm_explanation
    from quant_assets.orders.drift import explanations

    if confirm is not None and not reason.strip():
        raise ConfigurationError(
            f"Say why {confirm} is right: `quant reconcile --confirm {confirm} --reason WHY`."
        )
    settings, console = load_settings(), Console()
    booked: Explanation | None = None
    with running_platform(settings) as platform:
        given = platform.ledger, platform.broker, trading_policy(settings)
        if confirm is None:
            drifts, view = looked_at(*given)
            compared = f"{len(view.orders)} orders, {len(view.executions)} fills, {len(view.positions)} positions"
        else:
            booked, drifts = confirm_explanation(*given, confirm, reason, getpass.getuser())
            compared = "Orders, fills, positions"
    if as_json:
        _print_json(drifts, booked)
    else:
        if booked is not None:
            console.print(f"Booked {booked.key}: {booked.text}", highlight=False)
        if not drifts:
            console.print(f"{compared} and cash agree with the broker.", highlight=False)
        else:
            console.print(_table(drifts))
        for one in explanations(drifts):
            console.print(
                f"{one.text} Confirm: quant reconcile --confirm {one.key} --reason WHY",
                highlight=False,
            )
    if drifts:
        raise typer.Exit(_DIFFERS)


def _table(drifts: list[Drift]) -> Table:
    table = Table("Differs", "What", "Ledger", "Broker", "Explained by", title="Differences")
    for drift in drifts:
        key = escape(drift.explanation.key) if drift.explanation else "[bold red]nothing[/]"
        said = (drift.kind, drift.detail, drift.ledger, drift.broker)
        table.add_row(*map(escape, said), key)
    return table


def _print_json(drifts: list[Drift], booked: Explanation | None) -> None:
    told: dict[str, Any] = {
        "booked": None if booked is None else booked.as_json(),
        "differences": [drift.as_json() for drift in drifts],
    }
    typer.echo(json.dumps(told, indent=2))
