"""`quant data coverage`: which symbols have holes, session by session."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings

if TYPE_CHECKING:
    import polars as pl

#: Sessions that are shown where no day is named.
SESSIONS_SHOWN = 60
_SYMBOLS_SHOWN = 25
_ROWS_SHOWN = 10
_MARKS = {"present": ("·", "dim"), "quarantined": ("q", "bold yellow"), "missing": ("█", "red")}


def coverage(
    symbol: Annotated[
        str | None, typer.Option("--symbol", help="One symbol: its gaps, session by session.")
    ] = None,
    first: Annotated[
        str | None,
        typer.Option("--from", help=f"First day; by default the newest {SESSIONS_SHOWN} sessions."),
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day; the newest stored.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what was expected of each session, what came, and where the holes are."""
    from quant_assets.cli.backfill import day_of
    from quant_assets.cli.stored_data import stored_coverage
    from quant_resources.store import Store

    settings, console = load_settings(), Console()
    begin, end = day_of(first), day_of(last)
    newest = SESSIONS_SHOWN if begin is None else None
    covered = stored_coverage(Store(settings.data_root), begin, end, newest)
    if covered.is_empty():
        between = f" between {begin or 'the first'} and {end or 'the newest session'}"
        raise ConfigurationError(
            f"No coverage is stored in {settings.data_root}{between if first or last else ''}; "
            "`quant backfill` makes it with the market data."
        )
    if symbol is not None:
        _show_symbol(console, covered, symbol.strip().upper(), as_json)
    else:
        _show_market(console, covered, as_json)


def _show_market(console: Console, covered: pl.DataFrame, as_json: bool) -> None:
    from quant_assets.cli.shown import print_document, print_rows
    from quant_assets.market_data.coverage import by_session, by_symbol

    sessions, symbols = by_session(covered), by_symbol(covered)
    if as_json:
        print_document(console, {"sessions": sessions.to_dicts(), "symbols": symbols.to_dicts()})
        return
    gaps = sessions.filter(sessions["expected"] > sessions["present"])
    days = covered["session"]
    console.print(
        f"{sessions.height} sessions, {days.min()} to {days.max()}: {sessions['present'].sum():,} of "
        f"{sessions['expected'].sum():,} expected bars are there, {sessions['quarantined'].sum():,} are "
        f"quarantined, {sessions['missing'].sum():,} missing.",
        highlight=False,
    )
    if symbols.is_empty():
        return
    worst = gaps.sort("share_present", "session", descending=[False, True]).head(_ROWS_SHOWN)
    print_rows(console, f"Sessions with gaps, {worst.height} of {gaps.height}", worst.to_dicts())
    shown = symbols.head(_SYMBOLS_SHOWN)
    print_rows(console, f"Symbols with gaps, {shown.height} of {symbols.height}", shown.to_dicts())
    _print_heat_map(console, covered, shown["symbol"].to_list())


def _print_heat_map(console: Console, covered: pl.DataFrame, symbols: list[str]) -> None:
    """A line per symbol and a column per session, the newest that fit."""
    margin = max(map(len, symbols)) + 1
    days: list[date] = covered["session"].unique().sort().to_list()
    days = days[-max(console.width - margin, 1) :]
    rows = covered.filter(covered["session"].is_in(days)).select("symbol", "session", "state")
    states = {(symbol, day): state for symbol, day, state in rows.iter_rows()}
    console.print(f"\n{days[0]} to {days[-1]}, a column a session:", highlight=False)
    for symbol in symbols:
        line = Text(symbol.ljust(margin))
        for day in days:
            line.append(*_MARKS.get(states.get((symbol, day), ""), (" ", "")))
        console.print(line, no_wrap=True, crop=True)
    legend = Text()
    for state, (mark, style) in _MARKS.items():
        legend.append(mark, style).append(f" {state}  ")
    console.print(legend.append("  blank: not expected"))


def _show_symbol(console: Console, covered: pl.DataFrame, symbol: str, as_json: bool) -> None:
    from quant_assets.cli.shown import print_document, print_rows
    from quant_assets.market_data.coverage import PRESENT

    rows = covered.filter(covered["symbol"] == symbol)
    if rows.is_empty():
        raise ConfigurationError(
            f"{symbol} was neither expected nor delivered between {covered['session'].min()} and "
            f"{covered['session'].max()}; name earlier days with --from, or correct the symbol."
        )
    gaps = rows.filter(rows["state"] != PRESENT).select("session", "state", "absent_sessions")
    if as_json:
        print_document(
            console, {"symbol": symbol, "sessions": rows.height, "gaps": gaps.to_dicts()}
        )
        return
    console.print(
        f"{symbol}: {rows.height - gaps.height} of {rows.height} expected bars are there, "
        f"{rows['session'].min()} to {rows['session'].max()}.",
        highlight=False,
    )
    if gaps.height:
        print_rows(console, "Gaps", gaps.to_dicts())
        console.print(
            "`quant data quarantine` explains what was rejected; `quant data refetch DAY` asks the "
            "source for a session again.",
            highlight=False,
        )
        _print_heat_map(console, covered, [symbol])
