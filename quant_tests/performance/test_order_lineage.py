"""From an order, its broker's id or its fill back to the bar, on a real ledger and store."""

import json

import pytest
from rich.console import Console

from quant_assets.cli.explain import _plain, lineage_tree
from quant_assets.performance.order_lineage import order_lineage
from quant_resources.errors import LedgerError
from quant_resources.store import Store
from quant_tests.performance.traded_book import FEATURES, VERSION


def find(lineage, kind):
    """All steps of a kind, depth first."""
    own = [lineage] if lineage.kind == kind else []
    return own + [step for cause in lineage.causes for step in find(cause, kind)]


@pytest.fixture(scope="module")
def bought(traded):
    return order_lineage(f"main-{traded.first}-aaa", traded.ledger, traded.store)


def test_order_leads_to_signal_model_features_and_bar(traded, bought):
    assert bought.facts["order"] == "buy 10 AAA"
    assert bought.facts["state"] == "filled"
    (order,) = find(bought, "order")
    assert order.facts["filled"] == "10 of 10"
    (fill,) = find(bought, "fill")
    assert fill.facts["filled"] == "10 at 100.5 USD"
    (signal,) = find(bought, "signal")
    assert signal.facts["session"] == traded.signal_session
    assert signal.facts["confidence"] == 0.4
    (model,) = find(bought, "model")
    assert model.name == VERSION
    assert model.facts["training_window"] == "2023-06-01 to 2024-12-02"
    assert model.facts["ic_mean"] == 0.041
    (bar,) = find(bought, "bar")
    assert bar.facts["symbol"] == "AAA"
    assert bar.facts["sessions_stored_until_then"] == 139
    (delivery,) = find(bought, "delivery")
    assert delivery.facts["source"] == "sample/feed"
    assert delivery.facts["vintages"] == 1


def test_features_are_those_that_moved_the_prediction(bought):
    """The planted features lead, their values are the stored ones, and parts add up."""
    vector = next(step for step in find(bought, "features") if "alpha158" in step.name)
    shown = {name: own for name, own in vector.facts.items() if name in FEATURES}
    assert FEATURES[3] in list(shown)[:2]
    assert 2 <= len(shown) <= 12
    assert all(own["contribution"] != 0 for own in shown.values())
    rest = vector.facts["prediction"] - vector.facts["base"]
    assert sum(own["contribution"] for own in shown.values()) == pytest.approx(rest, abs=0.01)
    assert shown[FEATURES[3]]["share_of_gain"] > 0.3


@pytest.mark.parametrize("prefix", ["broker-", "execution-"])
def test_broker_id_and_fill_lead_to_the_same_tree(traded, bought, prefix):
    other = order_lineage(f"{prefix}main-{traded.first}-aaa", traded.ledger, traded.store)
    assert other.as_dict() == bought.as_dict()


def test_rules_strategy_tells_its_columns_instead_of_a_model(traded):
    lineage = order_lineage(f"main-{traded.first}-bbb", traded.ledger, traded.store)
    (model,) = find(lineage, "model")
    assert "fixed rules" in model.facts["kind"]
    technical = next(step for step in find(lineage, "features") if "technical" in step.name)
    assert technical.facts["rsi_14"] == 61.5


def test_refused_order_says_which_limit(traded):
    lineage = order_lineage(f"main-{traded.second}-ccc", traded.ledger, traded.store)
    assert lineage.facts["stopped_by"] == "gross_exposure"
    assert find(lineage, "order") == []


def test_what_is_no_longer_stored_is_said(traded, tmp_path):
    lineage = order_lineage(f"main-{traded.first}-aaa", traded.ledger, Store(tmp_path))
    (bar,) = find(lineage, "bar")
    assert "is not stored" in bar.facts["missing"]
    assert find(lineage, "model")[0].facts["ic_mean"] == 0.041


def test_strategy_that_was_deleted_is_said(traded):
    lineage = order_lineage(f"main-{traded.first}-aaa", traded.ledger, traded.store, strategies={})
    (signal,) = find(lineage, "signal")
    assert "no longer in signals/strategies" in signal.facts["missing"]


def test_unknown_order_is_named(traded):
    with pytest.raises(LedgerError, match="knows no order or fill 'nobody'"):
        order_lineage("nobody", traded.ledger, traded.store)


def test_json_is_json_and_the_tree_is_printed_verbatim(bought):
    read = json.loads(json.dumps(bought.as_dict(), default=_plain, allow_nan=False))
    assert read["causes"][0]["kind"] == "batch"
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(lineage_tree(bought))
    assert "wanted [by the sample]" in captured.get()
