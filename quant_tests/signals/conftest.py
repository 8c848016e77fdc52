"""A planted market with two months of trained models, on an embedded PostgreSQL."""

from __future__ import annotations

from quant_tests.models.trained_market import ledger, trained

__all__ = ["ledger", "trained"]
