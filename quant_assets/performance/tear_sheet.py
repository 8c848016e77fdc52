"""The tear sheet: one self-contained HTML page about a trading session and all before it.

Belongs here: the page, its tables and its look. Does not belong here: the numbers (`trading_evidence`) and the
charts (`tear_sheet_charts`).

The page loads nothing from anywhere: Plotly is inside it, and a content policy forbids the network. Every text that
comes from data (symbols, reasons, versions) is escaped: a vendor's string is never markup.
"""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Final

import polars as pl
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from quant_assets.performance import tear_sheet_charts as charts
from quant_assets.performance.profit_and_loss import UNATTRIBUTED
from quant_assets.performance.trading_evidence import (
    TradingEvidence,
    account_series,
    reading,
    report_rows,
    stopped_intents,
    strategy_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import plotly.graph_objects as go

ROWS_SHOWN: Final = 250
"""Rows of a table on the page; how many more there are is said below it."""

_STYLE: Final = """
:root { --ink:#172033; --muted:#6b7689; --line:#e6e9ef; --accent:#2457c5; --loss:#c8443c; --gain:#1d8a5f;
        --page:#f4f6fa; --card:#ffffff; }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink);
       font:14px/1.5 Inter,'Segoe UI','Helvetica Neue',Helvetica,Arial,sans-serif;
       font-variant-numeric:tabular-nums; -webkit-font-smoothing:antialiased; }
main { max-width:1240px; margin:0 auto; padding:36px 28px 60px; }
header { display:flex; align-items:flex-end; justify-content:space-between; gap:24px; margin-bottom:26px; }
h1 { margin:0; font-size:28px; letter-spacing:-.02em; line-height:1.2; }
h2 { margin:0 0 2px; font-size:15px; letter-spacing:-.005em; }
.over { color:var(--accent); font-size:12px; font-weight:600; letter-spacing:.09em; text-transform:uppercase; }
.note { margin:0 0 12px; color:var(--muted); font-size:12.5px; }
.pills { display:flex; gap:8px; flex-wrap:wrap; justify-content:flex-end; }
.pill { padding:4px 12px; border:1px solid var(--line); border-radius:99px; background:var(--card);
        font-size:12px; color:var(--muted); white-space:nowrap; }
.pill b { color:var(--ink); font-weight:600; }
.pill.good b { color:var(--gain); } .pill.bad b { color:var(--loss); }
.facts { display:grid; grid-template-columns:repeat(6,1fr); margin-bottom:18px; background:var(--card);
         border:1px solid var(--line); border-radius:12px; overflow:hidden; }
.fact { padding:15px 18px 13px; border-left:1px solid var(--line); border-top:1px solid var(--line);
        margin:-1px 0 0 -1px; }
.fact span { display:block; color:var(--muted); font-size:12px; }
.fact b { font-size:21px; font-weight:600; letter-spacing:-.02em; white-space:nowrap; }
.fact b.undefined { color:var(--muted); font-size:14px; font-weight:400; letter-spacing:0; line-height:31px; }
.grid { display:grid; grid-template-columns:repeat(2,minmax(0,1fr)); gap:18px; }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:18px 20px 14px;
        min-width:0; }
.wide { grid-column:1 / -1; }
.scroll { overflow:auto; max-height:430px; margin:0 -20px -14px; padding:0 20px 14px; }
table { width:100%; border-collapse:collapse; font-size:12.5px; }
th { position:sticky; top:0; background:var(--card); color:var(--muted); font-weight:500; text-align:left;
     padding:7px 14px 7px 0; white-space:nowrap; box-shadow:inset 0 -1px var(--line); }
td { padding:6px 14px 6px 0; border-bottom:1px solid #f0f2f6; vertical-align:top; }
tr:last-child td { border-bottom:0; }
th.number, td.number { text-align:right; white-space:nowrap; }
td.text { overflow-wrap:anywhere; min-width:84px; }
.gain { color:var(--gain); } .loss { color:var(--loss); } .empty { color:var(--muted); }
footer { margin-top:28px; color:var(--muted); font-size:12px; }
@media (max-width:900px) { .grid { grid-template-columns:1fr; } .facts { grid-template-columns:repeat(2,1fr); }
                           header { flex-direction:column; align-items:flex-start; } }
@media print { body { background:white; } .card, .facts { break-inside:avoid; } .scroll { max-height:none; } }
"""

_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)

_FACTS: Final = (
    ("equity", "Equity", False),
    ("daily_pnl", "Profit of the day", True),
    ("daily_return", "Return of the day", True),
    ("total_pnl", "Profit since the start", True),
    ("total_return", "Return since the start", True),
    ("max_drawdown", "Deepest drawdown", True),
    ("sharpe", "Sharpe ratio", False),
    ("gross_exposure", "Gross exposure", False),
    ("net_exposure", "Net exposure", False),
    ("turnover", "Turnover of the day", False),
    ("fills", "Fills of the day", False),
    ("filled_share", "Filled of ordered", False),
)


