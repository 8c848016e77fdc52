"""Files that are not whole, or not what they say: each is refused by name, with what to do."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_resources.calendar import XNYS
from quant_resources.errors import ConfigurationError
from quant_tests.resources.bar_files import (
    SESSIONS,
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
    refused,
    source,
    write_text,
)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "bars.csv is empty"),
        (b"\n\n", "holds no row of data"),
        ((lines()[0] + "\n").encode(), "holds no row of data"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "is a web page and no CSV"),
        (b"PK\x03\x04rest of a zip", "is a zip archive"),
        (b"\x1f\x8brest of gzip", "is compressed; unpack it"),
        (b"PAR1 rest of Parquet", 'is Parquet; set format = "parquet"'),
        ("\n".join([*lines()[:9], "AAA,2024-03-1\0\0\0\0"]).encode(), "line 10: holds NUL bytes"),
        ("\n".join(lines())[:-40].encode(), "the file is cut off"),
        ("\n".join(lines())[:-2].encode(), "line 49: the last line has no line end"),
        (
            "\n".join(changed(4, 'AAA,"2024-03-05,1,2,1,2,3')).encode(),
            "line 4: a quote is not closed",
        ),
        (
            "\n".join([*changed(4, "<html>"), ""]).encode(),
            "line 4: a web page begins within the file",
        ),
        (
            "\n".join([*changed(4, "AAA,2024-03-05,1,2"), ""]).encode(),
            "line 4: 4 field(s) where the",
        ),
        ("\n".join([*changed(4, "AAA,2024-03-05,1,2,3,4,5,6"), ""]).encode(), "line 4: 8 field(s)"),
        ("\n".join([lines()[0], *lines()]).encode() + b"\n", "'date' is no date written as"),
        (
            "\n".join([*lines(), ""]).replace(",open", ",open,open", 1).encode(),
            "'open' more than once",
        ),
    ],
    ids=range(16),
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "bars.csv").write_bytes(content)
    message = refused(source(tmp_path))
    assert told.replace("'open' more", "open more") in message
    assert str(tmp_path / "bars.csv") in message


def test_a_vendor_that_never_ends_the_last_line(tmp_path: Path) -> None:
    write_text(tmp_path / "bars.csv", "\n".join(lines()))
    keys = "[bars.csv]\nfinal_line_end = false"
    assert_frame_equal(fetched(source(tmp_path, keys)), expected())


def test_a_renamed_column_is_named_with_what_it_may_be_now(tmp_path: Path) -> None:
    text = lines()
    text[0] = text[0].replace("volume", "volume_total")
    write_text(tmp_path / "bars.csv", text)
    told = refused(source(tmp_path))
    assert (
        "lacks the column volume; it has symbol, date, open, high, low, close, volume_total" in told
    )
    assert "was volume renamed to volume_total?" in told


def test_one_file_of_many_with_a_renamed_column(tmp_path: Path) -> None:
    files = csv_by_symbol(tmp_path)
    broken = tmp_path / "bars" / "daily_BBB.csv"
    broken.write_text(broken.read_text().replace("close", "last", 1))
    told = refused(files)
    assert "daily_BBB.csv lacks the column close" in told


def test_a_date_in_the_future_is_missing_elsewhere(tmp_path: Path) -> None:
    write_text(tmp_path / "bars.csv", changed(3, "AAA,2042-03-04,20.15,20.75,19.75,20.25,1001000"))
    told = refused(source(tmp_path), SESSIONS[5], SESSIONS[5])
    assert "line 3 (AAA, 2042-03-04): the date 2042-03-04 lies in the future" in told


def test_a_session_without_any_bar_is_refused(tmp_path: Path) -> None:
    files = csv_by_session(tmp_path)
    (tmp_path / "bars" / f"{SESSIONS[6]:%Y%m%d}.csv").unlink()
    told = refused(files)
    assert f"has no bar for 1 session(s) that the calendar counts: {SESSIONS[6]}" in told
    assert fetched(files, SESSIONS[7]).height == 4 * (len(SESSIONS) - 7)


def test_a_symbol_that_is_missing_leaves_the_others(tmp_path: Path) -> None:
    files = csv_by_symbol(tmp_path)
    (tmp_path / "bars" / "daily_CCC.csv").unlink()
    assert files.symbols() == ["AAA", "BBB", "BRK.B"]
    assert_frame_equal(fetched(files), expected(bars().filter(pl.col("symbol") != "CCC")))


def test_the_bar_of_a_day_written_before_its_close_is_a_part(tmp_path: Path) -> None:
    one_csv(tmp_path)
    close = XNYS.close(SESSIONS[-1])
    for hours, newest in ((-1, SESSIONS[-2]), (1, SESSIONS[-1])):
        written = (close + timedelta(hours=hours)).timestamp()
        os.utime(tmp_path / "bars.csv", (written, written))
        assert source(tmp_path).newest_closed_session() == newest
    early = (close - timedelta(hours=1)).timestamp()
    os.utime(tmp_path / "bars.csv", (early, early))
    assert f"was last written before session {SESSIONS[-1]} closed" in refused(source(tmp_path))
    assert fetched(source(tmp_path), last=SESSIONS[-2]).height == 4 * (len(SESSIONS) - 1)


def test_a_session_that_has_not_closed_is_not_the_newest(tmp_path: Path) -> None:
    one_csv(tmp_path)
    noon = XNYS.close(SESSIONS[-1]) - timedelta(hours=4)
    files = source(tmp_path, now=noon)
    assert files.newest_closed_session() == SESSIONS[-2]
    assert f"Session {SESSIONS[-1]} has not closed" in refused(files)


def test_a_file_that_grows_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_text(tmp_path / "bars.csv", lines())
    read = pl.read_csv

    def read_while_the_vendor_writes(*arguments: object, **options: object) -> pl.DataFrame:
        with path.open("a") as file:
            file.write("AAA,2024-03-19,1,2,1,2,3\n")
        return read(*arguments, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(pl, "read_csv", read_while_the_vendor_writes)
    assert "changed while it was being read" in refused(source(tmp_path))


def test_parquet_that_is_none_or_cut_off(tmp_path: Path) -> None:
    one_parquet(tmp_path)
    whole = (tmp_path / "bars.parquet").read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>", b""):
        (tmp_path / "bars.parquet").write_bytes(content)
        told = refused(source(tmp_path, path="bars.parquet", form="parquet"))
        assert str(tmp_path / "bars.parquet") in told
        assert "deliver it again" in told


def test_a_cell_of_parquet_is_named_by_its_row(tmp_path: Path) -> None:
    high = (
        pl.when(pl.int_range(pl.len()) == 6)
        .then(pl.lit("n.a."))
        .otherwise(pl.col("high").cast(pl.String))
    )
    bars().with_columns(high=high).write_parquet(tmp_path / "bars.parquet")
    told = refused(source(tmp_path, path="bars.parquet", form="parquet"))
    assert "bars.parquet, line 7 (AAA, 2024-03-11), column high: 'n.a.' is no number" in told


def test_columns_of_a_type_that_means_nothing(tmp_path: Path) -> None:
    bars().with_columns(close=pl.col("close") > 1).write_parquet(tmp_path / "bars.parquet")
    told = refused(source(tmp_path, path="bars.parquet", form="parquet"))
    assert "The column close holds Boolean, which is no number" in told


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("bars.csv", "cannot be read (No such file or directory)"),
        ("empty", "the folder"),
        ("bars/*.csv", "no file matches"),
    ],
)
def test_no_file_at_all(tmp_path: Path, path: str, told: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.txt").touch()
    message = refused(source(tmp_path, path=path))
    assert told in message
    assert "layout" in message


def test_a_file_that_is_not_named_as_declared(tmp_path: Path) -> None:
    files = csv_by_symbol(tmp_path)
    write_text(tmp_path / "bars" / "index.csv", ["a,b", "1,2"])
    with pytest.raises(ConfigurationError, match=r"index.csv is not named daily_\{symbol\}.csv"):
        files.symbols()
    files = csv_by_session(tmp_path / "days")
    write_text(tmp_path / "days" / "bars" / "20240230.csv", lines())
    with pytest.raises(ConfigurationError, match="'20240230' is no date written as %Y%m%d"):
        files.symbols()


def test_a_row_that_contradicts_the_name_of_its_file(tmp_path: Path) -> None:
    files = parquet_by_session_with_dates(tmp_path)
    first = tmp_path / "bars" / f"{SESSIONS[0]}.parquet"
    first.write_bytes((tmp_path / "bars" / f"{SESSIONS[1]}.parquet").read_bytes())
    told = refused(files)
    assert f"{first}, line 1 (AAA), column date: '{SESSIONS[1]}' is not what the name" in told


def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    files = one_csv(tmp_path)
    is_root = os.geteuid() == 0
    (tmp_path / "bars.csv").chmod(0)
    if is_root:
        # Root may read everything; to anybody else the folders of a test are closed.
        os.seteuid(65534)
    try:
        assert "Permission denied); allow this user to read it" in refused(files)
    finally:
        if is_root:
            os.seteuid(0)


def test_another_owner_of_a_ticker_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot tell who owned a ticker"):
        one_csv(tmp_path).bars(None, SESSIONS[0], SESSIONS[0], asof=SESSIONS[0])
