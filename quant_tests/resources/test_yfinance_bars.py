"""The Yahoo reader: the real yfinance over TLS against a server that speaks Yahoo's chart API.

Skipped where the extra is not installed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse

from quant_resources.bar_source import CORPORATE_ACTION_SCHEMA, RAW_BAR_SCHEMA, BarSource
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.errors import ConfigurationError, SourceError

pytest.importorskip("yfinance", reason="install the extra: uv sync --extra yfinance")
pytest.importorskip("cryptography")

from quant_resources.yfinance_bars import YFinanceBars
from quant_tests.resources.yahoo import Bar, Company, Yahoo, YahooServer

SESSIONS = XNYS.sessions(date(2024, 1, 2), date(2024, 3, 28))


@pytest.fixture(scope="module")
def server() -> Iterator[YahooServer]:
    # A socket's name may have 107 letters; pytest's folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="yahoo"))
    server = YahooServer(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def yahoo(server: YahooServer) -> Iterator[Yahoo]:
    yield server.yahoo
    server.yahoo.companies.clear()
    server.yahoo.answers.clear()
    server.yahoo.asked.clear()


def source(server: YahooServer, tmp_path: Path, *symbols: str) -> YFinanceBars:
    return YFinanceBars(symbols, tmp_path / "cache", server.session())


def company(count: int = len(SESSIONS), start: float = 400.0) -> Company:
    bars: dict[date, Bar | None] = {}
    for at, session in enumerate(SESSIONS[:count]):
        price = start + at
        bars[session] = (price, price + 2, price - 2, price + 1, 1_000_000 + 10_000 * at)
    return Company(bars)


def assert_as_traded(found: pl.DataFrame, symbol: str, traded: Company) -> None:
    rows = found.filter(symbol=symbol).select("session", "open", "high", "low", "close", "volume")
    assert rows.height > 0
    for session, *values in rows.iter_rows():
        assert values == pytest.approx(traded.bars[session], rel=1e-9)


def test_it_is_a_bar_source_and_splits_are_undone(
    server: YahooServer, yahoo: Yahoo, tmp_path: Path
) -> None:
    """Splits after the last session asked for, and reverse ones, adjust Yahoo's prices all the same."""
    twice = company()
    twice.splits = {SESSIONS[20]: (4, 1), SESSIONS[40]: (1, 10), SESSIONS[55]: (3, 2)}
    yahoo.companies = {"TWICE": twice, "BRK-B": company(start=350.0)}
    checked: BarSource = source(server, tmp_path, "twice", "BRK.B")
    assert checked.symbols() == ["BRK.B", "TWICE"]
    found = checked.bars(None, SESSIONS[10], SESSIONS[45])
    assert dict(found.schema) == RAW_BAR_SCHEMA
    assert found.height == 2 * 36
    assert_as_traded(found, "TWICE", twice)
    assert_as_traded(found, "BRK.B", yahoo.companies["BRK-B"])
    assert found["bar_time"].to_list()[::2] == [start_of_day(day) for day in SESSIONS[10:46]]
    assert found["source"].unique().to_list() == ["yahoo"]
    assert found["vwap"].null_count() == found["asof"].null_count() == found.height


def test_actions_are_as_declared(server: YahooServer, yahoo: Yahoo, tmp_path: Path) -> None:
    """Amounts are per share held the day before, also with a split on the same day and later."""
    payer = company()
    payer.splits = {SESSIONS[20]: (4, 1), SESSIONS[50]: (1, 5)}
    payer.dividends = {SESSIONS[5]: 0.88, SESSIONS[20]: 0.92, SESSIONS[30]: 0.23, SESSIONS[55]: 1.2}
    fund = company()
    fund.gains = {SESSIONS[30]: 2.5}
    yahoo.companies = {"PAYER": payer, "FUND": fund}
    reader = source(server, tmp_path, "PAYER", "FUND")
    found = reader.corporate_actions(SESSIONS[6], SESSIONS[50])
    assert dict(found.schema) == CORPORATE_ACTION_SCHEMA
    assert found.select("symbol", "ex_date", "action_type").rows() == [
        ("PAYER", SESSIONS[20], "cash_dividend"),
        ("PAYER", SESSIONS[20], "forward_split"),
        ("FUND", SESSIONS[30], "cash_dividend"),
        ("PAYER", SESSIONS[30], "cash_dividend"),
        ("PAYER", SESSIONS[50], "reverse_split"),
    ]
    assert found["cash"].drop_nulls().to_list() == pytest.approx([0.92, 2.5, 0.23], rel=1e-12)
    assert found["ratio"].drop_nulls().to_list() == pytest.approx([4.0, 0.2], rel=1e-12)
    assert found["action_id"].is_unique().all()
    everything = reader.corporate_actions(SESSIONS[0], SESSIONS[-1])
    assert everything.filter(symbol="PAYER")["cash"].drop_nulls().to_list() == pytest.approx(
        [0.88, 0.92, 0.23, 1.2], rel=1e-12
    )


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    splits=st.dictionaries(
        st.integers(0, len(SESSIONS) - 1),
        st.sampled_from([(2, 1), (3, 2), (1, 10), (21, 20)]),
        max_size=4,
    ),
    dividends=st.dictionaries(st.integers(0, len(SESSIONS) - 1), st.floats(0.01, 5.0), max_size=4),
)
def test_whatever_was_adjusted_comes_back_as_traded(
    server: YahooServer,
    tmp_path: Path,
    splits: dict[int, tuple[int, int]],
    dividends: dict[int, float],
) -> None:
    traded = company()
    traded.bars = {
        day: (*bar[:4], bar[4] * 4000) for day, bar in traded.bars.items() if bar is not None
    }
    traded.splits = {SESSIONS[at]: ratio for at, ratio in splits.items()}
    traded.dividends = {SESSIONS[at]: amount for at, amount in dividends.items()}
    server.yahoo.companies = {"X": traded}
    reader = source(server, tmp_path, "X")
    assert_as_traded(reader.bars(None, SESSIONS[0], SESSIONS[-1]), "X", traded)
    actions = reader.corporate_actions(SESSIONS[0], SESSIONS[-1])
    paid = actions.filter(action_type="cash_dividend").select("ex_date", "cash")
    assert dict(paid.rows()) == pytest.approx(traded.dividends, rel=1e-9)


