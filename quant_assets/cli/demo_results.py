"""What the demo shows at its end: one table of what happened, and where to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import func, select

from quant_assets.cli.graph_runs import GraphRunner
from quant_assets.cli.platform import Platform
from quant_assets.market_data.schemas import BARS, QUARANTINE
from quant_assets.models.schemas import ALPHA158_LIGHTGBM
from quant_assets.orders.schemas import ACCOUNT
from quant_assets.performance.metrics import sharpe_ratio
from quant_assets.signals.schemas import tables as signal_tables
from quant_resources.ledger.order_tables import Fill, Order, OrderIntent, Reconciliation


@dataclass(frozen=True)
class Results:
    """The figures of a finished demo.

    Attributes:
        rows: Label and value, in the order shown.
    """

    rows: tuple[tuple[str, str], ...]


def show_results(
    platform: Platform, exchange: Mapping[str, Any], runner: GraphRunner, console: Console
) -> None:
    """Print the table of results, what failed, where the tear sheet is and what to do next."""
    table = Table(title="quant demo", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    tally = runner.tally
    for label, value in results(platform, exchange, runner.check_counts()).rows:
        table.add_row(label, value)
    console.print(table)
    for sentence in tally.sentences():
        console.print(f"[yellow]![/] {escape(sentence)}", highlight=False)
    if tally.seconds:
        spent = ", ".join(f"{job} {seconds:.0f} s" for job, seconds in tally.seconds.items())
        console.print(f"Time by job: {spent}.", highlight=False)
    sheet = platform.settings.data_root / "performance" / "report" / "latest.html"
    console.print(f"Tear sheet: {sheet}", highlight=False, soft_wrap=True)
    console.print("See the graph with `uv run quant dev`; ask `uv run quant explain ORDER`.")


def results(platform: Platform, exchange: Mapping[str, Any], checks: tuple[int, int]) -> Results:
    """Collect the figures from the store, the ledger and the exchange.

    Args:
        platform: The running platform.
        exchange: What the exchange says of its market.
        checks: How many checks passed and failed when last evaluated.
    """
    store, span = platform.store, platform.span
    signals = {
        table.name: _height(store.read(table)) for table in signal_tables(platform.strategies)
    }
    models = store.read(ALPHA158_LIGHTGBM).collect()
    account = store.read(ACCOUNT).collect().sort("trading_session")
    with platform.ledger.begin() as transaction:
        intents, orders, fills = (
            transaction.scalar(select(func.count()).select_from(table)) or 0
            for table in (OrderIntent, Order, Fill)
        )
        refused = transaction.scalar(
            select(func.count()).select_from(OrderIntent).where(OrderIntent.state == "refused")
        )
        expired = transaction.scalar(
            select(func.count())
            .select_from(OrderIntent)
            .where(OrderIntent.state == "expired_unsent")
        )
        reconciled = transaction.scalar(select(func.count()).select_from(Reconciliation)) or 0
    equity = account.get_column("equity")
    start = account.get_column("previous_equity")[0] or equity[0]
    daily = pl.concat([pl.Series([start]), equity]).pct_change().drop_nulls()
    planted = exchange["planted_information_coefficient"]
    rows = (
        ("Sessions", f"{len(store.partitions(BARS))}, {span.first_session} to {span.last_session}"),
        (
            "Bars / quarantined",
            f"{_height(store.read(BARS)):,} / {_height(store.read(QUARANTINE)):,}",
        ),
        *((f"Signals, {name}", f"{count:,}") for name, count in signals.items()),
        ("Models trained", f"{models.height}"),
        ("Model IC, out of sample", _number(models.get_column("ic_mean").mean())),
        ("Planted IC of the market", _number(planted) if planted is not None else "real history"),
        ("Sessions traded", f"{account.height}"),
        (
            "Intents / refused by limits / expired unsent",
            f"{intents:,} / {refused or 0:,} / {expired or 0:,}",
        ),
        ("Orders / fills", f"{orders:,} / {fills:,}"),
        ("Reconciliations with the broker", f"{reconciled:,}"),
        ("Equity", f"{equity[-1]:,.2f} USD"),
        ("Profit and loss", f"{equity[-1] - start:+,.2f} USD ({equity[-1] / start - 1:+.2%})"),
        ("Sharpe ratio (of these sessions)", _number(sharpe_ratio(daily.to_numpy()))),
        ("Checks passed / failed", f"{checks[0]:,} / {checks[1]:,}"),
    )
    return Results(rows)


def _height(frame: pl.LazyFrame) -> int:
    return frame.select(pl.len()).collect().item()


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "not defined"
