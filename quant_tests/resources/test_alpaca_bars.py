"""The Alpaca source against the local exchange, and against a server that answers nonsense."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest

from quant_assets.market_data.schemas import CORPORATE_ACTIONS, RAW_BARS
from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.alpaca_market_messages import action_rows
from quant_resources.bar_source import CORPORATE_ACTION_SCHEMA, RAW_BAR_SCHEMA, BarSource
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.errors import ConfigurationError, SourceError
from quant_resources.exchange.process import (
    ExchangeControl,
    MarketSpec,
    ensure_exchange,
    stop_exchange,
)
from quant_resources.request_pace import RequestPace

FIRST, LAST = date(2023, 1, 3), date(2023, 6, 30)
SESSIONS = XNYS.sessions(FIRST, LAST)
NOW = start_of_day(date(2023, 6, 20))


@pytest.fixture(scope="module")
def exchange_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("exchange")
    spec = MarketSpec(kind="stochastic", symbols=30, first_session=FIRST, last_session=LAST)
    try:
        url = ensure_exchange(folder, spec).url
        ExchangeControl(url).advance(NOW)
        yield url
    finally:
        stop_exchange(folder)


def source(url: str, **options: Any) -> AlpacaBars:
    settings = {"requests_per_minute": None, "timeout": (1.0, 1.0), "backoff": (0.01, 0.01)}
    return AlpacaBars(url, url, "key", "secret", **(settings | options))


def test_schemas_are_those_of_the_tables(exchange_url: str) -> None:
    checked: BarSource = source(exchange_url)
    assert checked.name == "local exchange"
    assert RAW_BARS.schema == RAW_BAR_SCHEMA
    assert CORPORATE_ACTIONS.schema == CORPORATE_ACTION_SCHEMA


def test_bars_of_a_range_equal_those_of_its_sessions(exchange_url: str) -> None:
    wanted = SESSIONS[40:60]
    whole = source(exchange_url).bars(None, wanted[0], wanted[-1])
    RAW_BARS.conform(whole)
    assert whole["session"].unique().sort().to_list() == wanted
    assert whole.filter(session=wanted[0])["symbol"].n_unique() > 25
    assert whole["source"].unique().to_list() == ["local exchange"]
    assert whole["asof"].null_count() == whole.height
    values = [name for name in RAW_BAR_SCHEMA if name != "observed_at"]
    days = [source(exchange_url).bars(None, day, day) for day in wanted]
    assert pl.concat(days).select(values).equals(whole.select(values), null_equal=True)


def test_asof_is_passed_and_stored(exchange_url: str) -> None:
    frame = source(exchange_url).bars(None, SESSIONS[5], SESSIONS[5], asof=SESSIONS[9])
    assert frame["asof"].unique().to_list() == [SESSIONS[9]]


def test_pages_and_chunks_come_together(exchange_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = source(exchange_url).bars(None, SESSIONS[0], SESSIONS[100])
    monkeypatch.setattr("quant_resources.alpaca_bars.SYMBOLS_PER_REQUEST", 7)
    parts = source(exchange_url).bars(None, SESSIONS[0], SESSIONS[100])
    assert parts.drop("observed_at").equals(whole.drop("observed_at"), null_equal=True)


def test_newest_closed_session_follows_the_sources_clock(exchange_url: str) -> None:
    # 2023-06-19 is Juneteenth; the clock stands at midnight after it.
    assert source(exchange_url).newest_closed_session() == date(2023, 6, 16)


def test_session_without_bars_is_an_error_and_not_a_short_range(exchange_url: str) -> None:
    after = XNYS.at_or_after(NOW.date())
    with pytest.raises(SourceError, match=f"no bar for 1 session.*{after}"):
        source(exchange_url).bars(None, SESSIONS[100], after)


def test_unknown_symbol_is_named(exchange_url: str) -> None:
    with pytest.raises(SourceError, match="NOSUCH.*QUANT_SYMBOLS"):
        source(exchange_url, symbols=["NOSUCH"]).bars(None, SESSIONS[0], SESSIONS[0])


@pytest.mark.parametrize("symbol", ["../assets", "BTC/USD"])
def test_symbol_that_the_source_refuses_is_named(exchange_url: str, symbol: str) -> None:
    with pytest.raises(SourceError, match=symbol.replace(".", "\\.")):
        source(exchange_url).bars([symbol], SESSIONS[0], SESSIONS[0])


def test_configured_symbols_limit_bars_and_actions(exchange_url: str) -> None:
    everything = source(exchange_url).corporate_actions(SESSIONS[0], SESSIONS[100])
    CORPORATE_ACTIONS.conform(everything)
    symbol = everything["symbol"][0]
    one = source(exchange_url, symbols=[symbol.lower()])
    assert one.bars(None, SESSIONS[0], SESSIONS[3])["symbol"].unique().to_list() == [symbol]
    found = one.corporate_actions(SESSIONS[0], SESSIONS[100])
    assert found["symbol"].unique().to_list() == [symbol]
    assert found.height == everything.filter(symbol=symbol).height


def test_actions_of_a_range_equal_those_of_its_sessions(exchange_url: str) -> None:
    wanted = SESSIONS[0:60]
    whole = source(exchange_url).corporate_actions(wanted[0], wanted[-1])
    assert whole.height > 10
    days = [source(exchange_url).corporate_actions(day, day) for day in wanted]
    assert pl.concat(days).drop("observed_at").equals(whole.drop("observed_at"), null_equal=True)
    assert whole.filter(pl.col("ex_date") > pl.col("session")).is_empty()


def test_every_listed_symbol_is_asked_for(exchange_url: str) -> None:
    symbols = source(exchange_url).symbols()
    assert len(symbols) == len(set(symbols)) == 30
    assert symbols == sorted(symbols)


def test_server_that_does_not_answer_is_named_without_the_secret() -> None:
    dead = AlpacaBars(
        "http://127.0.0.1:9",
        "http://127.0.0.1:9",
        "key",
        "s3cret",
        requests_per_minute=None,
        backoff=(0.01,),
    )
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9.*does not answer") as caught:
        dead.newest_closed_session()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"data_url": ""}, {"trading_url": "ftp://x"}, {"api_key": ""}, {"feed": "bloomberg"}],
)
def test_wrong_configuration_is_refused(options: dict[str, str]) -> None:
    good = {"data_url": "http://a", "trading_url": "http://a", "api_key": "k", "secret_key": "s"}
    with pytest.raises(ConfigurationError):
        AlpacaBars(**(good | options))  # pyright: ignore[reportArgumentType]


Reply = tuple[int, bytes]
ASSETS = [
    {
        "symbol": symbol,
        "status": "active",
        "exchange": "NYSE",
        "tradable": True,
        "shortable": True,
        "fractionable": True,
    }
    for symbol in ("AAA", "BBB")
]


def bar_json(day: date = SESSIONS[0], **sent: Any) -> dict[str, Any]:
    time = start_of_day(day).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"t": time, "o": 1.0, "h": 1.1, "l": 0.9, "c": 1, "v": 100, "vw": 1.0, "n": 7} | sent


@contextmanager
def serving(answer: Callable[[str, dict[str, str]], Reply]) -> Iterator[str]:
    """A real HTTP server whose answers the test writes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            status, body = (
                (200, json.dumps(ASSETS).encode())
                if parts.path.endswith("/assets")
                else answer(parts.path, query)
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client has stopped waiting
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def body(bars: Any, token: Any = None) -> Reply:
    return 200, json.dumps({"bars": bars, "next_page_token": token}).encode()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((200, b'{"bars": {"AAA": [{"t": "2023-'), "not JSON"),
        ((200, b"<html>maintenance</html>"), "not JSON"),
        ((200, b""), "instead of an object"),
        ((200, b"null"), "instead of an object"),
        ((200, b'{"bars": [1, 2]}'), "another shape"),
        ((200, b'{"bars": {"AAA": {"t": 1}}, "next_page_token": null}'), "another shape"),
        ((500, b"oops"), "answered 500"),
        ((429, b'{"message": "too many requests"}'), "answered 429"),
        ((403, b'{"message": "forbidden"}'), "refused the keys.*ALPACA_API_KEY"),
        ((422, b'{"message": "end is too recent"}'), "too recent"),
        (body({"AAA": [bar_json()]}, ""), "leads nowhere"),
        (body({"AAA": [bar_json()]}, "again"), "leads nowhere"),
        (body({"AAA": ["text"]}), "no table"),
        (body({"AAA": [bar_json(SESSIONS[9])]}), "outside the days"),
        (body({"AAA": [bar_json(t="yesterday")]}), "outside the days"),
        (body({}), "no bar for 1 session"),
        (body(None), "no bar for 1 session"),
    ],
)
def test_nonsense_is_one_clear_sentence_and_never_a_short_session(reply: Reply, words: str) -> None:
    with (
        serving(lambda _path, _query: reply) as url,
        pytest.raises(SourceError, match=words) as caught,
    ):
        source(url).bars(None, SESSIONS[0], SESSIONS[0])
    assert "secret" not in str(caught.value)


