"""What makes each limit pass one order and refuse another, on the trading ground.

A case is played on a real exchange and a real ledger and leaves frozen batches; it says which symbol a batch
sent and which one the limit refused. Prices of the ground: AAA 100, BBB 50, EEE 10, THIN 30 USD, one percent
up and down from day to day; equity one million.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

import polars as pl
import pytest

from quant_assets.orders.batch_rows import target_of
from quant_assets.orders.confirmation import confirm
from quant_assets.orders.drift import UnconfirmedDriftError
from quant_assets.orders.evidence import session_evidence
from quant_assets.orders.intents import BatchKey, net_intents
from quant_assets.orders.order_rules import request_of
from quant_assets.orders.trading_sessions import sending_deadline
from quant_resources.ledger import account_book
from quant_resources.ledger.order_tables import OrderBatch
from quant_tests.orders.ground import Ground

MONDAY, TUESDAY, WEDNESDAY = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)
#: The last session in which ENDS is listed, and the one after.
LAST_DAY, DELISTED = date(2024, 3, 13), date(2024, 3, 14)


@dataclass(frozen=True)
class Played:
    """The batch that sent a symbol, and the batch in which the limit refused one."""

    sent: OrderBatch
    sent_symbol: str
    refusing: OrderBatch
    refused_symbol: str


def _one(batch: OrderBatch, sent: str = "AAA", refused: str = "BBB") -> Played:
    """One batch that does both."""
    return Played(batch, sent, batch, refused)


def _settled(ground: Ground, session: date, **weights: float) -> OrderBatch:
    """A session traded and closed, so that the next one finds holdings."""
    ground.morning(session)
    batch, _ = ground.trade(session, alpha=weights)
    ground.evening(session)
    session_evidence(ground.ledger, ground.broker, ground.policy, session)
    return batch


def _set_state(ground: Ground, state: account_book.Trading) -> None:
    with ground.ledger.begin() as session:
        account_book.set_trading_status(
            session, ground.policy.book, state, reason="a test", changed_by="a person"
        )


def trading_state(ground: Ground) -> Played:
    """REDUCING: the sale of a holding goes, the purchase stays."""
    _settled(ground, MONDAY, AAA=0.2)
    _set_state(ground, "REDUCING")
    ground.morning(TUESDAY)
    return _one(ground.trade(TUESDAY, alpha={"AAA": 0.1, "BBB": 0.1})[0])


def account(ground: Ground) -> Played:
    """The same order on a free account and on one whose owner has suspended trading at the broker."""
    free, _ = ground.trade(MONDAY, alpha={"AAA": 0.1})
    ground.evening(MONDAY)
    session_evidence(ground.ledger, ground.broker, ground.policy, MONDAY)
    ground.broker.suspend_trading(suspended=True)
    ground.morning(TUESDAY)
    blocked, _ = ground.trade(TUESDAY, alpha={"AAA": 0.2})
    return Played(free, "AAA", blocked, "AAA")


def restricted(ground: Ground) -> Played:
    """One of two symbols is on the list."""
    ground.limited(restricted=("BBB",))
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.1, "BBB": 0.1})[0])


def tradable(ground: Ground) -> Played:
    """A symbol that was delisted yesterday."""
    ground.morning(DELISTED)
    frame = ground.frame(ground.plan(DELISTED, alpha={"AAA": 0.1, "ENDS": 0.1}), DELISTED)
    return _one(ground.send(DELISTED, frame)[0], refused="ENDS")


def shortable(ground: Ground) -> Played:
    """Short sales on a market that does not lend everything."""
    assets = ground.broker.assets()
    prices = ground.broker.latest_prices(assets)
    lent = min(s for s in prices if assets[s].shortable)
    kept = min(s for s in prices if not assets[s].shortable)
    ground.volumes = {lent: Decimal(1_000_000), kept: Decimal(1_000_000)}
    batch, _ = ground.trade(MONDAY, alpha={lent: -0.01, kept: -0.01})
    return _one(batch, lent, kept)


def _changed(ground: Ground, symbol: str, column: str, value: object) -> OrderBatch:
    """Two purchases, of which one has another number in its target."""
    frame = ground.frame(ground.plan(MONDAY, alpha={"AAA": 0.1, symbol: 0.1}), MONDAY)
    changed = frame.with_columns(
        pl.when(pl.col("symbol") == symbol)
        .then(pl.lit(value, frame.schema[column]))
        .otherwise(pl.col(column))
        .alias(column)
    )
    return ground.send(MONDAY, changed)[0]


def quantity(ground: Ground) -> Played:
    """Two thousand million shares."""
    return _one(_changed(ground, "BBB", "target_quantity", 2e9))


def order_rules(ground: Ground) -> Played:
    """A bracket whose stop loss lies above its take profit."""
    ground.changed(style={"brackets": True})
    ground.protection = {"AAA": (90.0, 120.0), "BBB": (60.0, 40.0)}
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.1, "BBB": 0.1})[0])


def duplicate(ground: Ground) -> Played:
    """An order under the very id was given by hand before, and has been cancelled."""
    frame = ground.frame(ground.plan(MONDAY, alpha={"AAA": 0.1, "BBB": 0.1}), MONDAY)
    planned = net_intents(
        [target_of(row) for row in frame.iter_rows(named=True)],
        {},
        {},
        key=BatchKey(ground.broker.account().account_id, ground.policy.book, MONDAY, 1),
        deadline=sending_deadline(MONDAY, ground.policy.sending.send_until_minutes_before_close),
        smallest_trade=ground.policy.smallest_trade,
        style_of=ground.policy.style_of,
        assets=ground.broker.assets(),
    )
    (same,) = [intent for intent in planned if intent.symbol == "BBB"]
    ground.broker.cancel(ground.broker.submit(request_of(same)).broker_order_id)
    with pytest.raises(UnconfirmedDriftError) as stopped:
        ground.send(MONDAY, frame)
    (key,) = re.findall(r"--confirm (\w+)", str(stopped.value))
    confirm(ground.ledger, ground.broker, ground.policy, key, "given by hand", "a person")
    return _one(ground.send(MONDAY, frame)[0])


def self_cross(ground: Ground) -> Played:
    """A plain purchase while the protective sales of what is held rest at the broker."""
    guarded = {"brackets": True, "time_in_force": "gtc", "stop_loss": "0.10", "take_profit": "0.10"}
    ground.changed(style=guarded)
    _settled(ground, MONDAY, BBB=0.1)
    ground.changed(style={})
    ground.morning(TUESDAY)
    return _one(ground.trade(TUESDAY, alpha={"AAA": 0.1, "BBB": 0.2})[0])


def stale_quote(ground: Ground) -> Played:
    """One price is of ten o'clock and one of half past."""
    ground.at(f"{MONDAY} 10:00")
    early = ground.frame(ground.plan(MONDAY, alpha={"AAA": 0.1, "BBB": 0.1}), MONDAY)
    ground.at(f"{MONDAY} 10:31")
    late = ground.frame(ground.plan(MONDAY, alpha={"AAA": 0.1, "BBB": 0.1}), MONDAY)
    both = pl.concat([late.filter(symbol="AAA"), early.filter(symbol="BBB")])
    return _one(ground.send(MONDAY, both)[0])


