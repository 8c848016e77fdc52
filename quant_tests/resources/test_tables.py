"""A declaration that contradicts itself is refused where it is written."""

from __future__ import annotations

import polars as pl
import pytest

from quant_resources.errors import SchemaError
from quant_resources.tables import Column, Grain, Table


@pytest.mark.parametrize(
    ("grain", "horizon"),
    [("labelled_session", 0), ("labelled_session", -2), ("session", 2), ("none", 1)],
)
def test_a_table_says_when_it_is_known_exactly_if_that_is_later(grain: Grain, horizon: int) -> None:
    """A label without a horizon would be taken for known at the close of its session."""
    with pytest.raises(
        SchemaError, match=rf"features/wrong of grain {grain} .* horizon {horizon};"
    ):
        Table(
            stage="features",
            name="wrong",
            grain=grain,
            description="One row per session.",
            columns=(Column("session", pl.Date, "Session"),),
            key=("session",),
            horizon=horizon,
        )


def test_an_added_column_says_what_earlier_rows_hold() -> None:
    with pytest.raises(SchemaError, match="role may not be missing"):
        Table(
            stage="orders",
            name="orders",
            grain="none",
            description="",
            columns=(Column("role", pl.String, "", added=True),),
            key=(),
        )
