"""Market data over the wire: pages, ranges, and never anything later than the clock."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest, StockLatestTradeRequest, StockSnapshotRequest
from alpaca.data.timeframe import TimeFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_resources.calendar import NEW_YORK, XNYS, start_of_day
from quant_resources.exchange.exchange import market_of
from quant_resources.exchange.spec import MarketSpec
from quant_resources.exchange.visibility import MarketView
from quant_tests.exchange.served import WEEK, Served, new_york


def all_bars(served: Served, **more: Any) -> dict[str, list[dict[str, Any]]]:
    symbols = sorted(served.exchange.view.data.listings)
    request = StockBarsRequest(
        symbol_or_symbols=symbols,
        timeframe=TimeFrame.Day,  # pyright: ignore[reportArgumentType]
        start=datetime(2000, 1, 1),  # noqa: DTZ001 - alpaca-py takes naive as UTC
        **more,
    )
    return served.bars.get_stock_bars(request)


def paged(served: Served, limit: int, sort: str) -> list[tuple[str, str]]:
    """Symbol and time of every bar, read page by page."""
    symbols = ",".join(served.exchange.view.data.listings)
    parameters = {"symbols": symbols, "timeframe": "1Day", "start": "2000-01-01"}
    found: list[tuple[str, str]] = []
    token: str | None = None
    while True:
        more = {"page_token": token} if token else {}
        page = served.get("/v2/stocks/bars", limit=limit, sort=sort, **parameters, **more)
        rows = [(symbol, bar["t"]) for symbol, bars in page["bars"].items() for bar in bars]
        assert len(rows) <= limit
        found += rows
        token = page["next_page_token"]
        assert token is None or len(rows) == limit
        if token is None:
            return found


@pytest.mark.parametrize("sort", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 7, 25, 100, 1000])
def test_pages_of_any_size_hold_the_same_bars(
    serve: Callable[..., Served], limit: int, sort: str
) -> None:
    served = serve(
        MarketSpec(
            seed=5,
            symbols=5,
            first_session=date(2024, 1, 2),
            last_session=date(2024, 2, 2),
            sessions_beyond=0,
        )
    )
    served.at("2024-02-03 12:00")
    whole = paged(served, 10_000, sort)
    assert len(whole) == 4 * 23  # the fifth is listed later
    assert paged(served, limit, sort) == whole
    assert len(set(whole)) == len(whole)
    for symbol in {symbol for symbol, _ in whole}:
        times = [t for s, t in whole if s == symbol]
        assert times == sorted(times, reverse=sort == "desc")


def test_no_bar_price_or_action_is_ever_later_than_the_clock(
    serve: Callable[..., Served], small_spec: MarketSpec
) -> None:
    """Walks 60 random moments, many within a second of midnight, open or close."""
    served = serve(small_spec)
    draw = random.Random(4)
    sessions = served.exchange.view.sessions[:-1]
    moments = []
    for session in draw.sample(sessions, 30):
        edges = [start_of_day(session), XNYS.open(session), XNYS.close(session)]
        edge = draw.choice(edges)
        moments += [
            edge - timedelta(seconds=1),
            edge,
            edge + timedelta(minutes=draw.randint(1, 600)),
        ]
    last_close: dict[str, float] = {}
    for now in sorted(moments):
        if now < served.control.clock():
            continue
        served.control.advance(now)
        today = now.astimezone(NEW_YORK).date()
        visible_until = today - timedelta(days=1)
        bars = all_bars(served, end=datetime(2030, 1, 1))  # noqa: DTZ001
        days = {stamp_day(bar["t"]) for rows in bars.values() for bar in rows}
        assert not days or max(days) == XNYS.at_or_before(visible_until)
        last_close = {symbol: rows[-1]["c"] for symbol, rows in bars.items()}
        actions = served.get(
            "/v1/corporate-actions", start="2000-01-01", end="2030-01-01", limit=1000
        )
        for rows in actions["corporate_actions"].values():
            assert all(row["process_date"] <= today.isoformat() for row in rows)
        trades = served.get("/v2/stocks/trades/latest", symbols=",".join(last_close or ["AAA"]))
        for trade in trades["trades"].values():
            assert datetime.fromisoformat(trade["t"]) <= now
    assert last_close


def stamp_day(text: str) -> date:
    return datetime.fromisoformat(text).astimezone(NEW_YORK).date()


_VIEW = MarketView(
    market_of(
        MarketSpec(
            seed=3, symbols=6, first_session=date(2024, 1, 2), last_session=date(2024, 5, 31)
        )
    ).load()
)


@given(
    st.datetimes(datetime(2023, 12, 20), datetime(2024, 7, 10), timezones=st.just(UTC)),  # noqa: DTZ001
    st.integers(0, 5),
)
@settings(max_examples=300, deadline=None)
def test_a_bar_is_seen_from_midnight_new_york_after_its_session_and_not_before(
    now: datetime, index: int
) -> None:
    symbol = sorted(_VIEW.data.listings)[index]
    rows = _VIEW.visible_rows(symbol, date.min.replace(year=1971), date.max, now)
    mine = _VIEW.data.bars.filter(symbol=symbol)["session"].to_list()
    expected = [day for day in mine if start_of_day(day + timedelta(days=1)) <= now]
    assert (rows[1] - rows[0] if rows else 0) == len(expected)
    price = _VIEW.last_price(symbol, now)
    if price is not None:
        assert price.at <= now


def test_the_last_price_is_the_previous_close_then_the_open_then_the_close(week: Served) -> None:
    def last() -> float:
        request = StockLatestTradeRequest(symbol_or_symbols="ABC")
        return week.bars.get_stock_latest_trade(request)["ABC"]["p"]

    assert last() == 100.0
    week.at("2024-03-05 09:29")
    assert last() == 100.0
    week.at("2024-03-05 09:30")
    assert last() == 102.0
    week.at("2024-03-05 15:59")
    assert last() == 102.0
    week.at("2024-03-05 16:00")
    assert last() == 103.0
    week.at("2024-03-06 09:29")
    assert last() == 103.0


def test_bars_carry_the_session_at_midnight_new_york_and_parse_as_models(week: Served) -> None:
    client: Any = StockHistoricalDataClient("k", "s", url_override=week.url)
    day = datetime(2024, 3, 4)  # noqa: DTZ001
    request = StockBarsRequest(
        symbol_or_symbols="ABC",
        timeframe=TimeFrame.Day,  # pyright: ignore[reportArgumentType]
        start=day,
    )
    (bar,) = client.get_stock_bars(request)["ABC"]
    assert bar.timestamp == new_york("2024-03-04 00:00")
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (100, 101, 99, 100, 10_000)
    assert bar.vwap == pytest.approx((101 + 99 + 100) / 3, abs=1e-6)


def test_a_range_of_days_includes_both_ends(week: Served) -> None:
    week.at("2024-03-09 00:00")
    parameters = {"symbols": "ABC", "timeframe": "1Day"}
    page = week.get("/v2/stocks/bars", start="2024-03-05", end="2024-03-07", **parameters)
    assert [bar["c"] for bar in page["bars"]["ABC"]] == [103.0, 105.0, 106.5]
    page = week.get(
        "/v2/stocks/bars", start="2024-03-05T05:00:00Z", end="2024-03-05T05:00:00Z", **parameters
    )
    assert [bar["c"] for bar in page["bars"]["ABC"]] == [103.0]
    page = week.get(
        "/v2/stocks/bars", start="2024-03-05T05:00:01Z", end="2024-03-06T04:59:59Z", **parameters
    )
    assert page == {"bars": {}, "next_page_token": None}


def test_an_unknown_symbol_is_left_out_and_an_impossible_one_refused(week: Served) -> None:
    parameters = {"timeframe": "1Day", "start": "2024-03-01"}
    page = week.get("/v2/stocks/bars", symbols="ABC,NONE", **parameters)
    assert list(page["bars"]) == ["ABC"]
    for wrong in ("A/B", "A B", "é"):
        with pytest.raises(APIError, match="invalid symbol"):
            week.get("/v2/stocks/bars", symbols=wrong, **parameters)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"timeframe": "1Hour"}, "timeframe"),
        ({"adjustment": "all"}, "adjustment"),
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"sort": "up"}, "sort"),
        ({"start": "yesterday"}, "start"),
        ({"page_token": "nonsense"}, "page_token"),
        ({"symbols": ""}, "symbols"),
    ],
)
def test_wrong_parameters_are_named(
    unchanged_week: Served, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(APIError, match=words) as caught:
        unchanged_week.get(
            "/v2/stocks/bars", **{"symbols": "ABC", "timeframe": "1Day", **parameters}
        )
    assert caught.value.status_code == 400


def test_requests_without_keys_or_under_another_host_name_are_refused(week: Served) -> None:
    answer = httpx.get(f"{week.url}/v2/account")
    assert (answer.status_code, answer.json()["code"]) == (401, 40110000)
    keys = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
    answer = httpx.get(f"{week.url}/v2/account", headers={**keys, "Host": "evil.example"})
    assert answer.status_code == 400
    assert httpx.get(f"{week.url}/v2/nothing", headers=keys).status_code == 404


def test_snapshots_and_quotes_show_nothing_but_the_visible(week: Served) -> None:
    week.at("2024-03-06 12:00")
    client: Any = StockHistoricalDataClient("k", "s", url_override=week.url)
    snapshot = client.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols=["ABC"]))["ABC"]
    assert snapshot.latest_trade.price == 104.0
    assert snapshot.daily_bar.close == 103.0
    assert snapshot.previous_daily_bar.close == 100.0
    assert snapshot.latest_quote.bid_price <= 104.0 <= snapshot.latest_quote.ask_price


def test_broken_rows_are_served_as_they_came_and_are_not_traded(
    history: Callable[..., Served],
) -> None:
    nan = float("nan")
    served = history(
        [
            *WEEK,
            ("BAD", "2024-03-04", 10.0, 11.0, 9.0, 10.0, 1000),
            ("BAD", "2024-03-05", nan, 11.0, 9.0, -1.0, 1000),
            ("BAD", "2024-03-06", 10.0, 9.0, 11.0, 10.0, 0),
            ("BAD", "2024-03-06", 10.0, 9.0, 11.0, 10.0, 0),
            ("BAD", "2024-03-09", 12.0, 12.0, 12.0, 12.0, 5),
            ("BAD", "2024-03-11", 12.0, 12.0, 12.0, 12.0, 5),
        ]
    )
    served.at("2024-03-04 17:00")
    served.submit("BAD", "buy", 10, client_order_id="broken", time_in_force="gtc")
    served.at("2024-03-10 12:00")
    rows = all_bars(served)["BAD"]
    assert [row["o"] for row in rows] == [10.0, None, 10.0, 10.0, 12.0]
    assert [row["t"][:10] for row in rows][-1] == "2024-03-09"
    assert served.order("broken")["filled_qty"] == "0"
    last = served.exchange.view.last_price("BAD", served.exchange.now)
    assert last is not None
    assert last.price == Decimal("10.0")


def test_the_clock_can_follow_the_wall_clock(serve: Callable[..., Served]) -> None:
    today = datetime.now(UTC).date()
    first, last = today - timedelta(days=20), today + timedelta(days=20)
    served = serve(MarketSpec(symbols=4, first_session=first, last_session=last))
    assert served.control.clock() < datetime.now(UTC) - timedelta(days=10)
    served.control.follow()
    deadline = time.monotonic() + 10
    while served.control.clock() < datetime.now(UTC) - timedelta(seconds=5):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    served.control.follow(following=False)
    assert served.control.status()["follow"] is False


def test_the_newest_trade_of_an_open_session_is_of_now(
    serve: Callable[..., Served], small_spec: MarketSpec
) -> None:
    """A price limit on the age of quotes would otherwise refuse every order after the first half hour."""
    served = serve(small_spec)
    session = served.exchange.view.sessions[5]
    symbol = min(served.exchange.view.data.listings)
    opened, closed = XNYS.open(session), XNYS.close(session)
    later = timedelta(hours=2)
    for clock, told in ((opened + later, opened + later), (closed + later, closed)):
        served.control.advance(clock)
        for kind in ("trades", "quotes"):
            newest = served.get(f"/v2/stocks/{kind}/latest", symbols=symbol)[kind][symbol]
            assert datetime.fromisoformat(newest["t"]) == told