def tear_sheet(evidence: TradingEvidence) -> str:
    """Render the page.

    Args:
        evidence: What the session left behind.

    Returns:
        A complete HTML document, the same for the same evidence.
    """
    series = account_series(evidence)
    names = {*evidence.backtests, *evidence.daily_pnl.get_column("strategy").to_list()}
    colours = charts.strategy_colours(names - {UNATTRIBUTED})
    cards = [
        _chart(
            "Account and backtests",
            "Growth of 100 over the traded sessions, beside each strategy's backtest of the same sessions.",
            charts.live_equity(series, evidence.backtests, colours),
            wide=True,
        ),
        _card("Strategies", _STRATEGIES_NOTE, _strategies(evidence), wide=True),
        _chart(
            "Profit and loss",
            "Every session by strategy, after costs.",
            charts.daily_profit(evidence.daily_pnl, colours),
        ),
        _chart("Drawdown", "Account below its highest value.", charts.drawdown(series)),
        _chart("Exposure", "Gross and net, fractions of equity.", charts.exposure(series)),
        _chart("Turnover", "Bought and sold over equity.", charts.turnover(series)),
    ]
    if evidence.backtests:
        cards.append(
            _chart(
                "Backtests over all history",
                "After spread, impact and volume limits; the traded sessions are shaded.",
                charts.backtest_history(evidence.backtests, series, colours),
                wide=True,
            )
        )
    if evidence.models.height:
        cards.append(
            _chart(
                "Model skill by month",
                "Mean daily information coefficient on held-out sessions, with its standard error.",
                charts.model_skill(evidence.models),
                wide=True,
            )
        )
    cards += [
        _card("Profit by name", "Sleeves of the session.", _sleeves(evidence), wide=True),
        _card(
            "Stopped orders", "By a limit, the broker or a deadline.", _stopped(evidence), wide=True
        ),
        _card("Checks", "Newest result of each.", _checks(evidence), wide=True),
        _card("Orders", "Newest first.", _orders(evidence), wide=True),
        _card("Fills", "Newest first.", _fills(evidence), wide=True),
    ]
    day = evidence.trading_session
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Tear sheet {day} · {escape(evidence.book)}</title>"
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body><main>"
        f"{_header(evidence, series)}{_facts(evidence)}"
        f'<div class="grid">{"".join(cards)}</div>'
        "<footer>Marks are the broker's closing marks of the session. Backtests trade every signal at the next "
        "open. Nothing on this page is loaded from elsewhere.</footer>"
        "</main></body></html>\n"
    )


_STRATEGIES_NOTE: Final = "Traded so far, then the backtest over all history; Sharpe 63 and rank are of the newest compared session."


def _header(evidence: TradingEvidence, series: pl.DataFrame) -> str:
    day = evidence.trading_session
    today = evidence.account.filter(trading_session=day)
    state = today.item(0, "trading_state") if today.height else "unknown"
    failed = evidence.checks.filter(~pl.col("passed")).height
    stopped = stopped_intents(evidence).filter(trading_session=day).height
    pills = [
        _pill("book", evidence.book),
        _pill("trading", state, "good" if state == "ACTIVE" else "bad"),
        _pill("sessions", f"{series.height}"),
        _pill("stopped orders", f"{stopped}", "bad" if stopped else ""),
        _pill("failed checks", f"{failed}", "bad" if failed else "good"),
    ]
    return (
        f'<header><div><div class="over">Trading session</div><h1>{day:%A, %-d %B %Y}</h1></div>'
        f'<div class="pills">{"".join(pills)}</div></header>'
    )


def _pill(name: str, value: str, tone: str = "") -> str:
    return f'<span class="pill {tone}">{escape(name)} <b>{escape(value)}</b></span>'


def _facts(evidence: TradingEvidence) -> str:
    rows = {row["metric"]: row for row in report_rows(evidence).iter_rows(named=True)}
    facts = []
    for metric, name, signed in _FACTS:
        value, text = rows[metric]["value"], rows[metric]["text"]
        tone = "undefined" if value is None else _tone(value) if signed else ""
        facts.append(
            f'<div class="fact"><span>{escape(name)}</span><b class="{tone}">{escape(text)}</b></div>'
        )
    return f'<section class="facts">{"".join(facts)}</section>'


def _chart(title: str, note: str, figure: go.Figure, wide: bool = False) -> str:
    drawn = to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        config={"displayModeBar": False, "responsive": True},
        # A fixed id instead of a random one: the same evidence is the same page.
        div_id="chart-" + "".join(letter if letter.isalnum() else "-" for letter in title.lower()),
    )
    return _card(title, note, drawn, wide=wide)


def _card(title: str, note: str, content: str, wide: bool = False) -> str:
    return (
        f'<section class="card{" wide" if wide else ""}"><h2>{escape(title)}</h2>'
        f'<p class="note">{escape(note)}</p>{content}</section>'
    )


