"""What storing daily partitions costs, by file format, through the real `Store`. Run by hand.

    python quant_tests/bench/bench_storage.py [--symbols 500] [--sessions 252] [--rounds 3]

Writes a year of Alpha158 as one run of the graph does, reads it back whole, four columns of it, one session
of it, and by a filter on its sessions, with the encoding that `Store` has and with others in its place.
Prints medians of interleaved rounds; processor seconds count all threads and suffer less from a busy machine.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, Literal
from unittest.mock import patch

import polars as pl
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

from quant_assets.features.alpha158 import alpha158
from quant_assets.features.alpha158_formulas import LOOKBACK
from quant_assets.features.schemas import ALPHA158
from quant_resources import store as stores
from quant_resources.store import Store
from quant_tests.bench.generated_history import FIRST, generated_bars

MEASURED = ("write", "write cpu", "read", "read cpu", "4 columns", "1 session", "filter")
SHOWN_COLUMNS = ["symbol", "MA5", "STD20", "RANK60"]
SINGLE_SESSIONS = 20


@dataclass(frozen=True)
class Encoding:
    """One way to store a frame.

    Attributes:
        name: As shown.
        encode: Frame to file content; None for what the store does by itself.
        scan: How such files are read.
        writers: Partitions that are written at the same time.
    """

    name: str
    encode: Callable[[pl.DataFrame], bytes] | None = None
    scan: Callable[..., pl.LazyFrame] = pl.scan_parquet
    writers: int = stores._WRITERS


def by_polars(**options: Any) -> Callable[[pl.DataFrame], bytes]:
    def encode(frame: pl.DataFrame) -> bytes:
        buffer = BytesIO()
        frame.write_parquet(buffer, **options)
        return buffer.getvalue()

    return encode


def by_pyarrow(**options: Any) -> Callable[[pl.DataFrame], bytes]:
    def encode(frame: pl.DataFrame) -> bytes:
        texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
        chosen = {"use_dictionary": texts, "write_statistics": ["session"], **options}
        buffer = pa.BufferOutputStream()
        arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        parquet.write_table(arrow, buffer, **chosen)
        return buffer.getvalue().to_pybytes()

    return encode


def as_ipc(compression: Literal["lz4", "zstd"]) -> Callable[[pl.DataFrame], bytes]:
    def encode(frame: pl.DataFrame) -> bytes:
        buffer = BytesIO()
        frame.write_ipc(buffer, compression=compression)
        return buffer.getvalue()

    return encode


def scan_ipc(files: list[str], glob: bool) -> pl.LazyFrame:
    return pl.scan_ipc(files, glob=glob)


FLOATS = [name for name, dtype in ALPHA158.schema.items() if dtype == pl.Float32]
ENCODINGS = (
    Encoding("the store's"),
    Encoding("the store's, one writer", writers=1),
    Encoding("pyarrow uncompressed", by_pyarrow(compression="none")),
    Encoding("pyarrow snappy", by_pyarrow(compression="snappy")),
    Encoding("pyarrow lz4", by_pyarrow(compression="lz4")),
    Encoding("  all statistics", by_pyarrow(compression="lz4", write_statistics=True)),
    Encoding("  no statistics", by_pyarrow(compression="lz4", write_statistics=False)),
    Encoding("  dictionaries for all", by_pyarrow(compression="lz4", use_dictionary=True)),
    Encoding("  two row groups", by_pyarrow(compression="lz4", row_group_size=250)),
    Encoding("  byte stream split", by_pyarrow(compression="lz4", use_byte_stream_split=FLOATS)),
    Encoding("pyarrow zstd 1", by_pyarrow(compression="zstd", compression_level=1)),
    Encoding("pyarrow zstd 3", by_pyarrow(compression="zstd", compression_level=3)),
    Encoding("pyarrow zstd 9", by_pyarrow(compression="zstd", compression_level=9)),
    Encoding(
        "  zstd 1, byte stream split",
        by_pyarrow(compression="zstd", compression_level=1, use_byte_stream_split=FLOATS),
    ),
    Encoding("Polars uncompressed", by_polars(compression="uncompressed", statistics=False)),
    Encoding("Polars snappy", by_polars(compression="snappy", statistics=False)),
    Encoding("Polars lz4", by_polars(compression="lz4", statistics=False)),
    Encoding("Polars lz4, statistics", by_polars(compression="lz4", statistics=True)),
    Encoding("  one writer", by_polars(compression="lz4", statistics=True), writers=1),
    Encoding("Polars zstd 1", by_polars(compression="zstd", compression_level=1)),
    Encoding("Polars zstd 3", by_polars(compression="zstd", compression_level=3)),
    Encoding("Arrow IPC lz4", as_ipc("lz4"), scan_ipc),
    Encoding("Arrow IPC zstd", as_ipc("zstd"), scan_ipc),
)


def main() -> None:
    """Compute the year, store it in every encoding, show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=252)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    Console(width=150).print(
        encodings_table(year_of_features(chosen.symbols, chosen.sessions), chosen.rounds)
    )


