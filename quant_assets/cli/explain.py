"""`quant explain`: where an order came from, down to the bar as it was delivered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from quant_resources.settings import load_settings

if TYPE_CHECKING:
    from quant_assets.performance.order_lineage import Lineage

_COLOURS = {
    "intent": "bold cyan",
    "order": "bold green",
    "fill": "green",
    "strategy": "bold magenta",
    "signal": "magenta",
    "model": "bold yellow",
    "features": "yellow",
    "bar": "bold blue",
    "delivery": "blue",
}


def explain(
    order: Annotated[
        str, typer.Argument(help="Client order id, broker's order id or execution id.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Trace an order back: intent, signals, model, features, bars."""
    from quant_assets.cli.platform import ledger_only
    from quant_assets.performance.order_lineage import order_lineage
    from quant_resources.store import Store

    settings, console = load_settings(), Console()
    with ledger_only(settings) as ledger:
        lineage = order_lineage(order, ledger, Store(settings.data_root))
    if as_json:
        console.print_json(json.dumps(lineage.as_dict(), default=_plain, allow_nan=False))
    else:
        console.print(lineage_tree(lineage))


def lineage_tree(lineage: Lineage) -> Tree:
    """The lineage as a tree for the terminal; text from data is never markup."""
    tree = Tree(_heading(lineage))
    _grow(tree, lineage)
    return tree


def _grow(tree: Tree, lineage: Lineage) -> None:
    for name, value in lineage.facts.items():
        if isinstance(value, Mapping):
            text = "  ".join(f"[dim]{escape(key)}[/] {_text(own)}" for key, own in value.items())
        else:
            text = _text(value)
        tree.add(f"[dim]{escape(name)}[/] {text}")
    for cause in lineage.causes:
        _grow(tree.add(_heading(cause)), cause)


def _heading(lineage: Lineage) -> str:
    colour = _COLOURS.get(lineage.kind, "bold")
    return f"[{colour}]{lineage.kind}[/] {escape(lineage.name)}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:,.6g}"
    if isinstance(value, Decimal):
        return f"{value.normalize():,f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return "-" if value is None else escape(str(value))


def _plain(value: Any) -> Any:
    if isinstance(value, date | datetime):
        return value.isoformat()
    return str(value)
