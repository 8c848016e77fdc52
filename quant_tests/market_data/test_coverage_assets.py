"""Coverage and freshness in runs of the real graph, against a real exchange that replays a history with holes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.automation import jobs
from quant_assets.cli.graph_runs import GraphRunner
from quant_assets.definitions import build_defs
from quant_assets.market_data.schemas import BARS, COVERAGE, RAW_BARS
from quant_assets.market_span import MarketSpan, remember_span
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.exchange.process import (
    ExchangeControl,
    MarketSpec,
    ensure_exchange,
    stop_exchange,
)
from quant_resources.settings import load_settings
from quant_resources.store import Store

SESSIONS = XNYS.sessions(date(2024, 1, 2), date(2024, 3, 28))
KEYS = [session.isoformat() for session in SESSIONS]
SYMBOLS = [f"S{number:02d}" for number in range(12)]
NEEDED = [
    dg.AssetKey(["market_data", name])
    for name in ("raw_bars", "corporate_actions", "bars", "quarantine", "coverage")
]
HOLES, ENDS, RENAMED = (10, 11), 20, 25


def history(folder: Path) -> Path:
    """S03 has a hole of two sessions, S05 ends without a word, S07 becomes NEW a session late."""
    rows = []
    for at, session in enumerate(SESSIONS):
        for number, symbol in enumerate(SYMBOLS):
            if (symbol == "S03" and at in HOLES) or (symbol == "S05" and at >= ENDS):
                continue
            if symbol == "S07" and at >= RENAMED:
                if at == RENAMED:
                    continue
                symbol = "NEW"  # noqa: PLW2901 - the name under which it trades from here on
            price = 20.0 + number + 0.1 * at
            rows.append((symbol, session, price, price + 1, price - 1, price, 100_000.0 + at))
    names = ["symbol", "date", "open", "high", "low", "close", "volume"]
    folder.mkdir()
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(folder / "bars.parquet")
    pl.DataFrame(
        {
            "symbol": ["S07"],
            "ex_date": [SESSIONS[RENAMED]],
            "action_type": ["name_change"],
            "new_symbol": ["NEW"],
        }
    ).write_parquet(folder / "actions.parquet")
    return folder


@pytest.fixture(scope="module")
def exchange_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("market")
    spec = MarketSpec(kind="history", folder=history(root / "history"))
    try:
        url = ensure_exchange(root / "exchange", spec).url
        at(url, "2024-03-28 07:30")
        yield url
    finally:
        stop_exchange(root / "exchange")


def at(url: str, text: str) -> None:
    ExchangeControl(url).advance(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK))


class Market:
    """A data root with the whole graph; no ledger, since nothing here trades."""

    def __init__(self, root: Path, url: str, instance: dg.DagsterInstance) -> None:
        settings = load_settings(data_root=root, data_url=url, trading_url=url)
        span = MarketSpan(
            first_session=SESSIONS[0],
            last_session=SESSIONS[-1],
            first_trading_session=SESSIONS[-2],
        )
        root.mkdir()
        remember_span(root, span)
        ledger = dg.ResourceDefinition.none_resource()
        self.definitions = build_defs(settings, span, resources={"ledger": ledger})
        self.instance = instance
        self.store = Store(root)

    def ingest(self, keys: Sequence[str]) -> GraphRunner:
        """Ingest neighbouring sessions in one run."""
        runner = GraphRunner(self.definitions, self.instance, lambda _label, _share: None)
        runner.run(jobs.INGEST, keys, selected=NEEDED)
        return runner

    def freshness(self) -> dg.AssetCheckEvaluation:
        """The newest word of the job that runs at 07:30."""
        job = self.definitions.resolve_job_def(jobs.FRESHNESS)
        (told,) = job.execute_in_process(instance=self.instance).get_asset_check_evaluations()
        return told

    def states(self, symbol: str) -> str:
        """A state a session as a letter, "." where the symbol is not in the table."""
        frame = self.store.read(COVERAGE).collect().filter(symbol=symbol)
        found = dict(frame.select("session", "state").iter_rows())
        return "".join(found.get(day, ".")[0] for day in SESSIONS[: len(KEYS) - 1])


@pytest.fixture
def market(tmp_path: Path, exchange_url: str) -> Iterator[Market]:
    with dg.DagsterInstance.ephemeral() as instance, warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield Market(tmp_path / "root", exchange_url, instance)


@pytest.mark.long
def test_a_year_in_one_run_and_day_by_day_are_the_same(market: Market) -> None:
    """What a session was expected to have does not depend on how much was computed at once."""
    market.ingest(KEYS[:50])
    at_once = market.store.read(COVERAGE).collect()
    for keys in (KEYS[:9], KEYS[9:11], KEYS[11:12], KEYS[12:50]):
        market.ingest(keys)
    assert_frame_equal(market.store.read(COVERAGE).collect(), at_once)
    states = {symbol: market.states(symbol)[:50] for symbol in ("S00", "S03", "S05", "S07", "NEW")}
    assert states == {
        "S00": "p" * 50,
        "S03": "p" * 10 + "mm" + "p" * 38,
        "S05": "p" * 20 + "m" * 30,
        "S07": "p" * 25 + "." * 25,
        "NEW": "." * 25 + "m" + "p" * 24,
    }


def test_the_run_shows_its_gaps_and_warns_of_them(market: Market) -> None:
    runner = market.ingest(KEYS[:12])
    key = dg.AssetKey(["market_data", "coverage"])
    newest = market.instance.get_latest_materialization_event(key)
    assert newest is not None
    assert newest.asset_materialization is not None
    metadata = newest.asset_materialization.metadata
    assert (metadata["expected_symbols"].value, metadata["gaps"].value) == (12, 1)
    assert "| S03 | missing | 2 |" in str(metadata["newest_gaps"].value)
    assert str(metadata["picture"].value).startswith("![picture](data:image/png;base64,")
    (told,) = runner.tally.checks_failed["market_data/coverage:covered"]
    assert f"{KEYS[11]} has no bar for 1 of 12 expected symbols (S03)" in told


def test_only_the_freshness_job_judges_by_the_clock(market: Market) -> None:
    """A backfill is not told in every run that its newest session is missing, and turns nothing green."""
    runner = market.ingest(KEYS[:40])
    assert "market_data/bars:fresh" not in runner.tally.checks_failed
    stale = market.freshness()
    assert not stale.passed
    assert f"{KEYS[-2]} is due, the newest stored session is {KEYS[39]}" in str(stale.description)
    assert not market.store.exists(BARS, KEYS[40])
    market.ingest(KEYS[40:-1])
    assert market.freshness().passed
    assert market.store.partitions(RAW_BARS) == KEYS[:-1]
