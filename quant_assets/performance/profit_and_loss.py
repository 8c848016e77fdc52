"""A trading day's profit and loss, by strategy and symbol, down to the last cent of equity.

Belongs here: the arithmetic, as pure functions on frames. Does not belong here: reading the evidence
(`assets`), judging it (`checks`), reporting it (`tear_sheet`).

The algorithm, per symbol, in USD:

1. What was held overnight earned `quantity before x split ratio x closing mark - quantity before x
   previous mark`, plus its dividends. What was traded earned `net quantity x closing mark - cash paid`.
   The closing mark is the broker's: the session's own bars do not exist before midnight.
2. A sleeve is what one strategy holds of a symbol. Before the session that is its share of the previous
   frozen targets; where they do not add up to the position (a part that never filled), the difference
   is spread over the sleeves in proportion to their size.
3. A sleeve's trade is its target of today minus what it held. Where trades do not add up to what was
   filled, the difference is spread in the same way. Two sleeves that trade against each other cross at the
   average fill price, or at the mark when nothing was filled.
4. Overnight profit goes to sleeves by what they held, trading profit by what they traded. Costs and realised
   profit follow the trades, dividends follow the holdings.
5. Shares that no fill or activity explains, and cash that belongs to no symbol, go to `unattributed`. So does what
   was traded at the broker by hand, when somebody has confirmed it: no strategy wanted it, and it is marked like
   any trade (`quantity x closing mark + cash`).
6. A fill counts as what really traded, and a busted one not at all. What the broker takes back or corrects of an
   earlier session's fill is a trade of this session: its shares and cash go to those who hold or trade the symbol.
7. What is left of the change of the account's equity, money put in or taken out aside, is a row of its own
   (`unattributed`, `RESIDUAL`). It is shown, never spread: it is what the evidence cannot explain.

Numbers are Float64: this is analysis of frozen evidence, and rule 7 measures its error every day. The exact
amounts stay in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from datetime import date

UNATTRIBUTED: Final = "unattributed"
"""The strategy of what no strategy caused."""
CASH: Final = "CASH"
"""The symbol of known cash that belongs to no symbol: interest, account fees."""
RESIDUAL: Final = "RESIDUAL"
"""The symbol of the change of equity that nothing explains."""

DIVIDEND_TYPES: Final = frozenset(
    {"DIV", "DIVCGL", "DIVCGS", "DIVFT", "DIVNRA", "DIVROC", "DIVTW", "DIVTXEX"}
)
"""Activities that are income of a holding. Source: Alpaca, account activity types."""
COST_TYPES: Final = frozenset({"FEE", "CFEE", "DIVFEE", "PTC", "REG", "TAF"})
"""Activities that are costs."""
SHARE_TYPES: Final = frozenset({"SPLIT", "SPIN", "MA", "REORG", "NC", "SSO", "SSP", "VOF"})
"""Activities whose quantity changes a holding; a dividend's says what it was paid on."""
FLOW_TYPES: Final = frozenset(
    {"CSD", "CSW", "CSR", "JNL", "JNLC", "JNLS", "ACATC", "ACATS", "TRANS"}
)
"""Activities that move money or shares in or out: no profit, however large."""

MANUAL_TRADE: Final = "MANUAL_TRADE"
"""A confirmed adjustment: shares and cash of a trade that was made at the broker, not by an order of ours."""
CORRECTION: Final = "CORRECTION"
"""What the broker took back or corrected of a fill of an earlier session: a change of shares and cash."""
_OWN_TYPES: Final = frozenset({MANUAL_TRADE, CORRECTION})

_ZERO = pl.lit(0.0)


def daily_profit_and_loss(
    trading_session: date,
    *,
    before: pl.DataFrame,
    after: pl.DataFrame,
    fills: pl.DataFrame,
    activities: pl.DataFrame,
    targets: pl.DataFrame,
    previous_targets: pl.DataFrame,
    equity_before: float,
    equity_after: float,
) -> pl.DataFrame:
    """Split the change of an account's equity over strategies and symbols.

    Args:
        trading_session: The session, stamped on every row.
        before: symbol, quantity (signed shares), market_price (USD) at the end of the previous session.
        after: The same at the end of this one.
        fills: symbol, side ("buy" or "sell"), quantity (> 0, or 0 for a busted one), price (USD), realised_pnl
            (USD).
        activities: activity_type, symbol (nullable), quantity (shares, nullable), net_amount
            (change of cash, USD), realised_pnl (USD).
        targets: strategy, symbol, target_quantity of the batch of this session; a strategy that is not named
            for a symbol keeps what it holds.
        previous_targets: The same of the batch before.
        equity_before: USD, at the time of `before`.
        equity_after: USD, at the time of `after`.

    Returns:
        trading_session, strategy, symbol, quantity (sleeve after the session), notional_traded, market_value,
        pnl (net of cost, dividends included), realised_pnl, dividends, cost (>= 0 is paid), in USD; sorted by
        strategy and symbol. The residual row is always there. pnl adds up to equity_after - equity_before -
        money put in.
    """
    symbols = _symbols(before, after, fills, activities)
    sleeves = _sleeves(symbols, targets, previous_targets)
    rows = [
        _by_sleeve(symbols, sleeves),
        _without_symbol(activities),
    ]
    explained = pl.concat(rows)
    flows = activities.filter(pl.col("activity_type").is_in(FLOW_TYPES))
    inflow = float(flows.get_column("net_amount").sum())
    residual = equity_after - equity_before - inflow - float(explained.get_column("pnl").sum())
    return (
        pl.concat([explained, _row(RESIDUAL, residual)])
        .group_by("strategy", "symbol")
        .sum()
        .filter(
            pl.any_horizontal(pl.exclude("strategy", "symbol").abs() > 0.0)
            | (pl.col("symbol") == RESIDUAL)
        )
        .sort("strategy", "symbol")
        .select(pl.lit(trading_session, pl.Date).alias("trading_session"), pl.all())
    )