def _strategies(evidence: TradingEvidence) -> str:
    return _table(
        strategy_metrics(evidence),
        {
            "strategy": ("Strategy", ""),
            "live_pnl": ("Traded P&L", "USD"),
            "live_traded": ("Traded value", "USD"),
            "total_return": ("Total", "%"),
            "annual_return": ("Annual", "%"),
            "annual_volatility": ("Volatility", "%"),
            "sharpe": ("Sharpe", "number"),
            "sortino": ("Sortino", "number"),
            "max_drawdown": ("Drawdown", "%"),
            "calmar": ("Calmar", "number"),
            "win_rate": ("Wins", "%"),
            "profit_factor": ("Profit factor", "number"),
            "turnover": ("Turnover", "%"),
            "information_coefficient": ("IC", "coefficient"),
            "sharpe_63": ("Sharpe 63", "number"),
            "rank": ("Rank", "count"),
        },
        signed=("live_pnl", "total_return", "annual_return"),
        nothing="No strategy has been traded or tested yet.",
    )


def _sleeves(evidence: TradingEvidence) -> str:
    own = evidence.daily_pnl.filter(trading_session=evidence.trading_session)
    return _table(
        own.sort(pl.col("pnl").abs(), "strategy", "symbol", descending=[True, False, False]),
        {
            "strategy": ("Strategy", ""),
            "symbol": ("Symbol", ""),
            "quantity": ("Shares", "quantity"),
            "market_value": ("Market value", "USD"),
            "notional_traded": ("Traded", "USD"),
            "pnl": ("P&L", "USD"),
            "realised_pnl": ("Realised", "USD"),
            "dividends": ("Dividends", "USD"),
            "cost": ("Costs", "USD"),
        },
        signed=("pnl",),
        nothing="Nothing was held.",
    )


def _stopped(evidence: TradingEvidence) -> str:
    return _table(
        stopped_intents(evidence),
        {
            "trading_session": ("Session", ""),
            "symbol": ("Symbol", ""),
            "side": ("Side", ""),
            "quantity": ("Shares", "quantity"),
            "state": ("State", ""),
            "limit_name": ("Limit", ""),
            "reason": ("Reason", ""),
        },
        nothing="No order was stopped.",
    )


def _checks(evidence: TradingEvidence) -> str:
    return _table(
        evidence.checks.sort("passed", "name").with_columns(
            result=pl.when("passed").then(pl.lit("passed")).otherwise(pl.lit("FAILED"))
        ),
        {"name": ("Check", ""), "result": ("Result", ""), "detail": ("What was found", "")},
        nothing="No check was recorded.",
    )


def _orders(evidence: TradingEvidence) -> str:
    return _table(
        evidence.orders.sort("submitted_at", "client_order_id", descending=True),
        {
            "trading_session": ("Session", ""),
            "symbol": ("Symbol", ""),
            "side": ("Side", ""),
            "quantity": ("Shares", "quantity"),
            "filled_quantity": ("Filled", "quantity"),
            "average_fill_price": ("Average price", "price"),
            "status": ("Status", ""),
            "client_order_id": ("Order", ""),
        },
        nothing="No order was sent.",
    )


def _fills(evidence: TradingEvidence) -> str:
    fills = evidence.fills.with_columns(notional=pl.col("quantity") * pl.col("price"))
    return _table(
        fills.sort("filled_at", "execution_id", descending=True),
        {
            "filled_at": ("Time (UTC)", ""),
            "symbol": ("Symbol", ""),
            "side": ("Side", ""),
            "quantity": ("Shares", "quantity"),
            "price": ("Price", "price"),
            "notional": ("Value", "USD"),
            "realised_pnl": ("Realised", "USD"),
            "client_order_id": ("Order", ""),
        },
        signed=("realised_pnl",),
        nothing="Nothing was filled.",
    )


def _table(
    frame: pl.DataFrame,
    columns: Mapping[str, tuple[str, str]],
    signed: Sequence[str] = (),
    nothing: str = "",
) -> str:
    """An HTML table of `columns` (name to heading and unit); `signed` ones are coloured by sign."""
    if not frame.height:
        return f'<p class="empty">{escape(nothing)}</p>'
    head = "".join(
        f'<th class="{"number" if unit else "text"}">{escape(heading)}</th>'
        for heading, unit in columns.values()
    )
    lines = []
    for row in frame.head(ROWS_SHOWN).iter_rows(named=True):
        cells = []
        for name, (_, unit) in columns.items():
            value = row[name]
            tone = _tone(value) if name in signed and value is not None else ""
            kind = "number" if unit else "text"
            cells.append(f'<td class="{kind} {tone}">{escape(_shown(value, unit))}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    more = frame.height - ROWS_SHOWN
    rest = f'<p class="note">{more:,} more rows are in the table.</p>' if more > 0 else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody>'
        f"</table>{rest}</div>"
    )


def _shown(value: object, unit: str) -> str:
    if value is None:
        return "-"
    if not unit:
        return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value)
    number = float(str(value))
    if unit == "USD":
        return reading(number, "USD")
    if unit == "quantity":
        return f"{number:,.9g}"
    formats = {"%": ".1%", "price": ",.4f", "count": ",.0f", "coefficient": ".4f"}
    return format(number, formats.get(unit, ".2f"))


def _tone(value: float) -> str:
    return "gain" if value > 0 else "loss" if value < 0 else ""
