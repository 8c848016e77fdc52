"""The assets of the orders stage: plan, freeze and send, then freeze the evidence.

Belongs here: thin functions that read inputs, call one module and show what matters. Does not belong
here: any decision. A partition is a trading session, and only the broker's current one can be made:
what was frozen for another is shown again, never made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from quant_assets.market_data.schemas import BARS
from quant_assets.orders import frames, plots
from quant_assets.orders.batches import (
    clear_for_replan,
    frozen_batch,
    trade_session,
    was_rehearsed,
)
from quant_assets.orders.evidence import SessionEvidence, session_evidence
from quant_assets.orders.market_facts import average_volumes
from quant_assets.orders.planning import plan_targets
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.schemas import (
    ACCOUNT,
    FILLS,
    ORDER_INTENTS,
    ORDERS,
    POSITIONS,
    TARGET_PORTFOLIO,
)
from quant_assets.orders.signal_input import require_sound_targets, usable_signals
from quant_assets.orders.submission import trading_desk
from quant_assets.partitions import previous, same
from quant_assets.table_assets import (
    TableInput,
    TableResult,
    picture,
    sessions_of,
    shown_table,
    table_asset,
)
from quant_resources.broker import Broker
from quant_resources.calendar import XNYS
from quant_resources.errors import DataError
from quant_resources.ledger import order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import OrderState
from quant_resources.store import Store
from quant_resources.tables import Table

_LOCK_WAIT_SECONDS = 5.0


class PlanConfig(dg.Config):
    """How a session is planned.

    Attributes:
        replan: Replace the frozen batch by a new attempt: unsent orders are withdrawn, open ones
            cancelled, fills kept. To be given to both assets of the run.
    """

    replan: bool = False


def order_assets(signal_tables: Sequence[Table]) -> tuple[dg.AssetsDefinition, ...]:
    """The six assets of the stage.

    Args:
        signal_tables: The signal table of every strategy. They are lineage and are read from the store
            as far as they exist: a strategy that failed must not stop the others.
    """
    return (
        _target_portfolio(signal_tables),
        _order_intents(signal_tables),
        *_evidence_assets(),
    )


def _target_portfolio(signal_tables: Sequence[Table]) -> dg.AssetsDefinition:
    @table_asset(
        TARGET_PORTFOLIO,
        deps=[
            *(TableInput(table, previous()) for table in signal_tables),
            TableInput(BARS, previous()),
        ],
    )
    def target_portfolio(  # noqa: PLR0917 - Dagster finds resources among positional parameters only
        context: dg.AssetExecutionContext,
        config: PlanConfig,
        store: dg.ResourceParam[Store],
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
        trading_policy: dg.ResourceParam[TradingPolicy],
    ) -> TableResult:
        session = _session(context)
        batch = frozen_batch(ledger, trading_policy, session)
        if batch is not None and not (config.replan or was_rehearsed(batch, trading_policy)):
            with ledger.begin() as transaction:
                rows = order_book.targets_of(transaction, batch.batch_id)
            frame = frames.targets_frame(rows, session, batch.book)
            return TableResult(frame, {"frozen": f"attempt {batch.attempt}, {batch.mode}"})
        signal_session = XNYS.previous(session)
        _require_bars(store, signal_session)
        if batch is not None:
            with trading_desk(ledger, broker, trading_policy, _LOCK_WAIT_SECONDS) as desk:
                clear_for_replan(desk, session)
        plan = plan_targets(
            ledger,
            broker,
            trading_policy,
            trading_session=session,
            signals=[
                usable_signals(
                    table.name,
                    _stored(store, table, signal_session),
                    signal_session,
                    largest_gross(table, trading_policy),
                )
                for table in signal_tables
            ],
            attempt=1 if batch is None else batch.attempt + 1,
        )
        for strategy, problem in plan.problems.items():
            context.log.warning(f"{strategy} keeps its sleeve: {problem}.")
        frame = frames.targets_frame(plan.targets, session, trading_policy.book)
        return TableResult(
            frame,
            {
                **_target_metadata(frame, float(plan.account.equity), session),
                "strategies_that_keep_their_sleeve": "; ".join(
                    f"{name}: {problem}" for name, problem in plan.problems.items()
                )
                or "none",
                "symbols_without_price": ", ".join(sorted(plan.prices.refused)) or "none",
                "holdings_of_no_strategy": ", ".join(plan.unmanaged) or "none",
            },
        )

    return target_portfolio


def _order_intents(signal_tables: Sequence[Table]) -> dg.AssetsDefinition:
    @table_asset(ORDER_INTENTS, ins={"targets": TableInput(TARGET_PORTFOLIO, same())})
    def order_intents(  # noqa: PLR0917 - as above
        context: dg.AssetExecutionContext,
        config: PlanConfig,
        targets: pl.LazyFrame,
        store: dg.ResourceParam[Store],
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
        trading_policy: dg.ResourceParam[TradingPolicy],
    ) -> TableResult:
        session = _session(context)
        planned = targets.collect()
        frozen = frozen_batch(ledger, trading_policy, session)
        if config.replan or frozen is None or was_rehearsed(frozen, trading_policy):
            require_sound_targets(
                planned,
                session,
                XNYS.previous(session),
                {table.name: largest_gross(table, trading_policy) for table in signal_tables},
            )
        with trading_desk(ledger, broker, trading_policy, _LOCK_WAIT_SECONDS) as desk:
            volumes = average_volumes(store, session)
            batch, report = trade_session(desk, session, planned, volumes, config.replan)
        if report.stopped:
            context.log.warning(f"The pass ended early: {report.stopped}.")
        with ledger.begin() as transaction:
            frame = frames.intents_frame(order_book.intents_of(transaction, batch.batch_id), batch)
        return TableResult(
            frame,
            {
                "mode": batch.mode,
                "attempt": batch.attempt,
                "sent_in_this_run": report.sent,
                "adopted_in_this_run": report.adopted,
                "unfinished": report.left,
                "pass_ended_early": report.stopped or "no",
                **_intent_metadata(frame),
            },
        )

    return order_intents


def _evidence_assets() -> tuple[dg.AssetsDefinition, ...]:
    @table_asset(ORDERS, deps=[TableInput(ORDER_INTENTS, same())])
    def orders(
        context: dg.AssetExecutionContext,
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
        trading_policy: dg.ResourceParam[TradingPolicy],
    ) -> TableResult:
        evidence = session_evidence(ledger, broker, trading_policy, _session(context))
        frame = frames.orders_frame(evidence.orders, evidence.trading_session)
        statuses = frame.group_by("status").len("orders").sort("status")
        return TableResult(
            frame, {**_evidence_metadata(evidence), "orders_by_status": shown_table(statuses)}
        )

    @table_asset(FILLS, deps=[TableInput(ORDERS, same())])
    def fills(
        context: dg.AssetExecutionContext,
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
        trading_policy: dg.ResourceParam[TradingPolicy],
    ) -> TableResult:
        evidence = session_evidence(ledger, broker, trading_policy, _session(context))
        frame = frames.fills_frame(evidence.fills)
        traded = frame.select((pl.col("quantity") * pl.col("price")).sum()).item()
        largest = frame.sort(pl.col("quantity") * pl.col("price"), descending=True)
        return TableResult(
            frame,
            {
                **_evidence_metadata(evidence),
                "traded_usd": float(traded or 0.0),
                "realised_pnl_usd": float(frame.get_column("realised_pnl").sum()),
                "largest_fills": shown_table(
                    largest.select("symbol", "side", "quantity", "price", "realised_pnl")
                ),
            },
        )

    @table_asset(POSITIONS, deps=[TableInput(FILLS, same())])
    def positions(
        context: dg.AssetExecutionContext,
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
        trading_policy: dg.ResourceParam[TradingPolicy],
    ) -> TableResult:
        evidence = session_evidence(ledger, broker, trading_policy, _session(context))
        frame = frames.positions_frame(evidence.positions, evidence.trading_session)
        ranked = frame.sort(pl.col("market_value").abs(), "symbol", descending=[True, False])
        return TableResult(
            frame,
            {
                **_evidence_metadata(evidence),
                "longs": frame.filter(pl.col("quantity") > 0).height,
                "shorts": frame.filter(pl.col("quantity") < 0).height,
                "unrealised_pnl_usd": float(frame.get_column("unrealised_pnl").sum()),
                "largest_positions": shown_table(ranked.drop("trading_session", "security_id")),
                "picture": picture(
                    plots.exposure_picture(frame, f"Holdings, {evidence.trading_session}")
                ),
            },
        )

    @table_asset(ACCOUNT, deps=[TableInput(POSITIONS, same())])
    def account(
        context: dg.AssetExecutionContext,
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
        trading_policy: dg.ResourceParam[TradingPolicy],
    ) -> TableResult:
        evidence = session_evidence(ledger, broker, trading_policy, _session(context))
        frame = frames.account_frame(evidence.account)
        row = frame.row(0, named=True)
        shown = (
            "equity",
            "cash",
            "buying_power",
            "gross_exposure",
            "net_exposure",
            "trading_state",
        )
        return TableResult(
            frame, {**_evidence_metadata(evidence), **{name: row[name] for name in shown}}
        )

    return orders, fills, positions, account


def largest_gross(table: Table, policy: TradingPolicy) -> float:
    """Largest sum of absolute target weights of a strategy: what its table declares, or the policy's."""
    declared = [column.maximum for column in table.columns if column.name == "target_weight"]
    bound = float(policy.strategy_gross)
    return declared[0] if declared and declared[0] is not None else bound