def _symbols(
    before: pl.DataFrame, after: pl.DataFrame, fills: pl.DataFrame, activities: pl.DataFrame
) -> pl.DataFrame:
    """What happened to every symbol: one row each, all Float64.

    held, mark_before, mark; net and traded (shares), paid (cash for shares), price (average fill), notional,
    realised; split (new shares per old), created (shares from nothing held), dividends, cost, other (cash of
    other activities), manual, manual_cash and manual_realised (traded by hand), unexplained (shares).
    """
    signed = (
        pl.when(pl.col("side") == "buy").then(pl.col("quantity")).otherwise(-pl.col("quantity"))
    )
    amount = pl.col("quantity") * pl.col("price")
    traded = fills.group_by("symbol").agg(
        net=signed.sum(),
        notional=amount.sum(),
        paid=(signed * pl.col("price")).sum(),
        # Of fills that were all busted there is no price.
        price=pl.when(pl.col("quantity").sum() > 0.0).then(amount.sum() / pl.col("quantity").sum()),
        realised=pl.col("realised_pnl").sum(),
    )
    kind = pl.col("activity_type")
    cash = pl.col("net_amount")
    acted = (
        activities.filter(pl.col("symbol").is_not_null(), ~kind.is_in(FLOW_TYPES))
        .group_by("symbol")
        .agg(
            changed=pl.col("quantity").filter(kind.is_in(SHARE_TYPES)).sum(),
            dividends=cash.filter(kind.is_in(DIVIDEND_TYPES)).sum(),
            cost=-cash.filter(kind.is_in(COST_TYPES)).sum(),
            other=cash.filter(~kind.is_in(DIVIDEND_TYPES | COST_TYPES | _OWN_TYPES)).sum(),
            corrected=pl.col("quantity").filter(kind == CORRECTION).sum(),
            corrected_cash=cash.filter(kind == CORRECTION).sum(),
            manual=pl.col("quantity").filter(kind == MANUAL_TRADE).sum(),
            manual_cash=cash.filter(kind == MANUAL_TRADE).sum(),
            manual_realised=pl.col("realised_pnl").filter(kind == MANUAL_TRADE).sum(),
            realised_by_activity=pl.col("realised_pnl").filter(kind != MANUAL_TRADE).sum(),
        )
    )
    start = before.select("symbol", held="quantity", mark_before="market_price")
    end = after.select("symbol", held_after="quantity", mark="market_price")
    held, changed = pl.col("held"), pl.col("changed")
    return (
        start.join(end, on="symbol", how="full", coalesce=True)
        .join(traded, on="symbol", how="full", coalesce=True)
        .join(acted, on="symbol", how="full", coalesce=True)
        .with_columns(
            # A position that was closed has no mark: its last price stands in, its value is zero.
            mark=pl.coalesce("mark", "price", "mark_before", _ZERO),
            price=pl.coalesce("price", "mark", "mark_before", _ZERO),
            mark_before=pl.coalesce("mark_before", "mark", "price", _ZERO),
        )
        .with_columns(pl.exclude("symbol").fill_null(0.0).cast(pl.Float64))
        .with_columns(
            net=pl.col("net") + pl.col("corrected"),
            paid=pl.col("paid") - pl.col("corrected_cash"),
        )
        .with_columns(
            split=pl.when(held != 0.0).then(1.0 + changed / held).otherwise(1.0),
            created=pl.when(held == 0.0).then(changed).otherwise(0.0),
            realised=pl.col("realised") + pl.col("realised_by_activity"),
            unexplained=pl.col("held_after") - held - changed - pl.col("net") - pl.col("manual"),
        )
    )


