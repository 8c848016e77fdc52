"""The law of the limits: whatever is asked for, what is let through as a whole breaks none of them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from quant_assets.orders.limits import Batch, apply_limits
from quant_tests.orders.limits.batch_oracle import Oracle
from quant_tests.orders.limits.given_batches import batches


def _breaks_nothing(given_batch: Batch) -> None:
    outcome = apply_limits(given_batch)
    assert Oracle(given_batch, outcome).complaints() == []


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(batches())
def test_no_accepted_batch_breaks_a_limit(given_batch: Batch) -> None:
    """Judged by an oracle that shares no code with the limits and fills the orders in every way."""
    _breaks_nothing(given_batch)


@pytest.mark.long
@settings(max_examples=6_000, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(batches())
def test_no_accepted_batch_breaks_a_limit_at_length(given_batch: Batch) -> None:
    """The same for minutes: what is wrong once in a thousand batches shows here."""
    _breaks_nothing(given_batch)
