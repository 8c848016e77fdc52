"""The registry keeps what was trained, and answers which version serves which session."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError

from quant_resources.ledger.registry import (
    RegistryError,
    activate_model,
    activations,
    active_model,
    active_models,
    list_models,
    load_artefact,
    model,
    register_model,
    roll_back,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from quant_resources.ledger.ledger import Ledger

NAME = "alpha158_lightgbm"
MARCH, APRIL, MAY = date(2024, 3, 1), date(2024, 4, 1), date(2024, 5, 1)


def _register(transaction: Session, version: str, month: date = MARCH, **changes: Any) -> bool:
    values: dict[str, Any] = {
        "model_name": NAME,
        "model_version": version,
        "month": month,
        "training_first_session": date(2021, 1, 4),
        "training_last_session": month - timedelta(days=4),
        "metrics": {"ic_mean": 0.04, "rank_ic_std": float("nan"), "by_month": (1, 2)},
        "config": {"num_leaves": 31, "first": date(2021, 1, 4)},
        "artefact": f"tree\nversion={version}\n",
    }
    return register_model(transaction, **(values | changes))


def _activate(transaction: Session, version: str, on: date, **changes: Any) -> int:
    values: dict[str, Any] = {
        "model_name": NAME,
        "model_version": version,
        "effective_session": on,
        "activated_by": "promotion",
        "reason": "better out of sample",
    }
    return activate_model(transaction, **(values | changes)).activation_id


def test_a_registered_model_is_read_back_as_it_was(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        assert _register(transaction, "v1")

    with ledger.begin() as transaction:
        found = model(transaction, "v1")
        assert found.metrics == {"ic_mean": 0.04, "rank_ic_std": None, "by_month": [1, 2]}
        assert found.config == {"num_leaves": 31, "first": "2021-01-04"}
        assert load_artefact(transaction, "v1") == "tree\nversion=v1\n"


def test_the_artefact_is_not_read_by_accident(ledger: Ledger) -> None:
    """Megabytes for every row of a list would make each listing slow."""
    with ledger.begin() as transaction:
        _register(transaction, "v1")
        found = model(transaction, "v1")
        transaction.expire_all()
        with pytest.raises(InvalidRequestError, match="raiseload"):
            _ = found.artefact


def test_registering_again_changes_nothing_and_something_else_is_refused(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        _register(transaction, "v1")
    with ledger.begin() as transaction:
        assert not _register(transaction, "v1")
    with pytest.raises(RegistryError, match="'v1' is registered already"), ledger.begin() as again:
        _register(again, "v1", artefact="another tree")


def test_a_damaged_artefact_is_not_loaded(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        _register(transaction, "v1")
        transaction.execute(text("ALTER TABLE models DISABLE TRIGGER append_only"))
        transaction.execute(text("UPDATE models SET artefact = artefact || 'x'"))

        with pytest.raises(RegistryError, match="'v1' is damaged"):
            load_artefact(transaction, "v1")


def test_the_latest_effective_session_serves_and_before_the_first_nothing_does(
    ledger: Ledger,
) -> None:
    with ledger.begin() as transaction:
        _register(transaction, "v1", MARCH)
        _register(transaction, "v2", APRIL)
        # Made in the other order: what counts is the session, not the time of the decision.
        _activate(transaction, "v2", APRIL)
        _activate(transaction, "v1", MARCH)

        assert active_model(transaction, NAME, MARCH - timedelta(days=1)) is None
        assert active_model(transaction, NAME, MARCH) == "v1"
        assert active_model(transaction, NAME, APRIL - timedelta(days=1)) == "v1"
        assert active_model(transaction, NAME, APRIL) == "v2"
        assert active_model(transaction, "another_model", APRIL) is None


def test_a_rollback_is_a_new_activation_and_leaves_the_sessions_before_it(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        for version, month in (("v1", MARCH), ("v2", APRIL)):
            _register(transaction, version, month)
            _activate(transaction, version, month)
        _activate(transaction, "v1", date(2024, 4, 15), activated_by="ann", reason="drift")

        assert active_model(transaction, NAME, date(2024, 4, 12)) == "v2"
        assert active_model(transaction, NAME, date(2024, 4, 15)) == "v1"
        assert [made.model_version for made in activations(transaction, NAME)] == ["v1", "v2", "v1"]


def test_the_last_word_on_a_session_wins_and_repeating_it_adds_nothing(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        for version in ("v1", "v2"):
            _register(transaction, version)
        first = _activate(transaction, "v1", MARCH)
        assert _activate(transaction, "v1", MARCH) == first
        _activate(transaction, "v2", MARCH)
        last = _activate(transaction, "v1", MARCH)

        assert last > first
        assert active_model(transaction, NAME, MARCH) == "v1"
        assert [made.activation_id for made in activations(transaction, after_id=first)] == [
            last - 1,
            last,
        ]


def test_status_follows_from_the_activations_as_of_a_session(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        for version, month in (("v1", MARCH), ("v2", APRIL), ("v3", MAY)):
            _register(transaction, version, month)
        _activate(transaction, "v1", MARCH)
        _activate(transaction, "v2", APRIL)

        def status(as_of: date | None = None) -> dict[str, str]:
            listed = list_models(transaction, NAME, as_of)
            return {entry.model.model_version: entry.status for entry in listed}

        assert list(status()) == ["v3", "v2", "v1"]
        assert status() == {"v1": "retired", "v2": "active", "v3": "candidate"}
        assert status(MARCH) == {"v1": "active", "v2": "candidate", "v3": "candidate"}


def test_only_what_is_registered_can_be_activated(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        _register(transaction, "v1")
        with pytest.raises(RegistryError, match="no model version 'v9'"):
            _activate(transaction, "v9", MARCH)
        with pytest.raises(RegistryError, match=f"belongs to '{NAME}', not to 'other'"):
            _activate(transaction, "v1", MARCH, model_name="other")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    made=st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["v1", "v2", "v3"])), max_size=12)
)
def test_many_sessions_get_what_the_definition_says(
    ledger: Ledger, made: list[tuple[int, str]]
) -> None:
    """The definition, one session at a time: greatest (effective_session, activation_id)."""
    with ledger.begin() as transaction:
        name = f"model_{len(activations(transaction))}_{id(made)}"
        for version in ("v1", "v2", "v3"):
            _register(transaction, f"{name}-{version}", model_name=name)
        for day, version in made:
            _activate(
                transaction, f"{name}-{version}", MARCH + timedelta(days=day), model_name=name
            )
        sessions = [MARCH + timedelta(days=day) for day in range(-1, 22)]
        rows = transaction.execute(
            text(
                "SELECT (SELECT model_version FROM model_activations"
                " WHERE model_name = :name AND effective_session <= day"
                " ORDER BY effective_session DESC, activation_id DESC LIMIT 1)"
                " FROM unnest(CAST(:days AS date[])) WITH ORDINALITY AS asked(day, position)"
                " ORDER BY position"
            ),
            {"name": name, "days": sessions},
        )

        assert list(active_models(transaction, name, sessions).values()) == rows.scalars().all()


def test_rolling_back_twice_goes_back_two_versions_and_overrides_what_comes_later(
    ledger: Ledger,
) -> None:
    """The second rollback once named the version in force, and a third the one rolled away from."""

    def rolled_back(transaction: Session, on: date) -> str:
        return roll_back(
            transaction, model_name=NAME, effective_session=on, activated_by="me", reason="worse"
        )

    june, july = date(2024, 6, 3), date(2024, 7, 1)
    with ledger.begin() as transaction:
        for version, month in (("v1", MARCH), ("v2", APRIL), ("v3", MAY)):
            _register(transaction, version, month)
            _activate(transaction, version, month)
        assert rolled_back(transaction, june) == "v2"
        assert rolled_back(transaction, june) == "v1"
        assert active_model(transaction, NAME, june) == "v1"
        assert active_model(transaction, NAME, MAY) == "v3"
        _activate(transaction, "v3", july)
        assert rolled_back(transaction, june) == "v1"
        assert active_model(transaction, NAME, july) == "v1"
        with pytest.raises(RegistryError, match="no earlier activation"):
            rolled_back(transaction, june)