def _sleeves(
    symbols: pl.DataFrame, targets: pl.DataFrame, previous_targets: pl.DataFrame
) -> pl.DataFrame:
    """Every strategy's part of every symbol: holding before, trade, and the weight of each.

    strategy, symbol, sleeve (shares before, adding up to the position), trade (adding up to the net fills),
    trade_weight (adding up to 1). Symbols that no strategy names have one sleeve, `unattributed`.
    """
    key = ("strategy", "symbol")
    named = (
        previous_targets.select(*key, wanted_before=pl.col("target_quantity").cast(pl.Float64))
        .join(
            targets.select(*key, wanted=pl.col("target_quantity").cast(pl.Float64)),
            on=key,
            how="full",
            coalesce=True,
        )
        .join(symbols.select("symbol"), on="symbol", how="semi")
    )
    unnamed = symbols.join(named, on="symbol", how="anti").select(
        pl.lit(UNATTRIBUTED).alias("strategy"), "symbol"
    )
    frame = pl.concat([named, unnamed], how="diagonal_relaxed").join(
        symbols.select("symbol", "held", "net", "split"), on="symbol"
    )
    before, weight = pl.col("wanted_before").fill_null(0.0), _weight(pl.col("wanted_before"))
    frame = frame.with_columns(
        sleeve=before + (pl.col("held") - before.sum().over("symbol")) * weight,
    )
    kept = pl.col("sleeve") * pl.col("split")
    frame = frame.with_columns(intended=pl.coalesce("wanted", kept) - kept)
    intended = pl.col("intended")
    frame = frame.with_columns(
        trade_weight=pl.when(intended.abs().sum().over("symbol") > 0.0)
        .then(_weight(intended))
        .otherwise(_weight(pl.col("sleeve")))
    )
    return frame.with_columns(
        trade=intended + (pl.col("net") - intended.sum().over("symbol")) * pl.col("trade_weight")
    ).select(*key, "sleeve", "trade", "trade_weight")


def _weight(size: pl.Expr) -> pl.Expr:
    """Share of a sleeve in its symbol by absolute size; equal shares where all sizes are zero."""
    absolute = size.fill_null(0.0).abs()
    whole = absolute.sum().over("symbol")
    return pl.when(whole > 0.0).then(absolute / whole).otherwise(1.0 / pl.len().over("symbol"))


def _by_sleeve(symbols: pl.DataFrame, sleeves: pl.DataFrame) -> pl.DataFrame:
    """Profit of every sleeve, and of the shares that belong to none."""
    sleeve, trade, weight = pl.col("sleeve"), pl.col("trade"), pl.col("trade_weight")
    mark, price = pl.col("mark"), pl.col("price")
    quantity = sleeve * pl.col("split") + trade
    holding_share = pl.when(pl.col("held") != 0.0).then(sleeve / pl.col("held")).otherwise(weight)
    dividends = pl.col("dividends") * holding_share
    cost = pl.col("cost") * weight
    overnight = sleeve * (pl.col("split") * mark - pl.col("mark_before"))
    # Fills of both sides leave a profit that no net trade carries: net x price - cash paid.
    crossed = (pl.col("net") * price - pl.col("paid")) * weight
    traded = trade * (mark - price) + crossed
    other = pl.col("other") * holding_share
    owned = sleeves.join(symbols, on="symbol").select(
        "strategy",
        "symbol",
        quantity=quantity,
        notional_traded=pl.col("notional") * weight,
        market_value=quantity * mark,
        pnl=overnight + traded + dividends + other - cost,
        realised_pnl=pl.col("realised") * weight,
        dividends=dividends,
        cost=cost,
    )
    manual_cash = pl.col("manual_cash")
    strange = pl.col("unexplained") + pl.col("created") + pl.col("manual")
    unowned = symbols.filter((strange != 0.0) | (manual_cash != 0.0)).select(
        pl.lit(UNATTRIBUTED).alias("strategy"),
        "symbol",
        quantity=strange,
        notional_traded=_ZERO,
        market_value=strange * mark,
        pnl=strange * mark + manual_cash,
        realised_pnl=pl.col("manual_realised"),
        dividends=_ZERO,
        cost=_ZERO,
    )
    return pl.concat([owned, unowned])


def _without_symbol(activities: pl.DataFrame) -> pl.DataFrame:
    """Interest, account fees and the like: cash that is known but belongs to no symbol."""
    own = activities.filter(pl.col("symbol").is_null(), ~pl.col("activity_type").is_in(FLOW_TYPES))
    cash = float(own.get_column("net_amount").sum())
    fees = own.filter(pl.col("activity_type").is_in(COST_TYPES))
    return _row(CASH, cash, cost=-float(fees.get_column("net_amount").sum()))


def _row(symbol: str, pnl: float, cost: float = 0.0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "strategy": [UNATTRIBUTED],
            "symbol": [symbol],
            "quantity": [0.0],
            "notional_traded": [0.0],
            "market_value": [0.0],
            "pnl": [pnl],
            "realised_pnl": [0.0],
            "dividends": [0.0],
            "cost": [cost],
        }
    )
