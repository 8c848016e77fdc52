"""The data root cut at a close: what exists, what does not, and that nothing can be written."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from quant_assets.point_in_time.cut_store import CutStore, HiddenPartitionError
from quant_resources.errors import MissingPartitionError, StorageError
from quant_resources.store import Store
from quant_resources.tables import Column, Grain, Table

KEYS = ["2024-05-30", "2024-05-31", "2024-06-03", "2024-06-04"]


def table(grain: Grain, column: str, horizon: int = 0, vintaged: bool = False) -> Table:
    times = (Column("observed_at", pl.Datetime("us", "UTC"), "Observed"),) if vintaged else ()
    return Table(
        stage="market_data",
        name=f"{grain}_{column}_{vintaged}",
        grain=grain,
        description="Made for a test.",
        columns=(Column(column, pl.Date, "When"), Column("value", pl.Float64, "A number"), *times),
        key=() if vintaged else (column,),
        horizon=horizon,
        vintaged=vintaged,
    )


SESSION = table("session", "session")
TRADED = table("trading_session", "trading_session")
LABEL = table("labelled_session", "session", horizon=2)
MONTH = table("month", "month")
WHOLE = table("none", "session")
UNTOLD = table("none", "day")
VINTAGED = table("session", "session", vintaged=True)


def rows(declared: Table, keys: list[str], observed: int = 1) -> pl.DataFrame:
    days = [date.fromisoformat(key) for key in keys]
    frame = pl.DataFrame({declared.columns[0].name: days, "value": [float(observed)] * len(days)})
    if not declared.vintaged:
        return frame
    time = datetime(2025, 1, observed, tzinfo=UTC)
    return frame.with_columns(observed_at=pl.lit(time, pl.Datetime("us", "UTC")))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for declared in (SESSION, TRADED, LABEL, VINTAGED):
        store.write(declared, rows(declared, KEYS), KEYS)
    store.write(VINTAGED, rows(VINTAGED, KEYS[:1], observed=2), KEYS[:1])
    store.write(VINTAGED, rows(VINTAGED, KEYS[3:], observed=2), KEYS[3:])
    months = ["2024-05-01", "2024-06-01"]
    store.write(MONTH, rows(MONTH, months), months)
    for declared in (WHOLE, UNTOLD):
        store.write(declared, rows(declared, KEYS))
    return store


@pytest.mark.parametrize(
    ("declared", "last", "there"),
    [
        (SESSION, "2024-05-31", KEYS[:2]),
        (TRADED, "2024-05-31", KEYS[:2]),
        # Known two sessions later: the label of 05-30 at the close of 06-03, not before.
        (LABEL, "2024-05-31", []),
        (LABEL, "2024-06-03", KEYS[:1]),
        # 2024-06-01 is a Saturday: its model serves from 06-03 on.
        (MONTH, "2024-05-31", ["2024-05-01"]),
        (MONTH, "2024-06-03", ["2024-05-01", "2024-06-01"]),
    ],
)
def test_a_partition_is_there_from_the_close_at_which_it_is_known(
    declared: Table, last: str, there: list[str], store: Store
) -> None:
    cut = CutStore(store, date.fromisoformat(last))
    assert cut.partitions(declared) == there
    assert cut.read(declared).collect().height == len(there)
    every = store.partitions(declared)
    assert [key for key in every if cut.exists(declared, key)] == there
    later = [key for key in every if key not in there]
    for key in later:
        with pytest.raises(
            HiddenPartitionError, match=f"{key} does not exist yet at the close of {last}"
        ):
            cut.read(declared, [*there, key])


def test_partitions_that_a_mapping_names_too_early_are_left_out_and_remembered(
    store: Store,
) -> None:
    cut = CutStore(store, date(2024, 5, 31))
    assert cut.existing(SESSION, KEYS[1:3]) == KEYS[1:2]
    assert cut.existing(MONTH, ["2024-05-01"]) == ["2024-05-01"]
    assert cut.withheld == {SESSION.path: KEYS[2:3]}


def test_what_was_never_stored_is_missing_and_not_hidden(store: Store) -> None:
    cut = CutStore(store, date(2024, 5, 31))
    with pytest.raises(MissingPartitionError, match="are missing") as caught:
        cut.read(SESSION, ["2024-05-29"])
    assert not isinstance(caught.value, HiddenPartitionError)


def test_a_whole_table_shows_its_rows_up_to_the_session(store: Store) -> None:
    cut = CutStore(store, date(2024, 5, 31))
    assert cut.read(WHOLE).collect()["session"].max() == date(2024, 5, 31)
    assert cut.read(WHOLE, columns=["value"]).collect().shape == (2, 1)
    assert cut.exists(WHOLE)
    # Nothing tells the session of a row here.
    assert cut.read(UNTOLD).collect().height == len(KEYS)


def test_vintages_of_later_sessions_do_not_exist(store: Store) -> None:
    cut = CutStore(store, date(2024, 5, 31))
    assert list(store.restated(VINTAGED)) == [KEYS[0], KEYS[3]]
    assert list(cut.restated(VINTAGED)) == [KEYS[0]]
    oldest, newest = cut.vintages(VINTAGED, KEYS[0])
    assert cut.vintages(VINTAGED, KEYS[3]) == []
    assert cut.read_vintage(VINTAGED, KEYS[0], oldest)["value"].to_list() == [1.0]
    assert cut.read_vintage(VINTAGED, KEYS[0], newest)["value"].to_list() == [2.0]
    first = cut.read(VINTAGED, [KEYS[0]], as_of=datetime(2025, 1, 1, 12, tzinfo=UTC)).collect()
    assert first["value"].to_list() == [1.0]
    with pytest.raises(HiddenPartitionError):
        cut.read_vintage(VINTAGED, KEYS[3], store.vintages(VINTAGED, KEYS[3])[0])


def test_nothing_can_be_written(store: Store) -> None:
    cut = CutStore(store, date(2024, 5, 31))
    before = store.read(SESSION).collect()
    with pytest.raises(StorageError, match="cannot be written while it is recomputed"):
        cut.write(SESSION, rows(SESSION, KEYS[:1], observed=9), KEYS[:1])
    assert store.read(SESSION).collect().equals(before)
