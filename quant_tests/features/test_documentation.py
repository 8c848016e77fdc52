"""What the UI says of every feature: that it is true, complete, and says how much is missing."""

from datetime import date
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from quant_assets.features import plots
from quant_assets.features.alpha158 import alpha158
from quant_assets.features.alpha158_formulas import FEATURES, LOOKBACK, NAMES
from quant_assets.features.assets import ASSETS
from quant_assets.features.documentation import (
    ALPHA158_TEXTS,
    ANOMALY_TEXTS,
    TECHNICAL_TEXTS,
    documented_columns,
    shown_share,
)
from quant_assets.features.missing_values import missing_shares
from quant_assets.features.schemas import ALPHA158, ANOMALY, TECHNICAL
from quant_assets.features.technical import BARS_NEEDED
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.partitions import DEFAULT, range_tags
from quant_assets.table_assets import TableIOManager
from quant_resources.calendar import XNYS
from quant_resources.store import Store
from quant_tests.features.conftest import raw_market
from quant_tests.oracles.qlib_expression import last_value

DOCUMENTED = ((ALPHA158, ALPHA158_TEXTS), (TECHNICAL, TECHNICAL_TEXTS), (ANOMALY, ANOMALY_TEXTS))


def one_security(count: int = 130, seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    close = 40 * np.exp(np.cumsum(rng.normal(0, 0.02, count)))
    opening = close * np.exp(rng.normal(0, 0.01, count))
    high = np.maximum(opening, close) * np.exp(np.abs(rng.normal(0, 0.01, count)))
    low = np.minimum(opening, close) * np.exp(-np.abs(rng.normal(0, 0.01, count)))
    return pl.DataFrame(
        {
            "symbol": ["A"] * count,
            "session": XNYS.sessions(date(2023, 1, 3), date(2024, 12, 31))[:count],
            "open": opening,
            "high": high,
            "low": low,
            "close": close,
            "volume": np.exp(rng.normal(12, 0.5, count)),
            "vwap": (high + low + close) / 3,
        }
    )


def test_every_documented_formula_computes_its_column() -> None:
    bars = one_security()
    # As float32, as the platform sees them.
    series = {
        name: bars[name].cast(pl.Float32).cast(pl.Float64).to_numpy()
        for name in ("open", "high", "low", "close", "volume", "vwap")
    }
    computed = alpha158(bars).tail(1).row(0, named=True)
    for name, feature in FEATURES.items():
        expected = last_value(feature.formula, series)
        assert computed[name] == pytest.approx(expected, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("sessions", sorted({feature.sessions for feature in FEATURES.values()}))
def test_a_column_depends_on_the_sessions_it_names_and_no_fewer(sessions: int) -> None:
    bars = one_security()
    names = [name for name, feature in FEATURES.items() if feature.sessions == sessions]
    whole, alone = (
        alpha158(frame).tail(1).select(names).to_numpy()[0] for frame in (bars, bars.tail(sessions))
    )
    assert np.allclose(whole, alone, rtol=1e-5, atol=1e-6)
    if sessions > 1:
        shorter = alpha158(bars.tail(sessions - 1)).tail(1).select(names).to_numpy()[0]
        assert not np.allclose(whole, shorter, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert sessions - 1 <= LOOKBACK


def test_every_column_of_a_feature_table_is_documented() -> None:
    keys = ("session", "symbol", "security_id")
    for table, texts in DOCUMENTED:
        columns = {column.name: column for column in table.columns}
        assert list(texts) == [name for name in columns if name not in keys]
        for name, text in texts.items():
            assert text.formula
            assert text.window in columns[name].description
            assert columns[name].unit == text.unit
    assert ALPHA158_TEXTS["KSFT2"].formula == "`(2*$close-$high-$low)/($high-$low+1e-12)`"
    assert "Rsquare($close, 30)" in ALPHA158_TEXTS["RSQR30"].formula
    for name, bars in BARS_NEEDED.items():
        assert f"{bars} bars" in TECHNICAL_TEXTS[name].window


def test_the_table_shows_the_emptiest_columns_first() -> None:
    frame = pl.DataFrame(
        {name: [1.0, 2.0, 3.0, 4.0] for name in NAMES}, schema=dict.fromkeys(NAMES, pl.Float32)
    ).with_columns(
        RSQR30=pl.Series([None, float("nan"), float("inf"), 1.0], dtype=pl.Float32),
        CORD5=pl.Series([None, 1.0, 1.0, 1.0], dtype=pl.Float32),
    )
    lines = documented_columns(ALPHA158_TEXTS, missing_shares(frame, NAMES)).splitlines()
    assert len(lines) == 2 + 158
    assert {line.count(" | ") for line in lines[2:]} == {5}
    assert lines[2].startswith("| RSQR30 | `Rsquare($close, 30)` |")
    assert lines[2].endswith("| 30 sessions | fraction | 75 % |")
    assert lines[3].startswith("| CORD5 ")
    assert lines[4].startswith("| KMID ")


def test_missing_shares_of_numbers_texts_and_nothing() -> None:
    frame = pl.DataFrame({"number": [1.0, None], "text": ["", "gap +4.1"]})
    assert missing_shares(frame, ["number", "text"])["missing_share"].to_list() == [0.5, 0.5]
    assert missing_shares(frame.clear(), ["number"])["missing_share"].to_list() == [0.0]
    assert [shown_share(share) for share in (0, 1e-6, 0.0312, 1)] == [
        "0 %",
        "< 0.01 %",
        "3.12 %",
        "100 %",
    ]


def test_a_run_tells_the_share_of_every_column(tmp_path: Path) -> None:
    market = raw_market(count=90, symbols=8)
    store = Store(tmp_path)
    keys = [session.isoformat() for session in market.calendar]
    store.write(BARS, BARS.conform(market.bars), keys)
    store.write(UNIVERSE, UNIVERSE.conform(market.universe), keys)
    tables = [table for table, _ in DOCUMENTED]
    upstream = [
        dg.AssetSpec(table.path.split("/"), partitions_def=DEFAULT.session).with_io_manager_key(
            "table_io"
        )
        for table in (BARS, UNIVERSE)
    ]
    computing = [asset for asset in ASSETS if asset.key.path[-1] in {t.name for t in tables}]
    result = dg.materialize(
        [*upstream, *computing],
        selection=computing,
        tags=dict(range_tags(keys[-3:])),
        resources={"table_io": TableIOManager(store, (BARS, UNIVERSE, *tables))},
    )
    for table, texts in DOCUMENTED:
        (newest,) = [
            event
            for event in result.asset_materializations_for_node("__".join(table.path.split("/")))
            if event.partition == keys[-1]
        ]
        rows = store.read(table, keys[-3:]).collect()
        share = dict(missing_shares(rows, list(texts)).iter_rows())
        assert max(share.values()) > 0, "the market has holes and warm-ups"
        schema = newest.metadata["dagster/column_schema"].value
        assert isinstance(schema, dg.TableSchema)
        assert [column.name for column in schema.columns] == list(table.schema)
        for column in schema.columns:
            if column.name in share:
                assert column.constraints.other[-1] == f"missing {shown_share(share[column.name])}"
                assert texts[column.name].window in (column.description or "")
        shown = newest.metadata["columns"].value
        assert isinstance(shown, str)
        assert f"| {max(share, key=lambda name: share[name])} |" in shown


def test_pictures_draw_what_there_is() -> None:
    rows = alpha158(one_security())
    missing = missing_shares(rows, NAMES)
    overview = plots.alpha158_overview(rows, missing)
    left, right = overview.axes
    percent = np.asarray(left.images[0].get_array())
    assert percent.shape == (29, 5)
    assert percent.max() == pytest.approx(100 * missing.tail(145)["missing_share"].to_numpy().max())
    assert len(right.collections) == 2
    # A column that is missing everywhere and one that never varies are no reason to fail.
    frame = rows.with_columns(KMID=pl.lit(None, pl.Float32), KLEN=pl.lit(1.0, pl.Float32))
    (axes,) = plots.histograms(frame, ["KMID", "KLEN", "STD5"], across=2).axes
    steps, bases = axes.collections
    assert (len(steps.get_paths()), len(bases.get_paths())) == (2, 3)
    assert "no value" in {text.get_text() for text in axes.texts}
