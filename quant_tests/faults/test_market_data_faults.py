"""Every bad answer of a market data vendor ends in whole and right data or in one clear error.

The real reader speaks through alpaca-py over HTTP to a real exchange whose fault plan breaks its answers.
200 symbols over 105 sessions are three pages of 10,000 bars, so that pages can be lost in the middle.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from quant_assets.market_data.assets import raw_bars
from quant_assets.market_data.checks import CHECKS
from quant_assets.market_data.schemas import RAW_BARS, TABLES
from quant_assets.market_span import MarketSpan
from quant_assets.partitions import partitions_for, range_tags
from quant_assets.table_assets import TableIOManager
from quant_assets.table_checks import check_definitions
from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.errors import SourceError
from quant_resources.exchange.process import MarketSpec, create_state
from quant_resources.store import Store
from quant_tests.exchange.served import Served, Server

SESSIONS = XNYS.sessions(date(2023, 1, 3), date(2023, 8, 31))
FIRST, LAST = SESSIONS[0], SESSIONS[104]
#: Two pages, and half as many partitions to write.
TWO_PAGES = SESSIONS[54]
SYMBOLS = [f"S{number:03d}" for number in range(200)]
BARS, ACTIONS, CLOCK, ASSETS = (
    "/v2/stocks/bars",
    "/v1/corporate-actions",
    "/v2/clock",
    "/v2/assets",
)
LATER_PAGES = {"query": {"page_token": "*"}}
SPAN = MarketSpan(first_session=FIRST, last_session=LAST, first_trading_session=LAST)
PARTITIONS = partitions_for(SPAN)
BACKOFF = (0.01, 0.02, 0.04)


def write_market(folder: Path) -> Path:
    """Made bars of 200 symbols, and a split or dividend of every fourth."""
    folder.mkdir()
    number, at = pl.col("number"), pl.col("at")
    (
        pl.DataFrame({"symbol": SYMBOLS})
        .with_row_index("number")
        .join(pl.DataFrame({"date": SESSIONS}).with_row_index("at"), how="cross")
        .with_columns(close=(20.0 + number) * (1 + 0.01 * ((at * 7 + number) % 5)))
        .with_columns(
            open=pl.col("close"),
            high=pl.col("close") * 1.01,
            low=pl.col("close") * 0.99,
            volume=1000.0 * (number + 1),
        )
        .drop("number", "at")
        .write_parquet(folder / "bars.parquet")
    )
    pl.DataFrame(
        {
            "symbol": SYMBOLS[::4],
            "ex_date": SESSIONS[5:55],
            "action_type": ["cash_dividend"] * 50,
            "cash": [0.25] * 50,
        }
    ).write_parquet(folder / "actions.parquet")
    return folder


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("faulted")
    create_state(root / "state", MarketSpec(kind="history", folder=write_market(root / "history")))
    server = Server(root / "state")
    served = Served(root / "state", server.exchange, server.url)
    served.control.advance(start_of_day(SESSIONS[140]))
    yield served
    server.stop()
    server.wait()


@pytest.fixture
def vendor(market: Served) -> Iterator[Served]:
    """The exchange, whose answers go right again afterwards."""
    yield market
    market.control.clear_faults()


def reader(served: Served, **options: Any) -> AlpacaBars:
    settings = {"requests_per_minute": None, "timeout": (1.0, 5.0), "backoff": BACKOFF}
    return AlpacaBars(served.url, served.url, "key", "s3cret", **(settings | options))


@pytest.fixture(scope="module")
def whole(market: Served) -> pl.DataFrame:
    """What an undisturbed read brings."""
    frame = reader(market).bars(None, FIRST, LAST)
    assert frame.height == 200 * 105
    return frame.drop("observed_at")


def plan(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"rules": [{"path": BARS, **rule} for rule in rules]}


def fired(served: Served) -> int:
    return sum(rule["fired"] for rule in served.control.faults()["rules"])


FAULTS: dict[str, dict[str, Any]] = {
    "truncated": {"kind": "truncated"},
    "truncated, length matching": {"kind": "truncated", "content_length": "matching"},
    "truncated to nothing": {"kind": "truncated", "bytes": 0, "content_length": "matching"},
    "html": {"kind": "html"},
    "malformed": {"kind": "malformed"},
    "empty body": {"kind": "empty_body"},
    "reset": {"kind": "reset"},
    "reset after": {"kind": "reset", "after": True},
    "429": {"kind": "status", "status": 429},
    "500": {"kind": "status", "status": 500},
    "502": {"kind": "status", "status": 502},
    "503": {"kind": "status", "status": 503},
    "504": {"kind": "status", "status": 504},
    "empty token": {"kind": "empty_token"},
    "rows under another name": {"kind": "rename_field", "field": "bars", "to": "Bars"},
}
WORDS = {
    "truncated": "does not answer",
    "truncated, length matching": "not JSON",
    "truncated to nothing": "not JSON|instead of an object",
    "html": "not JSON",
    "malformed": "not JSON",
    "empty body": "not JSON|instead of an object",
    "reset": "does not answer",
    "reset after": "does not answer",
    "empty token": "page token '', which leads nowhere",
    "rows under another name": "answered without bars, with Bars",
    "token loop": "leads nowhere: the rest is missing",
    "half of every page": "answers the same question differently every time",
    "renamed column": r"None of 11000 bars has the field\(s\) c",
    "path for a symbol": r"sent bars of '\.\./S007', which was not asked for",
    "other symbol": "sent bars of 'AAPL', which was not asked for",
}


@pytest.mark.parametrize("where", ["first page", "middle page"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_is_waited_out(
    vendor: Served, whole: pl.DataFrame, name: str, where: str
) -> None:
    """Also a storm, as long as it ends within the patience: three answers in a row are broken."""
    number = 1 if where == "first page" else 2
    vendor.control.inject(plan({"fault": FAULTS[name], "nth": [number, number + 1, number + 2]}))
    found = reader(vendor).bars(None, FIRST, LAST)
    assert fired(vendor) == 3
    assert found.drop("observed_at").equals(whole, null_equal=True)


@pytest.mark.parametrize("rule", [{}, LATER_PAGES], ids=["every page", "later pages"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays_is_one_clear_error(
    vendor: Served, name: str, rule: dict[str, Any]
) -> None:
    vendor.control.inject(plan({"fault": FAULTS[name], **rule}))
    with pytest.raises(SourceError, match=WORDS.get(name, f"answered {name}")) as caught:
        reader(vendor).bars(None, FIRST, LAST)
    assert fired(vendor) == len(BACKOFF) + 1
    assert "s3cret" not in str(caught.value)
    assert "/stocks/bars" in str(caught.value)


def test_a_hanging_page_is_given_up_and_asked_for_again(
    vendor: Served, whole: pl.DataFrame
) -> None:
    vendor.control.inject(plan({"fault": {"kind": "hang"}, "nth": [2]}))
    patient = reader(vendor, timeout=(1.0, 1.0))
    assert patient.bars(None, FIRST, LAST).drop("observed_at").equals(whole, null_equal=True)
    vendor.control.inject(plan({"fault": {"kind": "hang"}, **LATER_PAGES}))
    hasty = reader(vendor, timeout=(1.0, 1.0), backoff=(0.01,))
    with pytest.raises(SourceError, match="does not answer"):
        hasty.bars(None, FIRST, LAST)


# Pages that lead nowhere


def test_a_token_that_leads_back_to_its_own_page(vendor: Served) -> None:
    vendor.control.inject(plan({"fault": {"kind": "token_loop"}, **LATER_PAGES}))
    with pytest.raises(SourceError, match="leads nowhere: the rest is missing"):
        reader(vendor).bars(None, FIRST, LAST)


def test_a_token_that_leads_back_to_an_earlier_page(vendor: Served) -> None:
    """The last page leads to the second one: followed, it would go round for ever."""
    row = vendor.exchange.view.visible_rows("S076", SESSIONS[25], LAST, vendor.exchange.now)
    assert row is not None
    second = base64.urlsafe_b64encode(f"S076|{row[0]}".encode()).decode()
    third = base64.urlsafe_b64encode(f"S153|{row[0] + 10_000}".encode()).decode()
    loop = {"kind": "set_field", "field": "next_page_token"}
    vendor.control.inject(
        plan(
            {"fault": {**loop, "value": second}, "query": {"page_token": None}},
            {"fault": {**loop, "value": third}, "query": {"page_token": second}},
            {"fault": {**loop, "value": second}, "query": {"page_token": third}},
        )
    )
    with pytest.raises(SourceError, match=f"page token '{second}', which leads nowhere"):
        reader(vendor).bars(None, FIRST, LAST)
    assert fired(vendor) == 2 + len(BACKOFF) + 1


# Pages that are lost without a word


@pytest.mark.parametrize(
    "lost",
    [
        {"nth": [1]},
        {"nth": [2]},
        {"nth": [3]},
        {"nth": [1, 2, 3]},
        {"nth": [1], "fault": {"leads_on": False}},
        {"nth": [2], "fault": {"leads_on": False}},
        {"nth": [1], "fault": {"leads_on": False, "share": 0.3}},
        {"nth": [2], "fault": {"share": 0.01}},
        {"nth": [3], "fault": {"share": 0.001}},
        LATER_PAGES,
    ],
    ids=str,
)
def test_a_lost_page_is_noticed_and_fetched(
    vendor: Served, whole: pl.DataFrame, lost: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A page comes empty or short, or as if it were the last: status 200, JSON in order, no hint."""
    fault = {"kind": "lost_page", **lost.get("fault", {})}
    vendor.control.inject(plan({**lost, "fault": fault}))
    found = reader(vendor).bars(None, FIRST, LAST)
    assert fired(vendor) >= 1
    assert found.drop("observed_at").equals(whole, null_equal=True)
    assert "left out" in caplog.text


