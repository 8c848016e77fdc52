"""Tables computed again outside of a run: the same function, the same inputs, nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date
from importlib import import_module

import dagster as dg
import polars as pl
import pytest

from quant_assets.features.schemas import ALPHA158
from quant_assets.market_data.schemas import BARS, QUARANTINE, UNIVERSE
from quant_assets.partitions import everything_until, same, trailing
from quant_assets.point_in_time.cut_store import CutStore
from quant_assets.point_in_time.recompute import Step, recompute, recompute_step, steps
from quant_assets.table_assets import TableInput, TableResult, table_asset
from quant_resources.errors import DataError, MissingPartitionError, SchemaError
from quant_resources.settings import load_settings
from quant_resources.store import Store
from quant_tests.point_in_time.conftest import FILLED
from quant_tests.point_in_time.small_market import KEYS, PARTITIONS, SmallMarket
from quant_tests.point_in_time.wrong_tables import BY_NAME

NOTHING: dict[str, object] = {"ledger": None}


def placed(asset: dg.AssetsDefinition) -> Step:
    (step,) = steps([PARTITIONS.place(asset)], PARTITIONS)
    return step


def test_tables_that_are_computed_together_come_together(market: SmallMarket) -> None:
    frames = recompute_step(market.step(BARS.path), FILLED[:3], market.store, NOTHING)
    assert list(frames) == [QUARANTINE.path, BARS.path]
    stored = market.store.read(BARS, FILLED[:3]).collect()
    key = list(BARS.key)
    assert frames[BARS.path].sort(key).equals(stored.sort(key))


def test_a_cut_store_takes_the_place_of_every_input_and_of_the_resource(
    market: SmallMarket,
) -> None:
    day = KEYS[90]
    cut = CutStore(market.store, date.fromisoformat(day))
    step = market.step(UNIVERSE.path)
    alone = recompute(step, UNIVERSE, [day], cut, NOTHING)
    assert alone.height == market.store.read(UNIVERSE, [day]).collect().height > 0
    survivors = market.step(BY_NAME["survivors"].path)
    everyone = recompute(survivors, BY_NAME["survivors"], [day], cut, NOTHING)
    fewer = recompute(survivors, BY_NAME["survivors"], [day], market.store, NOTHING)
    assert set(everyone["symbol"]) - set(fewer["symbol"]) == {"S3"}


def test_what_the_ui_would_show_is_not_made(
    market: SmallMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(*_: object) -> None:
        raise AssertionError("a picture was drawn")

    for stage in ("market_data", "features", "signals", "performance"):
        monkeypatch.setattr(import_module(f"quant_assets.{stage}.assets"), "picture", drawn)
    for path in (
        "market_data/coverage",
        "market_data/universe",
        "features/alpha158",
        "features/technical",
        "features/labels",
        "signals/enhanced_momentum",
        "performance/strategy_performance",
        "performance/backtest_enhanced_momentum",
    ):
        step = market.step(path)
        keys = [KEYS[90]] if step.tables[0].partition_column else []
        assert recompute(step, step.tables[0], keys, market.store, NOTHING).height
        (result,) = step.function.compute(
            _Run(keys),
            **{
                name: market.store.read(given.table, step.input_keys(given, keys))
                for name, given in step.function.inputs.items()
            },
            **{name: {"store": market.store}.get(name) for name in step.function.resources},
        )
        with pytest.raises(AssertionError, match="a picture was drawn"):
            result.shown()


class _Run:
    """The partitions of a run, and a log."""

    log = logging.getLogger(__name__)

    def __init__(self, keys: list[str]) -> None:
        self.partition_keys = keys


def test_inputs_are_those_that_the_mapping_names(market: SmallMarket) -> None:
    @table_asset(BY_NAME["present"], ins={"alpha158": TableInput(ALPHA158, trailing(80))})
    def reads(_context: dg.AssetExecutionContext, alpha158: pl.LazyFrame) -> TableResult:
        days = alpha158.select(pl.col("session").unique().sort()).collect()
        # The universe, and with it the features, begin with the sixtieth session.
        assert days.height == 90 - 59 + 1
        return TableResult(BY_NAME["present"].empty())

    step = placed(reads)
    given = step.function.inputs["alpha158"]
    assert step.input_keys(given, [KEYS[90]]) == KEYS[10:91]
    assert step.input_keys(given, [KEYS[5]]) == KEYS[:6]
    assert recompute(step, step.tables[0], [KEYS[90]], market.store, NOTHING).is_empty()


def test_an_input_that_was_not_materialized_is_named(market: SmallMarket) -> None:
    label = BY_NAME["label_at_its_horizon"]

    @table_asset(BY_NAME["present"], ins={"labels": TableInput(label, trailing(40))})
    def reads(_context: dg.AssetExecutionContext, labels: pl.LazyFrame) -> TableResult:
        raise AssertionError("it was computed although an input is missing")

    with pytest.raises(
        MissingPartitionError, match=f"{label.path}: 12 partition.* missing \\({KEYS[50]}"
    ):
        recompute(placed(reads), BY_NAME["present"], [KEYS[90]], market.store, NOTHING)


def _asking(name: str) -> Iterator[Step]:
    @table_asset(BY_NAME["present"], ins={"bars": TableInput(BARS, same())})
    def asking(context: dg.AssetExecutionContext, bars: pl.LazyFrame) -> TableResult:
        getattr(context, name)
        return TableResult(BY_NAME["present"].empty())

    yield placed(asking)


@pytest.mark.parametrize("name", ["partition_keys", "partition_key", "log", "assets_def"])
def test_a_function_may_ask_for_its_partitions_and_log(name: str, market: SmallMarket) -> None:
    (step,) = _asking(name)
    assert recompute(step, step.tables[0], [KEYS[90]], market.store, NOTHING).is_empty()


def test_a_function_that_asks_for_its_run_is_refused_in_words(market: SmallMarket) -> None:
    (step,) = _asking("run_id")
    with pytest.raises(
        AttributeError, match="context.run_id is not there when a table is computed again"
    ):
        recompute(step, step.tables[0], [KEYS[90]], market.store, NOTHING)


def test_rows_that_are_not_the_table_are_refused(market: SmallMarket) -> None:
    @table_asset(BY_NAME["present"], ins={"bars": TableInput(BARS, same())})
    def strange(_context: dg.AssetExecutionContext, bars: pl.LazyFrame) -> TableResult:
        return TableResult(bars.select("session", "symbol").collect())

    with pytest.raises(SchemaError, match="columns missing"):
        recompute(placed(strange), BY_NAME["present"], [KEYS[90]], market.store, NOTHING)


def test_ten_years_back_ends_at_the_first_session_of_the_market() -> None:
    @table_asset(BY_NAME["present"], ins={"bars": TableInput(BARS, everything_until())})
    def far(_context: dg.AssetExecutionContext, bars: pl.LazyFrame) -> TableResult:
        return TableResult(bars.collect())

    step = placed(far)
    assert step.input_keys(step.function.inputs["bars"], [KEYS[4]]) == KEYS[:5]


@pytest.mark.parametrize("by_itself", ["files", "store"])
def test_a_function_that_looks_for_the_data_root_by_itself_finds_none(
    by_itself: str, market: SmallMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read behind the given store would not be cut: such a table is refused, not proved."""
    monkeypatch.setenv("QUANT_DATA_ROOT", str(market.store.root))

    @table_asset(UNIVERSE)
    def looks_by_itself(context: dg.AssetExecutionContext) -> TableResult:
        root = load_settings().data_root
        if by_itself == "store":
            Store(root).read(BARS, FILLED[-1:]).collect()
        else:
            pl.scan_parquet(root / BARS.path / "*.parquet").collect()
        return TableResult(UNIVERSE.empty())

    with pytest.raises(DataError, match="not given|missing"):
        recompute(placed(looks_by_itself), UNIVERSE, FILLED[-1:], market.store, NOTHING)
    assert str(load_settings().data_root) == str(market.store.root)
