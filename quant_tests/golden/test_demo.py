"""The whole platform, end to end: what a new user's first command leaves behind."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import ClassVar

import polars as pl
import pytest
from sqlalchemy import text

from quant_assets.cli.exchange import advance_to
from quant_assets.cli.platform import running_platform
from quant_assets.definitions import all_tables, build_defs
from quant_assets.features.schemas import LABEL_TABLES
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.market_span import default_span
from quant_assets.models.schemas import ALPHA158_LIGHTGBM
from quant_assets.orders.schemas import ACCOUNT, FILLS, TARGET_PORTFOLIO
from quant_assets.partitions import partitions_for
from quant_assets.performance.schemas import DAILY_PNL
from quant_assets.signals.discovery import discover
from quant_assets.signals.strategy import Strategy
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.exchange.control import ExchangeControl
from quant_resources.store import Store
from quant_tests.golden.conftest import FinishedDemo, assert_one_order_per_intent

SPAN = default_span()


def shown(output: str, label: str) -> str:
    """The value beside a label of the printed table."""
    found = re.search(rf"│\s*{re.escape(label)}\s*│\s*(.*?)\s*│", output)
    assert found, f"{label!r} is not in:\n{output}"
    return found.group(1)


def test_it_prints_what_happened(demo: FinishedDemo) -> None:
    assert shown(demo.output, "Sessions traded") == "10"
    label = "Intents / refused by limits / expired unsent"
    intents, refused, expired = shown(demo.output, label).split(" / ")
    orders, fills = shown(demo.output, "Orders / fills").split(" / ")
    assert int(orders.replace(",", "")) > 100
    assert int(fills.replace(",", "")) >= int(orders.replace(",", "")) * 0.9
    assert int(intents.replace(",", "")) >= int(orders.replace(",", ""))
    assert int(intents.replace(",", "")) == sum(
        int(number.replace(",", "")) for number in (orders, refused, expired)
    )
    assert "not defined" not in demo.output


def test_the_model_finds_most_of_the_planted_signal(demo: FinishedDemo) -> None:
    planted = float(shown(demo.output, "Planted IC of the market"))
    found = float(shown(demo.output, "Model IC, out of sample"))
    assert 0.03 < planted < 0.2
    assert 0.5 * planted < found < 1.2 * planted


def test_every_partition_of_every_table_is_there(demo: FinishedDemo) -> None:
    partitions, store = partitions_for(SPAN), Store(demo.root)
    for table in all_tables(discover()):
        definition = partitions.of(table)
        if definition is None:
            assert store.exists(table), table.path
        else:
            assert store.partitions(table) == definition.get_partition_keys(), table.path


def test_the_exchange_has_exactly_one_order_per_intent(demo: FinishedDemo) -> None:
    assert_one_order_per_intent(demo.settings)


def test_every_fill_leads_back_to_a_signal_and_a_model_version(demo: FinishedDemo) -> None:
    with running_platform(demo.settings, SPAN) as platform, platform.ledger.begin() as ledger:
        fills = ledger.execute(text("SELECT count(*) FROM fills")).scalar_one()
        traced = ledger.execute(
            text(
                """
                SELECT count(DISTINCT f.execution_id)
                FROM fills f
                JOIN orders o USING (broker_order_id)
                JOIN order_intents i ON i.client_order_id = o.client_order_id
                JOIN intent_signals s ON s.client_order_id = i.client_order_id
                WHERE s.model_version <> ''
                """
            )
        ).scalar_one()
        versions = set(ledger.scalars(text("SELECT DISTINCT model_version FROM intent_signals")))
        registered = set(ledger.scalars(text("SELECT model_version FROM models")))
    assert fills == traced > 0
    trained = {version for version in versions if version.startswith("alpha158_lightgbm")}
    assert trained
    assert trained <= registered


def test_profit_and_loss_is_the_change_of_equity(demo: FinishedDemo) -> None:
    store = Store(demo.root)
    account = store.read(ACCOUNT).collect().sort("trading_session")
    booked = (
        store.read(DAILY_PNL).group_by("trading_session").agg(pl.col("pnl").sum()).collect()
    ).sort("trading_session")
    change = account.get_column("equity") - account.get_column("previous_equity").fill_null(
        account.get_column("equity")[0]
    )
    difference = (booked.get_column("pnl") - change).abs().max()
    assert isinstance(difference, float)
    assert difference < 0.05


def test_nothing_was_known_too_early(demo: FinishedDemo) -> None:
    store = Store(demo.root)
    models = store.read(ALPHA158_LIGHTGBM).collect()
    assert (models.get_column("training_last_session") < models.get_column("month")).all()
    for table in LABEL_TABLES:
        labels = store.read(table, columns=["session", "known_session"]).unique().collect()
        later = [XNYS.offset(day, table.horizon) for day in labels.get_column("session")]
        assert labels.get_column("known_session").to_list() == later
    first = store.read(UNIVERSE, columns=["session"]).collect().get_column("session").min()
    assert isinstance(first, date)
    bars = store.read(BARS, columns=["session"]).collect().get_column("session").unique()
    assert (bars < first).sum() >= 59


def test_a_second_demo_sends_nothing_and_shows_the_results_again(demo: FinishedDemo) -> None:
    with running_platform(demo.settings, SPAN) as platform:
        before = len(ExchangeControl(str(platform.exchange_url)).audit())
    again = demo.quant("demo")
    assert again.returncode == 0, again.stderr
    assert shown(again.stdout, "Profit and loss") == shown(demo.output, "Profit and loss")
    with running_platform(demo.settings, SPAN) as platform:
        assert len(ExchangeControl(str(platform.exchange_url)).audit()) == before


def test_an_order_is_explained_down_to_its_bar(demo: FinishedDemo) -> None:
    with running_platform(demo.settings, SPAN) as platform, platform.ledger.begin() as ledger:
        order = ledger.execute(
            text(
                "SELECT f.execution_id FROM fills f JOIN orders o USING (broker_order_id) "
                "JOIN intent_signals s ON s.client_order_id = o.client_order_id "
                "WHERE s.strategy = 'ml_ranker' AND s.score IS NOT NULL "
                "ORDER BY f.execution_id LIMIT 1"
            )
        ).scalar_one()
    told = demo.quant("explain", order, "--json")
    assert told.returncode == 0, told.stderr
    document = json.dumps(json.loads(told.stdout))
    for word in ("intent", "alpha158_lightgbm", "ml_ranker", "observed_at", "close"):
        assert word in document


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("status",), "orders/fills"),
        (("orders",), "attempt 1, paper"),
        (("orders", "--json"), "client_order_id"),
        (("limits",), "gross_exposure"),
        (("report",), "Report of"),
        (("signals", "--json"), "ml_ranker"),
        (("models", "list", "--json"), "alpha158_lightgbm"),
        (("exchange", "status"), "stochastic market of 100 symbols"),
        (("market", "show"), SPAN.first_session.isoformat()),
        (("db", "url"), "export DAGSTER_HOME="),
    ],
)
def test_the_other_commands_answer(
    demo: FinishedDemo, arguments: tuple[str, ...], expected: str
) -> None:
    result = demo.quant(*arguments)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout


def test_every_table_is_proved_to_know_nothing_of_the_future(demo: FinishedDemo) -> None:
    """Every table that is computed, on one session each: cut, computed again, the same."""
    proved = demo.quant("prove", "--sessions", "1")
    assert proved.returncode == 0, proved.stdout + proved.stderr
    assert "nothing depends on the future" in " ".join(proved.stdout.split())
    for table in all_tables(discover()):
        assert table.path in proved.stdout


def test_the_tear_sheet_stands_by_itself(demo: FinishedDemo) -> None:
    sheet = (demo.root / "performance/report/latest.html").read_text()
    assert "<script src=" not in sheet
    assert "ml_ranker" in sheet


class AsksForTooMuch(Strategy):
    """Reads a column that no table has."""

    name = "asks_for_too_much"
    version = "1"
    features: ClassVar[Mapping[str, tuple[str, ...]]] = {"features/technical": ("rsi_41",)}

    def signals(self, universe: pl.DataFrame) -> pl.DataFrame:
        """Never reached."""
        return universe


def test_definitions_load_on_the_finished_root(demo: FinishedDemo) -> None:
    graph = build_defs(demo.settings).resolve_asset_graph()
    assert len(graph.executable_asset_keys) == len(all_tables(discover()))


def test_a_broken_strategy_fails_alone_and_the_others_trade_the_next_session(
    demo: FinishedDemo,
) -> None:
    """Goes beyond the demo's last session, so it comes last."""
    session = XNYS.next(SPAN.sessions()[-1])
    with running_platform(demo.settings.model_copy(update={"trading_mode": "paper"})) as platform:
        platform.strategies = (*platform.strategies, AsksForTooMuch())
        platform.reach(session)
        control = ExchangeControl(str(platform.exchange_url))
        with platform.graph(lambda _label, _done: None) as runner:
            day = platform.trading_day(runner)
            advance_to(control, datetime.combine(session, time(7), NEW_YORK))
            day.learn_until(XNYS.previous(session))
            advance_to(control, datetime.combine(session, time(9), NEW_YORK))
            day.trade(session)
            advance_to(control, datetime.combine(session, time(18), NEW_YORK))
            day.settle(session)
    failed = "\n".join(runner.tally.failed_steps)
    assert "signals/asks_for_too_much" in failed
    assert "rsi_41" in failed
    assert "rsi_14" in failed
    assert "ml_ranker failed" not in failed
    targets = platform.store.read(TARGET_PORTFOLIO, [session.isoformat()]).collect()
    assert {"ml_ranker", "enhanced_momentum"} <= set(targets.get_column("strategy"))
    fills = platform.store.read(FILLS, [session.isoformat()]).collect()
    assert fills.height > 0
