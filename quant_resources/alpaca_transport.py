"""Talking to Alpaca's servers, or to a local exchange that speaks the same: patience and proof.

What belongs here: timeouts, repetition of reads and the check that an answer is one. What does not: the
request budget (`request_pace.py`) and what a message means. No write is repeated here (`alpaca_connection.py` decides about those).

What alpaca-py leaves open (version 0.44.0) and this module closes:

1. There is no timeout: the adapter sets one on every request.
2. It repeats 429 and 504 by its own clock: `_retry` is set to 0 and repetition is ours.
3. A page token of "" or one that comes back is followed for ever: both are refused.
4. A body that is no JSON, or JSON of another shape, raises whatever it happens to hit: it is refused with
   one sentence, after it was asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from quant_resources.errors import ConfigurationError, SourceError
from quant_resources.request_pace import RequestPace

BACKOFF_SECONDS: Final = (2.0, 4.0, 8.0)
TIMEOUT_SECONDS: Final = (5.0, 60.0)
_SHOWN_CHARACTERS: Final = 200
#: Reads that come in pages, and the field of their rows.
_ROWS_OF: Final = {"/stocks/bars": "bars", "/corporate-actions": "corporate_actions"}
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class RetryableError(SourceError):
    """A read that may succeed when it is asked for again."""


class RefusedError(SourceError):
    """The source understood the read and refused it.

    Attributes:
        status: HTTP status code.
        reason: The source's own words.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class ReadTransport:
    """Sends the reads of alpaca-py's clients.

    Args:
        address: Address without version, for messages.
        pace: Request budget; None for no limit (the local exchange).
        timeout: Seconds to wait for a connection and for an answer.
        backoff: Seconds before each repetition.
    """

    def __init__(
        self,
        address: str,
        pace: RequestPace | None = None,
        timeout: tuple[float, float] = TIMEOUT_SECONDS,
        backoff: Sequence[float] = BACKOFF_SECONDS,
    ) -> None:
        self._address = address
        self._pace = pace
        self._timeout = timeout
        self._backoff = tuple(backoff)

    def mount(self, client: RESTClient) -> None:
        """Give a client timeouts and the pace, and take its own repetition away (`take_control`)."""
        take_control(client, PacedAdapter(self._timeout, self._pace))

    def read(self, send: Callable[[], Any], path: str, followed: Sequence[str] = ()) -> Any:
        """Send a read until it is answered properly.

        Args:
            send: The request.
            path: Its path, for messages and to know the shape of the answer.
            followed: The page tokens that led to this page, its own included.

        Raises:
            RefusedError: The source refused.
            SourceError: No proper answer came in all attempts.
        """
        attempts = Retrying(
            retry=retry_if_exception_type(RetryableError),
            stop=stop_after_attempt(len(self._backoff) + 1),
            wait=self._wait_seconds,
            reraise=True,
        )
        return attempts(self._read_once, send, path, followed)

    def _wait_seconds(self, state: RetryCallState) -> float:
        # tenacity asks for a wait before it looks whether another attempt is allowed.
        return (*self._backoff, 0.0)[min(state.attempt_number - 1, len(self._backoff))]

    def _read_once(self, send: Callable[[], Any], path: str, followed: Sequence[str]) -> Any:
        what = f"{self._address}{path}"
        try:
            body = send()
        except APIError as error:
            raise _meaning(error, what) from error
        except requests.exceptions.JSONDecodeError as error:
            raise RetryableError(f"{what} answered something that is not JSON.") from error
        except requests.RequestException as error:
            raise RetryableError(
                f"{what} does not answer ({type(error).__name__}); check the address and the network."
            ) from error
        _check_shape(body, what, _ROWS_OF.get(path), followed)
        return body


class PacedAdapter(HTTPAdapter):
    """A transport on which every request has a timeout and, with a pace, its turn in the minute.

    Args:
        timeout: Seconds to wait for a connection and for an answer.
        pace: Request budget; None for no limit (the local exchange).
    """

    def __init__(self, timeout: tuple[float, float], pace: RequestPace | None = None) -> None:
        super().__init__()
        self._timeout = timeout
        self._pace = pace

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Send one request, waiting for its turn first."""
        if self._pace is not None:
            self._pace.wait()
        options["timeout"] = options.get("timeout") or self._timeout
        return super().send(request, **options)


def take_control(client: RESTClient, adapter: HTTPAdapter) -> None:
    """Put our transport under an alpaca-py client and switch its own repetition off.

    Raises:
        ConfigurationError: alpaca-py has changed underneath, so that its repetition of orders cannot
            be switched off.
    """
    if not hasattr(client, "_retry") or not isinstance(
        getattr(client, "_session", None), requests.Session
    ):
        raise ConfigurationError(
            "This alpaca-py has no _retry or _session any more, so its own repetition of orders "
            "cannot be switched off; install the pinned version (alpaca-py 0.44.0)."
        )
    client._retry = 0
    client._session.mount("https://", adapter)
    client._session.mount("http://", adapter)
    # Loopback is never reached through a proxy, whatever the environment says.
    client._session.trust_env = urlsplit(str(client._base_url)).hostname not in _LOOPBACK


def _meaning(error: APIError, what: str) -> SourceError:
    status = int(error.status_code or 0)
    reason = str(error).strip()[:_SHOWN_CHARACTERS]
    if status in (401, 403):
        return RefusedError(
            f"{what} refused the keys ({status}: {reason}); check ALPACA_API_KEY, "
            "ALPACA_SECRET_KEY and the subscription of the feed.",
            status,
            reason,
        )
    if status == 429 or status >= 500:
        return RetryableError(f"{what} answered {status}: {reason}; try again later.")
    return RefusedError(f"{what} refused the request ({status}: {reason}).", status, reason)


def _check_shape(body: Any, what: str, rows_of: str | None, followed: Sequence[str]) -> None:
    if isinstance(body, list) and rows_of is None:
        return
    if not isinstance(body, dict):
        raise RetryableError(f"{what} answered {type(body).__name__} instead of an object.")
    if rows_of is not None:
        if rows_of not in body:
            raise RetryableError(
                f"{what} answered without {rows_of}, with {', '.join(sorted(body)) or 'nothing'}: "
                "it may have changed its format."
            )
        entries = body[rows_of]
        if entries is None:
            body[rows_of] = {}
        elif not isinstance(entries, dict) or not all(
            isinstance(rows, list) for rows in entries.values()
        ):
            raise RetryableError(f"{what} answered {rows_of} of another shape than lists by name.")
    token = body.get("next_page_token")
    if token is not None and (not isinstance(token, str) or not token or token in followed):
        raise RetryableError(
            f"{what} answered the page token {token!r}, which leads nowhere: the rest is missing."
        )
