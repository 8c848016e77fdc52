"""How requests are read and answers written: JSON, query parameters, page tokens.

What is asked and answered belongs into the `api_*` modules.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.refusals import RefusalError, bad_data_request, malformed

_JSON = "application/json; charset=utf-8"


class Answer(JSONResponse):
    """A JSON answer that names its charset, which spares clients from guessing it."""

    media_type = _JSON


def raw_json(body: bytes) -> Response:
    """An answer from ready JSON."""
    return Response(body, media_type=_JSON)


def bind(
    handler: Callable[[Exchange, Request], Awaitable[Response]], exchange: Exchange
) -> Callable[[Request], Awaitable[Response]]:
    """A route's endpoint from a handler that also needs the exchange."""

    async def endpoint(request: Request) -> Response:
        return await handler(exchange, request)

    return endpoint


async def refused(_: Request, error: Exception) -> Response:
    """The answer to a refused request."""
    assert isinstance(error, RefusalError)  # noqa: S101 - registered for this class only
    return Answer(error.body, status_code=error.status)


async def read_json(request: Request) -> object:
    """The request's body.

    Raises:
        RefusalError: It is not JSON.
    """
    try:
        return json.loads(await request.body() or b"null")
    except ValueError:
        raise malformed("request body format is invalid") from None


def moment(text: str, name: str) -> datetime | date:
    """A parameter that is a moment (aware UTC) or a plain date.

    Raises:
        RefusalError: It is neither.
    """
    try:
        if len(text) == len("2024-03-01"):
            return date.fromisoformat(text)
        # A "+" that was not quoted arrives as a space.
        parsed = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise bad_data_request(f"invalid {name}: {text}; expected RFC-3339 or YYYY-MM-DD") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def edge(text: str, name: str) -> datetime:
    """A parameter that bounds a list by time; a plain date means its midnight UTC.

    Raises:
        RefusalError: It is no moment.
    """
    value = moment(text, name)
    if isinstance(value, datetime):
        return value
    return datetime(value.year, value.month, value.day, tzinfo=UTC)


def whole_number(request: Request, name: str, default: int, highest: int) -> int:
    """A parameter from 1 to `highest`.

    Raises:
        RefusalError: It is no such number.
    """
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    if not text.isdecimal() or not 1 <= int(text) <= highest:
        raise bad_data_request(f"invalid {name}: {text}; expected 1 to {highest}")
    return int(text)


def descending(request: Request, name: str, *, default: str) -> bool:
    """Whether the newest shall come first.

    Raises:
        RefusalError: The parameter is neither asc nor desc.
    """
    text = request.query_params.get(name) or default
    if text.lower() not in {"asc", "desc"}:
        raise bad_data_request(f"invalid {name}: {text}; expected asc or desc")
    return text.lower() == "desc"


def page_token(*parts: str | int) -> str:
    """An opaque token for the page that begins at a place."""
    return base64.urlsafe_b64encode("|".join(map(str, parts)).encode()).decode()


def read_page_token(request: Request, parts: int) -> list[str] | None:
    """The parts of the page token, None on the first page.

    Raises:
        RefusalError: The token was not given out here.
    """
    text = request.query_params.get("page_token")
    if not text:
        return None
    try:
        found = base64.urlsafe_b64decode(text).decode().split("|")
    except (binascii.Error, UnicodeDecodeError):
        found = []
    if len(found) != parts:
        raise bad_data_request("invalid page_token")
    return found
