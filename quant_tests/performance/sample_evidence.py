"""The evidence of a book that traded for some sessions, consistent to the cent."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time

import numpy as np
import polars as pl

from quant_assets.models.schemas import ALPHA158_LIGHTGBM
from quant_assets.orders.schemas import ACCOUNT, FILLS, ORDER_INTENTS, ORDERS, POSITIONS
from quant_assets.performance.backtest import backtest
from quant_assets.performance.profit_and_loss import daily_profit_and_loss
from quant_assets.performance.schemas import DAILY_PNL, backtest_table
from quant_assets.performance.strategy_comparison import compare_strategies
from quant_assets.performance.trading_evidence import TradingEvidence
from quant_resources.tables import Table
from quant_tests.performance.sample_markets import any_market


def rows_of(table: Table, rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    """Rows of a table with what is not given filled in by type, checked against its declaration."""
    plain = {pl.String: "x", pl.Float64: 1.0, pl.Boolean: True, pl.Int32: 1, pl.Int64: 1}
    filled = [
        {
            column.name: row.get(
                column.name,
                None if column.nullable else plain.get(table.schema[column.name].base_type()),
            )
            for column in table.columns
        }
        for row in rows
    ]
    return table.conform(pl.DataFrame(filled, schema=table.schema))


def traded_sessions(count: int, strange: str = "odd") -> TradingEvidence:
    """A book of two strategies on random bars, traded for `count` sessions: consistent to the cent."""
    signals, bars = any_market(11, 330, 14)
    signals = signals.join(bars, on=["session", "security_id"], how="semi")
    signals = signals.with_columns(pl.col("target_weight") * 0.4 + 0.02)
    frames = {
        "ml_ranker": signals,
        "enhanced_momentum": signals.with_columns(-pl.col("target_weight") * 0.7, -pl.col("score")),
    }
    rng = np.random.default_rng(2)
    days = sorted(bars["session"].unique())[-count:]
    symbols = [f"S{i:03d}" for i in range(9)] + [strange]
    held = dict.fromkeys(symbols, 0.0)
    mark = {symbol: float(rng.uniform(20, 200)) for symbol in symbols}
    sleeves = {(strategy, symbol): 0.0 for strategy in frames for symbol in symbols}
    cash, equity = 1_000_000.0, 1_000_000.0
    account, pnl, orders, fills, intents, positions = [], [], [], [], [], []
    for day in days:
        before = [(s, q, mark[s]) for s, q in held.items() if q]
        previous = [(*key, q) for key, q in sleeves.items()]
        sleeves = {key: float(rng.integers(-400, 700)) for key in sleeves}
        at = datetime.combine(day, time(14, 30), UTC)
        done = []
        for symbol in symbols:
            want = sum(q for (_, name), q in sleeves.items() if name == symbol) - held[symbol]
            price = mark[symbol] * float(rng.normal(1, 0.004))
            mark[symbol] *= float(rng.normal(1.0008, 0.013))
            if want == 0:
                continue
            side, order = "buy" if want > 0 else "sell", f"main-{day}-{symbol}"
            shared = {"trading_session": day, "client_order_id": order, "symbol": symbol}
            shared |= {"side": side, "quantity": abs(want)}
            if rng.random() < 0.06:
                refused = {
                    "state": "refused",
                    "limit_name": "gross_exposure",
                    "reason": "gross 2.04 > 2",
                }
                intents.append(shared | refused | {"deadline": at})
                continue
            filled = abs(want) if rng.random() < 0.9 else abs(want) // 2
            sign = 1 if side == "buy" else -1
            held[symbol] += sign * filled
            cash -= sign * filled * price
            intents.append(shared | {"state": "filled", "deadline": at, "limit_name": None})
            state = "filled" if filled == abs(want) else "expired"
            times = {"submitted_at": at, "updated_at": at}
            seen = {"broker_order_id": order, "filled_quantity": filled, "status": state}
            seen |= {"role": "entry"}
            orders.append(shared | times | seen | {"average_fill_price": price})
            if filled:
                booked = {"execution_id": f"e-{order}", "price": price, "filled_at": at}
                fills.append(
                    shared
                    | booked
                    | {"quantity": filled, "realised_pnl": 0.0, "correction": "none"}
                )
                done.append((symbol, side, filled, price, 0.0))
        after = [(s, q, mark[s]) for s, q in held.items() if q]
        closed = cash + sum(q * m for _, q, m in after)
        place = {"symbol": pl.String, "quantity": pl.Float64, "market_price": pl.Float64}
        target = {"strategy": pl.String, "symbol": pl.String, "target_quantity": pl.Float64}
        pnl.append(
            daily_profit_and_loss(
                day,
                before=pl.DataFrame(before, schema=place, orient="row"),
                after=pl.DataFrame(after, schema=place, orient="row"),
                fills=pl.DataFrame(
                    done,
                    schema=[
                        ("symbol", pl.String),
                        ("side", pl.String),
                        ("quantity", pl.Float64),
                        ("price", pl.Float64),
                        ("realised_pnl", pl.Float64),
                    ],
                    orient="row",
                ),
                activities=pl.DataFrame(
                    schema={"activity_type": pl.String, "symbol": pl.String}
                    | dict.fromkeys(("quantity", "net_amount", "realised_pnl"), pl.Float64)
                ),
                targets=pl.DataFrame(
                    [(*k, q) for k, q in sleeves.items()], schema=target, orient="row"
                ),
                previous_targets=pl.DataFrame(previous, schema=target, orient="row"),
                equity_before=equity,
                equity_after=closed,
            )
        )
        values = [q * m for _, q, m in after]
        gross, net = sum(map(abs, values)) / closed, sum(values) / closed
        row = {"trading_session": day, "equity": closed, "cash": cash, "gross_exposure": gross}
        row |= {"net_exposure": net, "previous_equity": equity, "trading_state": "ACTIVE"}
        account.append(row | {"short_value": -1.0})
        positions = [
            {
                "trading_session": day,
                "symbol": s,
                "quantity": q,
                "market_price": m,
                "market_value": q * m,
            }
            for s, q, m in after
        ]
        equity = closed
    months = [date(year, month, 1) for year in (1990, 1991) for month in range(1, 13)][5:16]
    models = [
        {
            "month": month,
            "model_name": "alpha158_lightgbm",
            "model_version": f"alpha158_lightgbm-{month:%Y-%m}-1a2b",
            "status": "active",
            "effective_session": month,
            "training_first_session": month,
            "training_last_session": month,
            "validation_sessions": 42,
            "ic_mean": float(rng.normal(0.045, 0.02)),
            "ic_std": 0.11,
        }
        for month in months
    ]
    nothing = {"session": pl.Date, "strategy": pl.String, "filled_notional": pl.Float64}
    return TradingEvidence(
        trading_session=days[-1],
        book="main",
        account=rows_of(ACCOUNT, account),
        daily_pnl=DAILY_PNL.conform(pl.concat(pnl)),
        positions=rows_of(POSITIONS, positions),
        orders=rows_of(ORDERS, orders),
        fills=rows_of(FILLS, fills),
        intents=rows_of(ORDER_INTENTS, intents),
        backtests={
            name: backtest_table(name).conform(backtest(own, bars)) for name, own in frames.items()
        },
        comparison=compare_strategies(frames, bars, days, pl.DataFrame(schema=nothing)),
        models=rows_of(ALPHA158_LIGHTGBM, models),
        checks=pl.DataFrame(
            {
                "name": ["orders/positions: reconciles", "performance/daily_pnl: adds_up"],
                "passed": [True, True],
                "detail": ["10 positions equal the broker's.", "Adds up to the cent."],
            }
        ),
    )
