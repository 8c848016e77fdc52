"""How stretches of missing partitions become runs."""

from __future__ import annotations

import pytest

from quant_assets.cli.graph_runs import stretches
from quant_assets.partitions import SESSIONS_PER_RUN, years


@pytest.mark.parametrize(
    ("keys", "wanted", "expected"),
    [
        ("abcdef", "abcdef", ["abcdef"]),
        ("abcdef", "abdf", ["ab", "d", "f"]),
        ("abcdef", "", []),
        ("", "", []),
    ],
)
def test_neighbours_run_together_and_gaps_split(
    keys: str, wanted: str, expected: list[str]
) -> None:
    assert ["".join(stretch) for stretch in stretches(list(keys), set(wanted))] == expected


@pytest.mark.parametrize("count", [1, 251, 252, 253, 505, 2520])
def test_runs_are_at_most_a_year_of_like_length_and_lose_nothing(count: int) -> None:
    keys = [f"{number:05}" for number in range(count)]
    runs = years(keys)
    assert [key for run in runs for key in run] == keys
    lengths = {len(run) for run in runs}
    assert max(lengths) <= SESSIONS_PER_RUN
    assert max(lengths) - min(lengths) <= 1
