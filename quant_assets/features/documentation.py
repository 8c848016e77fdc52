"""What a person is told about every feature column: its formula, its window, its unit.

Belongs here: the texts, gathered from the modules that compute, once, for the table declarations
and the tables in the UI; Markdown, with formulas as code. Does not belong here: Dagster, and the
formulas themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from quant_assets.features import alpha158_formulas, anomaly
from quant_assets.features.technical_formulas import INDICATORS


@dataclass(frozen=True)
class ColumnText:
    """What one column is.

    Attributes:
        formula: Formula, as Markdown.
        window: What it looks at and needs, in sessions or bars.
        unit: Unit of the value; empty where it has none.
        meaning: The same in plain words; empty where the formula is said in words.
    """

    formula: str
    window: str
    unit: str = ""
    meaning: str = ""

    @property
    def description(self) -> str:
        """All but the unit, as the column's description."""
        said = f"{self.formula}, {self.meaning}" if self.meaning else self.formula
        return f"{said}. Window: {self.window}"


def _sessions(count: int) -> str:
    return "the session" if count == 1 else f"{count} sessions"


ALPHA158_TEXTS: Final[Mapping[str, ColumnText]] = {
    name: ColumnText(
        f"`{feature.formula}`", _sessions(feature.sessions), feature.unit, feature.meaning
    )
    for name, feature in alpha158_formulas.FEATURES.items()
}

TECHNICAL_TEXTS: Final[Mapping[str, ColumnText]] = {
    name: ColumnText(text, f"{indicator.bars} bars", unit)
    for indicator in INDICATORS
    for name, (text, unit) in indicator.columns.items()
}

_ANOMALY_WINDOW: Final = (
    f"{anomaly.HISTORY_BARS} bars before the session's; forest fitted on the {anomaly.TRAINING_SESSIONS} sessions "
    "before the month"
)

ANOMALY_TEXTS: Final[Mapping[str, ColumnText]] = {
    "anomaly_score": ColumnText(
        "Isolation Forest: about 0.5 and below is ordinary, towards 1 easily isolated; empty in the warm-up",
        _ANOMALY_WINDOW,
    ),
    "explained_by": ColumnText(
        "The two features farthest from their usual value, in robust standard deviations; of "
        + "; ".join(f"{name} ({text})" for name, text in anomaly.FEATURES.items()),
        _ANOMALY_WINDOW,
    ),
}


def documented_columns(texts: Mapping[str, ColumnText], missing: pl.DataFrame) -> str:
    """A Markdown table of every column, those with the most missing values first.

    Args:
        texts: What the columns are.
        missing: `column` and `missing_share` (`missing_shares`) of the same columns.
    """
    share = dict(missing.iter_rows())
    # A stable sort: columns that are equally complete stay in the table's order.
    ordered = sorted(texts, key=lambda name: -share[name])
    lines = [
        "| column | formula | meaning | window | unit | missing |",
        "|---|---|---|---|---|---|",
    ]
    for name in ordered:
        text = texts[name]
        cells = (name, text.formula, text.meaning, text.window, text.unit, shown_share(share[name]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown_share(share: float) -> str:
    """A share as a percentage that never rounds something to nothing."""
    return "0 %" if share == 0 else "< 0.01 %" if share < 0.0001 else f"{100 * share:.3g} %"
