"""A ledger for recomputing: everything is done as it would be, and nothing of it stays."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy.exc import IntegrityError

from quant_resources.ledger import Ledger, order_book, registry
from quant_resources.ledger.order_states import Actor, OrderState
from quant_resources.ledger.order_tables import OrderIntent
from quant_resources.ledger.unrecorded import UnrecordedLedger
from quant_tests.ledger.frozen_orders import NAME, frozen

DAY = date(2024, 3, 1)


def register(transaction, version: str = "rehearsed-2024-03-00000000") -> bool:
    return registry.register_model(
        transaction,
        model_name="rehearsed",
        model_version=version,
        month=DAY,
        training_first_session=date(2023, 1, 3),
        training_last_session=date(2024, 2, 27),
        metrics={},
        config={},
        artefact="tree\n",
    )


def activate(transaction) -> registry.ModelActivation:
    return registry.activate_model(
        transaction,
        model_name="rehearsed",
        model_version="rehearsed-2024-03-00000000",
        effective_session=DAY,
        activated_by="test",
        reason="rehearsal",
    )


def test_a_transaction_sees_its_own_changes_and_no_other_does(ledger: Ledger) -> None:
    unrecorded = UnrecordedLedger(ledger.engine.url.render_as_string(hide_password=False))
    with unrecorded.begin() as transaction:
        assert register(transaction)
        made = activate(transaction)
        assert registry.active_model(transaction, "rehearsed", DAY) == made.model_version
    # As with the real ledger, what was made can still be read.
    assert (made.effective_session, made.reason) == (DAY, "rehearsal")
    for other in (unrecorded, ledger):
        with other.begin() as transaction:
            assert registry.list_models(transaction, "rehearsed") == []
            assert registry.activations(transaction, "rehearsed") == []
    unrecorded.dispose()


def test_what_is_recorded_can_be_read(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        register(transaction)
    unrecorded = UnrecordedLedger(ledger.engine.url.render_as_string(hide_password=False))
    with unrecorded.begin() as transaction:
        assert not register(transaction)
        (found,) = registry.list_models(transaction, "rehearsed")
    assert found.model.training_last_session == date(2024, 2, 27)
    unrecorded.dispose()


def test_the_rules_of_the_database_hold(ledger: Ledger) -> None:
    """A change that is only flushed at the end is refused as a commit would refuse it."""
    unrecorded = UnrecordedLedger(ledger.engine.url.render_as_string(hide_password=False))
    unknown = registry.ModelActivation(
        model_name="rehearsed",
        model_version="never registered",
        effective_session=DAY,
        activated_by="test",
        reason="none",
    )
    with pytest.raises(IntegrityError), unrecorded.begin() as transaction:
        transaction.add(unknown)
    unrecorded.dispose()


def test_what_the_database_checks_at_the_commit_holds_too(ledger: Ledger) -> None:
    """A state without its event is refused only when a transaction ends: here it ends differently."""
    frozen(ledger)
    unrecorded = UnrecordedLedger.over(ledger)
    with unrecorded.begin() as transaction:
        order_book.transition(
            transaction, NAME, OrderState.SENDING, Actor.SUBMISSION, detail="sending"
        )
        transaction.flush()
    with (
        pytest.raises(IntegrityError, match="its last event says pending"),
        unrecorded.begin() as transaction,
    ):
        transaction.get_one(OrderIntent, NAME).state = "sending"
