"""Busts and corrections of fills: what counts afterwards in positions, cash, evidence and profit.

Every test ends with both sides in agreement and with positions that are the replay of their history.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import polars as pl
import pytest
from sqlalchemy import func, select

from quant_assets.orders import frames
from quant_assets.orders.booking import Booked, sync_with_broker
from quant_assets.orders.evidence import reconcile_with_broker, session_evidence
from quant_assets.orders.ledger_history import holding_of, ledger_history
from quant_assets.orders.positions import Holding
from quant_assets.performance.ledger_evidence import session_in_ledger
from quant_assets.performance.order_lineage import order_lineage
from quant_assets.performance.profit_and_loss import RESIDUAL, daily_profit_and_loss
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.order_tables import Fill, FillCorrection, Position
from quant_tests.orders.ground import Ground

DAY, NEXT, THIRD = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)


def bought(ground: Ground, session: date = DAY, **weights: float) -> dict[str, Fill]:
    """Trade a session until its close; the fills by symbol."""
    ground.morning(session)
    ground.trade(session, alpha=weights)
    ground.evening(session)
    sync_with_broker(ground.ledger, ground.broker)
    return fills(ground, session)


def fills(ground: Ground, session: date) -> dict[str, Fill]:
    with ground.ledger.begin() as transaction:
        account = ground.broker.account().account_id
        rows = account_book.fills_of(transaction, account, session)
    return {row.symbol: row for row in rows}


def synced(ground: Ground) -> Booked:
    return sync_with_broker(ground.ledger, ground.broker)


def holding(ground: Ground, symbol: str) -> Holding:
    with ground.ledger.begin() as transaction:
        account = ground.broker.account().account_id
        row = transaction.get(Position, (account, symbol))
        return Holding() if row is None else holding_of(row)


def assert_settled(ground: Ground, session: date) -> None:
    """Both sides agree, and every position is the replay of its history."""
    found = reconcile_with_broker(
        ground.ledger, ground.broker, ground.policy, session, "after_trading"
    )
    assert found == []
    assert ground.status().state == "ACTIVE"
    account = ground.broker.account().account_id
    with ground.ledger.begin() as transaction:
        rows = account_book.positions_of(transaction, account)
        replayed = ledger_history(transaction, account, list(rows)).holdings()
        realised = sum(
            (
                transaction.scalar(select(func.sum(table.realised_pnl))) or Decimal(0)
                for table in (Fill, FillCorrection)
            ),
            Decimal(0),
        )
    held = {symbol: holding_of(row) for symbol, row in rows.items()}
    assert held == {symbol: replayed.get(symbol, Holding()) for symbol in held}
    assert sum((one.realised_pnl for one in held.values()), Decimal(0)) == realised


def pnl(ground: Ground, session: date) -> dict[str, float]:
    """Profit of a settled session by symbol, as performance/daily_pnl makes it."""
    evidence = session_evidence(ground.ledger, ground.broker, ground.policy, session)
    start = session_in_ledger(ground.ledger, evidence.account.account_id, session)
    positions = frames.positions_frame(evidence.positions, session)
    frame = daily_profit_and_loss(
        session,
        before=start.before,
        after=positions.select("symbol", "quantity", "market_price"),
        fills=frames.fills_frame(evidence.fills),
        activities=start.activities,
        targets=start.targets,
        previous_targets=start.previous_targets,
        equity_before=start.equity_before,
        equity_after=float(evidence.account.equity),
    )
    return dict(frame.group_by("symbol").agg(pl.col("pnl").sum()).iter_rows())


def test_a_bust_before_further_trading_takes_the_fill_back(ground: Ground) -> None:
    """The position is gone, its cash is back, and a second look books nothing again."""
    fill = bought(ground, AAA=0.2, BBB=0.1)["AAA"]
    cash = ground.broker.account().cash
    ground.exchange.bust(fill.execution_id)
    booked = synced(ground)
    assert (booked.fills, booked.corrections, booked.unknown) == (0, 1, [])
    assert synced(ground).corrections == 0
    assert holding(ground, "AAA") == Holding()
    assert ground.broker.account().cash == cash + fill.quantity * fill.price
    assert_settled(ground, DAY)


def test_a_bust_after_further_trading_changes_what_was_realised_since(ground: Ground) -> None:
    """Half was sold on the next day: without the purchase it was a short sale."""
    fill = bought(ground, AAA=0.2)["AAA"]
    session_evidence(ground.ledger, ground.broker, ground.policy, DAY)
    sold = bought(ground, NEXT, AAA=0.1)["AAA"]
    assert sold.side == "sell"
    ground.exchange.bust(fill.execution_id)
    assert synced(ground).corrections == 1
    assert holding(ground, "AAA") == Holding(-sold.quantity, sold.price, Decimal(0))
    with ground.ledger.begin() as transaction:
        (correction,) = transaction.scalars(select(FillCorrection)).all()
    # The sale realised a loss or profit that never was: the correction takes it back.
    assert correction.realised_pnl == -sold.realised_pnl != 0
    # The session of the fill is closed, so that it counts in the next one.
    assert correction.trading_session == NEXT
    assert_settled(ground, NEXT)


def test_a_correction_counts_with_what_really_traded(ground: Ground) -> None:
    """Other shares at another price, and after that another price again."""
    fill = bought(ground, AAA=0.2)["AAA"]
    ground.exchange.correct(fill.execution_id, quantity=Decimal(100), price=Decimal("99.5"))
    assert synced(ground).corrections == 1
    assert holding(ground, "AAA") == Holding(Decimal(100), Decimal("99.5"))
    assert_settled(ground, DAY)
    ground.exchange.correct(fill.execution_id, price=Decimal(98))
    assert synced(ground).corrections == 1
    assert holding(ground, "AAA") == Holding(Decimal(100), Decimal(98))
    assert_settled(ground, DAY)


def test_a_correction_of_a_correction_is_booked_in_one_sync(ground: Ground) -> None:
    """Both came between two looks: the newest counts, each is kept with its own change of cash."""
    fill = bought(ground, AAA=0.2)["AAA"]
    first = ground.exchange.correct(fill.execution_id, quantity=Decimal(200))
    ground.exchange.bust(first["id"])
    assert synced(ground).corrections == 2
    assert holding(ground, "AAA") == Holding()
    with ground.ledger.begin() as transaction:
        rows = transaction.scalars(
            select(FillCorrection).order_by(FillCorrection.corrected_at)
        ).all()
    assert [row.kind for row in rows] == ["correct", "bust"]
    assert {row.execution_id for row in rows} == {fill.execution_id}
    assert sum(row.cash for row in rows) == fill.quantity * fill.price
    assert_settled(ground, DAY)


@pytest.mark.parametrize("settled", [True, False])
def test_profit_of_a_day_counts_only_what_really_traded(ground: Ground, settled: bool) -> None:
    """In the evidence of the day, or, when that was frozen already, as a change of the next."""
    fill = bought(ground, AAA=0.2, BBB=0.1)["AAA"]
    if settled:
        session_evidence(ground.ledger, ground.broker, ground.policy, DAY)
    before = pnl(ground, DAY) if settled else {}
    ground.exchange.bust(fill.execution_id)
    if not settled:
        after = pnl(ground, DAY)
        assert after.get("AAA", 0.0) == pytest.approx(0.0, abs=1e-6)
        assert after[RESIDUAL] == pytest.approx(0.0, abs=0.01)
        evidence = session_evidence(ground.ledger, ground.broker, ground.policy, DAY)
        row = frames.fills_frame(evidence.fills).row(
            by_predicate=pl.col("symbol") == "AAA", named=True
        )
        assert (row["quantity"], row["correction"]) == (0.0, "bust")
        assert row["booked_quantity"] == float(fill.quantity)
        return
    synced(ground)
    # Frozen evidence is read the same for ever.
    assert pnl(ground, DAY) == before
    ground.morning(NEXT)
    ground.trade(NEXT, alpha={"BBB": 0.1})
    ground.evening(NEXT)
    after = pnl(ground, NEXT)
    assert after["AAA"] == pytest.approx(-before["AAA"], abs=0.01)
    assert after[RESIDUAL] == pytest.approx(0.0, abs=0.01)


def test_trading_goes_on_after_a_bust(ground: Ground) -> None:
    """The next batch is planned from what is really held."""
    fill = bought(ground, AAA=0.2)["AAA"]
    ground.exchange.bust(fill.execution_id)
    again = bought(ground, NEXT, AAA=0.2)["AAA"]
    assert again.side == "buy"
    assert again.quantity == pytest.approx(fill.quantity, rel=Decimal("0.05"))
    assert_settled(ground, NEXT)


def test_the_lineage_of_a_fill_tells_of_its_correction(ground: Ground) -> None:
    """By the id of the correction, with what it was and what it is."""
    fill = bought(ground, AAA=0.2)["AAA"]
    correction = ground.exchange.correct(fill.execution_id, quantity=Decimal(100))
    synced(ground)
    tree = order_lineage(correction["id"], ground.ledger, ground.store, {})
    order = next(one for one in tree.causes if one.kind == "order")
    (told,) = order.causes
    assert told.name == fill.execution_id
    assert str(told.facts["filled"]).startswith("100 at ")
    assert told.causes[0].facts["was"] == (
        f"{fill.quantity.normalize():f} at {fill.price.normalize():f} USD"
    )


def test_the_fills_of_protective_legs_are_booked_under_their_intent(ground: Ground) -> None:
    """The stop loss of a bracket fills two sessions later; a bust of it opens the position again."""
    ground.changed(
        styles={"alpha": {"brackets": True, "time_in_force": "gtc", "stop_loss": "0.015"}}
    )
    entry = bought(ground, AAA=0.2)["AAA"]
    ground.evening(NEXT)
    assert synced(ground).unknown == []
    with ground.ledger.begin() as transaction:
        legs = order_book.open_legs(transaction, entry.account_id)
        own = transaction.scalars(select(Fill).order_by(Fill.filled_at)).all()
    assert [fill.client_order_id for fill in own] == [entry.client_order_id] * 2
    assert legs == []
    assert holding(ground, "AAA").quantity == 0
    assert_settled(ground, NEXT)
    ground.exchange.bust(own[-1].execution_id)
    assert synced(ground).corrections == 1
    assert holding(ground, "AAA") == Holding(entry.quantity, entry.price)
    assert_settled(ground, NEXT)
