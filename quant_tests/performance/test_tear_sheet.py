"""The tear sheet and the report: complete, self-contained, safe against what data may say."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest

from quant_assets.performance import plots
from quant_assets.performance.schemas import DAILY_PNL, REPORT
from quant_assets.performance.tear_sheet import tear_sheet
from quant_assets.performance.trading_evidence import (
    account_series,
    reading,
    report_rows,
    stopped_intents,
    strategy_metrics,
)

EVIL = '<img src=x onerror="alert(1)">&"\''


class Page(HTMLParser):
    """The tags, attributes and visible text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes, self.words, self._silent = [], [], [], False

    def handle_starttag(self, tag, attrs):  # noqa: D102
        self.tags.append(tag)
        self.attributes += attrs
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag):  # noqa: ARG002, D102
        self._silent = False

    def handle_data(self, data):  # noqa: D102
        if not self._silent:
            self.words.append(data)


@pytest.fixture(scope="module")
def evidence(evidence_of):
    return evidence_of(22, EVIL)


@pytest.fixture(scope="module")
def page(evidence):
    parsed = Page()
    parsed.feed(tear_sheet(evidence))
    return parsed


def test_same_evidence_is_the_same_page(evidence):
    assert tear_sheet(evidence) == tear_sheet(evidence)


def test_text_of_data_is_never_markup(evidence, page):
    assert "img" not in page.tags
    assert EVIL in page.words
    scripts = tear_sheet(evidence).split("</head>")[1]
    assert "<img" not in scripts


def test_page_loads_nothing(page):
    assert not [value for name, value in page.attributes if name in ("src", "href")]
    policies = [value for name, value in page.attributes if name == "content"]
    assert any("default-src 'none'" in policy for policy in policies)


def test_page_tells_the_day(evidence, page):
    told = " ".join(page.words)
    rows = {row["metric"]: row["text"] for row in report_rows(evidence).iter_rows(named=True)}
    for metric in ("equity", "daily_pnl", "total_pnl", "gross_exposure", "filled_share"):
        assert rows[metric] in told
    for title in (
        "Account and backtests",
        "Profit and loss",
        "Drawdown",
        "Exposure",
        "Turnover",
        "Model skill by month",
        "Stopped orders",
        "Checks",
        "Orders",
        "Fills",
    ):
        assert title in page.words
    assert f"{evidence.trading_session:%A, %-d %B %Y}" in page.words


def test_every_chart_is_drawn(page):
    charts = [value for name, value in page.attributes if name == "id"]
    assert len(charts) == len(set(charts)) == 7


def test_first_day_without_anything_is_a_page_too(evidence):
    """No backtest, no model, no fill, no check: what a first dry run leaves."""
    day = evidence.trading_session
    empty = replace(
        evidence,
        account=evidence.account.filter(trading_session=day),
        daily_pnl=evidence.daily_pnl.filter(trading_session=day).filter(strategy="unattributed"),
        positions=evidence.positions.clear(),
        orders=evidence.orders.clear(),
        fills=evidence.fills.clear(),
        intents=evidence.intents.clear(),
        backtests={},
        comparison=evidence.comparison.clear(),
        models=evidence.models.clear(),
        checks=evidence.checks.clear(),
    )
    parsed = Page()
    parsed.feed(tear_sheet(empty))
    assert "No order was sent." in parsed.words
    rows = REPORT.conform(report_rows(empty))
    assert rows.filter(metric="filled_share").item(0, "text") == "not defined yet"
    assert rows.filter(metric="sharpe").item(0, "value") is None


def test_report_is_the_declared_table_and_its_numbers_are_the_account(evidence):
    rows = REPORT.conform(report_rows(evidence))
    values = dict(rows.select("metric", "value").iter_rows())
    account = evidence.account.sort("trading_session")
    change = account["equity"][-1] - account["previous_equity"][0]
    assert values["equity"] == account["equity"][-1]
    assert values["total_pnl"] == pytest.approx(change, abs=1e-4)
    assert values["total_return"] == pytest.approx(change / account["previous_equity"][0])
    today = evidence.daily_pnl.filter(trading_session=evidence.trading_session)
    parts = [value for name, value in values.items() if name.startswith("pnl_")]
    assert sum(parts) == pytest.approx(today["pnl"].sum())
    assert values["unexplained_pnl"] == pytest.approx(0.0, abs=1e-4)


def test_deposit_is_no_return(evidence):
    """Equity that grew without profit leaves the growth as it was."""
    day = evidence.trading_session
    richer = replace(
        evidence,
        account=evidence.account.with_columns(
            pl.when(trading_session=day)
            .then(pl.col("equity") * 2)
            .otherwise("equity")
            .alias("equity")
        ),
    )
    before, after = account_series(evidence), account_series(richer)
    assert after["pnl"].sum() == before["pnl"].sum()
    assert abs(after["growth"][-1] - before["growth"][-2]) <= abs(
        before["growth"][-1] - before["growth"][-2]
    )


def test_sessions_without_profit_and_loss_are_left_out(evidence):
    first = evidence.account["trading_session"].min()
    shorter = replace(
        evidence, daily_pnl=evidence.daily_pnl.filter(pl.col("trading_session") != first)
    )
    assert account_series(shorter).height == account_series(evidence).height - 1


def test_strategies_have_traded_and_tested_numbers(evidence):
    table = strategy_metrics(evidence)
    assert table["strategy"].to_list() == ["enhanced_momentum", "ml_ranker"]
    assert sorted(table["rank"]) == [1, 2]
    live = evidence.daily_pnl.group_by("strategy").agg(pl.col("pnl").sum())
    assert table["live_pnl"][0] == pytest.approx(
        live.filter(strategy="enhanced_momentum").item(0, "pnl")
    )


def test_stopped_orders_are_those_that_a_limit_refused(evidence):
    stopped = stopped_intents(evidence)
    assert stopped.height > 0
    assert stopped["limit_name"].null_count() == 0


def test_numbers_are_read_out_with_their_unit():
    assert reading(-1234.567, "USD") == "-$1,234.57"
    assert reading(-1e-9, "USD") == "$0.00"
    assert reading(0.1234, "%") == "12.34%"
    assert reading(12.0, "count") == "12"
    assert reading(None, "USD") == reading(float("nan"), "%") == "not defined yet"


def test_pictures_are_drawn_without_a_display(evidence, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    path = evidence.backtests["ml_ranker"]
    for figure in (
        plots.backtest_picture(path, "a"),
        plots.account_picture(evidence.account, "b"),
        plots.comparison_picture(evidence.comparison, "c"),
        plots.comparison_picture(evidence.comparison.clear(), "empty"),
    ):
        figure.draw_without_rendering()
        assert re.fullmatch("[abc]|empty", figure.get_suptitle())


def test_evidence_of_the_fixture_is_consistent(evidence):
    """The fixture itself is held to the table and to the law it stands for."""
    assert DAILY_PNL.conform(evidence.daily_pnl).height > 100
