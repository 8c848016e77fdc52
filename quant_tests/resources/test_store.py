"""The data root: atomic writes, vintages, lazy reads, and errors that name what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_resources.errors import DataError, MissingPartitionError, SchemaError, StorageError
from quant_resources.store import Store, observed_at
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


def test_every_type_and_every_kind_of_missing_value_comes_back(tmp_path: Path) -> None:
    """Null and NaN are two things, and a time without its zone is another time."""
    values = {
        "session": pl.Series([MONDAY] * 4),
        "text": pl.Series(["a", "", None, "ä|b"]),
        "single": pl.Series([1.5, float("nan"), None, float("-inf")], dtype=pl.Float32),
        "double": pl.Series([0.1, float("nan"), None, 1e300]),
        "count": pl.Series([2**62, -1, None, 0]),
        "small": pl.Series([127, -128, None, 0], dtype=pl.Int8),
        "flag": pl.Series([True, False, None, True]),
        "moment": pl.Series([at(9), None, at(9, 1), at(0)], dtype=pl.Datetime("us", "UTC")),
        "local": pl.Series([at(9).replace(tzinfo=None)] * 4, dtype=pl.Datetime("ms")),
        "held": pl.Series([1, None, 2, 3], dtype=pl.Duration("us")),
        "side": pl.Series(["buy", "sell", None, "buy"], dtype=pl.Enum(["buy", "sell"])),
        "list": pl.Series([[1.0, 2.0], [], None, [float("nan")]]),
        "nothing": pl.Series([None] * 4, dtype=pl.Float64),
    }
    frame = pl.DataFrame(values)
    columns = tuple(Column(name, dtype, "", nullable=True) for name, dtype in frame.schema.items())
    table = replace(PRICES, name="types", columns=columns, key=())
    store = Store(tmp_path)
    store.write(table, frame, ["2024-03-04", "2024-03-05"])
    assert_frame_equal(store.read(table, ["2024-03-04"]).collect(), frame)
    assert store.read(table, ["2024-03-05"]).collect().schema == frame.schema


def test_a_partition_that_cannot_be_written_is_named_and_leaves_no_half_file(
    tmp_path: Path,
) -> None:
    """Partitions of a range are written at the same time: each is whole or as it was."""
    store, days = Store(tmp_path), [date(2024, 3, day) for day in range(1, 29)]
    keys = [day.isoformat() for day in days]
    (tmp_path / "stage/prices/2024-03-15.parquet").mkdir(parents=True)
    frame = prices(*((day, "A", float(day.day)) for day in days))
    with pytest.raises(StorageError, match=r"2024-03-15\.parquet"):
        store.write(PRICES, frame, keys)
    names = {file.name for file in (tmp_path / "stage/prices").iterdir()}
    assert not [name for name in names if name.startswith(".")]
    for name in names - {"2024-03-15.parquet"}:
        key = name.removesuffix(".parquet")
        assert closes(store.read(PRICES, [key])) == [float(date.fromisoformat(key).day)]


def test_partitions_from_before_a_column_was_added_are_read(tmp_path: Path) -> None:
    """Evidence cannot be made again: a new column must not make years of it unreadable."""
    store = Store(tmp_path)
    store.write(PRICES, prices((MONDAY, "A", 1.0)), ["2024-03-04"])
    grown = replace(
        PRICES,
        columns=(
            *PRICES.columns,
            Column("role", pl.String, "", added=True, earlier="entry"),
            Column("limit", pl.Float64, "", nullable=True, added=True),
            Column("booked", pl.Float64, "", nullable=True, added=True, earlier_as="close"),
        ),
    )
    new = pl.DataFrame([(TUESDAY, "A", 2.0, "leg", 3.0, 4.0)], schema=grown.schema, orient="row")
    store.write(grown, new, ["2024-03-05"])
    expected = pl.DataFrame(
        [(MONDAY, "A", 1.0, "entry", None, 1.0), (TUESDAY, "A", 2.0, "leg", 3.0, 4.0)],
        schema=grown.schema,
        orient="row",
    )
    assert_frame_equal(store.read(grown).collect(), expected)
    assert store.read(grown, columns=["role"]).collect().to_series().to_list() == ["entry", "leg"]


def test_a_column_that_is_missing_and_was_not_added_is_no_silent_null(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(PRICES, prices((MONDAY, "A", 1.0)), ["2024-03-04"])
    grown = replace(PRICES, columns=(*PRICES.columns, Column("limit", pl.Float64, "", added=False)))
    with pytest.raises(pl.exceptions.ColumnNotFoundError, match="limit"):
        store.read(grown, columns=["limit"]).collect()


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

    def came(close: float, hour: int) -> int:
        return store.write(DELIVERIES, delivered(MONDAY, hour, ("A", close)), ["2024-03-04"])

    assert [came(1.0, 7), came(1.0, 8), came(1.5, 9)] == [1, 0, 1]
    assert len(store.vintages(DELIVERIES, "2024-03-04")) == 2
    assert store.read(DELIVERIES).collect().get_column("close").to_list() == [1.5]
    # Even a delivery with an older clock, or without rows, is the newest vintage once it came last.
    assert came(1.7, 6) == 1
    assert store.read(DELIVERIES).collect().get_column("close").to_list() == [1.7]
    assert store.write(DELIVERIES, DELIVERIES.empty(), ["2024-03-04"]) == 1
    assert store.read(DELIVERIES).collect().is_empty()


def delivered(session: date, hour: int, *rows: tuple[str, float | None]) -> pl.DataFrame:
    """A delivery of one session, observed at an hour of 5 March 2024."""
    observed = datetime(2024, 3, 5, hour, tzinfo=UTC)
    return prices(*((session, symbol, close) for symbol, close in rows)).with_columns(
        observed_at=pl.lit(observed, pl.Datetime("us", "UTC"))
    )


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2024, 3, 5, hour, minute, tzinfo=UTC)


def closes(frame: pl.LazyFrame) -> list[float | None]:
    return frame.collect().get_column("close").to_list()


def test_the_order_of_rows_is_no_change_but_how_often_they_came_is(tmp_path: Path) -> None:
    """Pages that arrived in another order once added a vintage that said nothing."""
    store, key = Store(tmp_path), ["2024-03-04"]
    nan = float("nan")
    first = delivered(MONDAY, 7, ("A", 1.0), ("B", None), ("B", nan), ("C", 3.0))
    assert store.write(DELIVERIES, first, key) == 1
    assert store.write(DELIVERIES, first.reverse(), key) == 0
    assert store.write(DELIVERIES, first.with_columns(observed_at=at(9)), key) == 0
    twice = pl.concat([first, first.filter(symbol="C")])
    assert store.write(DELIVERIES, twice, key) == 1
    swapped = first.with_columns(close=pl.Series([1.0, nan, 3.0, None]))
    assert store.write(DELIVERIES, swapped, key) == 1


def test_a_table_is_read_as_it_was_known_at_a_time(tmp_path: Path) -> None:
    store, monday, tuesday = Store(tmp_path), ["2024-03-04"], ["2024-03-05"]
    store.write(DELIVERIES, delivered(MONDAY, 7, ("A", 1.0)), monday)
    store.write(DELIVERIES, delivered(MONDAY, 9, ("A", 2.0)), monday)
    store.write(DELIVERIES, delivered(TUESDAY, 10, ("A", 3.0)), tuesday)
    assert closes(store.read(DELIVERIES, as_of=at(6))) == []
    assert closes(store.read(DELIVERIES, as_of=at(7))) == [1.0]
    assert closes(store.read(DELIVERIES, as_of=at(8, 59))) == [1.0]
    assert closes(store.read(DELIVERIES, monday, ["close"], at(9))) == [2.0]
    assert closes(store.read(DELIVERIES, as_of=at(12))) == closes(store.read(DELIVERIES))
    with pytest.raises(
        MissingPartitionError, match=r"not known at 2024-03-05 09:00.*first obs.*10:00"
    ):
        store.read(DELIVERIES, tuesday, as_of=at(9))
    with pytest.raises(MissingPartitionError, match="materialize"):
        store.read(DELIVERIES, ["2024-03-06"], as_of=at(9))


def test_as_of_needs_a_time_zone_and_vintages(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(DataError, match="no time zone"):
        store.read(DELIVERIES, as_of=at(9).replace(tzinfo=None))
    with pytest.raises(DataError, match="keeps no vintages"):
        store.read(PRICES, as_of=at(9))


def test_an_empty_delivery_bears_its_time(tmp_path: Path) -> None:
    """A withdrawn session was named 0 and could not be told from what came before it."""
    store, keys = Store(tmp_path), ["2024-03-04", "2024-03-05"]
    store.write(DELIVERIES, delivered(MONDAY, 7, ("A", 1.0)), keys)
    assert [observed_at(stem) for stem in store.vintages(DELIVERIES, keys[1])] == [at(7)]
    assert store.write(DELIVERIES, DELIVERIES.empty(), keys[:1], observed_at=at(8)) == 1
    assert closes(store.read(DELIVERIES, as_of=at(7, 30))) == [1.0]
    assert closes(store.read(DELIVERIES, as_of=at(8))) == []
    before = datetime.now(UTC)
    store.write(DELIVERIES, DELIVERIES.empty(), ["2024-03-06"])
    (stem,) = store.vintages(DELIVERIES, "2024-03-06")
    observed = observed_at(stem)
    assert observed is not None
    assert before <= observed <= datetime.now(UTC)


def test_what_came_last_is_newest_whatever_the_clock_said(tmp_path: Path) -> None:
    """A clock that stepped back once made an old delivery the newest one."""
    store, key = Store(tmp_path), ["2024-03-04"]
    for hour, close in ((9, 1.0), (8, 2.0), (7, 3.0), (9, 4.0), (10, 5.0), (6, 6.0)):
        assert store.write(DELIVERIES, delivered(MONDAY, hour, ("A", close)), key) == 1
    stems = store.vintages(DELIVERIES, key[0])
    read = [store.read_vintage(DELIVERIES, key[0], stem)["close"].item() for stem in stems]
    assert read == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    times = [observed_at(stem) for stem in stems]
    assert times == [at(9)] * 4 + [at(10)] * 2
    assert closes(store.read(DELIVERIES)) == [6.0]
    # What came with a wrong clock was not known before what had come already.
    assert closes(store.read(DELIVERIES, as_of=at(9))) == [4.0]
    with pytest.raises(MissingPartitionError, match="no vintage 'never'"):
        store.read_vintage(DELIVERIES, key[0], "never")


def test_vintages_of_older_versions_keep_their_order(tmp_path: Path) -> None:
    store, key = Store(tmp_path), "2024-03-04"
    folder = tmp_path / "stage/deliveries" / key
    folder.mkdir(parents=True)
    time = "20240305T090000000000"
    for number, stem in enumerate(("0", time, f"{time}-", f"{time}--")):
        delivered(MONDAY, 9, ("A", float(number))).write_parquet(folder / f"{stem}.parquet")
    store.write(DELIVERIES, delivered(MONDAY, 8, ("A", 4.0)), [key])
    read = [
        store.read_vintage(DELIVERIES, key, stem)["close"].item()
        for stem in store.vintages(DELIVERIES, key)
    ]
    assert read == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_file_from_before_a_table_kept_vintages_is_its_oldest_one(tmp_path: Path) -> None:
    """Corporate actions were overwritten once; the data roots of that time stay readable."""
    store, key = Store(tmp_path), "2024-03-04"
    folder = tmp_path / "stage/deliveries"
    folder.mkdir(parents=True)
    delivered(MONDAY, 7, ("A", 1.0)).write_parquet(folder / f"{key}.parquet")
    assert store.partitions(DELIVERIES) == [key]
    assert store.exists(DELIVERIES, key)
    assert closes(store.read(DELIVERIES)) == [1.0]
    assert store.restated(DELIVERIES) == {}
    assert store.write(DELIVERIES, delivered(MONDAY, 8, ("A", 1.0)), [key]) == 0
    assert store.write(DELIVERIES, delivered(MONDAY, 9, ("A", 2.0)), [key]) == 1
    assert store.partitions(DELIVERIES) == [key]
    assert closes(store.read(DELIVERIES)) == [2.0]
    assert closes(store.read(DELIVERIES, as_of=at(8))) == [1.0]
    assert closes(store.read(DELIVERIES, as_of=at(6))) == []
    assert store.restated(DELIVERIES) == {key: ["0", "20240305T090000000000"]}


def test_a_folder_that_a_killed_write_left_empty_is_no_partition(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = tmp_path / "stage/deliveries/2024-03-04"
    folder.mkdir(parents=True)
    (folder / ".20240305T090000000000.parquet.ab12").write_bytes(b"half")
    assert store.partitions(DELIVERIES) == []
    assert store.read(DELIVERIES).collect().is_empty()


def test_vintages_are_found_in_an_object_store_too() -> None:
    """Polars reads no memory:// itself; what is written where, and what is listed, is the same."""
    store = Store("memory://vintages-of-a-test")
    assert store.partitions(DELIVERIES) == []
    for session, hour in ((MONDAY, 7), (TUESDAY, 9)):
        store.write(DELIVERIES, delivered(session, hour, ("A", 1.0)), [session.isoformat()])
    assert store.partitions(DELIVERIES) == ["2024-03-04", "2024-03-05"]
    assert store.vintages(DELIVERIES, "2024-03-05") == ["20240305T090000000000"]
    assert store.restated(DELIVERIES) == {}


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
