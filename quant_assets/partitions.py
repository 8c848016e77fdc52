"""All partition definitions and the mappings between them: the point-in-time rule made visible.

A partition key is the ISO day of the session (of the month's first day). Definitions are built from the
market span of a data root. What a partition holds is declared in each stage's `schemas.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import groupby

import dagster as dg

from quant_assets.market_span import MarketSpan, default_span
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.tables import Grain

TIMEZONE = "America/New_York"
#: Sessions from a signal to the end of its label: bought at the next close, sold at the one after.
LABEL_HORIZON = 2
#: Sessions in one run of a backfill: a year a run bounds memory.
SESSIONS_PER_RUN = 252
_WEEKEND = ("0 0 * * 6", "0 0 * * 0")
_TEN_YEARS = 2520


@dataclass(frozen=True)
class Partitions:
    """The partition definitions of one market.

    Attributes:
        session: Closed sessions; session T can be materialized from midnight after T.
        labelled_session: Closed sessions whose label horizon has closed too.
        trading_session: From the first trading session to the current or next session.
        month: Calendar months that can have a model, the current one included.
    """

    session: dg.TimeWindowPartitionsDefinition
    labelled_session: dg.TimeWindowPartitionsDefinition
    trading_session: dg.TimeWindowPartitionsDefinition
    month: dg.TimeWindowPartitionsDefinition

    def of(self, grain: Grain) -> dg.TimeWindowPartitionsDefinition | None:
        """The definition of a table's grain; None for unpartitioned tables."""
        return None if grain == "none" else getattr(self, grain)


def partitions_for(span: MarketSpan) -> Partitions:
    """Build the partition definitions of a market span.

    A bounded market ends where it ends; an open one follows the wall clock by end offsets.
    """
    first, last = span.first_session, span.last_session
    if last is None:
        return Partitions(
            session=_sessions(first),
            labelled_session=_sessions(first, end_offset=-LABEL_HORIZON),
            trading_session=_sessions(span.first_trading_session, end_offset=1),
            month=dg.MonthlyPartitionsDefinition(
                start_date=_midnight(span.first_model_month), timezone=TIMEZONE, end_offset=1
            ),
        )
    next_month = date(last.year + last.month // 12, last.month % 12 + 1, 1)
    return Partitions(
        session=_sessions(first, last),
        labelled_session=_sessions(first, XNYS.offset(last, -LABEL_HORIZON)),
        trading_session=_sessions(span.first_trading_session, last),
        month=dg.MonthlyPartitionsDefinition(
            start_date=_midnight(span.first_model_month),
            end_date=_midnight(max(next_month, span.first_model_month)),
            timezone=TIMEZONE,
        ),
    )


def same() -> dg.TimeWindowPartitionMapping:
    """The partition of the same session; nothing where the upstream has not begun."""
    return dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


def trailing(count: int) -> dg.TimeWindowPartitionMapping:
    """This session and the `count` sessions before it, cut at the first session of the market."""
    return dg.TimeWindowPartitionMapping(
        start_offset=-count, allow_nonexistent_upstream_partitions=True
    )


def previous() -> dg.TimeWindowPartitionMapping:
    """The session before: what a trading session may know."""
    return dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


def ahead(count: int) -> dg.TimeWindowPartitionMapping:
    """This session and the `count` after it: for labels alone, whose partitions exist only then."""
    return dg.TimeWindowPartitionMapping(end_offset=count)


def everything_until() -> dg.TimeWindowPartitionMapping:
    """This session and ten years back; Dagster walks an offset step by step (0.17 s for these)."""
    return trailing(_TEN_YEARS)


def months_before(count: int) -> dg.TimeWindowPartitionMapping:
    """From a month to the sessions of the `count` months before it, itself excluded."""
    return dg.TimeWindowPartitionMapping(
        start_offset=-count, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )


def snapped(first: date, last: date, span: MarketSpan) -> list[str]:
    """Keys of the sessions between two days, inside the market.

    Raises:
        ConfigurationError: There is no session of this market between the two days.
    """
    latest = span.last_session or XNYS.at_or_before(datetime.now(NEW_YORK).date())
    sessions = XNYS.sessions(max(first, span.first_session), min(last, latest))
    if not sessions:
        raise ConfigurationError(
            f"There is no session between {first} and {last} in this market "
            f"({span.first_session} to {latest})."
        )
    return [session.isoformat() for session in sessions]


def years(keys: Iterable[str]) -> list[list[str]]:
    """Cut ascending keys into as few runs of at most a year of sessions as possible, of like length."""
    ordered = list(keys)
    runs = -(-len(ordered) // SESSIONS_PER_RUN)
    return [
        ordered[len(ordered) * run // runs : len(ordered) * (run + 1) // runs]
        for run in range(runs)
    ]


def stretches(keys: Sequence[str], wanted: set[str]) -> list[list[str]]:
    """The wanted keys, those together that are neighbours in `keys`."""
    grouped = groupby(keys, key=lambda key: key in wanted)
    return [list(neighbours) for is_wanted, neighbours in grouped if is_wanted]


def range_tags(keys: list[str]) -> Mapping[str, str]:
    """Run tags that select a range of partitions (or the one)."""
    return {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }


def _sessions(
    first: date, last: date | None = None, end_offset: int = 0
) -> dg.DailyPartitionsDefinition:
    # The form with cron "0 0 * * 1-5" hides Friday until Monday; exclusions do not.
    # Up to the next session: a holiday right after the last one would count as a session.
    horizon = XNYS.all_sessions[-1] if last is None else XNYS.next(last)
    holidays = [_midnight(day) for day in XNYS.closed_days(first, horizon)]
    return dg.DailyPartitionsDefinition(
        start_date=_midnight(first),
        end_date=None if last is None else _midnight(XNYS.next(last)),
        timezone=TIMEZONE,
        end_offset=end_offset,
        exclusions=[*_WEEKEND, *holidays],
    )


def _midnight(day: date) -> datetime:
    # Dagster wants naive datetimes in the definition's own timezone.
    return datetime.combine(day, time.min)


#: What assets are declared with; `build_defs` puts the data root's own in its place.
DEFAULT = partitions_for(default_span())
