"""Rows found by name and calendar equal a plain search over all rows."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.market_data.panel_keys import PanelKeys
from quant_resources.calendar import XNYS

CALENDAR = XNYS.sessions(date(2024, 1, 2), date(2024, 2, 9))
REACH = 4
NAMES = ["A", "AB", "B", "Z.1"]
#: A weekend and the days before and after the calendar lie outside it.
DAYS = [*CALENDAR, CALENDAR[0] - timedelta(1), CALENDAR[-1] + timedelta(1), date(2024, 1, 6)]
ROWS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(DAYS)), unique=True, max_size=60)


def keys_of(rows: list[tuple[str, date]]) -> PanelKeys:
    names = pl.Series([name for name, _ in rows], dtype=pl.String)
    days = pl.Series([day for _, day in rows], dtype=pl.Date)
    return PanelKeys.of(names, days, CALENDAR, REACH)


@given(rows=ROWS)
def test_previous_row_of_each_row(rows: list[tuple[str, date]]) -> None:
    def before(name: str, day: date) -> int | None:
        if day not in CALENDAR:
            return None
        end = CALENDAR.index(day)
        earlier = [at for at in CALENDAR[max(end - REACH, 0) : end] if (name, at) in rows]
        return rows.index((name, earlier[-1])) if earlier else None

    assert keys_of(rows).previous().to_list() == [before(*row) for row in rows]


@given(
    rows=ROWS,
    wanted=st.lists(
        st.tuples(st.sampled_from([*NAMES, "missing", None]), st.dates(CALENDAR[0], CALENDAR[-1])),
        max_size=20,
    ),
    sessions=st.integers(1, REACH),
)
def test_first_row_within_some_sessions(
    rows: list[tuple[str, date]], wanted: list[tuple[str | None, date]], sessions: int
) -> None:
    place: dict[tuple[str | None, date], int] = {row: number for number, row in enumerate(rows)}

    def after(name: str | None, day: date) -> int | None:
        looked_at = [at for at in CALENDAR if at >= day][:sessions]
        return next((place[name, at] for at in looked_at if (name, at) in place), None)

    names = pl.Series([name for name, _ in wanted], dtype=pl.String)
    days = pl.Series([day for _, day in wanted], dtype=pl.Date)
    assert keys_of(rows).first_within(names, days, sessions).to_list() == [
        after(*one) for one in wanted
    ]
