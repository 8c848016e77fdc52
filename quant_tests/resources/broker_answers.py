"""A server that answers as it is told, in front of the adapter: for answers that no exchange gives."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.broker import OrderRequest


def order(
    name: str = "one", symbol: str = "AAA", quantity: str | None = "10", **more: Any
) -> OrderRequest:
    """An order to buy; prices and dollars as text."""
    fields: dict[str, Any] = {
        key: Decimal(value) if key == "notional" or key.endswith("_price") else value
        for key, value in more.items()
    }
    shares = None if quantity is None else Decimal(quantity)
    return OrderRequest(name, symbol, fields.pop("side", "buy"), shares, **fields)


@dataclass
class Answers:
    """The adapter and what it asked."""

    broker: AlpacaBroker
    seen: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


@contextmanager
def answering(
    status: int, body: bytes, delay: float = 0.0, backoff: tuple[float, ...] = (0.01, 0.01, 0.01)
) -> Iterator[tuple[AlpacaBroker, list[str]]]:
    """A broker in front of a server that always gives the same answer, and the requests it saw."""
    with scripted(lambda *_: (status, body), delay, backoff) as answers:
        yield answers.broker, answers.seen


@contextmanager
def scripted(
    answer: Callable[[str, str, dict[str, str]], tuple[int, bytes | list[Any] | dict[str, Any]]],
    delay: float = 0.0,
    backoff: tuple[float, ...] = (0.01, 0.01, 0.01),
) -> Iterator[Answers]:
    """A broker in front of a server that asks a function of method, path and query for its answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            answers.seen.append(f"{self.command} {self.path}")
            answers.times.append(time.monotonic())
            time.sleep(delay)
            url = urlsplit(self.path)
            status, body = answer(self.command, url.path, dict(parse_qsl(url.query)))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PATCH = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    answers = Answers(AlpacaBroker(url, url, "k", "s", timeout=(0.3, 0.3), backoff=backoff))
    try:
        yield answers
    finally:
        answers.broker.close()
        server.shutdown()
        thread.join()
        server.server_close()
