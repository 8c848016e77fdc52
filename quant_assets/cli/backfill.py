"""`quant backfill`: market data, features, labels, models and signals of a range of sessions."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

import typer
from rich.console import Console

from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings


def backfill(
    first: Annotated[
        str | None, typer.Argument(help="First day (YYYY-MM-DD); the market's by default.")
    ] = None,
    last: Annotated[
        str | None, typer.Argument(help="Last day; the newest closed session by default.")
    ] = None,
) -> None:
    """Materialize every session between two days that is missing, models and signals included."""
    from quant_assets.cli.broker_time import newest_closed_session, newest_delivered_session
    from quant_assets.cli.platform import only_one, running_platform
    from quant_assets.cli.progress import shown_progress
    from quant_assets.market_span import remember_span, remembered_span
    from quant_assets.partitions import snapped

    settings, console = load_settings(), Console()
    with only_one(settings.data_root, "backfill"), running_platform(settings) as platform:
        if remembered_span(settings.data_root) is None:
            # From now on there are bars, adjusted in one convention, that later commands must fit.
            remember_span(settings.data_root, platform.span)
        newest = newest_delivered_session(platform)
        if newest < newest_closed_session(platform):
            console.print(
                f"The source of bars ends with {newest}; later sessions are not there yet."
            )
        start = day_of(first) or platform.span.first_session
        keys = snapped(start, min(day_of(last) or newest, newest), platform.span)
        if start > platform.span.first_session:
            console.print(
                "Features, models and signals look back: sessions before "
                f"{keys[0]} must be there already."
            )
        with shown_progress(console) as progress, platform.graph(progress) as runner:
            platform.trading_day(runner).learn([date.fromisoformat(key) for key in keys])
            tally = runner.tally
        console.print(
            f"{len(keys)} sessions ({keys[0]} to {keys[-1]}) are complete: {tally.runs} runs, "
            f"{tally.checks_passed} checks passed, {len(tally.checks_failed)} failed."
        )
        for sentence in tally.sentences():
            console.print(f"  {sentence}", highlight=False)
        console.print(f"Seconds by job: {_seconds(tally.seconds)}.")
        assert_nothing_failed(tally.failed_steps)


def day_of(text: str | None) -> date | None:
    """A day from the command line.

    Raises:
        ConfigurationError: The text is no day.
    """
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007
    except ValueError:
        raise ConfigurationError(f"{text!r} is no day; write it as 2024-03-15.") from None


def assert_nothing_failed(failed: list[str]) -> None:
    """Exit with an error when an optional step failed.

    Raises:
        ConfigurationError: Naming how many steps and where to look.
    """
    if failed:
        raise ConfigurationError(
            f"{len(failed)} step(s) failed (see above); mend them and run again: only what is missing "
            "is made."
        )


def _seconds(seconds: dict[str, float]) -> str:
    return ", ".join(f"{job} {spent:.1f}" for job, spent in seconds.items()) or "nothing to do"
