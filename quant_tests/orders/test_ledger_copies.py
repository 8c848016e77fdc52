"""Stored orders and fills are the ledger's: whoever alters the stored file is found by `quant prove`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import polars as pl
import pytest

from quant_assets.findings import Finding
from quant_assets.orders import frames
from quant_assets.orders.assets import order_assets
from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.evidence import session_evidence
from quant_assets.orders.ledger_copies import LEDGER_COPIES
from quant_assets.orders.schemas import ACCOUNT, FILLS, ORDERS
from quant_assets.partitions import DEFAULT
from quant_assets.point_in_time.plan import PlannedTable
from quant_assets.point_in_time.proofs import Prover
from quant_assets.point_in_time.recompute import steps
from quant_resources.ledger.unrecorded import UnrecordedLedger
from quant_resources.tables import Table
from quant_tests.orders.ground import Ground, signal_table
from quant_tests.orders.test_corrections import bought

DAY, NEXT = date(2024, 3, 4), date(2024, 3, 5)
KEY = DAY.isoformat()
STEPS = {
    table.path: step
    for step in steps(order_assets([signal_table("alpha")]), DEFAULT)
    for table in step.tables
}


def store_evidence(ground: Ground, day: date) -> None:
    """Write a session's evidence as its assets do; frozen if the session has closed."""
    evidence = session_evidence(ground.ledger, ground.broker, ground.policy, day)
    for table, frame in (
        (ORDERS, frames.orders_frame(evidence.orders, day)),
        (FILLS, frames.fills_frame(evidence.fills)),
        (ACCOUNT, frames.account_frame(evidence.account)),
    ):
        ground.store.write(table, frame, [day.isoformat()])


def proved(ground: Ground, table: Table) -> Finding:
    """What `quant prove` says of the day's rows."""
    ledger = UnrecordedLedger.over(ground.ledger)
    planned = PlannedTable(table, STEPS[table.path], "evidence", (KEY,))
    prover = Prover(ground.store, ledger, {}, LEDGER_COPIES)
    (proof,) = prover.prove([planned], [KEY])
    assert not proof.problem
    assert proof.parity is not None
    return proof.parity


def altered(ground: Ground, table: Table, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Change the stored rows of the day."""
    ground.store.write(table, change(ground.store.read(table, [KEY]).collect()), [KEY])


def test_what_was_stored_is_the_ledgers(ground: Ground) -> None:
    """With a bust of the day, and also after the next day has busted and traded on."""
    fill = bought(ground, AAA=0.2, BBB=0.1)["AAA"]
    ground.exchange.bust(fill.execution_id)
    store_evidence(ground, DAY)
    assert proved(ground, FILLS).passed
    assert proved(ground, ORDERS).passed
    later = bought(ground, NEXT, AAA=0.1)["BBB"]
    assert later.side == "sell"
    (own,) = [
        one for one in ground.broker.executions(DAY) if one.symbol == "BBB" and one.side == "buy"
    ]
    ground.exchange.bust(own.execution_id)
    assert sync_with_broker(ground.ledger, ground.broker).corrections == 1
    assert proved(ground, FILLS).passed
    assert proved(ground, ORDERS).passed


def first(**values: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Change the first row."""
    number = pl.int_range(pl.len())
    return lambda rows: rows.with_columns(
        **{
            name: pl.when(number == 0).then(value).otherwise(pl.col(name))
            for name, value in values.items()
        }
    )


@pytest.mark.parametrize(
    ("table", "change"),
    [
        (FILLS, first(price=pl.col("price") + 0.01)),
        (FILLS, first(quantity=pl.col("quantity") - 1)),
        (FILLS, first(realised_pnl=pl.col("realised_pnl") + 1)),
        (FILLS, first(execution_id=pl.lit("another"))),
        (FILLS, lambda rows: rows.head(1)),
        (ORDERS, first(side=pl.lit("sell"))),
        (ORDERS, first(filled_quantity=pl.col("filled_quantity") - 1)),
        (ORDERS, first(status=pl.lit("canceled"))),
        (ORDERS, lambda rows: rows.head(1)),
    ],
)
def test_an_altered_row_is_found(
    ground: Ground, table: Table, change: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    """A value, a row that is gone, a row that never was."""
    bought(ground, AAA=0.2, BBB=0.1)
    store_evidence(ground, DAY)
    assert proved(ground, table).passed
    altered(ground, table, change)
    finding = proved(ground, table)
    assert not finding.passed
    assert finding.sample is not None
    assert "ledger" in finding.sample.columns
    assert "materialize" in finding.remedy


def test_a_preview_is_no_copy_yet(ground: Ground) -> None:
    """While the session is open the ledger goes on, and the stored rows do not."""
    ground.morning(DAY)
    ground.trade(DAY, alpha={"AAA": 0.1})
    ground.at(f"{DAY} 12:00")
    store_evidence(ground, DAY)
    ground.evening(DAY)
    sync_with_broker(ground.ledger, ground.broker)
    finding = proved(ground, FILLS)
    assert finding.passed
    assert "frozen yet" in finding.message