def test_page_lost_in_the_middle_fails_the_whole_read() -> None:
    def answer(_path: str, query: dict[str, str]) -> Reply:
        if "page_token" not in query:
            return body({"AAA": [bar_json()]}, "next")
        return 503, b"gone"

    with serving(answer) as url, pytest.raises(SourceError, match="answered 503"):
        source(url).bars(None, SESSIONS[0], SESSIONS[0])


def test_hanging_server_ends_in_an_error() -> None:
    hold = threading.Event()

    def answer(_path: str, _query: dict[str, str]) -> Reply:
        hold.wait(5)
        return body({})

    with serving(answer) as url:
        try:
            with pytest.raises(SourceError, match="does not answer"):
                source(url, timeout=(0.5, 0.2), backoff=()).bars(None, SESSIONS[0], SESSIONS[0])
        finally:
            hold.set()


def test_read_that_fails_twice_succeeds_the_third_time() -> None:
    replies = iter([(429, b"slow down"), (200, b'{"bars": {"AAA"'), body({"AAA": [bar_json()]})])
    with serving(lambda _path, _query: next(replies)) as url:
        frame = source(url).bars(["AAA"], SESSIONS[0], SESSIONS[0])
    assert frame["close"].to_list() == [1.0]


def test_requests_carry_feed_asof_raw_adjustment_and_the_day_before_the_session() -> None:
    seen: dict[str, str] = {}
    monday = date(2023, 1, 9)

    def answer(_path: str, query: dict[str, str]) -> Reply:
        seen.update(query)
        return body(
            {"AAA": [bar_json(monday), bar_json(date(2023, 1, 7))], "BBB": [bar_json(monday)]}
        )

    with serving(answer) as url:
        frame = source(url, feed="sip").bars(None, monday, monday)
    assert seen["feed"] == "sip"
    assert seen["asof"] == "-"
    assert seen["adjustment"] == "raw"
    assert seen["symbols"] == "AAA,BBB"
    assert datetime.fromisoformat(seen["start"]) == start_of_day(date(2023, 1, 7))
    assert datetime.fromisoformat(seen["end"]) == start_of_day(date(2023, 1, 10)) - timedelta(
        seconds=1
    )
    # A Saturday's bar is kept with Monday, its own time beside it.
    assert frame["session"].unique().to_list() == [monday]
    assert frame["bar_time"].min() == start_of_day(date(2023, 1, 7)).replace(tzinfo=UTC)


