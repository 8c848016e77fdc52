"""`quant exchange`: the local exchange's clock, faults and restatements, for rehearsals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from quant_assets.cli.shown import print_rows
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import EXCHANGE_FOLDER, ensure_exchange, stop_exchange
from quant_resources.settings import load_settings

app = typer.Typer(help="The local exchange.", no_args_is_help=True)


@app.command("start")
def start(
    port: Annotated[int, typer.Option(help="Port on loopback; 0 takes a free one.")] = 0,
) -> None:
    """Start the exchange of the data root and leave it running."""
    from quant_assets.cli.platform import default_market
    from quant_assets.market_span import default_span, remembered_span

    settings = load_settings()
    remembered = remembered_span(settings.data_root)
    state = settings.data_root / EXCHANGE_FOLDER
    market = None if state.exists() else default_market(remembered or default_span())
    endpoint = ensure_exchange(state, market, port)
    Console().print(f"The local exchange answers on {endpoint.url} (process {endpoint.pid}).")


@app.command("stop")
def stop() -> None:
    """Stop the exchange; its state stays."""
    stopped = stop_exchange(load_settings().data_root / EXCHANGE_FOLDER)
    Console().print("Stopped." if stopped else "It was not running.")


@app.command("status")
def status() -> None:
    """Show its clock and market."""
    with _control() as control:
        shown, clock = control.status(), control.clock().astimezone(NEW_YORK)
    Console().print(
        f"{clock:%Y-%m-%d %H:%M} New York, {shown['market_kind']} market of {shown['symbols']} symbols, "
        f"{shown['first_session']} to {shown['last_session']}."
    )


@app.command("advance")
def advance(
    to: Annotated[str, typer.Argument(help="YYYY-MM-DD or YYYY-MM-DDTHH:MM, New York time.")],
) -> None:
    """Move its clock forward; what happens on the way happens."""
    try:
        moment = datetime.fromisoformat(to)
    except ValueError:
        raise ConfigurationError(f"{to!r} is no moment; write 2025-01-23T18:00.") from None
    if len(to) == len(date.min.isoformat()):
        moment = datetime.combine(moment.date(), time(7))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=NEW_YORK)
    with _control() as control:
        control.advance(moment)
        clock = control.clock().astimezone(NEW_YORK)
    Console().print(
        f"The clock stands at {clock:%Y-%m-%d %H:%M} New York; next session "
        f"{XNYS.at_or_after(clock.date())}."
    )


@app.command("restate")
def restate(
    symbol: Annotated[str, typer.Argument(help="Ticker.")],
    session: Annotated[str, typer.Argument(help="Session, YYYY-MM-DD.")],
    *,
    open_: Annotated[float | None, typer.Option("--open", help="USD.")] = None,
    high: Annotated[float | None, typer.Option(help="USD.")] = None,
    low: Annotated[float | None, typer.Option(help="USD.")] = None,
    close: Annotated[float | None, typer.Option(help="USD.")] = None,
    volume: Annotated[float | None, typer.Option(help="Shares.")] = None,
    vwap: Annotated[float | None, typer.Option(help="USD.")] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the bar back.")] = False,
    add: Annotated[bool, typer.Option("--add", help="Publish a bar that was missing.")] = False,
) -> None:
    """Let the exchange restate a bar that it has published, as vendors do; its trades stay."""
    prices = {"open": open_, "high": high, "low": low, "close": close}
    sent = prices | {"volume": volume, "vwap": vwap}
    values = {name: value for name, value in sent.items() if value is not None}
    if withdraw + add + bool(values and not add) != 1:
        raise ConfigurationError(
            "Name the new values (--close 12.34), or --withdraw, or --add with all of them."
        )
    day = _day(session)
    with _control() as control:
        if withdraw:
            done = control.withdraw(symbol.upper(), day)
        else:
            change = control.add_bar if add else control.restate
            done = change(symbol.upper(), day, **values)
    Console().print(f"{symbol.upper()} {day}: was {_bars(done['was'])}, is {_bars(done['is'])}.")


@app.command("restatements")
def restatements(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what the exchange has restated."""
    with _control() as control:
        found = control.restatements()
    rows = [
        {
            "at": item["at"],
            "what": item["request"].get("symbol") or item["id"],
            "session": item["request"].get("session", ""),
            "was": _bars(item["was"]),
            "is": _bars(item["is"]),
        }
        for item in found
    ]
    print_rows(Console(), "Restatements", rows, as_json)


@app.command("faults")
def faults(
    plan: Annotated[Path | None, typer.Argument(help="Fault plan (JSON).")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Let everything go right again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let the exchange's answers go wrong by a plan, or show the plan in force with its counts."""
    if plan is not None and clear:
        raise ConfigurationError("Give a plan or --clear, not both.")
    with _control() as control:
        if plan is not None:
            control.inject(_plan(plan))
        elif clear:
            control.clear_faults()
        shown = control.faults()
    rows = [_shown_rule(rule) for rule in shown["rules"]]
    print_rows(Console(), "Faults", rows, as_json)


def _plan(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read as a fault plan: {error}.") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f'{path} is no fault plan; write {{"rules": [...]}}.')
    return content


def _shown_rule(rule: dict[str, Any]) -> dict[str, Any]:
    fault = dict(rule["fault"])
    when = ("nth", "first", "every", "probability", "times")
    return {
        "requests": f"{rule.get('method', '*')} {rule.get('path', '*')}",
        "query": _words(rule.get("query", {})),
        "when": _words({name: rule[name] for name in when if name in rule}) or "always",
        "fault": " ".join(filter(None, [fault.pop("kind"), _words(fault)])),
        "seen": rule["seen"],
        "fired": rule["fired"],
    }


def _words(settings: dict[str, Any]) -> str:
    return " ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())


def _bars(published: Any) -> str:
    if not published:
        return "nothing"
    rows = published if isinstance(published, list) else [published]
    kept = ({name: value for name, value in row.items() if name != "t"} for row in rows)
    return "; ".join(
        " ".join(f"{name} {value}" for name, value in row.items() if value is not None)
        for row in kept
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no day; write 2025-01-23.") from None


def advance_to(control: ExchangeControl, moment: datetime) -> None:
    """Move the clock to a moment, unless it stands there or later already.

    The clock is durable and only goes forward: after an interruption it may stand later.
    """
    if control.clock() < moment:
        control.advance(moment)


@contextmanager
def _control() -> Iterator[ExchangeControl]:
    """The exchange of the data root; one that had to be started is stopped again."""
    state = load_settings().data_root / EXCHANGE_FOLDER
    endpoint = ensure_exchange(state, None)
    try:
        yield ExchangeControl(endpoint.url)
    finally:
        if endpoint.started:
            stop_exchange(state)
