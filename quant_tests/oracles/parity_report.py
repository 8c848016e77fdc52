"""Alpha158 beside the slow reference and beside Qlib itself, column by column. Run by hand.

    python -m quant_tests.oracles.parity_report [--qlib PYTHON] [--sessions 200] [--markets 10]

Generates markets with every irregularity that decides equality (`irregular_market`: late starts, missing
sessions, halts, zero volume, constant prices, ties, delistings, symbols of one row, holes, tiny and huge
prices), computes the 158 columns with the platform's function, with the reference and, where PYTHON is an
interpreter that has pyqlib, with Qlib, and prints what the largest differences are and whether values are
missing in the same places. `test_alpha158.py` guards the same in the test suite.
"""

import argparse
import tempfile
from datetime import date
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from quant_assets.features.alpha158 import alpha158
from quant_tests.oracles.alpha158_reference import irregular_market, reference_alpha158, weekdays
from quant_tests.oracles.parity import RELATIVE, column_differences, values_beyond
from quant_tests.oracles.qlib_process import QlibProcess, write_qlib_data


def main() -> None:
    """Compute all ways and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qlib", type=Path, help="interpreter of an environment with pyqlib")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--markets", type=int, default=10)
    chosen = parser.parse_args()
    calendar = weekdays(chosen.sessions)
    bars = irregular_markets(calendar, chosen.markets)
    ours = alpha158(bars, calendar)
    others = {"reference": reference_alpha158(bars, calendar)}
    if chosen.qlib:
        version, loaded = qlib_alpha158(chosen.qlib, bars, calendar)
        others[f"Qlib {version}"] = ours.select("symbol", "session").join(
            loaded, on=["symbol", "session"], how="left", maintain_order="left"
        )
    console = Console(width=None if Console().is_terminal else 140)
    console.print(
        f"{bars['symbol'].n_unique()} symbols, {chosen.sessions} sessions, {bars.height} bars"
    )
    differences = {side: column_differences(ours, frame) for side, frame in others.items()}
    console.print(by_column(differences))
    for side, found in differences.items():
        console.print(summary(side, found))
    beyond = values_beyond(ours, **others)
    if beyond.height:
        console.print(explained(beyond))


def irregular_markets(calendar: list[date], count: int) -> pl.DataFrame:
    """Generate several irregular markets as one, each symbol of each market by a name of its own."""
    return pl.concat(
        irregular_market(calendar, seed).with_columns(symbol=pl.col("symbol") + f"_{seed}")
        for seed in range(count)
    ).sort("symbol", "session")


def qlib_alpha158(
    python: Path, bars: pl.DataFrame, calendar: list[date]
) -> tuple[str, pl.DataFrame]:
    """Qlib's version and its Alpha158 of the bars."""
    with tempfile.TemporaryDirectory(prefix="parity-") as name:
        folder = Path(name) / "qlib"
        write_qlib_data(folder, bars, calendar)
        with QlibProcess(python, folder) as qlib:
            return qlib.version, qlib.features(calendar[0], calendar[-1])


def by_column(differences: dict[str, pl.DataFrame]) -> Table:
    """One line per feature: against each other computation, the differences and where values are missing."""
    table = Table("column")
    for side in differences:
        table.add_column(f"{side}: values", justify="right")
        for text in ("relative", "absolute", "beyond", "NaN"):
            table.add_column(text, justify="right")
    frames = list(differences.values())
    for number, name in enumerate(frames[0]["name"]):
        cells = [name]
        for frame in frames:
            row = frame.row(number, named=True)
            cells += [
                str(row["values"]),
                f"{row['relative']:.1e}",
                f"{row['absolute']:.1e}",
                str(row["beyond"] or ""),
                f"{row['nan_differs']} differ" if row["nan_differs"] else "agree",
            ]
        table.add_row(*cells)
    return table


def summary(side: str, found: pl.DataFrame) -> str:
    """What a comparison comes to, in one sentence."""
    beyond = found.filter(pl.col("beyond") > 0)
    missing = found["nan_differs"].sum()
    exact = found.filter(pl.col("relative") == 0).height
    return (
        f"{side}: {found['values'].sum()} values in {found.height} columns, {exact} of them equal to the bit; "
        f"{beyond['beyond'].sum()} values in {beyond.height} columns "
        f"({', '.join(beyond['name']) or 'none'}) are beyond {RELATIVE:g} relative; "
        f"missing in other places: {missing}."
    )


def explained(beyond: pl.DataFrame) -> Table:
    """Per column with values beyond the tolerance: how many, whose, and the farthest of them."""
    sides = beyond.columns[3:]
    table = Table(
        "column",
        "values",
        "symbols",
        "farthest",
        *(f"{side} says" for side in sides),
        title=f"Columns with values beyond {RELATIVE:g} relative",
        caption=(
            "Where the exact result is 0, rounding is compared with 0 or with other rounding. Qlib carries "
            "pandas' running variance through a series, in which what has left the window leaves a residue: "
            "in STD as it is, in WVMA over a window without volume divided by 1e-12. Ours and the "
            "reference's standard deviation look at each window afresh."
        ),
        show_lines=True,
    )
    for (name,), rows in beyond.group_by("name", maintain_order=True):
        farthest = rows.row(0, named=True)
        kinds = rows["symbol"].str.split("_").list.first().unique().sort()
        table.add_row(
            str(name),
            str(rows.height),
            ", ".join(kinds),
            f"{farthest['symbol']} on {farthest['session']}",
            *(f"{farthest[side]:.8g}" for side in sides),
        )
    return table


if __name__ == "__main__":
    main()