def year_of_features(symbols: int, sessions: int) -> pl.DataFrame:
    """Rows of the table `features/alpha158` for the newest sessions of a generated market."""
    features = alpha158(generated_bars(symbols, sessions + LOOKBACK))
    newest = features["session"].unique().sort().tail(sessions)
    return (
        features.filter(pl.col("session").is_in(newest.implode()))
        .with_columns(security_id=pl.col("symbol") + f"@{FIRST}")
        .select(list(ALPHA158.schema))
        .sort("session", "symbol")
    )


def encodings_table(features: pl.DataFrame, rounds: int) -> Table:
    """Store the features in every encoding, in interleaved rounds."""
    keys = [session.isoformat() for session in features["session"].unique().sort()]
    seconds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for encoding in ENCODINGS:
            seconds[encoding.name].append(stored_and_read(encoding, features, keys))
    table = Table(
        "encoding",
        title=f"ms per session of {features.height // len(keys)} x {len(FLOATS)} float32, "
        f"{len(keys)} sessions in one run",
        caption=f"median of {rounds} interleaved rounds, load {os.getloadavg()[0]:.1f}; 'cpu' of all threads",
    )
    for column in (*MEASURED, "kB"):
        table.add_column(column, justify="right")
    for name, taken in seconds.items():
        cells = [f"{median(each[key] for each in taken):.2f}" for key in MEASURED]
        table.add_row(name, *cells, f"{taken[0]['kB']:.0f}")
    return table


def stored_and_read(
    encoding: Encoding, features: pl.DataFrame, keys: Sequence[str]
) -> dict[str, float]:
    """Milliseconds per session, and kilobytes."""
    taken: dict[str, float] = {}

    def measure(what: str, task: Callable[[], object], sessions: int = len(keys)) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        task()
        taken[what] = 1000 * (time.perf_counter() - wall) / sessions
        taken[f"{what} cpu"] = 1000 * (time.process_time() - processor) / sessions

    with (
        tempfile.TemporaryDirectory(prefix="bench-storage-") as folder,
        patch.object(stores, "_encoded", encoding.encode or stores._encoded),
        patch.object(stores, "_WRITERS", encoding.writers),
        patch.object(pl, "scan_parquet", encoding.scan),
    ):
        store = Store(folder)
        last = features["session"].max()
        measure("write", lambda: store.write(ALPHA158, features, keys))
        measure("read", lambda: store.read(ALPHA158).collect())
        measure("4 columns", lambda: store.read(ALPHA158, keys, SHOWN_COLUMNS).collect())
        measure(
            "1 session",
            lambda: [store.read(ALPHA158, [key]).collect() for key in keys[:SINGLE_SESSIONS]],
            SINGLE_SESSIONS,
        )
        measure("filter", lambda: store.read(ALPHA158).filter(pl.col("session") == last).collect())
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    return {**taken, "kB": size / len(keys) / 1000}


if __name__ == "__main__":
    main()
