"""Files as a source of bars: every arrangement reads the same, and what is wrong with a file is said."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_resources import file_text
from quant_resources.bar_source import RAW_BAR_SCHEMA, BarSource
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.errors import SourceError
from quant_resources.file_bars import FileBars
from quant_resources.file_inspection import inspect
from quant_tests.resources.bar_files import (
    NOW,
    SESSIONS,
    SYMBOLS,
    VALUES,
    bars,
    changed,
    csv_by_session,
    csv_by_symbol,
    expected,
    fetched,
    lines,
    one_csv,
    one_parquet,
    parquet_by_session_with_dates,
    parquet_by_symbol,
    refused,
    source,
    write_text,
)

ARRANGEMENTS: dict[str, Callable[[Path], FileBars]] = {
    function.__name__: function
    for function in (
        one_csv,
        one_parquet,
        csv_by_symbol,
        parquet_by_symbol,
        csv_by_session,
        parquet_by_session_with_dates,
    )
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_every_arrangement_delivers_the_same(tmp_path: Path, arrangement: str) -> None:
    files: BarSource = ARRANGEMENTS[arrangement](tmp_path)
    delivered = files.bars(None, SESSIONS[0], SESSIONS[-1])
    assert dict(delivered.schema) == RAW_BAR_SCHEMA
    assert_frame_equal(
        delivered.select("symbol", "session", "open", "high", "low", "close", "volume"),
        expected().rename({"date": "session"}),
    )
    assert delivered["bar_time"].to_list() == [start_of_day(day) for day in delivered["session"]]
    assert delivered["source"].unique().to_list() == ["files/vendor"]
    assert files.symbols() == sorted(SYMBOLS)
    assert files.newest_closed_session() == SESSIONS[-1]
    part = files.bars(["BBB", "CCC"], SESSIONS[3], SESSIONS[4])
    assert part.select("session", "symbol").rows() == [
        (day, symbol) for day in SESSIONS[3:5] for symbol in ("BBB", "CCC")
    ]
    assert files.corporate_actions(SESSIONS[0], SESSIONS[-1]).is_empty()


@pytest.mark.parametrize("arrangement", ["one_csv", "csv_by_symbol", "csv_by_session"])
def test_csv_is_read_once_and_again_when_it_changes(tmp_path: Path, arrangement: str) -> None:
    ARRANGEMENTS[arrangement](tmp_path)
    layout, cache = tmp_path / "files.toml", tmp_path / "cache"
    first = FileBars.from_layout(layout, cache).bars(None, SESSIONS[0], SESSIONS[-1])
    kept = {file: file.stat().st_mtime_ns for file in cache.rglob("*.parquet")}
    assert kept
    again = FileBars.from_layout(layout, cache).bars(None, SESSIONS[0], SESSIONS[-1])
    assert_frame_equal(first.drop("observed_at"), again.drop("observed_at"))
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*.parquet")} == kept
    restated = next(file for file in sorted(tmp_path.rglob("*.csv")))
    restated.write_text(restated.read_text().replace("20.", "21."))
    newer = FileBars.from_layout(layout, cache).bars(None, SESSIONS[0], SESSIONS[-1])
    assert not newer["close"].equals(first["close"])
    assert len(list(cache.rglob("*.parquet"))) == len(kept)
    assert not set(cache.rglob("*.parquet")) <= set(kept)


def test_a_kept_file_that_lost_its_end_is_made_again(tmp_path: Path) -> None:
    one_csv(tmp_path)
    cache = tmp_path / "cache"
    assert_frame_equal(fetched(source(tmp_path, cache=cache)), expected())
    kept = next(cache.rglob("*.parquet"))
    kept.write_bytes(kept.read_bytes()[:-100])
    abandoned, written = kept.with_name(".killed"), kept.with_name(".being_written")
    abandoned.touch()
    written.touch()
    os.utime(abandoned, (1, 1))
    assert_frame_equal(fetched(source(tmp_path, cache=cache)), expected())
    assert set(cache.rglob("*.*")) == {kept, written}


def test_a_day_that_is_added_has_only_its_month_read_again(tmp_path: Path) -> None:
    files = csv_by_session(tmp_path)
    cache = tmp_path / "cache"
    FileBars(files.layout, cache, clock=lambda: NOW).bars(None, SESSIONS[0], SESSIONS[-1])
    april = XNYS.next(date(2024, 3, 31))
    kept = {file.name for file in cache.rglob("*.parquet")}
    newest = tmp_path / "bars" / f"{SESSIONS[-1]:%Y%m%d}.csv"
    (tmp_path / "bars" / f"{april:%Y%m%d}.csv").write_text(newest.read_text())
    after = FileBars(files.layout, cache, clock=lambda: NOW)
    assert after.newest_closed_session() == april
    assert kept < {file.name for file in cache.rglob("*.parquet")}


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_a_file_larger_than_a_block_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(file_text, "BLOCK_BYTES", size)
    write_text(tmp_path / "bars.csv", [*lines()[:30], "", *lines()[30:]])
    assert_frame_equal(fetched(source(tmp_path, cache=tmp_path / "cache")), expected())
    write_text(tmp_path / "bars.csv", [*lines()[:40], "AAA,2024-03-04", *lines()[40:]])
    assert "line 41: 2 field(s) where the header has 7" in refused(source(tmp_path))
    write_text(tmp_path / "bars.csv", changed(45, "CCC,2024-03-12,1,x,1,1,1"))
    assert "line 45 (CCC, 2024-03-12), column high: 'x'" in refused(source(tmp_path))


# What a file may be without being wrong.


def test_a_mark_crlf_quotes_blank_lines_and_padding_change_nothing(tmp_path: Path) -> None:
    text = [line.replace("AAA", '"AAA"') for line in lines()]
    text[0] = text[0].replace("open", " open ")
    text[3] = text[3].replace(",", ", ", 5)
    text.insert(5, "")
    text.append("  ")
    (tmp_path / "bars.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*text, ""]).encode())
    assert_frame_equal(fetched(source(tmp_path)), expected())


def test_shuffled_rows_and_columns_change_nothing(tmp_path: Path) -> None:
    frame = bars().sample(fraction=1.0, shuffle=True, seed=7)
    write_text(tmp_path / "bars.csv", lines(frame.select(reversed(frame.columns))))
    assert_frame_equal(fetched(source(tmp_path)), expected())


def test_repeated_days_are_delivered_for_the_gate(tmp_path: Path) -> None:
    write_text(tmp_path / "bars.csv", [*lines(), lines()[5], lines()[5].replace("20.", "22.")])
    delivered = fetched(source(tmp_path))
    assert delivered.height == bars().height + 2
    assert delivered.filter(symbol="AAA", date=SESSIONS[4])["close"].to_list() == [21.0, 21.0, 21.0]
    assert delivered.filter(symbol="AAA", date=SESSIONS[4])["open"].n_unique() == 2


def test_thousands_separators_as_declared(tmp_path: Path) -> None:
    text = lines()[:1]
    for row in bars().iter_rows():
        text.append(",".join([row[0], str(row[1]), *(f'"{value:,}"' for value in row[2:])]))
    assert '"1,519.90"'[:-2] in "".join(text)
    write_text(tmp_path / "bars.csv", text)
    assert_frame_equal(fetched(source(tmp_path, '[bars.csv]\nthousands = ","')), expected())
    told = refused(source(tmp_path))
    assert "bars.csv, line 2 (AAA, 2024-03-01), column volume: '1,000,000' is no number" in told
    assert "csv.thousands" in told


def test_decimal_commas_as_declared(tmp_path: Path) -> None:
    text = [line.replace(",", ";").replace(".", ",") for line in lines()]
    text = [line.replace("BRK,B", "BRK.B") for line in text]
    write_text(tmp_path / "bars.csv", text)
    keys = '[bars.csv]\ndelimiter = ";"\ndecimal = ","\nthousands = "."'
    assert_frame_equal(fetched(source(tmp_path, keys)), expected())
    assert "'19,9' is no number" in refused(source(tmp_path, '[bars.csv]\ndelimiter = ";"'))


def test_a_misplaced_thousands_separator_is_no_number(tmp_path: Path) -> None:
    write_text(
        tmp_path / "bars.csv", changed(3, 'AAA,2024-03-04,"20,15",20.75,19.75,20.25,1001000')
    )
    told = refused(source(tmp_path, '[bars.csv]\nthousands = ","'))
    assert "line 3" in told
    assert "'20,15' is no number" in told


def test_several_date_formats_as_declared(tmp_path: Path) -> None:
    text = lines()
    for at in range(1, len(text), 2):
        symbol, day, rest = text[at].split(",", 2)
        text[at] = f"{symbol},{date.fromisoformat(day):%m/%d/%Y},{rest}"
    write_text(tmp_path / "bars.csv", text)
    keys = 'date_format = ["%Y-%m-%d", "%m/%d/%Y"]'
    assert_frame_equal(fetched(source(tmp_path, keys)), expected())
    told = refused(source(tmp_path))
    assert "line 2 (AAA), column date: '03/01/2024' is no date written as %Y-%m-%d" in told


def test_a_date_that_two_declared_formats_read_differently_is_ambiguous(tmp_path: Path) -> None:
    text = [line.replace("2024-03-04", "03/04/2024") for line in lines()]
    write_text(tmp_path / "bars.csv", text)
    keys = 'date_format = ["%Y-%m-%d", "%m/%d/%Y", "%d/%m/%Y"]'
    told = refused(source(tmp_path, keys))
    assert "'03/04/2024' is 2024-03-04 or 2024-04-03" in told
    assert "contradict" in told


def test_two_digits_of_a_year_are_no_year_of_four(tmp_path: Path) -> None:
    text = [line.replace("2024-03-", "03/").replace(",03/01,", ",03/01/24,") for line in lines()]
    write_text(tmp_path / "bars.csv", [line for line in text if "/24" in line or "date" in line])
    assert "'03/01/24' is no date" in refused(source(tmp_path, 'date_format = "%m/%d/%Y"'))
    read = source(tmp_path, 'date_format = ["%m/%d/%Y", "%m/%d/%y"]')
    assert fetched(read, SESSIONS[0], SESSIONS[0]).height == len(SYMBOLS)


@pytest.mark.parametrize("marker", ["-", "N/A", "NaN", ""])
def test_a_cell_without_a_value_is_null_when_declared(tmp_path: Path, marker: str) -> None:
    write_text(
        tmp_path / "bars.csv", changed(3, f"AAA,2024-03-04,{marker},20.75,19.75,20.25,1001000")
    )
    declared = fetched(source(tmp_path, f'[bars.csv]\nnull_markers = ["{marker}"]'))
    assert declared.filter(symbol="AAA", date=SESSIONS[1])["open"].to_list() == [None]
    told = refused(source(tmp_path, '[bars.csv]\nnull_markers = ["none"]'))
    assert "line 3 (AAA, 2024-03-04), column open" in told
    assert "csv.null_markers" in told


def test_a_cell_is_missed_only_by_who_asks_for_its_session(tmp_path: Path) -> None:
    """One broken cell of ten years ago must not stop today."""
    write_text(tmp_path / "bars.csv", changed(3, "AAA,2024-03-04,20.15,20.75,19.75,abc,1001000"))
    files = source(tmp_path)
    assert fetched(files, SESSIONS[2]).height == 4 * (len(SESSIONS) - 2)
    assert "column close: 'abc' is no number" in refused(files, SESSIONS[1], SESSIONS[1])
    assert inspect(files).unreadable.select("line", "column", "cell").row(0) == (3, "close", "abc")


def test_scientific_notation_as_declared(tmp_path: Path) -> None:
    write_text(tmp_path / "bars.csv", changed(3, "AAA,2024-03-04,20.15,20.75,19.75,20.25,1e3"))
    assert "'1e3' is in scientific notation" in refused(source(tmp_path))
    read = fetched(source(tmp_path, "[bars.csv]\nscientific = true"))
    assert read.filter(symbol="AAA", date=SESSIONS[1])["volume"].item() == 1000.0


def test_footers_as_declared(tmp_path: Path) -> None:
    write_text(tmp_path / "bars.csv", [*lines(), "Total rows: 48"])
    told = refused(source(tmp_path))
    assert "line 50: 1 field(s) where the header has 7: 'Total rows: 48'" in told
    assert "csv.footers" in told
    keys = '[bars.csv]\nfooters = ["Total rows"]'
    assert_frame_equal(fetched(source(tmp_path, keys)), expected())


def test_a_file_without_header_and_with_lines_before_it(tmp_path: Path) -> None:
    write_text(tmp_path / "bars.csv", ["Prices by Vendor", *lines()[1:]])
    names = '", "'.join(lines()[0].split(","))
    keys = f'[bars.csv]\nskip_lines = 1\nheader = ["{names}"]'
    assert_frame_equal(fetched(source(tmp_path, keys)), expected())


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_as_declared(tmp_path: Path, encoding: str) -> None:
    text = lines(bars().with_columns(name=pl.lit("Société")))
    (tmp_path / "bars.csv").write_bytes(("\n".join(text) + "\n").encode(encoding))
    told = refused(source(tmp_path))
    assert ("is UTF-16" in told) if encoding == "utf-16" else ("line 2: the byte b'\\xe9'" in told)
    keys = f'[bars.csv]\nencoding = "{encoding}"'
    assert_frame_equal(fetched(source(tmp_path, keys)), expected())


def test_symbols_are_data_and_never_a_path(tmp_path: Path) -> None:
    strange = ["../../etc/passwd", "A/B", "aaa", " BBB ", ""]
    day = f",{SESSIONS[0]},1,2,1,2,100"
    write_text(tmp_path / "bars.csv", [*lines(), *(symbol + day for symbol in strange)])
    delivered = source(tmp_path, cache=tmp_path / "cache").bars(None, SESSIONS[0], SESSIONS[0])
    assert set(delivered["symbol"]) == {*SYMBOLS, *strange[:4], None}
    assert {path.parent.name for path in tmp_path.rglob("*.parquet")} == {"vendor"}
    raised = source(tmp_path, top='prices = "raw"\nsymbols = "upper"')
    assert raised.bars(None, SESSIONS[0], SESSIONS[0])["symbol"].to_list().count("BBB") == 2


def test_a_bar_between_sessions_comes_with_the_next_one(tmp_path: Path) -> None:
    saturday = date(2024, 3, 2)
    write_text(tmp_path / "bars.csv", [*lines(), f"AAA,{saturday},1,2,1,2,100"])
    delivered = source(tmp_path).bars(None, SESSIONS[1], SESSIONS[1])
    assert delivered.filter(bar_time=start_of_day(saturday))["session"].to_list() == [SESSIONS[1]]
    assert delivered.height == len(SYMBOLS) + 1


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (pl.Datetime("ns"), ""),
        (pl.Datetime("us", "UTC"), 'time_zone = "UTC"'),
        (pl.String(), ""),
        (pl.Int64(), 'date_format = "epoch_s"\ntime_zone = "UTC"'),
        (pl.Int32(), 'date_format = "%Y%m%d"'),
    ],
)
def test_parquet_of_other_types(tmp_path: Path, kind: pl.DataType, keys: str) -> None:
    day = pl.col("date")
    stamped = day.cast(pl.Datetime("us"))
    column = {
        pl.Int64(): stamped.dt.epoch("s"),
        pl.Int32(): day.dt.strftime("%Y%m%d").cast(pl.Int32),
        pl.Datetime("us", "UTC"): stamped.dt.replace_time_zone("UTC"),
    }.get(kind, day.cast(kind))
    bars().with_columns(
        column.alias("date"),
        pl.col("symbol").cast(pl.Categorical),
        pl.col("open").cast(pl.Decimal(18, 4)),
        pl.col("high").cast(pl.String),
        pl.col("volume").cast(pl.UInt32),
        file=pl.lit("a column of the vendor's own"),
    ).write_parquet(tmp_path / "bars.parquet")
    read = source(tmp_path, keys, path="bars.parquet", form="parquet")
    assert_frame_equal(fetched(read), expected())


def test_stamps_of_an_absolute_time_need_a_declared_zone(tmp_path: Path) -> None:
    """Midnight in London is the day before in New York: a guess would shift every bar by a session."""
    stamped = pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    bars().with_columns(date=stamped).write_parquet(tmp_path / "bars.parquet")
    assert "set time_zone" in refused(source(tmp_path, path="bars.parquet", form="parquet"))


def test_vwap_and_trade_count_are_read_when_they_are_named(tmp_path: Path) -> None:
    frame = bars().with_columns(average=pl.col("close"), trades=pl.lit("12"))
    write_text(tmp_path / "bars.csv", lines(frame))
    keys = '[bars.columns]\nvwap = "average"\ntrade_count = "trades"'
    delivered = source(tmp_path, keys).bars(None, SESSIONS[0], SESSIONS[-1])
    assert delivered["vwap"].equals(delivered["close"].alias("vwap"))
    assert delivered["trade_count"].unique().to_list() == [12]
    plain = source(tmp_path).bars(None, SESSIONS[0], SESSIONS[-1])
    assert plain["vwap"].null_count() == plain.height


def test_a_symlink_is_a_file(tmp_path: Path) -> None:
    elsewhere = write_text(tmp_path / "elsewhere" / "prices.csv", lines())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "bars.csv").symlink_to(elsewhere)
    assert_frame_equal(fetched(source(tmp_path / "home")), expected())


def test_configured_symbols_are_the_only_ones(tmp_path: Path) -> None:
    one_csv(tmp_path)
    chosen = source(tmp_path, symbols=("CCC", "AAA"))
    assert chosen.symbols() == ["AAA", "CCC"]
    assert set(chosen.bars(None, SESSIONS[0], SESSIONS[0])["symbol"]) == {"AAA", "CCC"}
    with pytest.raises(
        SourceError, match=r"does not know the symbol\(s\) ZZZ; correct QUANT_SYMBOLS"
    ):
        source(tmp_path, symbols=("AAA", "ZZZ")).symbols()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    numbers=st.sampled_from([(".", ""), (".", ","), (",", ""), (",", "."), (",", " "), (".", "'")]),
    day=st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%y", "%Y%m%d", "%d %b %Y"]),
    ending=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
    blank=st.sets(st.integers(1, 48), max_size=4),
    quoted=st.booleans(),
    order=st.permutations(["symbol", "date", *VALUES]),
)
def test_every_way_of_writing_reads_the_same(
    tmp_path: Path,
    *,
    delimiter: str,
    numbers: tuple[str, str],
    day: str,
    ending: str,
    mark: str,
    blank: set[int],
    quoted: bool,
    order: list[str],
) -> None:
    decimal, thousands = numbers

    def written(value: object) -> str:
        if isinstance(value, date):
            text = f"{value:{day}}"
        elif isinstance(value, str):
            text = value
        else:
            signs = {",": thousands, ".": decimal}
            text = "".join(signs.get(sign, sign) for sign in f"{value:,}")
        return f'"{text}"' if quoted or delimiter in text else text

    text = [delimiter.join(order)]
    text += [delimiter.join(map(written, row)) for row in bars().select(order).iter_rows()]
    for place in sorted(blank, reverse=True):
        text.insert(place, "")
    (tmp_path / "bars.csv").write_bytes((mark + ending.join([*text, ""])).encode())
    keys = (
        f'date_format = "{day}"\n[bars.csv]\ndelimiter = {json.dumps(delimiter)}\n'
        f'decimal = "{decimal}"\nthousands = "{thousands}"'
    )
    assert_frame_equal(fetched(source(tmp_path, keys)), expected())
