"""Index membership: files that say nonsense, renames, reused tickers, and the real S&P 500 of 2015-2017."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.market_data.index_membership import Membership, membership, read_membership
from quant_resources.errors import DataError
from quant_tests.market_data.deliveries import SESSIONS, action, action_frame

FOLDER = Path(os.environ.get("QUANT_TEST_DATA", "nowhere"))
FIRST = date(2000, 1, 3)


def spans_of(*rows: tuple[str, date, date | None]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema={"symbol": pl.String, "start_date": pl.Date, "end_date": pl.Date},
        orient="row",
    )


def bars_of(**symbols: range) -> pl.DataFrame:
    return pl.DataFrame(
        [(SESSIONS[at], symbol) for symbol, places in symbols.items() for at in places],
        schema={"session": pl.Date, "symbol": pl.String},
        orient="row",
    )


def renamed(old: str, new: str, at: int) -> dict[str, object]:
    return action(old, SESSIONS[at], "name_change", new_symbol=new)


def members_at(found: Membership, at: int) -> dict[str, str]:
    return dict(found.bars.filter(session=SESSIONS[at]).select("symbol", "member").rows())


def without_at(found: Membership, at: int) -> list[str]:
    return found.without_bar.filter(session=SESSIONS[at])["member"].to_list()


def written(tmp_path: Path, text: str | bytes, name: str = "members.csv") -> Path:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_member_is_one_until_the_day_before_its_end() -> None:
    spans = spans_of(("A", FIRST, SESSIONS[5]), ("A", SESSIONS[7], None), ("B", SESSIONS[6], None))
    found = membership(spans, bars_of(A=range(9), B=range(9)), action_frame(), SESSIONS[:9])
    assert [sorted(members_at(found, at)) for at in (4, 5, 6, 7)] == [["A"], [], ["B"], ["A", "B"]]
    assert found.without_bar.is_empty()


def test_a_member_without_a_bar_is_reported_by_session() -> None:
    spans = spans_of(("A", FIRST, None), ("B", SESSIONS[1], SESSIONS[3]))
    found = membership(spans, bars_of(A=range(4)), action_frame(), SESSIONS[:4])
    assert found.without_bar.rows() == [(SESSIONS[1], "B"), (SESSIONS[2], "B")]


def test_a_company_is_found_under_the_name_that_it_bore_later() -> None:
    """Membership files carry FB's years under META, or under FB until the day of the rename."""
    bars = bars_of(FB=range(5), META=range(5, 9), OLD=range(9))
    actions = action_frame([renamed("FB", "META", 5)])
    back_dated = membership(spans_of(("META", FIRST, None)), bars, actions, SESSIONS[:9])
    assert members_at(back_dated, 4) == {"FB": "META"}
    assert members_at(back_dated, 5) == {"META": "META"}
    as_traded = membership(
        spans_of(("FB", FIRST, SESSIONS[5]), ("META", SESSIONS[5], None)),
        bars,
        actions,
        SESSIONS[:9],
    )
    assert members_at(as_traded, 4) == {"FB": "FB"}
    assert_frame_equal(
        as_traded.bars.select("session", "symbol"), back_dated.bars.select("session", "symbol")
    )


def test_two_renames_in_a_row_are_followed() -> None:
    bars = bars_of(A=range(3), B=range(3, 6), C=range(6, 9))
    actions = action_frame([renamed("A", "B", 3), renamed("B", "C", 6)])
    found = membership(spans_of(("C", FIRST, None)), bars, actions, SESSIONS[:9])
    assert [members_at(found, at) for at in (2, 3, 6)] == [{"A": "C"}, {"B": "C"}, {"C": "C"}]
    assert found.without_bar.is_empty()


def test_a_fund_that_bore_the_name_before_is_not_the_member() -> None:
    """META was a fund's ticker until it became METV, months before Facebook took it."""
    bars = bars_of(FB=range(6), META=[0, 1, 2, 6, 7], METV=range(3, 8))  # pyright: ignore[reportArgumentType]
    actions = action_frame([renamed("META", "METV", 3), renamed("FB", "META", 6)])
    found = membership(spans_of(("META", FIRST, None)), bars, actions, SESSIONS[:8])
    assert [members_at(found, at) for at in (2, 3, 6)] == [
        {"FB": "META"},
        {"FB": "META"},
        {"META": "META"},
    ]


def test_a_ticker_that_ended_is_nobody_elses() -> None:
    """X was bought; years later another company takes X and renames itself Y, a member."""
    bars = bars_of(X=range(3))
    ended = action("X", SESSIONS[3], "merger", new_symbol="BUYER")
    spans = spans_of(("Y", FIRST, None))
    alone = membership(spans, bars, action_frame([renamed("X", "Y", 8)]), SESSIONS[:3])
    assert members_at(alone, 2) == {"X": "Y"}
    found = membership(spans, bars, action_frame([ended, renamed("X", "Y", 8)]), SESSIONS[:3])
    assert members_at(found, 2) == {}
    assert without_at(found, 2) == ["Y"]