def test_pages_that_are_lost_again_and_again_are_an_error(vendor: Served) -> None:
    half = {"kind": "lost_page", "share": 0.5, "leads_on": False}
    vendor.control.inject(plan({"fault": half}))
    with pytest.raises(SourceError, match="answers the same question differently every time"):
        reader(vendor).bars(None, FIRST, LAST)
    vendor.control.inject(plan({"fault": {"kind": "lost_page"}}))
    with pytest.raises(SourceError, match="has no bar for 105 session"):
        reader(vendor).bars(None, FIRST, LAST)


def test_an_undisturbed_read_asks_for_complete_symbols_once(vendor: Served) -> None:
    """The proof costs nothing where nothing is missing, and one small request where something is."""
    count = {"fault": {"kind": "latency", "seconds": 0}}
    vendor.control.inject(plan(count))
    reader(vendor).bars(None, FIRST, LAST)
    assert fired(vendor) == 3
    vendor.control.inject(plan(count))
    reader(vendor).bars(None, SESSIONS[3], SESSIONS[3])
    assert fired(vendor) == 1


# Rows that are not what they should be


@pytest.mark.parametrize("to", ["../../etc/passwd", "S000/S001", "AAPL"])
def test_bars_of_a_symbol_that_was_not_asked_for(vendor: Served, to: str) -> None:
    vendor.control.inject(plan({"fault": {"kind": "wrong_symbol", "symbol": "S007", "to": to}}))
    with pytest.raises(SourceError, match=f"sent bars of '{to}', which was not asked for"):
        reader(vendor).bars(None, FIRST, LAST)


