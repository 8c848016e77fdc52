"""All partition definitions and the mappings between them: the point-in-time rule made visible.

A partition key is the ISO day of the session (of the month's first day). Definitions are built from the
market span of a data root. What a partition holds is declared in each stage's `schemas.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from itertools import groupby

import dagster as dg

from quant_assets.market_span import MarketSpan, default_span
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.tables import Grain, Table

TIMEZONE = "America/New_York"
#: Metadata of an asset: what one of its partitions is, and how many sessions later its rows are known.
GRAIN_METADATA = "quant/grain"
HORIZON_METADATA = "quant/horizon"
#: Sessions in one run of a backfill: a year a run bounds memory.
SESSIONS_PER_RUN = 252
_WEEKEND = ("0 0 * * 6", "0 0 * * 0")
_TEN_YEARS = 2520


@dataclass(frozen=True)
class Partitions:
    """The partition definitions of one market.

    Attributes:
        span: The market.
        session: Closed sessions; session T can be materialized from midnight after T.
        trading_session: From the first trading session to the current or next session.
        month: Calendar months that can have a model, the current one included.
    """

    span: MarketSpan
    session: dg.TimeWindowPartitionsDefinition
    trading_session: dg.TimeWindowPartitionsDefinition
    month: dg.TimeWindowPartitionsDefinition

    def of(self, table: Table) -> dg.TimeWindowPartitionsDefinition | None:
        """The definition of a table; None for unpartitioned ones."""
        return self.of_grain(table.grain, table.horizon)

    def of_grain(self, grain: Grain, horizon: int = 0) -> dg.TimeWindowPartitionsDefinition | None:
        """The definition of a grain; None for unpartitioned tables.

        Args:
            grain: What one partition is.
            horizon: Of labelled sessions: how many sessions later their rows are known.
        """
        if grain == "none":
            return None
        return (
            self.labelled_session(horizon) if grain == "labelled_session" else getattr(self, grain)
        )

    def labelled_session(self, horizon: int) -> dg.TimeWindowPartitionsDefinition:
        """Closed sessions whose label horizon has closed too; one definition per horizon."""
        return _sessions(self.span.first_session, self.span.last_session, horizon)

    def place(self, asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
        """The asset of a table on this market; it was declared on the default one."""

        def placed(spec: dg.AssetSpec) -> dg.AssetSpec:
            definition = self.of_grain(
                spec.metadata[GRAIN_METADATA], spec.metadata.get(HORIZON_METADATA, 0)
            )
            return (
                spec if definition is None else spec.replace_attributes(partitions_def=definition)
            )

        return asset.map_asset_specs(placed)


def partitions_for(span: MarketSpan) -> Partitions:
    """Build the partition definitions of a market span.

    A bounded market ends where it ends; an open one follows the wall clock by end offsets.
    """
    first, last = span.first_session, span.last_session
    if last is None:
        return Partitions(
            span=span,
            session=_sessions(first),
            trading_session=_sessions(span.first_trading_session, end_offset=1),
            month=dg.MonthlyPartitionsDefinition(
                start_date=_midnight(span.first_model_month), timezone=TIMEZONE, end_offset=1
            ),
        )
    next_month = date(last.year + last.month // 12, last.month % 12 + 1, 1)
    return Partitions(
        span=span,
        session=_sessions(first, last),
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


@lru_cache
def _sessions(
    first: date, last: date | None = None, horizon: int = 0, end_offset: int = 0
) -> dg.DailyPartitionsDefinition:
    # The form with cron "0 0 * * 1-5" hides Friday until Monday; exclusions do not. They go on to the session after
    # the market's last one: a holiday right after it would count as a session, and mappings of labels walk
    # `horizon` sessions beyond the last partition.
    closed = XNYS.closed_days(first, XNYS.all_sessions[-1] if last is None else XNYS.next(last))
    return dg.DailyPartitionsDefinition(
        start_date=_midnight(first),
        end_date=None if last is None else _midnight(XNYS.next(XNYS.offset(last, -horizon))),
        timezone=TIMEZONE,
        end_offset=end_offset - horizon if last is None else 0,
        exclusions=[*_WEEKEND, *(_midnight(day) for day in closed)],
    )


def _midnight(day: date) -> datetime:
    # Dagster wants naive datetimes in the definition's own timezone.
    return datetime.combine(day, time.min)


#: What assets are declared with; `build_defs` puts the data root's own in its place.
DEFAULT = partitions_for(default_span())
