"""A proxy in front of the exchange that breaks chosen answers, before or after the exchange has acted.

It stands where a real network stands: the order path and the exchange are both untouched.
"""

from __future__ import annotations

import http.server
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: Faults of a submission: (does the exchange see the order, what the client sees).
SUBMISSION_FAULTS = {
    "reset_before": (False, "reset"),
    "reset_after": (True, "reset"),
    "hang_before": (False, "hang"),
    "hang_after": (True, "hang"),
    "429_before": (False, 429),
    "429_after": (True, 429),
    "500_before": (False, 500),
    "500_after": (True, 500),
    "502_after": (True, 502),
    "503_before": (False, 503),
    "504_after": (True, 504),
    "malformed_after": (True, "malformed"),
    "truncated_after": (True, "truncated"),
    "empty_after": (True, "empty"),
    "other_order_after": (True, "other"),
    "duplicate_delivery": (True, "twice"),
}


@dataclass
class Faults:
    """What shall go wrong.

    Attributes:
        submissions: Number of the POST (from 1) → fault; 0 means every one.
        hidden_look_ups: Look-ups by client id that answer 404 although the order is there.
        hidden_lists: Order lists answer as if there were no orders.
        dead: Nothing is answered at all.
        hang_seconds: How long a hanging answer takes.
    """

    submissions: dict[int, str] = field(default_factory=dict)
    hidden_look_ups: int = 0
    hidden_lists: bool = False
    dead: bool = False
    hang_seconds: float = 1.0
    posts: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _broken(how: str, content: bytes) -> bytes:
    """A body that a client cannot use."""
    if how == "malformed":
        return b"<html>welcome</html>"
    if how == "truncated":
        return content[: len(content) // 2]
    if how == "other":
        return json.dumps(json.loads(content) | {"client_order_id": "of-somebody-else"}).encode()
    return b"{}"


@contextmanager
def faulty_proxy(upstream: str, faults: Faults) -> Iterator[str]:
    """Serve the exchange through the proxy; yields the proxy's address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet: otherwise every answer waits 40 ms for an acknowledgement.
        disable_nagle_algorithm = True
        wbufsize = 65_536

        def do_GET(self) -> None:
            if faults.dead:
                return self._reset()
            if "by_client_order_id" in self.path:
                with faults.lock:
                    hide = faults.hidden_look_ups > 0
                    faults.hidden_look_ups -= hide
                if hide:
                    return self._answer(404, b'{"code":40410000,"message":"order not found"}')
            if faults.hidden_lists and self.path.startswith("/v2/orders?"):
                return self._answer(200, b"[]")
            return self._answer(*self._forward(None))

        def do_DELETE(self) -> None:
            self._answer(*self._forward(None))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with faults.lock:
                faults.posts += 1
                fault = faults.submissions.get(faults.posts) or faults.submissions.get(0)
                fault = "reset_before" if faults.dead else fault
            if fault is None:
                return self._answer(*self._forward(body))
            acts, seen = SUBMISSION_FAULTS[fault]
            status, content = self._forward(body) if acts else (0, b"")
            if seen in ("reset", "hang"):
                time.sleep(faults.hang_seconds if seen == "hang" else 0)
                return self._reset()
            if seen == "twice":
                self._forward(body)
                return self._answer(status, content)
            if isinstance(seen, int):
                return self._answer(seen, b'{"message":"broken"}')
            return self._answer(200, _broken(seen, content))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

        def _forward(self, body: bytes | None) -> tuple[int, bytes]:
            request = urllib.request.Request(  # noqa: S310
                upstream + self.path, data=body, method=self.command
            )
            for name in ("Content-Type", "APCA-API-KEY-ID", "APCA-API-SECRET-KEY"):
                if self.headers.get(name):
                    request.add_header(name, self.headers[name])
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _reset(self) -> None:
            # Linger zero: the client sees a reset, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