@pytest.mark.parametrize("field", ["t", "o", "h", "l", "c", "v"])
def test_a_renamed_field_is_named(vendor: Served, field: str) -> None:
    vendor.control.inject(plan({"fault": {"kind": "rename_field", "field": field, "to": "new"}}))
    with pytest.raises(SourceError, match=rf"has the field\(s\) {field}; they have .*new"):
        reader(vendor).bars(None, FIRST, LAST)


@pytest.mark.parametrize(
    "fault", [{"kind": "reorder"}, {"kind": "reorder", "how": "shuffled"}], ids=str
)
def test_rows_in_another_order(vendor: Served, whole: pl.DataFrame, fault: dict[str, Any]) -> None:
    vendor.control.inject(plan({"fault": fault}))
    found = reader(vendor).bars(None, FIRST, LAST)
    assert found.drop("observed_at").equals(whole, null_equal=True)


def test_absent_and_doubled_values_come_as_they_were_sent(
    vendor: Served, whole: pl.DataFrame
) -> None:
    """A row that is wrong by itself is no business of the reader: the gate rejects it by name."""
    day = (None, SESSIONS[9], SESSIONS[9])
    mine = whole.filter(session=SESSIONS[9])
    vendor.control.inject(plan({"fault": {"kind": "null_field", "field": "c", "rows": 3}}))
    assert reader(vendor).bars(*day)["close"].null_count() == 3
    vendor.control.inject(plan({"fault": {"kind": "set_field", "field": "v", "value": "1,000"}}))
    assert reader(vendor).bars(*day)["volume"].null_count() == 200
    vendor.control.inject(plan({"fault": {"kind": "duplicate_rows"}}))
    twice = reader(vendor).bars(*day).drop("observed_at")
    assert twice.height == 400
    assert twice.unique(maintain_order=True).equals(mine, null_equal=True)


# Clock, assets and corporate actions


