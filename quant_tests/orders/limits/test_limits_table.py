"""Every limit through the real path: one order goes to the exchange, one stays in the ledger with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quant_assets.orders.limits import LIMITS, RiskLimit
from quant_resources.exchange.process import create_state
from quant_resources.exchange.spec import MarketSpec
from quant_tests.exchange.served import Server
from quant_tests.orders.ground import FIRST, LAST, Ground
from quant_tests.orders.limits.limit_cases import CASES


@pytest.fixture
def exchange(
    request: pytest.FixtureRequest, market_folder: Path, tmp_path: Path
) -> Iterator[Server]:
    """The ground's market; for short sales one in which not everything is lent."""
    lends_not_all = request.node.callspec.params["limit"].name == "shortable"
    spec = MarketSpec.model_validate(
        {"kind": "stochastic", "symbols": 60, "first_session": FIRST, "last_session": LAST}
        if lends_not_all
        else {"kind": "history", "folder": market_folder}
    )
    state = tmp_path / "exchange"
    state.mkdir()
    create_state(state, spec)
    server = Server(state)
    yield server
    server.stop()


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_a_limit_passes_one_order_and_refuses_another(limit: RiskLimit, ground: Ground) -> None:
    """A limit without a case fails here; a refused order is kept with limit, number, bound and reason."""
    played = CASES[limit.name](ground)
    sent = {row.symbol: row for row in ground.intents(played.sent)}[played.sent_symbol]
    refused = {row.symbol: row for row in ground.intents(played.refusing)}[played.refused_symbol]
    assert sent.limit_name is None, sent.reason
    assert ground.accepted()[sent.client_order_id] == 1
    assert refused.state == "refused"
    assert refused.limit_name == limit.name, refused.reason
    assert refused.limit_value is not None
    assert refused.limit_bound is not None
    assert refused.limit_value != refused.limit_bound
    assert refused.reason
    assert refused.client_order_id not in {
        entry["client_order_id"] for entry in ground.submissions()
    }


def test_no_case_is_of_a_limit_that_is_gone() -> None:
    """The table and the limits say the same."""
    assert set(CASES) == {limit.name for limit in LIMITS}
