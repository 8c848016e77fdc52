"""A process that draws on a shared request budget; small, so that it starts quickly."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from quant_resources import request_pace
from quant_resources.request_pace import RequestPace

CONTEXT = multiprocessing.get_context("spawn")


def draw(file: Path, budget: int, count: int) -> None:
    """Draw on the budget as fast as it may, noting its turns but not waiting for them."""
    request_pace.time.sleep = lambda _seconds: None  # pyright: ignore[reportAttributeAccessIssue]
    pace = RequestPace(budget, file)
    for _ in range(count):
        pace.wait()