def read(source: AlpacaBars, path: str) -> object:
    if path == CLOCK:
        return source.newest_closed_session()
    if path == ASSETS:
        return source.symbols()
    return source.corporate_actions(FIRST, LAST).drop("observed_at").rows()


@pytest.mark.parametrize("path", [CLOCK, ASSETS, ACTIONS])
@pytest.mark.parametrize("name", [n for n in FAULTS if "token" not in n and "rows" not in n])
def test_the_other_reads_have_the_same_patience(vendor: Served, path: str, name: str) -> None:
    right = read(reader(vendor), path)
    vendor.control.inject(plan({"path": path, "fault": FAULTS[name], "times": 3}))
    assert read(reader(vendor), path) == right
    vendor.control.inject(plan({"path": path, "fault": FAULTS[name]}))
    with pytest.raises(SourceError, match=WORDS.get(name, f"answered {name}")):
        read(reader(vendor), path)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (CLOCK, {"kind": "rename_field", "field": "timestamp", "to": "now"}),
        (CLOCK, {"kind": "null_field", "field": "timestamp"}),
        (ASSETS, {"kind": "rename_field", "field": "symbol", "to": "ticker"}),
        (ASSETS, {"kind": "null_field", "field": "symbol"}),
        (ASSETS, {"kind": "lost_page"}),
        (ACTIONS, {"kind": "rename_field", "field": "ex_date", "to": "exDate"}),
        (ACTIONS, {"kind": "null_field", "field": "ex_date"}),
        (ACTIONS, {"kind": "null_field", "field": "symbol", "rows": 1}),
        (ACTIONS, {"kind": "set_field", "field": "symbol", "value": 5}),
        (ACTIONS, {"kind": "set_field", "field": "rate", "value": "a quarter"}),
        (ACTIONS, {"kind": "set_field", "field": "rate", "value": "nan"}),
        (ACTIONS, {"kind": "rename_field", "field": "corporate_actions", "to": "actions"}),
        (ACTIONS, {"kind": "empty_token"}),
        (ACTIONS, {"kind": "token_loop"}),
    ],
    ids=str,
)
def test_the_other_reads_never_guess(vendor: Served, path: str, fault: dict[str, Any]) -> None:
    """An ex-date under another name once became the day of payment, weeks later."""
    vendor.control.inject(plan({"path": path, "fault": fault}))
    with pytest.raises(SourceError):
        read(reader(vendor), path)


def test_corporate_actions_that_are_lost_once_are_noticed(vendor: Served) -> None:
    """A split that one page forgot would be a halved price the next day."""
    right = reader(vendor).corporate_actions(FIRST, LAST).drop("observed_at")
    assert right.height == 50
    for share in (1.0, 0.02):
        lost = {"kind": "lost_page", "share": share, "leads_on": False}
        for number in (1, 2):
            vendor.control.inject(plan({"path": ACTIONS, "fault": lost, "nth": [number]}))
            found = reader(vendor).corporate_actions(FIRST, LAST).drop("observed_at")
            assert found.equals(right, null_equal=True)
    vendor.control.inject(plan({"path": ACTIONS, "fault": lost, "every": 2}))
    with pytest.raises(SourceError, match="corporate actions differently every time"):
        reader(vendor).corporate_actions(FIRST, LAST)


def test_a_listed_symbol_that_is_a_path_is_never_asked_for(vendor: Served) -> None:
    for to in ("../../../tmp/x", "BTC/USD", "S000\x00"):
        fault = {"kind": "set_field", "field": "symbol", "value": to, "rows": 1}
        vendor.control.inject(plan({"path": ASSETS, "fault": fault}))
        found = reader(vendor).bars(None, FIRST, FIRST)
        assert found["symbol"].to_list() == SYMBOLS[1:]


# What is stored


