"""From an order back to everything it came from: intent, signals, model, features, bars.

Belongs here: assembling what ledger and store already know into one tree. Nothing is decided or recomputed, but
for the model's own account of its prediction. Does not belong here: what became of the order at the broker
(`order_record.py`) and printing (`quant_assets/cli/explain.py`).

1. The identifier is a client order id, a broker's order id, an execution id or the id of a correction; all lead
   to one intent.
2. The intent tells what was decided and what became of it: batch, orders (entry, protective legs, replacements),
   fills as they count with what the broker took back or corrected, transitions.
3. Every strategy behind it tells its target (ledger) and its signal (store), of the signal's session.
4. The signal's model version leads to the registry; the version's booster names the features that moved this
   very prediction, with their values at that session. A strategy of rules names the columns that it declares.
5. The session's bar shows raw and as delivered: source, time of observation, number of vintages.

What is no longer stored is said in its place; the rest of the tree is still shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import polars as pl
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from quant_assets.features.schemas import TABLES as FEATURE_TABLES
from quant_assets.market_data.schemas import BARS, RAW_BARS
from quant_assets.market_data.schemas import TABLES as MARKET_DATA_TABLES
from quant_assets.models import gradient_boosting
from quant_assets.models.evaluation import feature_importance
from quant_assets.models.schemas import MODEL_FEATURES
from quant_assets.performance.order_record import (
    Lineage,
    events_of_intent,
    orders_of_intent,
    told_facts,
)
from quant_assets.signals.discovery import discover
from quant_assets.signals.schemas import signal_table
from quant_assets.signals.strategy import Strategy
from quant_resources.errors import LedgerError
from quant_resources.ledger import Ledger, registry
from quant_resources.ledger.order_tables import (
    Fill,
    FillCorrection,
    IntentSignal,
    Order,
    OrderBatch,
    OrderIntent,
    TargetPosition,
)
from quant_resources.ledger.registry_tables import Model
from quant_resources.store import Store
from quant_resources.tables import Table

TOP_FEATURES: Final = 12
"""Features shown of a model's hundreds."""
_READABLE: Final = {table.path: table for table in (*MARKET_DATA_TABLES, *FEATURE_TABLES)}


@dataclass(frozen=True)
class _Seen:
    """What was stored of one security at one session."""

    store: Store
    session: date
    security_id: str

    def row(self, table: Table) -> dict[str, Any]:
        """The security's row of the session's partition, or what is missing."""
        key = self.session.isoformat()
        if not self.store.exists(table, key):
            return {"missing": f"{table.path} of {key} is not stored"}
        own = pl.col("security_id") == self.security_id
        rows = self.store.read(table, [key]).filter(own).collect()
        if rows.is_empty():
            return {"missing": f"{table.path} of {key} has no row of {self.security_id}"}
        return rows.row(0, named=True)


def order_lineage(
    identifier: str,
    ledger: Ledger,
    store: Store,
    strategies: Mapping[str, Strategy] | None = None,
) -> Lineage:
    """Trace an order or a fill back to the data it came from.

    Args:
        identifier: Client order id, broker's order id, execution id or id of a correction.
        ledger: The ledger.
        store: The data root.
        strategies: Name to strategy; all that are in `signals/strategies` by default.

    Raises:
        LedgerError: The ledger knows no order or fill of that name.
    """
    known = strategies if strategies is not None else {own.name: own for own in discover()}
    with ledger.begin() as transaction:
        intent = _find(transaction, identifier)
        batch = transaction.get_one(OrderBatch, intent.batch_id)
        links = transaction.execute(
            select(IntentSignal, TargetPosition)
            .join(
                TargetPosition,
                (TargetPosition.batch_id == IntentSignal.batch_id)
                & (TargetPosition.strategy == IntentSignal.strategy)
                & (TargetPosition.symbol == IntentSignal.symbol),
            )
            .where(IntentSignal.client_order_id == intent.client_order_id)
            .order_by(IntentSignal.strategy)
        ).all()
        causes = [
            _batch(batch),
            *orders_of_intent(transaction, intent.client_order_id),
            *(
                _strategy(transaction, store, known.get(link.strategy), link, target)
                for link, target in links
            ),
            *events_of_intent(transaction, intent.client_order_id),
        ]
    facts = {
        "trading_session": batch.trading_session,
        "state": intent.state,
        "order": f"{intent.side} {intent.quantity.normalize():f} {intent.symbol}",
        "type": f"{intent.order_type}, {intent.time_in_force}",
        "notional": intent.notional,
        "limit_price": intent.limit_price,
        "stop_price": intent.stop_price,
        "take_profit": intent.take_profit_price,
        "stop_loss": intent.stop_loss_price,
        "reference_price": intent.reference_price,
        "reason": intent.reason,
        "stopped_by": intent.limit_name,
        "measured": intent.limit_value,
        "allowed": intent.limit_bound,
        "deadline": intent.deadline,
    }
    return Lineage("intent", intent.client_order_id, told_facts(facts), tuple(causes))