def test_bars_and_actions_of_a_run_ask_once(
    server: YahooServer, yahoo: Yahoo, tmp_path: Path
) -> None:
    yahoo.companies = {"A": company()}
    reader = source(server, tmp_path, "A")
    reader.bars(None, SESSIONS[5], SESSIONS[6])
    asked = len(yahoo.asked)
    reader.bars(["A"], SESSIONS[6], SESSIONS[9])
    reader.corporate_actions(SESSIONS[5], SESSIONS[9])
    assert len(yahoo.asked) == asked
    reader.corporate_actions(SESSIONS[4], SESSIONS[9])
    assert len(yahoo.asked) == asked + 1


def test_a_hole_is_no_bar_and_a_session_without_any_is_an_error(
    server: YahooServer, yahoo: Yahoo, tmp_path: Path
) -> None:
    holed, whole = company(), company()
    holed.bars[SESSIONS[3]] = None
    yahoo.companies = {"HOLED": holed, "WHOLE": whole, "LATE": company(2)}
    reader = source(server, tmp_path, "HOLED", "WHOLE", "LATE")
    found = reader.bars(None, SESSIONS[2], SESSIONS[4])
    counts = dict(found["symbol"].value_counts().rows())
    assert counts == {"HOLED": 2, "WHOLE": 3}
    alone = source(server, tmp_path, "HOLED")
    with pytest.raises(SourceError, match=str(SESSIONS[3])):
        alone.bars(None, SESSIONS[2], SESSIONS[4])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HTMLResponse("<html>We will be back</html>"), "no usable answer for BAD"),
        (PlainTextResponse('{"chart": {"result": [{"meta": {"cur'), "no usable answer for BAD"),
        (PlainTextResponse("Too Many Requests", 429), "too many requests"),
        (PlainTextResponse("oops", 500), "no usable answer for BAD"),
        (JSONResponse({"chart": {"result": [{"meta": {}}], "error": None}}), "BAD"),
        (JSONResponse({"finance": {}}), "BAD"),
        (JSONResponse([1, 2]), "BAD"),
    ],
)
def test_nonsense_is_never_taken_for_a_symbol_that_did_not_trade(
    server: YahooServer, yahoo: Yahoo, tmp_path: Path, answer: HTMLResponse, said: str
) -> None:
    yahoo.companies = {"GOOD": company()}
    yahoo.answers = {"BAD": answer}
    with pytest.raises(SourceError, match=said):
        source(server, tmp_path, "GOOD", "BAD").bars(None, SESSIONS[2], SESSIONS[4])


def test_a_symbol_that_yahoo_does_not_know_is_named(
    server: YahooServer, yahoo: Yahoo, tmp_path: Path
) -> None:
    yahoo.companies = {"A": company()}
    with pytest.raises(SourceError, match="nothing under GONE.*QUANT_SYMBOLS"):
        source(server, tmp_path, "A", "GONE").bars(None, SESSIONS[2], SESSIONS[4])


def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    server: YahooServer, yahoo: Yahoo, tmp_path: Path
) -> None:
    for symbols, said in (
        (["../etc"], "'../ETC' is no symbol"),
        (["A/B"], "no symbol"),
        ([], "no list"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            YFinanceBars(symbols)
    reader = source(server, tmp_path, "A")
    with pytest.raises(SourceError, match="not among QUANT_SYMBOLS"):
        reader.bars(["B"], SESSIONS[2], SESSIONS[4])
    with pytest.raises(SourceError, match="today's owner"):
        reader.bars(["A"], SESSIONS[2], SESSIONS[4], asof=SESSIONS[4])
    assert yahoo.asked == []