def clock_json(moment: datetime) -> Reply:
    return 200, json.dumps({"timestamp": moment.isoformat(), "is_open": False}).encode()


@pytest.mark.parametrize(("minutes", "closed"), [(15, SESSIONS[3]), (17, SESSIONS[4])])
def test_delayed_tape_is_asked_for_as_the_tape_of_a_quarter_of_an_hour_ago(
    minutes: int, closed: date
) -> None:
    """Historical bars do not know the feed delayed_sip, and sip refuses what is newer."""
    now = XNYS.close(SESSIONS[4]) + timedelta(minutes=minutes)
    seen: list[dict[str, str]] = []

    def answer(path: str, query: dict[str, str]) -> Reply:
        if path.endswith("/clock"):
            return clock_json(now)
        seen.append(query)
        days = [bar_json(SESSIONS[3]), bar_json(SESSIONS[4])]
        return body({"AAA": days, "BBB": days})

    with serving(answer) as url:
        delayed = source(url, feed="delayed_sip")
        assert delayed.newest_closed_session() == closed
        delayed.bars(None, SESSIONS[3], SESSIONS[4])
        source(url, feed="sip").bars(None, SESSIONS[3], SESSIONS[4])
    assert [query["feed"] for query in seen] == ["sip", "sip"]
    ends = [datetime.fromisoformat(query["end"]) for query in seen]
    assert now - timedelta(minutes=17) < ends[0] < now - timedelta(minutes=15)
    assert ends[1] == start_of_day(SESSIONS[4] + timedelta(days=1)) - timedelta(seconds=1)


