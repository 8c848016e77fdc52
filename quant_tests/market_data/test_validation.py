"""Every rule on a row that breaks it and on the nearest row that does not."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from quant_assets.market_data.validation import REMEDIES
from quant_tests.market_data.deliveries import SESSIONS, action, bar, gated, steady

T = SESSIONS[5]
CALM = [100.0, 100.5, 99.8, 100.2, 100.1]


def verdicts(rows: list[dict[str, Any]], actions: list[dict[str, Any]] | None = None) -> list[str]:
    """Rules of the quarantined rows in order of session and symbol."""
    result = gated(rows, actions or [])
    assert result.bars.height + result.quarantine.height == len(rows)
    return result.quarantine["rule"].to_list()


def judged(**sent: Any) -> list[str]:
    close = sent.pop("close", 100.0)
    return verdicts([*steady("AAA", CALM), bar("AAA", T, close, **sent)])


@pytest.mark.parametrize(
    ("sent", "rule"),
    [
        ({"close": None}, "missing_price"),
        ({"open": math.nan}, "missing_price"),
        ({"high": math.inf}, "missing_price"),
        ({"low": 0.0}, "non_positive_price"),
        ({"close": -100.0, "open": 100.0, "high": 101.0, "low": -101.0}, "non_positive_price"),
        ({"high": 99.0, "low": 101.0}, "high_below_low"),
        ({"open": 101.02, "high": 101.0}, "outside_high_low"),
        ({"low": 100.5, "high": 101.0, "open": 100.7}, "outside_high_low"),
        ({"volume": None}, "bad_volume"),
        ({"volume": -1.0}, "bad_volume"),
        ({"volume": math.nan}, "bad_volume"),
        ({"volume": 0.0, "close": 101.0}, "zero_volume"),
        ({"high": 1000.0}, "misplaced_decimal"),
        ({"low": 1.0}, "misplaced_decimal"),
        ({"volume": math.inf}, "bad_volume"),
        ({"open": -math.inf}, "missing_price"),
        ({"bar_time": datetime(1970, 1, 1, tzinfo=UTC)}, "not_a_session"),
        ({"bar_time": datetime(9999, 12, 31, tzinfo=UTC)}, "not_a_session"),
        ({"bar_time": bar("AAA", SESSIONS[4], 1.0)["bar_time"]}, "not_a_session"),
    ],
)
def test_broken_row_goes_to_quarantine(sent: dict[str, Any], rule: str) -> None:
    assert judged(**sent) == [rule]


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"open": 101.004},  # a cent's rounding outside [low, high]
        {"vwap": None, "trade_count": None},
        {"vwap": math.nan},
        {"bar_time": None},
        {"volume": 0.0, "open": 100.1, "high": 100.1, "low": 100.1, "close": 100.1},
        {"low": 15.0},  # 2015-08-24 had real lows at a sixth of the open
        {"close": 129.0, "high": 130.0},
        {"close": 71.0, "low": 70.0},
    ],
)
def test_row_at_the_edge_of_a_rule_is_kept(sent: dict[str, Any]) -> None:
    assert judged(**sent) == []


def test_quarantine_explains_itself() -> None:
    rows = [*steady("AAA", CALM), bar("AAA", T, 100.0, high=99.0, low=101.0)]
    row = gated(rows).quarantine.row(0, named=True)
    assert row["symbol"] == "AAA"
    assert row["session"] == T
    assert "high 99.0" in row["detail"]
    assert "low 101.0" in row["detail"]
    assert row["remedy"] == REMEDIES["high_below_low"]
    assert row["high"] == 99.0


@pytest.mark.parametrize(
    "symbol", ["../etc", "../../A", "BTC/USD", "A\\B", "a b", "A\n", "", None, "aaa", "A" * 20, "Ä"]
)
def test_malformed_symbol(symbol: str | None) -> None:
    assert verdicts([bar("AAA", T, 10.0), bar(symbol, T, 10.0)]) == ["malformed_symbol"]


@pytest.mark.parametrize("symbol", ["A", "BRK.B", "BF-B", "ABR.PRD", "X1"])
def test_symbols_that_exchanges_list(symbol: str) -> None:
    assert verdicts([bar(symbol, T, 10.0)]) == []


def test_exact_duplicate_is_kept_once() -> None:
    result = gated([bar("AAA", T, 10.0), bar("AAA", T, 10.0), bar("AAA", T, 10.0)])
    assert result.quarantine["rule"].to_list() == ["duplicate", "duplicate"]
    assert result.bars["close"].to_list() == [10.0]


def test_conflicting_duplicates_are_all_rejected() -> None:
    result = gated([bar("AAA", T, 10.0), bar("AAA", T, 10.0), bar("AAA", T, 10.1)])
    assert result.quarantine["rule"].to_list() == ["conflicting_duplicate"] * 3
    assert result.bars.is_empty()


def test_row_of_a_weekend_is_rejected_under_the_next_session() -> None:
    friday, monday = SESSIONS[3], SESSIONS[4]
    assert monday - friday == timedelta(days=3)
    weekend = bar("AAA", monday, 100.0)
    weekend["bar_time"] -= timedelta(days=1)
    rows = [bar("AAA", friday, 100.0), bar("AAA", monday, 100.5), weekend]
    assert verdicts(rows) == ["not_a_session"]


def test_prices_without_positive_average_have_none() -> None:
    result = gated([bar("AAA", T, 10.0, vwap=0.0), bar("BBB", T, 10.0, vwap=math.nan)])
    assert result.bars["vwap"].to_list() == [None, None]


# Jumps beyond 30 %: news, wrong instruments, missed splits, late and false actions.
LEVEL = [100.0 + (n % 3) * 0.5 for n in range(25)]


def around(close: float, sessions: int) -> list[float]:
    """A level that moves by half a percent, since no market repeats a day."""
    return [close * (1 + 0.005 * (n % 3)) for n in range(sessions)]


def level_rules(
    after: list[float | None],
    volumes: list[float] | None = None,
    actions: list[dict[str, Any]] | None = None,
    **first: float,
) -> dict[int, str]:
    """Rule by place in `after` (0 is the first row after 25 calm sessions; `first` replaces its values)."""
    calm = steady("AAA", LEVEL)
    rows = steady("AAA", after, start=25)
    given = volumes or [1_000_000.0] * len(rows)
    rows = [row | {"volume": volume} for row, volume in zip(rows, given, strict=True)]
    rows[0] |= first
    result = gated([*calm, *rows], actions or [])
    assert result.bars.height + result.quarantine.height == len(calm) + len(rows)
    return {
        SESSIONS.index(row["session"]) - 25: row["rule"]
        for row in result.quarantine.iter_rows(named=True)
    }


@pytest.mark.parametrize("close", [62.0, 45.0, 155.0])
def test_jump_with_the_volume_of_news_is_kept(close: float) -> None:
    assert level_rules([close, close * 1.01, close * 0.99], [6e6, 3e6, 2e6]) == {}


def test_crash_that_began_near_the_old_level_needs_less_volume() -> None:
    crash = [62.0, 61.0, 63.0]
    assert level_rules(list(crash), [2.1e6, 2e6, 1e6], open=95.0, high=96.0) == {}
    assert sorted(level_rules(list(crash), [1.5e6, 2e6, 1e6], open=95.0, high=96.0)) == [0, 1, 2]


def test_jump_with_one_sign_of_news_waits_for_days() -> None:
    gap = level_rules(list(around(62.0, 8)), [2.5e6] * 8)
    assert gap == dict.fromkeys(range(5), "return_outlier")


def test_crash_to_half_with_ordinary_trading_looks_like_a_split() -> None:
    assert set(level_rules(list(around(50.0, 5)), [6e6] * 5).values()) == {"suspected_missed_split"}
    # Net of a split there would still be five times the usual trading.
    assert level_rules(list(around(50.0, 5)), [12e6] * 5) == {}
    # A split shows from the open on.
    assert level_rules(list(around(50.0, 5)), [3e6] * 5, open=92.0, high=93.0) == {}


def test_wrong_instrument_is_rejected_until_the_level_comes_back() -> None:
    wrong = [1e5, 1e5, 1e5, 1e6, 1e6]
    found = level_rules([44.0, 44.2, 43.9, 100.3, 100.1], wrong)
    assert found == {0: "return_outlier", 1: "return_outlier", 2: "return_outlier"}


def test_wrong_row_of_one_session_does_not_reject_the_right_one_after_it() -> None:
    assert list(level_rules([24.0, 100.2], [1e4, 1e6])) == [0]


def test_old_level_comes_back_after_a_wrong_one_that_looked_like_news() -> None:
    """Another instrument with heavy volume is taken for news, but must not keep the right rows out."""
    found = level_rules([43.0, 43.2, 42.9, 100.3, 100.1, 99.9], [9e6] * 3 + [1e6] * 3)
    assert found == {}


def test_dividend_after_a_wrong_row_does_not_keep_the_old_level_out() -> None:
    """The dividend's factor is measured on the wrong close, and is nonsense."""
    paid = action("AAA", SESSIONS[26], "cash_dividend", cash=0.5)
    assert level_rules([1.0, 100.2, 100.4], actions=[paid]) == {0: "misplaced_decimal"}


