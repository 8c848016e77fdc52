"""Partition definitions and mappings, walked through the weeks in which calendars go wrong."""

from __future__ import annotations

from datetime import UTC, date, datetime

import dagster as dg
import pytest

from quant_assets import partitions
from quant_assets.definitions import build_defs
from quant_assets.features.schemas import LABEL_TABLES
from quant_assets.market_span import (
    MarketSpan,
    default_span,
    market_span,
    remember_span,
    remembered_span,
)
from quant_assets.partitions import partitions_for
from quant_resources.calendar import XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings

SPAN = MarketSpan(
    first_session=date(2022, 1, 3),
    last_session=date(2024, 1, 12),
    first_trading_session=date(2023, 11, 1),
)
MARKET = partitions_for(SPAN)


def upstream(
    mapping: dg.TimeWindowPartitionMapping,
    key: str,
    downstream: dg.TimeWindowPartitionsDefinition,
    source: dg.TimeWindowPartitionsDefinition = MARKET.session,
) -> list[str]:
    subset = downstream.empty_subset().with_partition_keys([key])
    mapped = mapping.get_upstream_mapped_partitions_result_for_partitions(
        subset, downstream, source
    )
    return list(mapped.partitions_subset.get_partition_keys())


def test_thanksgiving_week_has_a_half_day_and_no_thursday() -> None:
    keys = [
        key for key in MARKET.session.get_partition_keys() if "2023-11-20" <= key <= "2023-11-28"
    ]
    assert keys == [
        "2023-11-20", "2023-11-21", "2023-11-22", "2023-11-24", "2023-11-27", "2023-11-28",
    ]  # fmt: skip
    assert XNYS.close(date(2023, 11, 24)) == datetime(2023, 11, 24, 18, tzinfo=UTC)
    assert XNYS.close(date(2023, 11, 22)) == datetime(2023, 11, 22, 21, tzinfo=UTC)


def test_every_key_is_a_session_and_every_session_a_key() -> None:
    expected = [day.isoformat() for day in XNYS.sessions(SPAN.first_session, date(2024, 1, 12))]
    assert MARKET.session.get_partition_keys() == expected
    assert MARKET.labelled_session(2).get_partition_keys() == expected[:-2]
    assert MARKET.trading_session.get_partition_keys() == [k for k in expected if k >= "2023-11-01"]


@pytest.mark.parametrize("last", [date(2025, 1, 17), date(2025, 1, 22), date(2024, 11, 29)])
def test_a_holiday_after_the_last_session_is_no_partition(last: date) -> None:
    """Martin Luther King's day once became the last labelled session."""
    market = partitions_for(SPAN.model_copy(update={"last_session": last}))
    sessions = XNYS.sessions(SPAN.first_session, last)
    assert market.session.get_partition_keys()[-1] == last.isoformat()
    assert market.labelled_session(2).get_partition_keys()[-1] == sessions[-3].isoformat()


def test_a_trading_session_knows_the_session_before_it_over_weekends_and_holidays() -> None:
    previous = partitions.previous()
    assert upstream(previous, "2023-11-24", MARKET.trading_session) == ["2023-11-22"]
    assert upstream(previous, "2023-11-27", MARKET.trading_session) == ["2023-11-24"]
    assert upstream(previous, "2024-01-02", MARKET.trading_session) == ["2023-12-29"]


def test_trailing_windows_count_sessions_and_are_cut_at_the_start() -> None:
    window = upstream(partitions.trailing(60), "2023-11-27", MARKET.session)
    assert len(window) == 61
    assert window[-1] == "2023-11-27"
    assert upstream(partitions.trailing(60), "2022-01-04", MARKET.session) == [
        "2022-01-03",
        "2022-01-04",
    ]


def test_a_model_knows_nothing_of_its_own_month() -> None:
    window = upstream(partitions.months_before(36), "2023-12-01", MARKET.month)
    assert window[-1] == "2023-11-30"
    assert window[0] == "2022-01-03"


def test_months_begin_when_a_model_can_be_trained_and_hold_the_last_session() -> None:
    months = MARKET.month.get_partition_keys()
    assert months[0] == SPAN.first_model_month.isoformat()
    assert len(XNYS.sessions(SPAN.first_session, SPAN.first_model_month)) >= 252
    assert months[-1] == "2024-01-01"


def test_labels_look_ahead_and_only_labels_do() -> None:
    window = upstream(partitions.ahead(2), "2023-11-22", MARKET.labelled_session(2))
    assert window == ["2023-11-22", "2023-11-24", "2023-11-27"]