def test_feed_beyond_the_subscription_says_which_feed_would_do() -> None:
    refusal = b'{"message": "subscription does not permit querying recent SIP data"}'
    with (
        serving(lambda _path, _query: (403, refusal)) as url,
        pytest.raises(SourceError, match="recent SIP data.*QUANT_FEED to delayed_sip or iex"),
    ):
        source(url, feed="sip").bars(None, SESSIONS[0], SESSIONS[0])


def test_value_of_a_wrong_type_is_kept_as_missing() -> None:
    with serving(lambda _path, _query: body({"AAA": [bar_json(c="n/a", v=None)]})) as url:
        frame = source(url).bars(["AAA"], SESSIONS[0], SESSIONS[0])
    assert frame["close"].to_list() == [None]
    assert frame["volume"].to_list() == [None]
    assert frame["open"].to_list() == [1.0]


def test_listed_symbol_that_the_data_api_refuses_does_not_hide_the_others() -> None:
    def answer(_path: str, query: dict[str, str]) -> Reply:
        if "AAA" in query["symbols"]:
            return 400, b'{"message": "invalid symbol: AAA"}'
        return body({"BBB": [bar_json()]})

    with serving(answer) as url:
        assert source(url).bars(None, SESSIONS[0], SESSIONS[0])["symbol"].to_list() == ["BBB"]
        with pytest.raises(SourceError, match="does not know the symbol AAA"):
            source(url, symbols=["AAA"]).bars(None, SESSIONS[0], SESSIONS[0])