@pytest.mark.parametrize("ratio", [2.0, 3.0, 5.0, 20.0])
def test_missed_split_is_named_and_held_back_in_spite_of_its_volume(ratio: float) -> None:
    found = level_rules(list(around(100.4 / ratio, 22)), [3e6 * ratio] * 22)
    assert found == dict.fromkeys(range(20), "suspected_missed_split")


@pytest.mark.parametrize("ratio", [2.0, 10.0])
def test_missed_reverse_split_is_named(ratio: float) -> None:
    found = level_rules([100.4 * ratio, 100.9 * ratio], [1e6 / ratio] * 2)
    assert found == dict.fromkeys(range(2), "suspected_missed_split")


@pytest.mark.parametrize("shift", [100.0, 1000.0, 0.01, 0.001])
def test_misplaced_decimal_point_is_named_however_much_was_traded(shift: float) -> None:
    found = level_rules([100.4 * shift, 100.2 * shift, 100.3], [9e6, 1e6, 1e6])
    assert found == dict.fromkeys(range(2), "misplaced_decimal")


def test_level_without_explanation_is_accepted_after_twenty_sessions() -> None:
    found = level_rules(list(around(44.0, 30)))
    assert sorted(found) == list(range(20))


def test_level_that_hardly_trades_is_held_back_for_half_a_year() -> None:
    """Another instrument for months: five months of a preferred share under a company's ticker."""
    found = level_rules(list(around(25.5, 125)), [5e4] * 125)
    assert sorted(found) == list(range(120))