@pytest.mark.parametrize("horizon", [table.horizon for table in LABEL_TABLES])
@pytest.mark.parametrize("last", [date(2024, 1, 12), date(2023, 12, 26), date(2023, 11, 24)])
def test_labels_reach_over_the_holidays_after_their_last_session(horizon: int, last: date) -> None:
    """Labels of 20 sessions stopped before Christmas had no sale: holidays after the last partition were counted."""
    market = partitions_for(SPAN.model_copy(update={"last_session": last}))
    labelled = market.labelled_session(horizon)
    sessions = [day.isoformat() for day in XNYS.sessions(SPAN.first_session, last)]
    assert labelled.get_partition_keys() == sessions[:-horizon]
    for place in range(len(sessions) - 2 * horizon, len(sessions) - horizon):
        window = upstream(partitions.ahead(horizon), sessions[place], labelled, market.session)
        assert window == sessions[place : place + horizon + 1]
    # And back: what a restated bar makes stale.
    for place in range(len(sessions) - horizon, len(sessions)):
        reached = partitions.ahead(horizon).get_downstream_partitions_for_partitions(
            market.session.empty_subset().with_partition_keys([sessions[place]]),
            market.session,
            labelled,
        )
        assert list(reached.get_partition_keys()) == sessions[place - horizon : -horizon]


def test_a_market_shorter_than_a_horizon_has_no_label_yet() -> None:
    last = XNYS.offset(SPAN.first_session, 10)
    short = MarketSpan(
        first_session=SPAN.first_session,
        last_session=last,
        first_trading_session=last,
    )
    market = partitions_for(short)
    assert market.labelled_session(21).get_partition_keys() == []
    assert len(market.labelled_session(6).get_partition_keys()) == 11 - 6


def test_an_open_market_follows_the_wall_clock() -> None:
    market = partitions_for(SPAN.model_copy(update={"last_session": None}))
    monday = datetime(2024, 7, 8, 12, tzinfo=UTC)
    closed = market.session.get_partition_keys(monday)
    assert closed[-1] == "2024-07-05"
    # July 4 is no session; the current session trades already.
    assert "2024-07-04" not in closed
    assert market.trading_session.get_partition_keys(monday)[-1] == "2024-07-08"
    assert market.labelled_session(2).get_partition_keys(monday)[-1] == "2024-07-02"
    assert market.labelled_session(21).get_partition_keys(monday)[-1] == "2024-06-04"
    assert market.month.get_partition_keys(monday)[-1] == "2024-07-01"


def test_ranges_are_snapped_to_sessions_of_the_market() -> None:
    keys = partitions.snapped(date(2023, 11, 23), date(2023, 11, 26), SPAN)
    assert keys == ["2023-11-24"]
    with pytest.raises(ConfigurationError, match="no session between"):
        partitions.snapped(date(2023, 11, 25), date(2023, 11, 26), SPAN)


def test_the_data_root_remembers_its_span(tmp_path) -> None:
    assert remembered_span(tmp_path) is None
    remember_span(tmp_path, SPAN)
    assert remembered_span(tmp_path) == SPAN
    (tmp_path / "market.json").write_text('{"first_session": "2023-07-04"}')
    with pytest.raises(ConfigurationError, match="damaged"):
        remembered_span(tmp_path)


def test_a_data_root_keeps_its_dividend_convention(tmp_path) -> None:
    """One history cannot mix two: WIKI's factors differ from CRSP's by up to 0.2 %."""
    crsp, wiki = (
        load_settings(data_root=tmp_path, dividend_convention=name) for name in ("crsp", "wiki")
    )
    assert market_span(wiki).dividend_convention == "wiki"
    assert market_span(crsp) == default_span()
    (tmp_path / "market.json").write_text(
        '{"first_session": "2022-01-03", "last_session": null, "first_trading_session": "2023-11-01"}'
    )
    # Made before there was a choice.
    assert market_span(crsp).dividend_convention == "crsp"
    with pytest.raises(ConfigurationError, match="convention crsp, but QUANT_DIVIDEND_CONVENTION"):
        market_span(wiki)
    remember_span(tmp_path, SPAN.model_copy(update={"dividend_convention": "wiki"}))
    assert market_span(wiki).first_session == SPAN.first_session
    with pytest.raises(ConfigurationError, match="is crsp; unset it or"):
        build_defs(crsp)
