"""The gate over a data root: a session alone equals the session in bulk, and the convention reaches it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.market_data.levels import LEVEL_RULES
from quant_assets.market_data.quality_gate import gate
from quant_assets.market_data.releases import release_of
from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, QUARANTINE, RAW_BARS, RELEASES
from quant_assets.market_data.stored_gate import gate_stored
from quant_assets.market_data.validation import HISTORY_SESSIONS
from quant_resources.calendar import XNYS
from quant_resources.store import Store
from quant_tests.market_data.generated_market import Delivered, deliveries

FIRST = date(2021, 1, 4)
SESSIONS = XNYS.sessions(FIRST, XNYS.offset(FIRST, HISTORY_SESSIONS + 120))
LATE = (len(SESSIONS) - 1, HISTORY_SESSIONS + 40, 200)


@pytest.fixture(scope="module")
def market() -> Delivered:
    parts = list(deliveries(40, SESSIONS, defects=0.004, rare_events=0.001))
    return Delivered(
        pl.concat(part.raw_bars for part in parts), pl.concat(part.actions for part in parts)
    )


@pytest.fixture(scope="module")
def store(market: Delivered, tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = Store(tmp_path_factory.mktemp("stored") / "root")
    keys = [day.isoformat() for day in SESSIONS]
    root.write(RAW_BARS, market.raw_bars, keys)
    root.write(CORPORATE_ACTIONS, market.actions, keys)
    return root


@pytest.mark.parametrize("at", LATE)
def test_a_stored_session_equals_the_session_in_bulk(
    market: Delivered, store: Store, at: int
) -> None:
    """Only the sessions that a verdict can look back to are read: too few would show here."""
    bulk = gate(market.raw_bars.lazy(), market.actions.lazy(), SESSIONS, SESSIONS)
    alone = gate_stored(store, FIRST, [SESSIONS[at]])
    here = pl.col("session") == SESSIONS[at]
    assert_frame_equal(bulk.bars.filter(here), alone.bars)
    assert_frame_equal(bulk.quarantine.filter(here), alone.quarantine)
    assert alone.bars.height > 20
    BARS.conform(bulk.bars)
    QUARANTINE.conform(bulk.quarantine)


def test_the_convention_changes_factors_and_no_verdict(store: Store) -> None:
    wanted = SESSIONS[-60:]
    crsp, wiki = (gate_stored(store, FIRST, wanted, name) for name in ("crsp", "wiki"))
    assert_frame_equal(crsp.quarantine, wiki.quarantine)
    assert_frame_equal(crsp.bars.drop("price_factor"), wiki.bars.drop("price_factor"))
    apart = (crsp.bars["price_factor"] / wiki.bars["price_factor"] - 1).abs()
    assert (apart > 0).sum() >= 10
    assert apart.max() < 0.005  # type: ignore[operator]


def test_a_released_row_of_the_store_is_a_bar(store: Store, tmp_path: Path) -> None:
    wanted = SESSIONS[100:]
    quarantine = gate_stored(store, FIRST, wanted).quarantine
    row = quarantine.filter(pl.col("rule").is_in(LEVEL_RULES)).row(0, named=True)
    own = Store(tmp_path)
    own.write(RAW_BARS, store.read(RAW_BARS).collect(), [day.isoformat() for day in SESSIONS])
    own.write(
        CORPORATE_ACTIONS,
        store.read(CORPORATE_ACTIONS).collect(),
        [day.isoformat() for day in SESSIONS],
    )
    own.write(RELEASES, release_of(row, "seen in the news", "tester", datetime.now(UTC)))
    after = gate_stored(own, FIRST, wanted)
    named = {"symbol": row["symbol"], "session": row["session"]}
    assert after.bars.filter(**named).height == 1
    assert after.quarantine.filter(**named).is_empty()