class Root:
    """A data root with the raw bars alone, written by real Dagster runs."""

    def __init__(self, root: Path, source: AlpacaBars) -> None:
        self.store = Store(root)
        self.folder = root
        asset = PARTITIONS.place(raw_bars)
        mine = [check for check in CHECKS if check.table is RAW_BARS]
        none = dg.ResourceDefinition.none_resource()
        self._definitions = dg.Definitions(
            assets=[asset],
            asset_checks=check_definitions(TABLES, mine, PARTITIONS),
            jobs=[
                dg.define_asset_job("fetch", dg.AssetSelection.all().without_checks()),
                dg.define_asset_job("fetch_and_check", dg.AssetSelection.assets(RAW_BARS.path)),
            ],
            resources={
                "table_io": TableIOManager(self.store, TABLES),
                "store": self.store,
                "bar_source": source,
                "second_bar_source": none,
                "ledger": none,
                "broker": none,
            },
        )
        self._instance = dg.DagsterInstance.ephemeral()

    def run(self, first: date, last: date, job: str = "fetch") -> dg.ExecuteInProcessResult:
        """Run a job over a range of sessions."""
        keys = [session.isoformat() for session in XNYS.sessions(first, last)]
        tags = dict(range_tags(keys)) if len(keys) > 1 else {"dagster/partition": keys[0]}
        definition = self._definitions.resolve_job_def(job)
        return definition.execute_in_process(
            instance=self._instance, tags=tags, raise_on_error=False
        )

    def stored(self) -> pl.DataFrame:
        """The stored bars, as read by whoever comes next."""
        return self.store.read(RAW_BARS).collect().drop("observed_at")

    def files(self) -> list[Path]:
        """What lies in the data root."""
        return sorted(self.folder.rglob("*.parquet"))


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the step says of why it failed, without the traceback."""
    (event,) = result.get_step_failure_events()
    error = event.step_failure_data.error
    assert error is not None
    assert error.cause is not None
    return error.cause.message


BROKEN_FOR_GOOD: dict[str, dict[str, Any]] = {
    **FAULTS,
    "token loop": {"kind": "token_loop"},
    "half of every page": {"kind": "lost_page", "share": 0.5, "leads_on": False},
    "renamed column": {"kind": "rename_field", "field": "c", "to": "close"},
    "path for a symbol": {"kind": "wrong_symbol", "symbol": "S007", "to": "../S007"},
    "other symbol": {"kind": "wrong_symbol", "symbol": "S007", "to": "AAPL"},
}


@pytest.mark.parametrize("name", BROKEN_FOR_GOOD)
def test_a_run_stores_nothing_of_a_broken_answer(
    vendor: Served, whole: pl.DataFrame, tmp_path: Path, name: str
) -> None:
    """Over 55 sessions in two pages; then the vendor is well again and the same run is whole."""
    root = Root(tmp_path / "root", reader(vendor))
    rule = LATER_PAGES if name in FAULTS or name == "token loop" else {}
    vendor.control.inject(plan({"fault": BROKEN_FOR_GOOD[name], **rule}))
    result = root.run(FIRST, TWO_PAGES)
    assert not result.success
    assert re.search(WORDS.get(name, f"answered {name}"), failure(result))
    assert root.files() == []
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "root"])
    vendor.control.clear_faults()
    assert root.run(FIRST, TWO_PAGES).success
    expected = whole.filter(pl.col("session") <= TWO_PAGES)
    assert root.stored().equals(expected, null_equal=True)


def test_a_refetch_that_fails_leaves_what_is_stored(
    vendor: Served, whole: pl.DataFrame, tmp_path: Path
) -> None:
    root = Root(tmp_path / "root", reader(vendor))
    assert root.run(SESSIONS[3], SESSIONS[3]).success
    files = root.files()
    for fault in (FAULTS["truncated"], FAULTS["html"], BROKEN_FOR_GOOD["renamed column"]):
        vendor.control.inject(plan({"fault": fault}))
        assert not root.run(SESSIONS[3], SESSIONS[3]).success
    assert root.files() == files
    assert root.stored().equals(whole.filter(session=SESSIONS[3]), null_equal=True)


def test_what_the_vendor_leaves_out_every_time_is_blocked_when_it_is_much(
    vendor: Served, tmp_path: Path
) -> None:
    """Told twice, a hole is stored as told; that the session is thin is for the checks to say.

    Two fifths of a session missing stop everything downstream; a twentieth is for coverage to name.
    """
    root = Root(tmp_path / "root", reader(vendor))
    thin, thinner = SESSIONS[25], SESSIONS[26]
    for symbol in SYMBOLS[:10]:
        vendor.control.withdraw(symbol, thin)
    for symbol in SYMBOLS[:80]:
        vendor.control.withdraw(symbol, thinner)
    assert root.run(FIRST, SESSIONS[24]).success
    outcome = {}
    for session in (thin, thinner):
        result = root.run(session, session, "fetch_and_check")
        for found in result.get_asset_check_evaluations():
            outcome[session, found.check_name] = found.passed
    assert outcome[thin, "enough_symbols"]
    assert not outcome[thinner, "enough_symbols"]
    stored = root.stored()
    assert stored.filter(session=thin).height == 190
    assert stored.filter(session=thinner).height == 120