def price_collar(ground: Ground) -> Played:
    """Decided on a price a tenth away from the market's."""
    return _one(_changed(ground, "BBB", "reference_price", 55.0))


def order_notional(ground: Ground) -> Played:
    """100,000 and 200,000 USD against 150,000."""
    ground.limited(order_notional=150_000)
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.1, "BBB": 0.2})[0])


def volume_share(ground: Ground) -> Played:
    """A third of what THIN trades in a day."""
    ground.limited(volume_share="0.05")
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.1, "THIN": 0.01})[0], refused="THIN")


def orders_per_session(ground: Ground) -> Played:
    """The smaller of two orders is one too many."""
    ground.limited(orders_per_session=1)
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.2, "BBB": 0.1})[0])


def _after_a_loss(ground: Ground, **limits: str) -> OrderBatch:
    """A sale and a purchase after 0.2 % was lost; a person has taken the breaker's state back."""
    _settled(ground, MONDAY, AAA=0.2)
    ground.limited(**limits)
    ground.at(f"{TUESDAY} 10:00")
    ground.finish()
    assert ground.status().state == "HALTED"
    _set_state(ground, "ACTIVE")
    return ground.trade(TUESDAY, alpha={"AAA": 0.1, "BBB": 0.1})[0]


def daily_loss(ground: Ground) -> Played:
    """What closes goes, what opens stays."""
    return _one(_after_a_loss(ground, daily_loss="0.001"))


def drawdown(ground: Ground) -> Played:
    """The same from the highest equity."""
    return _one(_after_a_loss(ground, drawdown="0.001"))


def position_size(ground: Ground) -> Played:
    """100,000 and 200,000 USD against 150,000."""
    ground.limited(position_notional=150_000)
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.1, "BBB": 0.2})[0])


def name_weight(ground: Ground) -> Played:
    """10 % and 20 % against 15 %."""
    ground.limited(name_weight="0.15")
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.1, "BBB": 0.2})[0])


def concentration(ground: Ground) -> Played:
    """20 % and 10 % together against 25 %."""
    ground.limited(concentration="0.25")
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.2, "BBB": 0.1})[0])


def gross_exposure(ground: Ground) -> Played:
    """20 % long and 10 % short against 25 %."""
    ground.limited(gross_exposure="0.25")
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.2, "BBB": -0.1})[0])


def net_exposure(ground: Ground) -> Played:
    """20 % and 10 % long against 25 %."""
    ground.limited(net_exposure="0.25")
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.2, "BBB": 0.1})[0])


def buying_power(ground: Ground) -> Played:
    """200,000 and 150,000 USD where 300,000 may be spent."""
    power = ground.broker.account().buying_power
    ground.limited(buying_power_reserve=1 - Decimal(300_000) / power)
    return _one(ground.trade(MONDAY, alpha={"AAA": 0.2, "BBB": 0.15})[0])


#: Limit → its case.
CASES: Final[dict[str, Callable[[Ground], Played]]] = {
    case.__name__: case
    for case in (
        trading_state,
        account,
        restricted,
        tradable,
        shortable,
        quantity,
        order_rules,
        duplicate,
        self_cross,
        stale_quote,
        price_collar,
        order_notional,
        volume_share,
        orders_per_session,
        daily_loss,
        drawdown,
        position_size,
        name_weight,
        concentration,
        gross_exposure,
        net_exposure,
        buying_power,
    )
}
