"""What corporate actions do to holdings, orders and cash, and how they are announced."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.requests import CorporateActionsRequest
from alpaca.trading.models import NonTradeActivity

from quant_resources.exchange.markets.market import ACTION_TYPES
from quant_tests.exchange.served import Bar, Served

# ABC splits 2 for 1 on Wednesday, XYZ pays 1.25 on Wednesday, GONE trades for the last time on Tuesday
# and TAKE is bought for 33 in cash on Thursday. The market goes on until Friday the 15th.
_DAYS = ["04", "05", "06", "07", "08", "11", "12", "13", "14", "15"]


def flat(
    symbol: str, price: float, days: list[str] = _DAYS, after: dict[str, float] | None = None
) -> list[Bar]:
    bars: list[Bar] = []
    for day in days:
        price = (after or {}).get(day, price)
        bars.append((symbol, f"2024-03-{day}", price, price, price, price, 1_000_000))
    return bars


_BARS = [
    *flat("ABC", 100.0, after={"06": 50.0}),
    *flat("XYZ", 40.0, after={"06": 38.75}),
    *flat("GONE", 20.0, _DAYS[:2]),
    *flat("TAKE", 30.0, _DAYS[:3]),
    *flat("OLD", 10.0, _DAYS[:3]),
    *flat("NEW", 10.0, _DAYS[3:]),
]


def action(kind: str, symbol: str, day: str, **terms: object) -> dict[str, Any]:
    empty = {"ratio": None, "cash": None, "new_symbol": None}
    return {"symbol": symbol, "ex_date": f"2024-03-{day}", "action_type": kind, **empty, **terms}


_ACTIONS = [
    action("forward_split", "ABC", "06", ratio=2.0),
    action("cash_dividend", "XYZ", "06", cash=1.25),
    action("cash_merger", "TAKE", "07", cash=33.0),
    action("name_change", "OLD", "07", new_symbol="NEW"),
]


@pytest.fixture
def holding(history: Callable[..., Served]) -> Served:
    """Long ABC, GONE, TAKE and OLD, short XYZ, on Tuesday evening."""
    served = history(_BARS, _ACTIONS)
    served.at("2024-03-04 17:00")
    for symbol in ("ABC", "GONE", "TAKE", "OLD"):
        served.submit(symbol, "buy", 100)
    served.submit("XYZ", "sell", 80)
    served.at("2024-03-05 18:00")
    assert Decimal(served.get("/v2/account")["equity"]) == 1_000_000
    return served


def activities(served: Served, kind: str) -> list[dict[str, Any]]:
    found = served.get(f"/v2/account/activities/{kind}")
    for row in found:
        NonTradeActivity(**row)
    return found


def test_a_split_doubles_the_shares_at_midnight_and_changes_no_money(holding: Served) -> None:
    holding.submit(
        "ABC",
        "sell",
        50,
        type="limit",
        limit_price=120,
        time_in_force="gtc",
        client_order_id="old-shares",
    )
    before = holding.get("/v2/account")["equity"]
    holding.at("2024-03-05 23:59")
    assert holding.get("/v2/positions/ABC")["qty"] == "100"
    holding.at("2024-03-06 00:00")
    position = holding.get("/v2/positions/ABC")
    assert (position["qty"], position["avg_entry_price"], position["current_price"]) == (
        "200",
        "50",
        "50",
    )
    assert position["change_today"] == "0"
    order = holding.order("old-shares")
    assert order["status"] == "canceled"
    (split,) = activities(holding, "SPLIT")
    assert (split["symbol"], split["qty"], split["date"]) == ("ABC", "100", "2024-03-06")
    placed = holding.submit("ABC", "sell", 150, client_order_id="new-shares")
    assert placed["position_intent"] == "sell_to_close"
    assert Decimal(before) - 0 == Decimal(1_000_000)


def test_a_dividend_is_paid_at_the_open_and_owed_by_the_short(holding: Served) -> None:
    holding.at("2024-03-06 09:29")
    assert activities(holding, "DIV") == []
    cash = Decimal(holding.get("/v2/account")["cash"])
    holding.at("2024-03-06 09:30")
    (dividend,) = activities(holding, "DIV")
    assert (dividend["net_amount"], dividend["qty"], dividend["per_share_amount"]) == (
        "-100",
        "-80",
        "1.25",
    )
    assert Decimal(holding.get("/v2/account")["cash"]) == cash - 100
    # The price fell by the dividend, so the short seller is as rich as before.
    position = holding.get("/v2/positions/XYZ")
    assert Decimal(position["unrealized_pl"]) == 100


def test_a_long_holder_bought_on_the_ex_date_gets_no_dividend(
    history: Callable[..., Served],
) -> None:
    served = history(_BARS, _ACTIONS)
    served.at("2024-03-06 08:00")
    served.submit("XYZ", "buy", 80)
    served.at("2024-03-08 08:00")
    assert activities(served, "DIV") == []


def test_a_delisted_holding_becomes_cash_at_the_last_close(holding: Served) -> None:
    holding.submit("GONE", "sell", 10, time_in_force="gtc", client_order_id="too-late")
    holding.at("2024-03-06 00:00")
    (activity,) = activities(holding, "REORG")
    assert (activity["symbol"], activity["net_amount"], activity["qty"]) == ("GONE", "2000", "-100")
    assert holding.order("too-late")["status"] == "canceled"
    asset = holding.trading.get_asset("GONE")
    assert (asset.status, asset.tradable) == ("inactive", False)
    with pytest.raises(APIError, match="not active"):
        holding.submit("GONE", "buy", 1)
    assert Decimal(holding.get("/v2/account")["equity"]) == 1_000_000


def test_a_cash_merger_pays_its_price_and_a_rename_moves_the_holding(holding: Served) -> None:
    holding.at("2024-03-07 00:00")
    (merger,) = activities(holding, "MA")
    assert (merger["symbol"], merger["net_amount"]) == ("TAKE", "3300")
    assert {p.symbol: p.qty for p in holding.trading.get_all_positions()} == {
        "ABC": "200",
        "XYZ": "-80",
        "NEW": "100",
    }
    holding.at("2024-03-12 18:00")
    # 3 USD a share of the merger; all else was neutral.
    assert Decimal(holding.get("/v2/account")["equity"]) == 1_000_300


def test_activities_are_unique_ordered_and_paged(holding: Served) -> None:
    holding.at("2024-03-08 00:00")
    everything = holding.get("/v2/account/activities")
    ids = [row["id"] for row in everything]
    assert len(set(ids)) == len(ids) == 10
    assert ids == sorted(ids, key=lambda text: text.split("::")[0], reverse=True)
    paged: list[str] = []
    while True:
        token = {"page_token": paged[-1]} if paged else {}
        page = holding.get("/v2/account/activities", page_size=3, **token)
        paged += [row["id"] for row in page]
        if len(page) < 3:
            break
    assert paged == ids
    of_day = holding.get("/v2/account/activities", date="2024-03-06")
    assert {row["activity_type"] for row in of_day} == {"SPLIT", "DIV", "REORG"}
    kinds = holding.get("/v2/account/activities", activity_types="DIV,SPLIT")
    assert len(kinds) == 2


def test_actions_are_known_from_midnight_of_their_ex_date(holding: Served) -> None:
    def known() -> set[str]:
        request = CorporateActionsRequest(
            start=date(2024, 1, 1), end=date(2024, 12, 31), limit=None
        )
        return {
            row.symbol
            for rows in holding.actions.get_corporate_actions(request).data.values()
            for row in rows
            if hasattr(row, "symbol")
        }

    holding.at("2024-03-05 23:59")
    assert known() == set()
    holding.at("2024-03-06 00:00")
    assert known() == {"ABC", "XYZ"}


def test_every_kind_of_action_parses_raw_and_as_models_whatever_the_page(
    history: Callable[..., Served],
) -> None:
    terms: dict[str, dict[str, object]] = {
        "forward_split": {"ratio": 1.5},
        "reverse_split": {"ratio": 0.1},
        "cash_dividend": {"cash": 0.33},
        "stock_dividend": {"ratio": 1.05},
        "spin_off": {"ratio": 0.25, "new_symbol": "SPUN"},
        "cash_merger": {"cash": 12.5},
        "name_change": {"new_symbol": "XYZ2"},
    }
    assert set(terms) == set(ACTION_TYPES)
    served = history(_BARS, [action(kind, "XYZ", "06", **more) for kind, more in terms.items()])
    served.at("2024-03-08 00:00")
    request = CorporateActionsRequest(start=date(2024, 3, 1), end=date(2024, 3, 31), limit=None)
    modelled = served.actions.get_corporate_actions(request).data
    raw: Any = CorporateActionsClient("k", "s", url_override=served.url, raw_data=True)
    assert (
        set(raw.get_corporate_actions(request)) == {f"{kind}s" for kind in terms} == set(modelled)
    )
    (split,), (stock,), (spun,) = (
        modelled[k] for k in ("forward_splits", "stock_dividends", "spin_offs")
    )
    assert (split.new_rate, split.old_rate, stock.rate) == (3, 2, pytest.approx(0.05))
    assert (spun.new_rate, spun.source_rate, spun.new_symbol) == (1, 4, "SPUN")

    found, token = [], None
    while True:
        more = {"page_token": token} if token else {}
        page = served.get(
            "/v1/corporate-actions", start="2024-03-01", end="2024-03-31", limit=2, **more
        )
        found += [row["id"] for rows in page["corporate_actions"].values() for row in rows]
        token = page["next_page_token"]
        if token is None:
            break
    assert len(set(found)) == len(found) == len(terms)
    only = served.get(
        "/v1/corporate-actions", start="2024-03-01", end="2024-03-31", types="cash_dividend"
    )
    assert list(only["corporate_actions"]) == ["cash_dividends"]