def _find(transaction: Session, identifier: str) -> OrderIntent:
    intent = transaction.get(OrderIntent, identifier)
    if intent is not None:
        return intent
    fill = transaction.scalar(
        select(FillCorrection.execution_id).where(FillCorrection.correction_id == identifier)
    )
    client_id = transaction.scalar(
        select(Order.client_order_id).where(
            or_(Order.broker_order_id == identifier, Order.broker_client_order_id == identifier)
        )
    ) or transaction.scalar(
        select(Fill.client_order_id).where(Fill.execution_id == (fill or identifier))
    )
    if client_id is None:
        raise LedgerError(
            f"The ledger knows no order or fill {identifier!r}; the tear sheet and orders/orders list the "
            "client order ids of a session."
        )
    return transaction.get_one(OrderIntent, client_id)


def _batch(batch: OrderBatch) -> Lineage:
    return Lineage(
        "batch",
        f"book {batch.book}, {batch.trading_session}, attempt {batch.attempt}",
        {"mode": batch.mode, "equity": batch.equity, "cash": batch.cash, "frozen": batch.frozen_at},
    )


def _strategy(
    transaction: Session,
    store: Store,
    strategy: Strategy | None,
    link: IntentSignal,
    target: TargetPosition,
) -> Lineage:
    """One strategy's share in the decision: its frozen target, and its signal below."""
    facts = {
        "target_weight": target.target_weight,
        "target_quantity": target.target_quantity,
        "reference_price": target.reference_price,
        "reason": target.reason,
    }
    return Lineage(
        "strategy",
        link.strategy,
        told_facts(facts),
        (_signal(transaction, store, strategy, link, target.security_id),),
    )


def _signal(
    transaction: Session,
    store: Store,
    strategy: Strategy | None,
    link: IntentSignal,
    security_id: str,
) -> Lineage:
    session = link.signal_session
    seen = _Seen(store, session, security_id)
    facts: dict[str, Any] = {
        "session": session,
        "score": link.score,
        "target_weight": link.target_weight,
        "model_version": link.model_version,
    }
    if strategy is None:
        facts["missing"] = f"strategy {link.strategy} is no longer in signals/strategies"
    else:
        row = seen.row(signal_table(strategy))
        own = ("side", "expected_return", "confidence", "stop_loss", "take_profit")
        facts |= {name: row.get(name) for name in own} if "missing" not in row else row
    causes = [_model(transaction, link.model_version)]
    if strategy is not None:
        table = MODEL_FEATURES.get(strategy.model or "")
        if table is not None:
            causes.append(_model_features(transaction, seen, table, link.model_version))
        causes += [
            _declared(seen, path, columns) for path, columns in strategy.features.items() if columns
        ]
    causes.append(_bar(seen, link.symbol))
    return Lineage("signal", f"{link.strategy}, {session}", told_facts(facts), tuple(causes))