def test_every_kind_of_corporate_action_is_read() -> None:
    day = {"ex_date": "2023-01-05", "process_date": "2023-02-01"}
    effective = {"effective_date": "2023-01-05", "process_date": "2023-01-06"}
    sent = {
        "forward_splits": [{"id": "1", "symbol": "A", "new_rate": 3, "old_rate": 2} | day],
        "reverse_splits": [{"id": "2", "symbol": "A", "new_rate": 1, "old_rate": 10} | day],
        "stock_dividends": [{"id": "3", "symbol": "A", "rate": 0.05} | day],
        "cash_dividends": [{"id": "4", "symbol": "A", "rate": 0.24, "special": False} | day],
        "spin_offs": [
            {"id": "5", "source_symbol": "A", "new_symbol": "N", "new_rate": 1, "source_rate": 4}
            | day
        ],
        "cash_mergers": [{"id": "6", "acquiree_symbol": "A", "rate": 54.2} | effective],
        "stock_and_cash_mergers": [
            {
                "id": "7",
                "acquiree_symbol": "A",
                "acquirer_symbol": "Q",
                "acquirer_rate": 1,
                "acquiree_rate": 2,
                "cash_rate": 9.0,
            }
            | effective
        ],
        "name_changes": [
            {"id": "8", "old_symbol": "A", "new_symbol": "B", "process_date": "2023-01-05"}
        ],
        "unit_splits": [
            {"id": "9", "old_symbol": "A.U", "new_symbol": "A", "new_rate": 1, "old_rate": 1}
            | effective
        ],
        "redemptions": [{"symbol": "A", "rate": 10.1, "process_date": "2023-01-05"}],
        "worthless_removals": [{"id": "11", "symbol": "A", "process_date": "2023-01-05"}],
        "rights_distributions": [
            {"id": "12", "source_symbol": "A", "new_symbol": "A.R", "rate": 0.5} | day
        ],
        "tender_offers": [{"id": "13", "symbol": "A", "process_date": "2023-01-05"}],
    }
    rows = {row["action_id"]: row for row in action_rows(sent)}
    assert {row["ex_date"] for row in rows.values()} == {date(2023, 1, 5)}
    terms = {
        row["action_type"]: (row["ratio"], row["cash"], row["new_symbol"]) for row in rows.values()
    }
    assert rows["6"]["action_type"] == rows["7"]["action_type"] == "merger"
    assert rows["6"]["cash"] == 54.2
    assert terms == {
        "forward_split": (1.5, None, None),
        "reverse_split": (0.1, None, None),
        "stock_dividend": (1.05, None, None),
        "cash_dividend": (None, 0.24, None),
        "spin_off": (0.25, None, "N"),
        "merger": (0.5, 9.0, "Q"),
        "name_change": (None, None, "B"),
        "unit_split": (1.0, None, "A"),
        "redemption": (None, 10.1, None),
        "worthless_removal": (None, None, None),
        "rights_distribution": (0.5, None, "A.R"),
        "other": (None, None, None),
    }


def test_unreadable_corporate_action_is_named() -> None:
    with pytest.raises(SourceError, match=r"forward_splits.*old_rate"):
        action_rows({"forward_splits": [{"symbol": "A", "new_rate": 2, "ex_date": "2023-01-05"}]})


def test_dividend_with_a_late_process_date_belongs_to_its_ex_date() -> None:
    """Alpaca selects by process date, weeks after the ex-date of a dividend."""
    seen: dict[str, str] = {}
    dividend = {"id": "1", "symbol": "AAA", "rate": 0.5, "special": False, "foreign": False}
    late = dividend | {"ex_date": "2023-01-05", "process_date": "2023-02-10"}
    other = dividend | {"id": "2", "ex_date": "2023-01-12", "process_date": "2023-02-10"}

    def answer(_path: str, query: dict[str, str]) -> Reply:
        seen.update(query)
        sent = {"corporate_actions": {"cash_dividends": [late, other, late]}}
        return 200, json.dumps(sent | {"next_page_token": None}).encode()

    with serving(answer) as url:
        frame = source(url).corporate_actions(date(2023, 1, 4), date(2023, 1, 6))
    assert frame.select("session", "symbol", "cash").rows() == [(date(2023, 1, 5), "AAA", 0.5)]
    assert date.fromisoformat(seen["end"]) >= date(2023, 2, 10)
    assert seen["limit"] == "1000"


def test_pace_holds_requests_back(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("quant_resources.request_pace.time.sleep", waited.append)
    pace = RequestPace(3)
    for _ in range(4):
        pace.wait()
    assert len(waited) == 1
    assert 59.0 < waited[0] <= 60.0
