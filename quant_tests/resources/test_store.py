"""The data root: atomic writes, vintages, lazy reads, and errors that name what is missing."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from quant_resources.errors import MissingPartitionError, SchemaError, StorageError
from quant_resources.store import Store
from quant_resources.tables import Column, Table

PRICES = Table(
    stage="stage",
    name="prices",
    grain="session",
    description="",
    columns=(
        Column("session", pl.Date, ""),
        Column("symbol", pl.String, ""),
        Column("close", pl.Float64, "", nullable=True),
    ),
    key=("session", "symbol"),
)
DELIVERIES = Table(
    stage="stage",
    name="deliveries",
    grain="session",
    description="",
    columns=(*PRICES.columns, Column("observed_at", pl.Datetime("us", "UTC"), "")),
    key=(),
    vintaged=True,
)
MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)


def prices(*rows: tuple[date, str, float | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=PRICES.schema, orient="row")


def test_a_range_is_split_and_read_back_projected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(
        PRICES,
        prices((TUESDAY, "B", 2.0), (MONDAY, "A", 1.0)),
        ["2024-03-04", "2024-03-05", "2024-03-06"],
    )
    assert store.partitions(PRICES) == ["2024-03-04", "2024-03-05", "2024-03-06"]
    read = store.read(PRICES, columns=["close"]).collect()
    assert read.get_column("close").to_list() == [1.0, 2.0]
    assert store.read(PRICES, ["2024-03-06"]).collect().schema == PRICES.schema


def test_other_files_beside_partitions_are_none(tmp_path: Path) -> None:
    """A tear sheet of a session lay beside its partition and was counted as a second one."""
    store = Store(tmp_path)
    store.write(PRICES, prices((MONDAY, "A", 1.0)), ["2024-03-04"])
    (tmp_path / "stage/prices/2024-03-04.html").write_text("")
    (tmp_path / "stage/prices/2024-03-05.html").write_text("")
    assert store.partitions(PRICES) == ["2024-03-04"]


def test_a_missing_partition_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(MissingPartitionError, match="stage/prices.*2024-03-04"):
        store.read(PRICES, ["2024-03-04"])


def test_rows_of_another_partition_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(SchemaError, match="2024-03-05"):
        store.write(PRICES, prices((MONDAY, "A", 1.0), (TUESDAY, "A", 1.0)), ["2024-03-04"])
    assert store.partitions(PRICES) == []


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (prices((MONDAY, "A", 1.0), (MONDAY, "A", 2.0)), "repeat their key"),
        (prices((MONDAY, "A", 1.0)).drop("close"), "close"),
        (prices((MONDAY, "A", 1.0)).with_columns(pl.col("close").cast(pl.Float32)), "Float32"),
        (prices((MONDAY, "A", 1.0)).with_columns(symbol=pl.lit(None, pl.String)), "symbol"),
    ],
)
def test_a_frame_that_is_not_its_table_is_refused(
    tmp_path: Path, frame: pl.DataFrame, named: str
) -> None:
    with pytest.raises(SchemaError, match=named):
        Store(tmp_path).write(PRICES, frame, ["2024-03-04"])


def test_an_identical_delivery_adds_no_vintage_and_a_changed_one_does(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def delivered(close: float, hour: int) -> int:
        observed = datetime(2024, 3, 5, hour, tzinfo=UTC)
        frame = prices((MONDAY, "A", close)).with_columns(
            observed_at=pl.lit(observed, pl.Datetime("us", "UTC"))
        )
        return store.write(DELIVERIES, frame, ["2024-03-04"])

    assert [delivered(1.0, 7), delivered(1.0, 8), delivered(1.5, 9)] == [1, 0, 1]
    assert len(store.vintages(DELIVERIES, "2024-03-04")) == 2
    assert store.read(DELIVERIES).collect().get_column("close").to_list() == [1.5]
    # Even a delivery with an older clock, or without rows, is the newest vintage once it came last.
    assert delivered(1.7, 6) == 1
    assert store.read(DELIVERIES).collect().get_column("close").to_list() == [1.7]
    assert store.write(DELIVERIES, DELIVERIES.empty(), ["2024-03-04"]) == 1
    assert store.read(DELIVERIES).collect().is_empty()


def test_an_unwritable_root_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "stage").write_text("a file where a folder must be")
    with pytest.raises(StorageError, match="Cannot write"):
        Store(tmp_path).write(PRICES, prices((MONDAY, "A", 1.0)), ["2024-03-04"])


def test_a_write_that_is_cut_short_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process or a full disk once left half a Parquet file that no reader could open."""
    store = Store(tmp_path)
    store.write(PRICES, prices((MONDAY, "A", 1.0)), ["2024-03-04"])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="free some space"):
        store.write(PRICES, prices((MONDAY, "A", 2.0)), ["2024-03-04"])
    monkeypatch.undo()
    assert store.read(PRICES).collect().get_column("close").to_list() == [1.0]
    assert [file.name for file in (tmp_path / "stage/prices").iterdir()] == ["2024-03-04.parquet"]
