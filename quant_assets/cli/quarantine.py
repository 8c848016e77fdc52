"""`quant data quarantine`: what was rejected and why, and the release of rows that are right.

Belongs here: the commands. Does not belong here: what is stored about a row
(market_data/stored_quarantine.py), what may be released (market_data/releases.py), what is made again after
a release (cli/refetch.py).
"""

from __future__ import annotations

import getpass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings

if TYPE_CHECKING:
    import polars as pl

    from quant_assets.market_data.stored_quarantine import Story

app = typer.Typer(
    help="Rejected bars: list them, explain one, release one.", invoke_without_command=True
)

_ROWS_SHOWN = 40
#: A terminal has less room than a program: the rest is in `--json`.
_COUNTED = ("rule", "rows", "symbols", "first", "last")
_NEIGHBOUR = ("session", "open", "close", "volume", "change", "verdict")
_SENT = ("observed_at", "state", "open", "high", "low", "close", "volume")

Symbol = Annotated[str, typer.Argument(help="Ticker.")]
Session = Annotated[str, typer.Argument(help="Session (YYYY-MM-DD).")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.callback()
def show(
    context: typer.Context,
    *,
    symbol: Annotated[str | None, typer.Option("--symbol", help="Only this ticker.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="Only this session.")] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="Only this rule.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First day.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day.")] = None,
    as_json: AsJson = False,
) -> None:
    """List rejected bars, newest first, with counts by rule."""
    if context.invoked_subcommand is not None:
        return
    from quant_assets.cli.backfill import day_of
    from quant_assets.cli.shown import print_document, print_rows
    from quant_assets.market_data.stored_quarantine import quarantined
    from quant_resources.store import Store

    console = Console()
    day = day_of(session)
    rows = quarantined(
        Store(load_settings().data_root),
        _ticker(symbol),
        rule,
        day or day_of(first),
        day or day_of(last),
    )
    counts = _by_rule(rows)
    if as_json:
        print_document(console, {"by_rule": counts, "rows": rows.to_dicts()})
        return
    if rows.is_empty():
        console.print("No row is in quarantine there.")
        return
    told = [{name: one[name] for name in _COUNTED} for one in counts]
    print_rows(console, f"{rows.height} rows in quarantine", told)
    shown = rows.select("session", "symbol", "rule", "detail").head(_ROWS_SHOWN)
    title = "Newest" if shown.height == rows.height else f"Newest {shown.height} of {rows.height}"
    print_rows(console, title, shown.to_dicts())
    console.print("Next: `quant data quarantine explain SYMBOL SESSION`.")


@app.command("explain")
def explain(symbol: Symbol, session: Session, as_json: AsJson = False) -> None:
    """Tell why a bar was rejected: rule, closes around it, actions, what the vendor sent and when."""
    from quant_assets.cli.shown import print_document
    from quant_assets.market_data.stored_quarantine import story
    from quant_resources.store import Store

    console = Console()
    told = story(Store(load_settings().data_root), _ticker(symbol) or "", _day(session))
    if as_json:
        print_document(console, [_as_document(one) for one in told])
        return
    for one in told:
        _print_story(console, one)


@app.command("release")
def release(
    symbol: Symbol,
    session: Session,
    reason: Annotated[str, typer.Option(help="What shows that the row is right; kept for good.")],
    released_by: Annotated[
        str | None, typer.Option("--by", help="Who releases; you, by default.")
    ] = None,
) -> None:
    """Release a rejected bar whose values are right, and make again exactly what that affects."""
    from quant_assets.cli.backfill import assert_nothing_failed
    from quant_assets.cli.platform import only_one, running_platform
    from quant_assets.cli.progress import shown_progress
    from quant_assets.cli.refetch import rerun_affected, show_plan
    from quant_assets.market_data.stored_quarantine import add_releases

    settings, console = load_settings(), Console()
    ticker, day = _ticker(symbol) or "", _day(session)
    with only_one(settings.data_root, "data quarantine release"):
        from quant_resources.store import Store

        store = Store(settings.data_root)
        releases = _releases(store, ticker, day, reason, released_by or getpass.getuser())
        # What cannot be released is refused before anything is started.
        with running_platform(settings) as platform:
            added = add_releases(store, releases)
            _print_release(console, releases, added)
            with shown_progress(console) as progress, platform.graph(progress) as runner:
                plan = rerun_affected(runner, platform.store, platform.strategy_paths)
                failed = runner.tally.failed_steps
            show_plan(console, plan)
            _print_outcome(console, store, ticker, day)
        assert_nothing_failed(failed)


@app.command("releases")
def releases(as_json: AsJson = False) -> None:
    """List what has been released, by whom, when and why."""
    from quant_assets.cli.shown import print_rows
    from quant_assets.market_data.stored_quarantine import stored_releases
    from quant_resources.store import Store

    rows = stored_releases(Store(load_settings().data_root)).reverse()
    if rows.is_empty() and not as_json:
        Console().print("Nothing has been released.")
        return
    shown = rows if as_json else rows.drop("row_digest")
    print_rows(Console(), "Released", shown.to_dicts(), as_json)


def _releases(store: Any, symbol: str, day: date, reason: str, by: str) -> pl.DataFrame:
    """The releases of the symbol's rows; where rows differ, of those that can be released."""
    import polars as pl

    from quant_assets.market_data.releases import release_of
    from quant_assets.market_data.rules import BY_NAME
    from quant_assets.market_data.stored_quarantine import rejected_rows

    rows = rejected_rows(store, symbol, day)
    chosen = [row for row in rows if BY_NAME[row["rule"]].releasable] or rows
    at = datetime.now(UTC)
    return pl.concat([release_of(row, reason, by, at) for row in chosen])


def _print_release(console: Console, asked: pl.DataFrame, added: pl.DataFrame) -> None:
    name, day, rules = asked["symbol"][0], asked["session"][0], ", ".join(asked["rule"])
    said = "was released already" if added.is_empty() else "is released"
    console.print(f"{name} of {day} ({rules}) {said}.", highlight=False)


def _print_outcome(console: Console, store: Any, symbol: str, day: date) -> None:
    from quant_assets.market_data.stored_quarantine import quarantined

    left = quarantined(store, symbol, None, day, day)
    if left.is_empty():
        console.print(f"{symbol} of {day} is a bar now.", highlight=False)
        return
    rules = ", ".join(left["rule"].unique(maintain_order=True))
    console.print(
        f"{symbol} of {day} is still in quarantine ({rules}); `quant data quarantine explain {symbol} "
        f"{day}` says why.",
        highlight=False,
    )


def _by_rule(rows: pl.DataFrame) -> list[dict[str, Any]]:
    import polars as pl

    return (
        rows.group_by("rule")
        .agg(
            rows=pl.len(),
            symbols=pl.col("symbol").n_unique(),
            first=pl.col("session").min(),
            last=pl.col("session").max(),
            remedy=pl.col("remedy").first(),
        )
        .sort("rows", "rule", descending=[True, False])
        .to_dicts()
    )


def _print_story(console: Console, told: Story) -> None:
    from quant_assets.cli.shown import print_rows

    row = told.row
    console.print(
        f"[bold]{escape(str(row['symbol']))}[/] of {row['session']}: [yellow]{row['rule']}[/]. "
        f"{escape(told.words)}",
        highlight=False,
    )
    console.print(f"Seen: {escape(row['detail'])}.", highlight=False)
    for title, frame, nothing in (
        ("Delivered around it", _whole_shares(told.neighbours.select(_NEIGHBOUR)), ""),
        ("Corporate actions near it", told.actions, "No corporate action is near it."),
        ("What the source sent", _whole_shares(told.vintages.select(_SENT)), ""),
        ("Earlier releases", told.releases, ""),
    ):
        if frame.height:
            print_rows(console, title, frame.to_dicts())
        elif nothing:
            console.print(nothing)
    console.print(f"What to do: {escape(row['remedy'])}", highlight=False)
    if told.releasable:
        console.print(
            f"If the values are right: `quant data quarantine release {row['symbol']} {row['session']} "
            '--reason "..."`.',
            highlight=False,
        )
    else:
        console.print("It cannot be released: it has no values that could be traded on.")


def _whole_shares(frame: pl.DataFrame) -> pl.DataFrame:
    # What was sent may be no number at all.
    return frame.with_columns(volume=frame["volume"].cast(int, strict=False))


def _as_document(told: Story) -> dict[str, Any]:
    return {
        "row": told.row,
        "rule_in_words": told.words,
        "releasable": told.releasable,
        "neighbours": told.neighbours.to_dicts(),
        "corporate_actions": told.actions.to_dicts(),
        "vintages": told.vintages.to_dicts(),
        "releases": told.releases.to_dicts(),
    }


def _ticker(symbol: str | None) -> str | None:
    return None if symbol is None else symbol.strip().upper()


def _day(session: str) -> date:
    from quant_assets.cli.backfill import day_of

    day = day_of(session)
    if day is None:
        raise ConfigurationError("Name a session, such as 2024-03-15.")
    return day
