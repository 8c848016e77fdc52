"""A server that speaks Yahoo's chart API over TLS, for tests of the yfinance reader.

yfinance has no setting for Yahoo's address; its HTTP session connects to this server's socket instead,
whatever host is asked for, and trusts its certificate: the client, its addresses, its cookies and its parser
are the real ones.

What it sends is computed from bars as traded, the way Yahoo does it: everything before a split is divided
by its ratio, whatever range is asked for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from quant_resources.calendar import NEW_YORK

Bar = tuple[float, float, float, float, int]


@dataclass
class Company:
    """What was traded, and what Yahoo adjusts it for.

    Attributes:
        bars: Open, high, low, close and volume as traded, by day.
        splits: New shares per old one, by ex-date.
        dividends: USD per share held the day before, by ex-date.
        gains: Distributed capital gains of a fund, likewise.
    """

    bars: dict[date, Bar | None]
    splits: dict[date, tuple[int, int]] = field(default_factory=dict)
    dividends: dict[date, float] = field(default_factory=dict)
    gains: dict[date, float] = field(default_factory=dict)


@dataclass
class Yahoo:
    """The server's content and what it was asked.

    Attributes:
        companies: By Yahoo's ticker.
        answers: Answers in a row to give instead, by ticker; the last one stays.
        asked: Tickers of chart requests, in order.
    """

    companies: dict[str, Company] = field(default_factory=dict)
    answers: dict[str, Response] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/v8/finance/chart/{symbol}", self.chart),
                Route("/v1/test/getcrumb", lambda _: PlainTextResponse("crumb")),
                Route("/{rest:path}", lambda _: PlainTextResponse("")),
            ]
        )

    def chart(self, request: Request) -> Response:
        """One symbol's days between two times."""
        symbol = request.path_params["symbol"]
        self.asked.append(symbol)
        if symbol in self.answers:
            return self.answers[symbol]
        if symbol not in self.companies:
            return _error(404, "Not Found", "No data found, symbol may be delisted")
        query = request.query_params
        now = datetime.now(UTC)
        first, last = (
            datetime.fromtimestamp(int(query.get(name, default.timestamp())), UTC)
            for name, default in (("period1", now - timedelta(days=1)), ("period2", now))
        )
        return JSONResponse(
            _chart(symbol, self.companies[symbol], first, last)
            if "period1" in query
            else {"chart": {"result": [{"meta": _meta(symbol)}], "error": None}}
        )


class YahooServer:
    """The server in a thread, on a socket of the file system.

    Args:
        folder: A folder with a short name, since socket names are limited.
    """

    def __init__(self, folder: Path) -> None:
        self.yahoo = Yahoo()
        self.socket = folder / "yahoo"
        self.certificate = folder / "certificate.pem"
        key = folder / "key.pem"
        _write_certificate(self.certificate, key)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.yahoo.app(),
                uds=str(self.socket),
                ssl_certfile=str(self.certificate),
                ssl_keyfile=str(key),
                log_level="warning",
                access_log=False,
            )
        )
        self._sessions: list[Any] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()))
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.002)

    def session(self) -> Any:
        """An HTTP session of yfinance's library that ends up here."""
        from curl_cffi import CurlOpt
        from curl_cffi.requests import Session

        session = Session(
            impersonate="chrome",
            verify=str(self.certificate),  # pyright: ignore[reportArgumentType]
            curl_options={CurlOpt.UNIX_SOCKET_PATH: str(self.socket)},
        )
        self._sessions.append(session)
        return session

    def stop(self) -> None:
        """End it and wait."""
        # A connection left open would be waited for.
        for session in self._sessions:
            session.close()
        self._server.should_exit = True
        self._thread.join()


def _chart(symbol: str, company: Company, first: datetime, last: datetime) -> dict[str, Any]:
    days = [
        day for day in sorted(company.bars) if first <= _open(day) < last and day in company.bars
    ]
    if not days:
        return {
            "chart": {
                "result": None,
                "error": {
                    "code": "Bad Request",
                    "description": f"Data doesn't exist for startDate = {first}, endDate = {last}",
                },
            }
        }
    columns: dict[str, list[float | int | None]] = {
        name: [] for name in ("open", "high", "low", "close", "volume")
    }
    for day in days:
        bar = company.bars[day]
        ratio = _later_splits(company, day, inclusive=False)
        for place, name in enumerate(columns):
            if bar is None:
                columns[name].append(None)
            elif name == "volume":
                columns[name].append(round(bar[place] * ratio))
            else:
                columns[name].append(bar[place] / ratio)
    events: dict[str, dict[str, Any]] = {}
    for name, amounts in (("dividends", company.dividends), ("capitalGains", company.gains)):
        for day, amount in amounts.items():
            if first <= _open(day) < last:
                stamp = int(_open(day).timestamp())
                ratio = _later_splits(company, day, inclusive=True)
                events.setdefault(name, {})[str(stamp)] = {"amount": amount / ratio, "date": stamp}
    for day, (numerator, denominator) in company.splits.items():
        if first <= _open(day) < last:
            stamp = int(_open(day).timestamp())
            events.setdefault("splits", {})[str(stamp)] = {
                "date": stamp,
                "numerator": numerator,
                "denominator": denominator,
                "splitRatio": f"{numerator}:{denominator}",
            }
    result: dict[str, Any] = {
        "meta": _meta(symbol) | {"instrumentType": "ETF" if company.gains else "EQUITY"},
        "timestamp": [int(_open(day).timestamp()) for day in days],
        "indicators": {"quote": [columns], "adjclose": [{"adjclose": columns["close"]}]},
    }
    if events:
        result["events"] = events
    return {"chart": {"result": [result], "error": None}}


def _later_splits(company: Company, day: date, *, inclusive: bool) -> float:
    ratio = 1.0
    for ex_date, (numerator, denominator) in company.splits.items():
        if ex_date > day or (inclusive and ex_date == day):
            ratio *= numerator / denominator
    return ratio


def _meta(symbol: str) -> dict[str, Any]:
    return {
        "currency": "USD",
        "symbol": symbol,
        "exchangeName": "NYQ",
        "instrumentType": "EQUITY",
        "firstTradeDate": 0,
        "regularMarketTime": int(datetime.now(UTC).timestamp()),
        "gmtoffset": -18000,
        "timezone": "EST",
        "exchangeTimezoneName": "America/New_York",
        "priceHint": 2,
        "dataGranularity": "1d",
        "range": "",
        "validRanges": ["1d", "5d", "max"],
    }


def _open(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 9, 30, tzinfo=NEW_YORK)


def _error(status: int, code: str, description: str) -> JSONResponse:
    error = {"code": code, "description": description}
    return JSONResponse({"chart": {"result": None, "error": error}}, status)


def _write_certificate(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "yahoo of a test")])
    hosts = ("*.yahoo.com", "*.finance.yahoo.com")
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