def _session(context: dg.AssetExecutionContext) -> date:
    return sessions_of(context)[0]


def _require_bars(store: Store, session: date) -> None:
    if not store.exists(BARS, session.isoformat()):
        raise DataError(
            f"The bars of {session}, the session before, are not stored: signals may be stale and nothing "
            "is planned; materialize market_data/bars for it first."
        )


def _stored(store: Store, table: Table, session: date) -> pl.DataFrame | None:
    key = session.isoformat()
    return store.read(table, [key]).collect() if store.exists(table, key) else None


def _target_metadata(frame: pl.DataFrame, equity: float, session: date) -> dict[str, Any]:
    value = pl.col("target_quantity") * pl.col("reference_price")
    ranked = frame.with_columns(value_usd=value).sort(
        pl.col("value_usd").abs(), "symbol", descending=[True, False]
    )
    gross = float(ranked.get_column("value_usd").abs().sum())
    net = float(ranked.get_column("value_usd").sum())
    return {
        "equity_usd": equity,
        "target_gross_exposure": gross / equity if equity > 0 else 0.0,
        "target_net_exposure": net / equity if equity > 0 else 0.0,
        "changed_targets": frame.filter("changed").height,
        "largest_targets": shown_table(
            ranked.select(
                "strategy", "symbol", "target_weight", "target_quantity", "value_usd", "reason"
            )
        ),
        "picture": picture(plots.target_picture(frame, f"Target portfolio, {session}")),
    }


def _intent_metadata(frame: pl.DataFrame) -> dict[str, Any]:
    refused = frame.filter(state=str(OrderState.REFUSED))
    cut = refused.group_by("limit_name").len("orders").sort("orders", descending=True)
    states = frame.group_by("state").len("orders").sort("state")
    notional = (pl.col("quantity") * pl.col("reference_price")).sum()
    return {
        "orders_by_state": shown_table(states),
        "refused_by_limits": refused.height,
        "limits_that_cut": shown_table(cut),
        "refusals": shown_table(
            refused.select(
                "symbol", "side", "quantity", "limit_name", "limit_value", "limit_bound", "reason"
            )
        ),
        "notional_usd": float(frame.select(notional).item() or 0.0),
    }


def _evidence_metadata(evidence: SessionEvidence) -> dict[str, Any]:
    return {
        "frozen": evidence.frozen,
        "reconciled": "yes"
        if evidence.drifts == 0
        else f"{evidence.drifts} difference(s), {evidence.unconfirmed} of them explained and not confirmed",
    }
