"""The server process: `python -m quant_resources.exchange --state FOLDER --port N [--spec JSON]`.

It listens on loopback only, holds a lock on its state folder, and writes `endpoint.json` there once it
answers. Errors a user can do something about are one sentence on stderr and exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import socket
import sqlite3
import sys
from pathlib import Path

import psutil
import uvicorn
from filelock import FileLock, Timeout

from quant_resources.errors import ExchangeError, QuantError
from quant_resources.exchange.app import build_app
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.process import (
    ENDPOINT_FILE,
    SERVER_LOCK,
    create_state,
    last_port,
)
from quant_resources.exchange.serving import server_config
from quant_resources.exchange.spec import MarketSpec


def main() -> int:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="quant_resources.exchange", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="state folder")
    parser.add_argument("--port", type=int, default=0, help="0: the last one used, or a free one")
    parser.add_argument("--spec", help="market specification as JSON, for a new state folder")
    arguments = parser.parse_args()
    try:
        serve(
            arguments.state,
            arguments.port,
            MarketSpec.from_json(arguments.spec) if arguments.spec else None,
        )
    except QuantError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except sqlite3.Error as error:
        sys.stderr.write(f"The state in {arguments.state} cannot be written: {error}.\n")
        return 1
    return 0


def serve(folder: Path, port: int, spec: MarketSpec | None) -> None:
    """Serve an exchange until the process is told to stop.

    Raises:
        ExchangeError: The port is taken, or another server has the state.
        DataError: The market cannot be loaded.
    """
    folder = folder.absolute()
    if spec is not None:
        create_state(folder, spec)
    lock = FileLock(folder / SERVER_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExchangeError(
            f"Another server is already running the exchange in {folder}."
        ) from None
    with lock, _listen(port, last_port(folder)) as listener:
        exchange = Exchange(folder)
        server = uvicorn.Server(server_config(build_app(exchange)))
        asyncio.run(_run(server, listener, folder))
        exchange.state.close()


async def _run(server: uvicorn.Server, listener: socket.socket, folder: Path) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    if server.started:
        _write_endpoint(folder, listener.getsockname()[1])
    await serving


def _listen(port: int, preferred: int) -> socket.socket:
    """A bound loopback socket on `port`; for 0 on the preferred port if it is free, else any."""
    for wanted in [port] if port else [preferred, 0]:
        # Named as TCP, or asyncio would leave Nagle on and every POST would wait 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if port and error.errno in {errno.EADDRINUSE, errno.EACCES}:
                raise ExchangeError(
                    f"Port {port} is already taken or not allowed; choose another, or 0 for a free one."
                ) from error
            continue
        return listener
    raise ExchangeError("No port of 127.0.0.1 can be listened on.")


def _write_endpoint(folder: Path, port: int) -> None:
    draft = folder / f".{ENDPOINT_FILE}"
    draft.write_text(
        json.dumps(
            {
                "url": f"http://127.0.0.1:{port}",
                "port": port,
                "pid": os.getpid(),
                "process_started": psutil.Process().create_time(),
            }
        )
    )
    draft.replace(folder / ENDPOINT_FILE)


if __name__ == "__main__":
    sys.exit(main())