def _model(transaction: Session, version: str) -> Lineage:
    model = transaction.get(Model, version)
    if model is None:
        return Lineage("model", version, {"kind": "fixed rules, nothing was trained"})
    measured = ("ic_mean", "ic_std", "rank_ic_mean", "rank_ic_std", "sessions", "training_rows")
    facts = {
        "trained_for": f"{model.month:%Y-%m}",
        "training_window": f"{model.training_first_session} to {model.training_last_session}",
        **{name: model.metrics.get(name) for name in measured},
        "registered": model.created_at,
    }
    return Lineage("model", version, told_facts(facts))


def _model_features(transaction: Session, seen: _Seen, table: Table, version: str) -> Lineage:
    """The features that moved this prediction most, with value, share of gain and contribution."""
    name = f"{table.path}, {seen.session}"
    row = seen.row(table)
    if "missing" in row:
        return Lineage("features", name, row)
    if transaction.get(Model, version) is None:
        return Lineage("features", name, {"missing": f"model {version} is not in the registry"})
    booster = gradient_boosting.load(registry.load_artefact(transaction, version))
    names = booster.feature_name()
    vector = gradient_boosting.observed(pl.DataFrame([row], schema=table.schema), names)
    # TreeSHAP: contributions and the model's base add up to the prediction. Lundberg et al. (2020).
    parts = np.asarray(booster.predict(vector, pred_contrib=True), dtype=np.float64)[0]
    shares = dict(feature_importance(booster).select("feature", "share").iter_rows())
    moved = sorted(zip(names, parts[:-1], strict=True), key=lambda part: -abs(part[1]))
    facts: dict[str, Any] = {"prediction": float(parts.sum()), "base": float(parts[-1])}
    for feature, part in moved[:TOP_FEATURES]:
        if part == 0.0:
            break
        facts[feature] = {
            "value": None if math.isnan(vector.item(0, feature)) else vector.item(0, feature),
            "contribution": float(part),
            "share_of_gain": shares[feature],
        }
    return Lineage("features", name, facts)


def _declared(seen: _Seen, path: str, columns: tuple[str, ...]) -> Lineage:
    """The columns that a strategy declares, as it saw them."""
    table = _READABLE.get(path)
    if table is None:
        return Lineage("features", path, {"missing": f"table {path} does not exist"})
    row = seen.row(table)
    shown = row if "missing" in row else {name: row.get(name) for name in columns}
    return Lineage("features", f"{path}, {seen.session}", shown)


def _bar(seen: _Seen, symbol: str) -> Lineage:
    row = seen.row(BARS)
    own = ("symbol", "open", "high", "low", "close", "volume", "vwap", "price_factor")
    facts = row if "missing" in row else {name: row[name] for name in own}
    history = seen.store.partitions(BARS)
    before = sum(1 for key in history if key <= seen.session.isoformat())
    facts = {**facts, "sessions_stored_until_then": before}
    return Lineage(
        "bar",
        f"{seen.security_id}, {seen.session}",
        told_facts(facts),
        (_delivery(seen.store, seen.session, row.get("symbol", symbol)),),
    )


def _delivery(store: Store, session: date, symbol: str) -> Lineage:
    """The bar as the source sent it: the newest vintage and how many there are."""
    key = session.isoformat()
    name = f"{RAW_BARS.path}, {session}"
    if not store.exists(RAW_BARS, key):
        return Lineage("delivery", name, {"missing": "the raw delivery is not stored"})
    rows = store.read(RAW_BARS, [key]).filter(pl.col("symbol") == symbol).collect()
    if rows.is_empty():
        return Lineage("delivery", name, {"missing": f"no row of {symbol} in the newest vintage"})
    row = rows.row(-1, named=True)
    facts = {
        "source": row["source"],
        "asof": row["asof"],
        "observed_at": row["observed_at"],
        "vintages": len(store.vintages(RAW_BARS, key)),
    }
    return Lineage("delivery", name, told_facts(facts))
