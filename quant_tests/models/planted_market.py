"""A small market in a store, with a signal of known strength between one feature and the label.

Tables of earlier stages are written as those stages declare them, so that models and signals run on the
real graph without computing features. Only the columns that these stages read carry meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import dagster as dg
import numpy as np
import polars as pl

from quant_assets.features.schemas import ALPHA158, LABELS, TECHNICAL
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.partitions import DEFAULT
from quant_assets.table_assets import TableIOManager
from quant_resources.calendar import XNYS
from quant_resources.ledger import Ledger
from quant_resources.store import Store
from quant_resources.tables import Table

#: Correlation of the first Alpha158 feature with the label.
SIGNAL = 0.3
FIRST = date(2023, 1, 3)
TABLES = (BARS, UNIVERSE, ALPHA158, TECHNICAL, LABELS)


@dataclass(frozen=True)
class PlantedMarket:
    """Sessions and names of the market that `plant` wrote."""

    store: Store
    sessions: tuple[date, ...]
    names: int

    def resources(self, ledger: Ledger, tables: Sequence[Table]) -> dict[str, object]:
        """What a run on this market needs."""
        return {
            "store": self.store,
            "ledger": ledger,
            "broker": None,
            "table_io": TableIOManager(self.store, [*TABLES, *tables]),
        }


def plant(store: Store, last: date, names: int = 24, seed: int = 5) -> PlantedMarket:
    """Write every session from 2023-01-03 to `last`."""
    sessions = XNYS.sessions(FIRST, last)
    following = XNYS.sessions(FIRST, XNYS.offset(sessions[-1], LABELS.horizon))
    rng = np.random.default_rng(seed)
    count = len(sessions) * names
    symbols = [f"S{number:03d}" for number in range(names)]
    rows = pl.DataFrame(
        {
            "session": [session for session in sessions for _ in range(names)],
            "known_session": [known for known in following[LABELS.horizon :] for _ in range(names)],
            "symbol": symbols * len(sessions),
            "first_session": [FIRST] * count,
        }
    ).with_columns(security_id=pl.format("{}@{}", "symbol", "first_session"))
    feature = rng.standard_normal(count)
    label = SIGNAL * feature + np.sqrt(1 - SIGNAL**2) * rng.standard_normal(count)
    columns = {
        **{
            name: rng.standard_normal(count).astype(np.float32)
            for name in list(ALPHA158.schema)[4:]
        },
        list(ALPHA158.schema)[3]: feature.astype(np.float32),
        "forward_return": label * 0.02,
        "forward_return_zscore": label,
        "forward_return_rank": np.full(count, 0.5),
        "close": rng.uniform(20, 200, count),
        "rsi_14": rng.uniform(10, 90, count),
        "macd_histogram": rng.normal(0, 0.01, count),
        "bollinger_percent_b": rng.uniform(0, 1, count),
        "atr_14": rng.uniform(0.01, 0.05, count),
    }
    for table in TABLES:
        write(store, table, rows, columns)
    return PlantedMarket(store, tuple(sessions), names)


def write(
    store: Store, table: Table, rows: pl.DataFrame, columns: Mapping[str, np.ndarray]
) -> None:
    """Write one table; a column that nobody reads gets a legal constant."""
    frame = rows.select(
        pl.col(name).cast(dtype)
        if name in rows.columns
        else pl.Series(name, columns[name]).cast(dtype)
        if name in columns
        else _constant(table, name).cast(dtype).alias(name)
        for name, dtype in table.schema.items()
    )
    days = [day.isoformat() for day in frame.get_column("session").unique().sort()]
    store.write(table, frame, days)


def upstream() -> list[dg.AssetSpec]:
    """The tables as external assets, loaded by the table IO manager."""
    return [
        dg.AssetSpec(table.path.split("/"), partitions_def=DEFAULT.of(table)).with_io_manager_key(
            "table_io"
        )
        for table in TABLES
    ]


def _constant(table: Table, name: str) -> pl.Expr:
    column = next(column for column in table.columns if column.name == name)
    if column.nullable:
        return pl.lit(None)
    if column.allowed:
        return pl.lit(column.allowed[0])
    if table.schema[name] == pl.String:
        return pl.lit("-")
    return pl.lit(column.minimum or 1.0)
