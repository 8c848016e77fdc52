"""Trading evidence names nothing later, and comes from the signals of the session before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime

import polars as pl

from quant_assets.orders.schemas import ACCOUNT, FILLS, TARGET_PORTFOLIO
from quant_assets.point_in_time.evidence import (
    nothing_lies_later,
    signals_are_of_the_session_before,
    targets_follow_their_signals,
    times_of,
)
from quant_assets.signals.schemas import signal_table
from quant_assets.signals.strategies.ml_ranker import MlRanker
from quant_resources.tables import Column
from quant_tests.performance.sample_evidence import rows_of

#: The Tuesday after a holiday: the session before is Friday.
SESSION, BEFORE = date(2024, 1, 16), date(2024, 1, 12)
SIGNALS = signal_table(MlRanker())


def fill(at: datetime, name: str = "one") -> Mapping[str, object]:
    return {"trading_session": SESSION, "execution_id": name, "filled_at": at}


def target(symbol: str, **given: object) -> Mapping[str, object]:
    return {
        "trading_session": SESSION,
        "strategy": "ml_ranker",
        "symbol": symbol,
        "security_id": f"{symbol}@2023-01-03",
        "signal_session": BEFORE,
        "score": 1.25,
        "target_weight": 0.1,
        "changed": True,
        "model_version": "model-1",
        **given,
    }


def signal(symbol: str, **given: object) -> Mapping[str, object]:
    return {
        "session": BEFORE,
        "symbol": symbol,
        "security_id": f"{symbol}@2023-01-03",
        "strategy": "ml_ranker",
        "score": 1.25,
        "target_weight": 0.1,
        "model_version": "model-1",
        **given,
    }


def targets(*rows: Mapping[str, object]) -> pl.DataFrame:
    return rows_of(TARGET_PORTFOLIO, list(rows))


def signals(*rows: Mapping[str, object]) -> dict[str, pl.DataFrame]:
    return {"ml_ranker": rows_of(SIGNALS, list(rows))}


def test_a_time_may_lie_in_the_evening_of_its_session_in_new_york() -> None:
    """Two in the morning in UTC is the evening before in New York."""
    evening = datetime(2024, 1, 17, 2, 0, tzinfo=UTC)
    assert nothing_lies_later(FILLS, rows_of(FILLS, [fill(evening)])).passed


def test_a_fill_of_the_next_day_is_found() -> None:
    early, late = datetime(2024, 1, 16, 15, tzinfo=UTC), datetime(2024, 1, 17, 15, tzinfo=UTC)
    finding = nothing_lies_later(FILLS, rows_of(FILLS, [fill(early), fill(late, "two")]))
    assert not finding.passed
    assert finding.count == 1
    assert finding.sample is not None
    row = finding.sample.row(0, named=True)
    assert (row["trading_session"], row["row"], row["column"]) == (SESSION, "two", "filled_at")
    assert "2024-01-17" in row["value"]


def test_a_missing_time_is_no_time() -> None:
    frame = targets(target("AAA", priced_at=None))
    assert nothing_lies_later(TARGET_PORTFOLIO, frame).passed


def test_what_is_agreed_ahead_is_declared_so() -> None:
    expiry = Column("expiry", pl.Date, "Last day of the contract")
    frame = rows_of(FILLS, [fill(datetime(2024, 1, 16, 15, tzinfo=UTC))]).with_columns(
        expiry=date(2024, 3, 15)
    )
    plain = replace(FILLS, columns=(*FILLS.columns, expiry))
    assert not nothing_lies_later(plain, frame).passed
    declared = replace(FILLS, columns=(*FILLS.columns, replace(expiry, lies_ahead=True)))
    assert nothing_lies_later(declared, frame).passed
    assert times_of(declared) == ["filled_at"]
    assert times_of(ACCOUNT) == []


def test_changed_targets_come_from_the_session_before_over_a_holiday() -> None:
    kept = target("BBB", changed=False, signal_session=date(2023, 12, 1))
    assert signals_are_of_the_session_before(targets(target("AAA"), kept)).passed
    for wrong in (date(2024, 1, 11), SESSION):
        finding = signals_are_of_the_session_before(targets(target("AAA", signal_session=wrong)))
        assert not finding.passed
        assert finding.sample is not None
        assert finding.sample.item(0, "session_before") == BEFORE
    ahead = target("BBB", changed=False, signal_session=SESSION)
    assert not signals_are_of_the_session_before(targets(ahead)).passed


def test_targets_are_the_stored_signals() -> None:
    planned = targets(target("AAA"), target("BBB", score=None, target_weight=0.0))
    assert targets_follow_their_signals(planned, signals(signal("AAA"))).passed


def test_a_target_that_its_signal_does_not_know_is_found() -> None:
    stored = signals(signal("AAA"), signal("CCC"))
    for wrong in (
        target("AAA", target_weight=0.2),
        target("AAA", score=1.26),
        target("AAA", model_version="model-2"),
        target("BBB"),
    ):
        finding = targets_follow_their_signals(targets(wrong, target("CCC")), stored)
        assert not finding.passed
        assert finding.count == 1
        assert finding.sample is not None
        assert finding.sample.item(0, "symbol") == wrong["symbol"]


def test_a_target_of_signals_that_are_not_stored_is_found() -> None:
    closed = targets(target("AAA", score=None, target_weight=0.0))
    assert not targets_follow_their_signals(closed, {}).passed
