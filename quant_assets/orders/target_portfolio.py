"""From the strategies' signals to target quantities: what the book wants to hold, by strategy.

Pure. Does not belong here: turning targets into orders (`intents.py`) and refusing orders
(`limits/`). How a target comes about:

1. A strategy's capital is its allocation x equity. Its sleeve is what it wanted last, as frozen in the
   ledger, carried over the splits since then.
2. A signal with a target weight wants weight x capital / reference price, rounded towards zero: whole
   shares, fractions only for longs of fractionable symbols where the policy allows them.
3. A signal without a target weight keeps the sleeve's quantity of that symbol.
4. A symbol of the sleeve that has no signal any more is closed.
5. A strategy without usable signals (failed, missing, empty) keeps its whole sleeve: it is never
   liquidated by accident.
6. A symbol without a current price keeps the sleeve too: nothing is decided blindly.
7. The reference price is the broker's last price. A split between that price and the session must be
   confirmed, by the broker's booking on a holding or by the price itself: vendors announce splits that
   do not happen, and an unconfirmed one would double or halve a position. Until then nothing is decided.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Final

import polars as pl

from quant_resources.broker import Asset, LatestPrice, Split
from quant_resources.calendar import NEW_YORK

_WHOLE: Final = Decimal(1)
_FRACTION: Final = Decimal("1e-9")
_ZERO: Final = Decimal(0)


@dataclass(frozen=True)
class Target:
    """What one strategy wants to hold of one symbol.

    Attributes:
        target_weight: Fraction of the strategy's capital that the signal asked for.
        target_quantity: Shares, negative for short.
        reference_price: USD, as of the trading session's share count.
        reason: Why it is this quantity, for a person.
        changed: False where the sleeve is kept, so that nothing is traded for it.
        priced_at: When the reference price was made.
        stop_loss: The signal's price of protection, USD as of the trading session's share count; None
            where it gives none. `take_profit` likewise.
    """

    strategy: str
    symbol: str
    security_id: str
    signal_session: date
    score: Decimal | None
    target_weight: Decimal
    target_quantity: Decimal
    reference_price: Decimal
    reason: str
    model_version: str
    changed: bool = True
    priced_at: datetime | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None


@dataclass(frozen=True)
class Sleeve:
    """What a strategy wanted when a batch was last frozen, by symbol."""

    trading_session: date
    targets: Mapping[str, Target]


@dataclass(frozen=True)
class Prices:
    """Reference prices of the trading session and the symbols whose price cannot be used.

    Attributes:
        usable: Symbol to price, USD.
        refused: Symbol to why it has none.
        made_at: Symbol to the time at which a usable price was made.
    """

    usable: Mapping[str, Decimal]
    refused: Mapping[str, str]
    made_at: Mapping[str, datetime]


def reference_prices(
    latest: Mapping[str, LatestPrice],
    closes: Mapping[str, LatestPrice],
    symbols: Collection[str],
    *,
    splits: Sequence[Split],
    held: Collection[str],
    booked: Collection[str],
    trading_session: date,
    oldest: timedelta,
    now: datetime,
) -> Prices:
    """Prices at the share count of the trading session.

    Args:
        latest: The broker's last prices.
        closes: Raw closes of the session before, needed for the symbols of `split_since`.
        symbols: What is asked for.
        splits: Splits until the trading session.
        held: Symbols that are held.
        booked: Symbols whose split of the session the broker has booked.
        trading_session: The session that will be traded.
        oldest: Age from which a price is not used.
        now: The broker's time.
    """
    usable: dict[str, Decimal] = {}
    refused: dict[str, str] = {}
    for symbol in sorted(symbols):
        price = latest.get(symbol)
        if price is None or price.price <= 0:
            refused[symbol] = "the broker has no price"
        elif now - price.at > oldest:
            refused[symbol] = f"the last price is of {price.at:%Y-%m-%d}"
        else:
            confirmed = symbol in booked
            if symbol in held and not confirmed and _splits_on(symbol, splits, trading_session):
                refused[symbol] = "the broker has not booked today's split yet"
                continue
            ratio = _ratio_since(price, splits, trading_session)
            if ratio == 1:
                usable[symbol] = price.price
                continue
            close = closes.get(symbol)
            if close is None:
                refused[symbol] = "a split is due and the broker has no close from before it"
                continue
            after = close.price / _ratio_since(close, splits, trading_session)
            shown = _nearer(price.price, close.price, after)
            if confirmed or shown == after:
                usable[symbol] = after
            else:
                refused[symbol] = "a split is announced that no price shows yet"
    return Prices(usable, refused, {symbol: latest[symbol].at for symbol in usable})


def split_since(
    latest: Mapping[str, LatestPrice], splits: Sequence[Split], trading_session: date
) -> set[str]:
    """Symbols with a split between their last price and the session."""
    return {
        symbol
        for symbol, price in latest.items()
        if _ratio_since(price, splits, trading_session) != 1
    }


def _splits_on(symbol: str, splits: Sequence[Split], day: date) -> bool:
    return any(split.symbol == symbol and split.ex_date == day for split in splits)


def _nearer(price: Decimal, first: Decimal, second: Decimal) -> Decimal:
    """The one of two prices that is fewer per cent away."""
    ratios = [max(price / other, other / price) for other in (first, second)]
    return first if ratios[0] < ratios[1] else second


def _ratio_since(price: LatestPrice, splits: Sequence[Split], trading_session: date) -> Decimal:
    made = price.at.astimezone(NEW_YORK).date()
    return split_ratio(price.symbol, splits, made, trading_session)


def split_ratio(symbol: str, splits: Sequence[Split], after: date, until: date) -> Decimal:
    """New shares per old share by the splits with after < ex_date ≤ until; 1 without any."""
    ratio = Decimal(1)
    for split in splits:
        if split.symbol == symbol and after < split.ex_date <= until:
            ratio *= split.ratio
    return ratio


def carried_sleeve(sleeve: Sleeve, splits: Sequence[Split], trading_session: date) -> Sleeve:
    """The sleeve at the share count of the trading session.

    Args:
        sleeve: What was wanted.
        splits: Those that came about since it was frozen (`planning.py`).
        trading_session: The session to trade.
    """
    targets = {}
    for symbol, target in sleeve.targets.items():
        ratio = split_ratio(symbol, splits, date.min, trading_session)
        targets[symbol] = (
            target
            if ratio == 1
            else replace(
                target,
                target_quantity=(target.target_quantity * ratio).quantize(_FRACTION),
                reference_price=target.reference_price / ratio,
                stop_loss=_over(target.stop_loss, ratio),
                take_profit=_over(target.take_profit, ratio),
            )
        )
    return Sleeve(trading_session, targets)


def plan_strategy(
    strategy: str,
    signals: pl.DataFrame,
    sleeve: Sleeve,
    *,
    capital: Decimal,
    prices: Prices,
    assets: Mapping[str, Asset],
    held: Collection[str],
    fractional: bool,
    splits: Sequence[Split],
    trading_session: date,
) -> list[Target]:
    """Targets of one strategy that has usable signals.

    Args:
        strategy: Its name.
        signals: Rows of its signal table of the session before: symbol, security_id, session, score,
            target_weight, stop_loss, take_profit, model_version.
        sleeve: What it wanted last, carried to this session.
        capital: Its capital, USD.
        prices: Reference prices.
        assets: What the broker allows per symbol.
        held: Symbols that the book holds: their closed targets are repeated until they are gone.
        fractional: Whether longs may be fractions of a share.
        splits: Splits since the session of the signals: its prices are in the shares of before.
        trading_session: The session that will be traded.

    Returns:
        One target per symbol that is wanted, was wanted, or is still held from a closed target.
    """
    targets: list[Target] = []
    rows = signals.select(
        "symbol",
        "security_id",
        "session",
        "score",
        "target_weight",
        "stop_loss",
        "take_profit",
        "model_version",
    ).iter_rows()
    seen: set[str] = set()
    for symbol, security_id, session, score, weight, loss, profit, model_version in rows:
        seen.add(symbol)
        kept = sleeve.targets.get(symbol)
        price = prices.usable.get(symbol)
        if weight is None or price is None:
            if kept is not None:
                why = (
                    "the signal keeps what is held"
                    if weight is None
                    else f"kept: {prices.refused.get(symbol, 'no price')}"
                )
                targets.append(keep(kept, prices, why))
            continue
        wanted = Decimal(str(weight))
        quantity = _round_shares(
            wanted * capital / price, fractional and wanted > 0 and _fractionable(assets, symbol)
        )
        still_there = kept is not None and (kept.target_quantity != 0 or symbol in held)
        if wanted == 0 and not still_there:
            continue
        ratio = split_ratio(symbol, splits, session, trading_session)
        targets.append(
            Target(
                strategy=strategy,
                symbol=symbol,
                security_id=security_id,
                signal_session=session,
                score=None if score is None else Decimal(str(score)).quantize(_FRACTION),
                target_weight=wanted.quantize(_FRACTION),
                target_quantity=quantity,
                reference_price=price,
                reason=f"{float(wanted):+.2%} of {float(capital):,.0f} USD at {float(price):,.4f}",
                model_version=model_version,
                priced_at=prices.made_at[symbol],
                stop_loss=_protection(loss, ratio),
                take_profit=_protection(profit, ratio),
            )
        )
    session, model_version = signals.select("session", "model_version").row(0)
    for symbol, kept in sleeve.targets.items():
        if symbol in seen or (kept.target_quantity == 0 and symbol not in held):
            continue
        if symbol not in prices.usable:
            targets.append(keep(kept, prices, f"kept: {prices.refused.get(symbol, 'no price')}"))
            continue
        targets.append(
            replace(
                kept,
                signal_session=session,
                score=None,
                target_weight=_ZERO,
                target_quantity=_ZERO,
                reference_price=prices.usable[symbol],
                reason="closed: the strategy has no signal for it any more",
                model_version=model_version,
                changed=True,
                priced_at=prices.made_at[symbol],
                stop_loss=None,
                take_profit=None,
            )
        )
    return targets


def keep_sleeve(sleeve: Sleeve, prices: Prices, held: Collection[str], why: str) -> list[Target]:
    """The targets of a strategy that has no usable signals: what it wanted last, untraded."""
    return [
        keep(target, prices, why)
        for symbol, target in sleeve.targets.items()
        if target.target_quantity != 0 or symbol in held
    ]


def keep(target: Target, prices: Prices, why: str) -> Target:
    """The target as it was, at today's price where there is one."""
    price = prices.usable.get(target.symbol, target.reference_price)
    priced_at = prices.made_at.get(target.symbol, target.priced_at)
    return replace(target, reference_price=price, priced_at=priced_at, reason=why, changed=False)


def _protection(price: float | None, ratio: Decimal) -> Decimal | None:
    return _over(None if price is None else Decimal(repr(price)), ratio)


def _over(price: Decimal | None, ratio: Decimal) -> Decimal | None:
    return None if price is None else (price / ratio).quantize(_FRACTION)


def _round_shares(quantity: Decimal, fraction: bool) -> Decimal:
    return quantity.quantize(_FRACTION if fraction else _WHOLE, rounding=ROUND_DOWN) + _ZERO


def _fractionable(assets: Mapping[str, Asset], symbol: str) -> bool:
    return symbol in assets and assets[symbol].fractionable