def test_swapped_names_come_to_an_end() -> None:
    actions = action_frame([renamed("A", "B", 3), renamed("B", "A", 3), renamed("A", "A", 4)])
    found = membership(
        spans_of(("A", FIRST, None), ("B", FIRST, None)),
        bars_of(A=range(5), B=range(5)),
        actions,
        SESSIONS[:5],
    )
    assert members_at(found, 0) == {"A": "B", "B": "A"}
    assert members_at(found, 4) == {"A": "A", "B": "B"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("symbol,start_date\nA,2020-01-02\n", "no column 'end_date' but symbol, start_date"),
        ("symbol;start_date;end_date\nA;2020-01-02;\n", "separated by commas"),
        ("symbol,start_date,end_date\nA,2020-01-02,\nB,02/01/2020,\n", "'02/01/2020' of B (row 2)"),
        ("symbol,start_date,end_date\nA,2020-01-02,2020-02-30\n", "'2020-02-30' of A (row 1)"),
        ("symbol,start_date,end_date\nA,,\n", "row 1 lacks"),
        ("symbol,start_date,end_date\n ,2020-01-02,\n", "row 1 lacks"),
        (
            "symbol,start_date,end_date\nA,2020-01-02,2020-01-02\n",
            "A ends on 2020-01-02, not after",
        ),
        (
            "symbol,start_date,end_date\nA,2021-01-04,\nA,2020-01-02,2021-01-05\n",
            "A starts on 2021-01-04 (row 1) while an earlier span",
        ),
        ("symbol,start_date,end_date\nA,2020-01-02,\nA,2021-01-04,\n", "still runs"),
        ("symbol,start_date,end_date\n", "names no member"),
        ("", "cannot be read"),
        ("symbol,start_date,end_date\nA,2020-01-02,,,\n", "cannot be read"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_with_its_row(
    tmp_path: Path, text: str, said: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(DataError) as refused:
        read_membership(file)
    assert said in str(refused.value)
    assert str(file) in str(refused.value)


def test_neither_a_missing_file_nor_another_kind_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_membership(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="neither .csv nor .parquet"):
        read_membership(written(tmp_path, "x", "members.xlsx"))
    with pytest.raises(DataError, match="cannot be read"):
        read_membership(written(tmp_path, "symbol,start_date,end_date", "torn.parquet"))
    numbers = tmp_path / "numbers.parquet"
    pl.DataFrame({"symbol": ["A"], "start_date": [20200102], "end_date": [None]}).write_parquet(
        numbers
    )
    with pytest.raises(DataError, match="start_date is Int64, not dates"):
        read_membership(numbers)


def test_excel_s_mark_and_parquet_say_the_same_as_plain_text(tmp_path: Path) -> None:
    text = "symbol,start_date,end_date,name\n true ,2020-01-02,2021-01-04,T\nBRK.B,2010-02-16,,B\n"
    plain = read_membership(written(tmp_path, text))
    assert plain.rows() == [
        ("BRK.B", date(2010, 2, 16), None),
        ("TRUE", date(2020, 1, 2), date(2021, 1, 4)),
    ]
    marked = read_membership(written(tmp_path, b"\xef\xbb\xbf" + text.encode(), "marked.CSV"))
    assert_frame_equal(marked, plain)
    plain.write_parquet(tmp_path / "members.parquet")
    assert_frame_equal(read_membership(tmp_path / "members.parquet"), plain)


#: Members of 2015-2017 that the real delivery holds under no name: as the file calls them, and as they
#: traded then.
NOT_DELIVERED = {
    "AABA": "YHOO", "ANDV": "TSO", "APTV": "DLPH", "BHGE": "BHI", "BKNG": "PCLN", "CBRE": "CBG",
    "JEF": "LUK", "KDP": "DPS", "TPR": "COH", "WELL": "HCN", "WYND": "WYN", "BRK.B": "BRK-B",
    "BF.B": "BF-B",
}  # fmt: skip


@pytest.mark.skipif(not FOLDER.exists(), reason="set QUANT_TEST_DATA to the folder of real bars")
def test_the_members_of_the_real_index_are_found_or_named() -> None:
    """249,627 of 258,425 times a member has its bar; thirteen members were never delivered."""
    spans = read_membership(FOLDER / "sp500_membership_spans_1996_2025.parquet")
    bars = pl.read_parquet(FOLDER / "sp500_pit_raw_2015_2017.parquet").rename({"date": "session"})
    sessions = bars["session"].unique().sort().to_list()
    found = membership(spans, bars, action_frame(), sessions)
    assert 500 < (found.bars.height + found.without_bar.height) / len(sessions) < 507
    assert found.bars.height / (found.bars.height + found.without_bar.height) > 0.965
    sessions_without = dict(found.without_bar["member"].value_counts().rows())
    always = {member for member, count in sessions_without.items() if count == len(sessions)}
    assert always == set(NOT_DELIVERED)
    assert not set(NOT_DELIVERED.values()) & set(bars["symbol"].unique())
    # The sessions that the delivery is known to be thin on.
    thinnest = found.without_bar["session"].value_counts(sort=True)["session"][0]
    assert date(2016, 9, 2) <= thinnest <= date(2016, 9, 12)
