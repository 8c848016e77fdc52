"""What the exchange refuses, with the status, code and words that Alpaca answers with.

Codes are Alpaca's: the HTTP status, then 10000 and a number (40010001 → malformed, 40310000 →
forbidden, 40410000 → not found, 42210000 → cannot be processed).
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from quant_resources.errors import ExchangeError

MALFORMED = 40010001
UNAUTHORIZED = 40110000
FORBIDDEN = 40310000
NOT_FOUND = 40410000
UNPROCESSABLE = 42210000


class RefusalError(ExchangeError):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        body: JSON body: code and message, and what Alpaca adds to some messages.
    """

    def __init__(self, status: int, code: int | None, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"message": message, **more}
        if code is not None:
            self.body["code"] = code


def malformed(message: str) -> RefusalError:
    """422: a field is missing or cannot be read."""
    return RefusalError(422, MALFORMED, message)


def misread(error: ValidationError, what: str) -> RefusalError:
    """422: a document does not have the declared shape; every wrong field is named."""
    wrong = (
        f"{'.'.join(map(str, item['loc'])) or what}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )
    return malformed(f"the {what} is wrong: {'; '.join(wrong)}")


def unprocessable(message: str, **more: Any) -> RefusalError:
    """422: the request is readable but makes no sense."""
    return RefusalError(422, UNPROCESSABLE, message, **more)


def forbidden(message: str, **more: Any) -> RefusalError:
    """403: the account may not do this."""
    return RefusalError(403, FORBIDDEN, message, **more)


def not_found(message: str) -> RefusalError:
    """404: there is no such thing."""
    return RefusalError(404, NOT_FOUND, message)


def bad_data_request(message: str) -> RefusalError:
    """400 of the market data API, which sends no code."""
    return RefusalError(400, None, message)
