"""Which tables and sessions are proved, and why a table is not."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from quant_assets.definitions import build_defs
from quant_assets.features.schemas import LABELS
from quant_assets.market_data.schemas import UNIVERSE
from quant_assets.orders.schemas import FILLS, POSITIONS
from quant_assets.partitions import DEFAULT
from quant_assets.performance.schemas import backtest_table
from quant_assets.point_in_time.plan import Sessions, parsed_sessions, plan
from quant_assets.point_in_time.recompute import Step, steps
from quant_resources.errors import ConfigurationError
from quant_resources.store import Store
from quant_tests.performance.sample_evidence import rows_of

DAYS = [date.fromisoformat(key) for key in DEFAULT.session.get_partition_keys()][:40]
KEYS = [day.isoformat() for day in DAYS]
BACKTEST = backtest_table("ml_ranker")


@pytest.fixture(scope="module")
def graph() -> tuple[Step, ...]:
    assets = build_defs().assets or ()
    return steps([one for one in assets if isinstance(one, dg.AssetsDefinition)], DEFAULT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Forty sessions of the universe and of labels, ten of a backtest, two of fills and positions."""
    store = Store(tmp_path)
    place = [{"session": day, "symbol": "AAA"} for day in DAYS]
    store.write(UNIVERSE, rows_of(UNIVERSE, place), KEYS)
    known = [row | {"known_session": day} for row, day in zip(place[:-2], DAYS[2:], strict=True)]
    store.write(LABELS, rows_of(LABELS, known), KEYS[:-2])
    store.write(BACKTEST, rows_of(BACKTEST, place[5:15]))
    for table in (FILLS, POSITIONS):
        traded = [{"trading_session": day, "symbol": "AAA"} for day in DAYS[-2:]]
        at = datetime(2023, 3, 1, 15, tzinfo=UTC)
        rows = [
            row | {"execution_id": str(row["trading_session"]), "filled_at": at} for row in traded
        ]
        store.write(table, rows_of(table, rows), KEYS[-2:])
    return store


def test_every_table_is_named_with_its_way_or_a_reason(graph, store: Store) -> None:
    made = plan(graph, ["market_data/releases"], store, Sessions())
    ways = {planned.table.path: planned.way for planned in made.tables}
    assert ways == {
        UNIVERSE.path: "recomputed",
        LABELS.path: "recomputed",
        FILLS.path: "evidence",
        BACKTEST.path: "recomputed",
    }
    reasons = dict(made.unproved)
    assert "bar_source" in reasons["market_data/raw_bars"]
    assert "broker" in reasons["market_data/listed_assets"]
    assert "second_bar_source" in reasons["market_data/source_differences"]
    assert "people" in reasons["market_data/releases"]
    # Frozen as well, but without a single time that could be looked at.
    assert "frozen" in reasons[POSITIONS.path]
    assert reasons["features/alpha158"].startswith("nothing of it is stored")
    every = {table.path for step in graph for table in step.tables} | {"market_data/releases"}
    assert set(ways) | set(reasons) == every


def test_sessions_are_the_stored_partitions_or_those_of_the_rows(graph, store: Store) -> None:
    made = plan(graph, [], store, Sessions(first=DAYS[10], last=DAYS[-1]))
    keys = {planned.table.path: planned.keys for planned in made.tables}
    assert keys[UNIVERSE.path] == tuple(KEYS[10:])
    assert keys[LABELS.path] == tuple(KEYS[10:-2])
    assert keys[BACKTEST.path] == tuple(KEYS[10:15])


def test_a_sample_is_spread_over_history_and_always_the_same() -> None:
    drawn = Sessions(sample=4).of(KEYS)
    assert drawn == Sessions(sample=4).of(KEYS)
    assert [KEYS.index(key) // 10 for key in drawn] == [0, 1, 2, 3]
    assert Sessions(sample=100).of(KEYS) == tuple(KEYS)
    assert Sessions(sample=3).of([]) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", Sessions()),
        ("12", Sessions(sample=12)),
        ("2023-02-01", Sessions(date(2023, 2, 1), date(2023, 2, 1))),
        ("2023-02-01..2023-02-10", Sessions(date(2023, 2, 1), date(2023, 2, 10))),
        ("2023-02-01..", Sessions(first=date(2023, 2, 1))),
        ("..2023-02-10", Sessions(last=date(2023, 2, 10))),
    ],
)
def test_sessions_are_read(text: str, expected: Sessions) -> None:
    assert parsed_sessions(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("some", "'some' names no sessions; write all"),
        ("2023-02-30", "names no sessions"),
        ("0", "proves nothing"),
        ("", "names no sessions"),
        ("..", "names no sessions"),
        ("2023-02-10..2023-02-01", "write it as 2023-02-01..2023-02-10"),
    ],
)
def test_wrong_sessions_are_told(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        parsed_sessions(text)


@pytest.mark.parametrize(
    "patterns", [["features/labels"], ["labels"], ["feat*/labels"], ["labels", "labels"]]
)
def test_tables_are_met_by_path_name_or_pattern(graph, store: Store, patterns: list[str]) -> None:
    made = plan(graph, [], store, Sessions(), patterns)
    assert [planned.table.path for planned in made.tables] == [LABELS.path]
    assert made.unproved == ()


def test_a_stage_is_all_of_its_tables(graph, store: Store) -> None:
    made = plan(graph, [], store, Sessions(), ["performance"])
    named = {planned.table.path for planned in made.tables} | set(dict(made.unproved))
    assert {path.split("/")[0] for path in named} == {"performance"}
    assert BACKTEST.path in named


def test_an_unknown_table_is_told_with_its_neighbours(graph, store: Store) -> None:
    with pytest.raises(ConfigurationError, match="'alpha185'; did you mean .*alpha158"):
        plan(graph, [], store, Sessions(), ["alpha185"])
    with pytest.raises(ConfigurationError, match="No table is named 'zzz'; there are"):
        plan(graph, [], store, Sessions(), ["zzz"])


def test_sessions_that_are_not_stored_are_told_with_the_nearest(graph, store: Store) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"stored are {KEYS[0]} to {KEYS[-1]}.*{KEYS[-1]}"
    ):
        plan(graph, [], store, parsed_sessions("2024-06-03"), ["universe"])
    saturday = "2023-01-07"
    with pytest.raises(ConfigurationError, match="2023-01-06 and 2023-01-09"):
        plan(graph, [], store, parsed_sessions(saturday), ["universe"])


def test_an_empty_data_root_says_what_to_run(graph, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`quant demo` or `quant backfill` first"):
        plan(graph, [], Store(tmp_path / "empty"), Sessions())


def test_a_table_with_nothing_but_a_reason_is_no_error(graph, store: Store) -> None:
    made = plan(graph, [], store, Sessions(), ["raw_bars"])
    assert made.tables == ()
    assert [path for path, _ in made.unproved] == ["market_data/raw_bars"]