def test_thin_level_that_comes_again_is_still_thin() -> None:
    """The vendor's mapping flips back for a few days; the second spell follows mostly wrong rows."""
    after = [*around(24.0, 40), *around(100.0, 4), *around(24.0, 30), *around(101.0, 4)]
    volumes = [*[5e4] * 40, *[1e6] * 4, *[5e4] * 30, *[1e6] * 4]
    found = level_rules(list(after), volumes)
    assert sorted(found) == [*range(40), *range(44, 74)]


def test_recorded_split_is_no_outlier() -> None:
    split = action("AAA", SESSIONS[25], "forward_split", ratio=2.0)
    assert level_rules([50.1, 50.3], actions=[split]) == {}


def test_split_that_the_price_never_follows_is_not_applied() -> None:
    split = action("AAA", SESSIONS[25], "forward_split", ratio=2.0)
    rows = [*steady("AAA", LEVEL), *steady("AAA", [100.1, 100.2, 100.3], start=25)]
    result = gated(rows, [split])
    assert result.quarantine["rule"].to_list() == ["action_not_followed"]
    assert set(result.bars["price_factor"]) == {1.0}
    assert "did not follow" in result.unapplied["problem"][0]


def test_split_that_the_price_follows_a_session_late_is_applied_there() -> None:
    split = action("AAA", SESSIONS[25], "forward_split", ratio=2.0)
    rows = [*steady("AAA", LEVEL), *steady("AAA", [100.1, 50.2, 50.3], start=25)]
    result = gated(rows, [split])
    assert result.quarantine["rule"].to_list() == ["action_not_followed"]
    factors = result.bars.filter(pl.col("price_factor") != 1.0)
    assert factors["session"].to_list() == [SESSIONS[26]]
    assert factors["price_factor"].to_list() == [0.5]
    assert factors["volume_factor"].to_list() == [2.0]


@pytest.mark.parametrize("kind", ["merger", "rights_distribution", "other"])
def test_action_of_unknown_effect_explains_a_jump(kind: str) -> None:
    assert level_rules([44.0], [1e5], [action("AAA", SESSIONS[25], kind)]) == {}


def test_another_symbols_action_explains_nothing() -> None:
    other = action("BBB", SESSIONS[25], "forward_split", ratio=2.0)
    assert list(level_rules([50.1], [1e5], [other])) == [0]


def test_quarantined_ex_date_does_not_lose_the_split() -> None:
    split = action("AAA", SESSIONS[25], "forward_split", ratio=2.0)
    rows = steady("AAA", LEVEL)
    rows += [bar("AAA", SESSIONS[25], 50.1, volume=-1.0), bar("AAA", SESSIONS[26], 50.2)]
    result = gated(rows, [split])
    assert result.quarantine["rule"].to_list() == ["bad_volume"]
    assert result.bars.filter(session=SESSIONS[26])["price_factor"].to_list() == [0.5]
