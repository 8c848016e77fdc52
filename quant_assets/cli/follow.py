"""`quant follow`: books fills as the broker's stream tells of them, instead of a minute later."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings

if TYPE_CHECKING:
    from quant_assets.cli.platform import Platform
    from quant_assets.orders.update_stream import Look
    from quant_resources.alpaca_stream import TradeUpdateStream
    from quant_resources.settings import Settings


def follow(
    mode: Annotated[
        Literal["dry_run", "paper", "live"] | None,
        typer.Option(help="Overrides QUANT_TRADING_MODE; dry_run books and sends nothing."),
    ] = None,
    poll: Annotated[
        float, typer.Option(min=1, help="Seconds after which it looks without having been told.")
    ] = 60.0,
    until_close: Annotated[
        bool, typer.Option("--until-close", help="End when the broker's session has closed.")
    ] = False,
) -> None:
    """Follow the broker's order updates: book fills, send what waited for them, end what expired.

    It can run beside `quant trade`: one of both passes at a time. What the stream does not tell is found
    by looking every so often, so that a broken connection delays and loses nothing.
    """
    from quant_assets.cli.platform import only_one, running_platform
    from quant_assets.orders.trading_sessions import has_closed, session_to_trade
    from quant_assets.orders.update_stream import follow as follow_updates

    settings, console = load_settings(), Console()
    if mode is not None:
        settings = settings.model_copy(update={"trading_mode": mode})
    if settings.trading_mode == "live" and not settings.live_account:
        raise ConfigurationError(
            "Live trading takes two switches: set QUANT_LIVE_ACCOUNT to the account number as well."
        )
    with ExitStack() as stack:
        if settings.resolved_trading_url is None:
            # Another command would stop the local exchange that this one has started, or the reverse.
            stack.enter_context(only_one(settings.data_root, "follow"))
        platform = stack.enter_context(running_platform(settings))
        updates = stack.enter_context(_updates(settings, platform))
        session = session_to_trade(platform.broker.clock())
        console.print(f"Following {updates.url}, mode {settings.trading_mode}; Ctrl-C ends it.")
        follow_updates(
            updates,
            platform.update_orders,
            poll_seconds=poll,
            tell=lambda look: _show(console, look),
            ended=lambda: until_close and has_closed(platform.broker.clock(), session),
        )
    console.print(f"Session {session} has closed; `quant trade --settle` freezes its evidence.")


def _updates(settings: Settings, platform: Platform) -> TradeUpdateStream:
    from quant_resources.alpaca_stream import TradeUpdateStream
    from quant_resources.resources import LOCAL_KEY

    keys = (settings.alpaca_api_key, settings.alpaca_secret_key)
    key, secret = (LOCAL_KEY if value is None else value.get_secret_value() for value in keys)
    url = settings.resolved_trading_url or platform.exchange_url
    assert url is not None  # noqa: S101 - without an address the local exchange was started
    return TradeUpdateStream(url, key, secret)


def _show(console: Console, look: Look) -> None:
    """One line for a turn in which something happened; a quiet poll says nothing."""
    told = [f"{update.event} {update.symbol}" for update in look.updates]
    told += [gap for gap in look.gaps if not gap.startswith("nothing came")]
    report = look.report
    if report is None:
        told.append(f"the pass is owed: {look.owed}")
    elif told or report.sent or report.adopted or report.expired or report.stopped:
        told.append(
            f"{report.booked} fills booked, {report.sent} sent, {report.expired} expired, "
            f"{report.left} left. {report.stopped}".strip()
        )
    if told:
        console.print("; ".join(told), highlight=False)
