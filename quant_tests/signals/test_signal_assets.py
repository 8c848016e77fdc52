"""Signals on the real graph: ranges, models in force, checks, a strategy with a bug, on demand."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import ClassVar

import dagster as dg
import polars as pl
import pytest

from quant_assets.features.schemas import ALPHA158
from quant_assets.models import serving
from quant_assets.models.schemas import ALPHA158_LIGHTGBM
from quant_assets.partitions import DEFAULT, range_tags
from quant_assets.point_in_time.checks import NO_LOOK_AHEAD, SAME_ALONE, judged
from quant_assets.point_in_time.recompute import steps
from quant_assets.signals.assets import signal_assets
from quant_assets.signals.checks import signal_checks
from quant_assets.signals.cross_section import StrategyInputError, check_inputs
from quant_assets.signals.discovery import discover
from quant_assets.signals.on_demand import signals_on_demand
from quant_assets.signals.schemas import signal_table, tables
from quant_assets.signals.strategies.enhanced_momentum import EnhancedMomentum
from quant_assets.signals.strategies.ml_ranker import MlRanker
from quant_assets.signals.strategy import Strategy
from quant_assets.table_checks import CheckScope, check_definitions
from quant_resources.errors import ConfigurationError, MissingPartitionError
from quant_resources.ledger import registry
from quant_resources.ledger.unrecorded import UnrecordedLedger
from quant_resources.store import Store
from quant_tests.models.planted_market import upstream
from quant_tests.models.trained_market import Trained

# Across the turn of a month, so that two models take part.
SESSIONS = [
    session
    for session in DEFAULT.session.get_partition_keys()
    if "2024-02-26" <= session <= "2024-03-05"
]
STRATEGIES = (EnhancedMomentum(), MlRanker(names_per_leg=5))
MODEL_SPEC = dg.AssetSpec(ALPHA158_LIGHTGBM.path.split("/"), partitions_def=DEFAULT.month)


class Broken(Strategy):
    """Asks for a column that does not exist."""

    name = "broken"
    version = "1"
    features: ClassVar = {"features/technical": ("rsi_41",)}

    def signals(self, universe: pl.DataFrame) -> pl.DataFrame:
        """Never reached."""
        return universe


def materialize(
    trained: Trained, strategies: Sequence[Strategy], keys: Sequence[str], *, check: bool = True
) -> dg.ExecuteInProcessResult:
    assets = signal_assets(strategies)
    declared = tables(strategies)
    checks = check_definitions(declared, signal_checks(strategies), DEFAULT) if check else []
    definitions = dg.Definitions(
        assets=[*assets, *upstream(), MODEL_SPEC],
        asset_checks=checks,
        jobs=[
            dg.define_asset_job(
                "signals",
                selection=dg.AssetSelection.groups("signals"),
                executor_def=dg.in_process_executor,
            )
        ],
        resources=trained.market.resources(trained.ledger, declared),
    )
    job = definitions.resolve_job_def("signals")
    return job.execute_in_process(tags=dict(range_tags(list(keys))), raise_on_error=False)


@pytest.fixture(scope="module")
def run(trained: Trained) -> dg.ExecuteInProcessResult:
    return materialize(trained, STRATEGIES, SESSIONS)


def stored(trained: Trained, strategy: Strategy) -> pl.DataFrame:
    return trained.market.store.read(signal_table(strategy), SESSIONS).collect()


def test_a_range_of_sessions_uses_the_model_in_force_at_each(run, trained) -> None:
    assert run.success
    frame = stored(trained, STRATEGIES[1])
    used = dict(frame.select("session", "model_version").unique().iter_rows())
    assert used == serving.versions_in_force(
        trained.ledger, "alpha158_lightgbm", map(date.fromisoformat, SESSIONS)
    )
    assert len(set(used.values())) == 2
    for _, session in frame.group_by("session"):
        assert session.height == trained.market.names
        assert session.filter(side="BUY").height == session.filter(side="SELL").height == 5


def test_the_ranker_likes_what_was_planted(run, trained) -> None:
    frame = stored(trained, STRATEGIES[1]).join(
        trained.market.store.read(ALPHA158, SESSIONS, ["session", "security_id", "KMID"]).collect(),
        on=["session", "security_id"],
    )
    assert frame.select(pl.corr("score", "KMID")).item() > 0.6


def test_rules_carry_their_version(run, trained) -> None:
    frame = stored(trained, STRATEGIES[0])
    assert frame["model_version"].unique().to_list() == ["enhanced_momentum-rules-1"]
    assert set(frame["side"]) == {"BUY", "SELL", "HOLD"}


def test_all_checks_pass_and_all_ran(run) -> None:
    evaluations = run.get_asset_check_evaluations()
    assert {evaluation.check_name for evaluation in evaluations} == {
        "declared_values",
        *(check.name for check in signal_checks(STRATEGIES)),
    }
    failed = [(e.check_name, e.description) for e in evaluations if not e.passed]
    assert not failed


def test_metadata_shows_names_and_a_picture(run) -> None:
    (*_, event) = run.asset_materializations_for_node("signals__ml_ranker")
    metadata = event.metadata
    assert event.partition == SESSIONS[-1]
    assert metadata["buys"].value == metadata["sells"].value == 5
    assert metadata["gross_target_weight"].value == pytest.approx(2.0)
    assert "| BUY |" in str(metadata["top_names"].value)
    assert "| SELL |" in str(metadata["bottom_names"].value)
    assert "data:image/png;base64," in str(metadata["picture"].value)


def test_one_session_alone_gives_what_the_range_gave(run, trained) -> None:
    before = {strategy.name: stored(trained, strategy) for strategy in STRATEGIES}
    assert materialize(trained, STRATEGIES, [SESSIONS[3]], check=False).success
    for strategy in STRATEGIES:
        assert stored(trained, strategy).equals(before[strategy.name])


def test_before_the_first_model_the_ranker_is_silent_and_says_so(trained) -> None:
    run = materialize(trained, STRATEGIES, ["2024-01-31"])
    assert run.success
    assert all(evaluation.passed for evaluation in run.get_asset_check_evaluations())
    (event,) = run.asset_materializations_for_node("signals__ml_ranker")
    assert "No model alpha158_lightgbm was in force" in str(event.metadata["no_signals"].value)
    table = signal_table(STRATEGIES[1])
    assert trained.market.store.read(table, ["2024-01-31"]).collect().is_empty()
    rules = signal_table(STRATEGIES[0])
    assert not trained.market.store.read(rules, ["2024-01-31"]).collect().is_empty()


def test_a_broken_strategy_fails_alone_and_says_why(trained) -> None:
    run = materialize(trained, [Broken(), *STRATEGIES], [SESSIONS[0]], check=False)
    assert not run.success
    assert {event.node_name for event in run.get_step_success_events()} == {
        "signals__enhanced_momentum",
        "signals__ml_ranker",
    }
    (failure,) = run.get_step_failure_events()
    assert failure.node_name == "signals__broken"
    error = failure.step_failure_data.error
    assert error is not None
    assert error.cause is not None
    assert (
        "Strategy broken reads the column 'rsi_41' of features/technical, which does not exist "
        "(did you mean 'rsi_14'?)" in error.cause.message
    )


def test_a_damaged_model_stops_its_sessions_instead_of_silence(trained) -> None:
    session = date(2024, 3, 14)
    with trained.ledger.begin() as transaction:
        registry.register_model(
            transaction,
            model_name="alpha158_lightgbm",
            model_version="alpha158_lightgbm-2024-03-damaged0",
            month=date(2024, 3, 1),
            training_first_session=date(2023, 1, 3),
            training_last_session=date(2024, 2, 27),
            metrics={},
            config={},
            artefact="tree\nversion=v4\n",
        )
        registry.activate_model(
            transaction,
            model_name="alpha158_lightgbm",
            model_version="alpha158_lightgbm-2024-03-damaged0",
            effective_session=session,
            activated_by="a test",
            reason="to break it",
        )
    run = materialize(trained, STRATEGIES, [session.isoformat()], check=False)
    (failure,) = run.get_step_failure_events()
    assert failure.node_name == "signals__ml_ranker"
    assert "not a complete LightGBM text" in failure.step_failure_data.error.cause.message  # pyright: ignore[reportOptionalMemberAccess]


def finding(trained: Trained, strategy: Strategy, name: str, frame: pl.DataFrame):
    (check,) = (check for check in signal_checks([strategy]) if check.name == name)
    scope = CheckScope(SESSIONS, trained.market.store, trained.ledger, None)  # pyright: ignore[reportArgumentType]
    return check.function(frame, scope)


def test_checks_catch_what_they_are_for(run, trained) -> None:
    momentum, ranker = STRATEGIES
    ranked, voted = stored(trained, ranker), stored(trained, momentum)
    first = ranked["symbol"] == ranked.filter(side="BUY").item(0, "symbol")

    def fails(strategy: Strategy, name: str, frame: pl.DataFrame) -> None:
        assert not finding(trained, strategy, name, frame).passed

    lighter = ranked.with_columns(target_weight=pl.col("target_weight") * 0.99)
    fails(ranker, "weights_keep_their_promise", lighter)
    heavier = voted.with_columns(target_weight=pl.col("target_weight").fill_null(0.2))
    fails(momentum, "weights_keep_their_promise", heavier)
    turned = ranked.with_columns(target_weight=-pl.col("target_weight"))
    fails(ranker, "sides_agree_with_weights", turned)
    swapped = voted.rename({"stop_loss": "take_profit", "take_profit": "stop_loss"})
    fails(momentum, "stops_are_on_the_right_side", swapped)
    strange = ranked.with_columns(
        security_id=pl.when(first).then(pl.lit("Z@1")).otherwise("security_id")
    )
    fails(ranker, "names_are_in_the_universe", strange)
    silent = ranked.filter(pl.col("session") != date.fromisoformat(SESSIONS[2]))
    caught = finding(trained, ranker, "every_session_has_signals", silent)
    assert caught.sample is not None
    assert caught.sample["session"].to_list() == [date.fromisoformat(SESSIONS[2])]


def test_signals_that_the_session_does_not_give_are_caught(run, trained, tmp_path: Path) -> None:
    ranker = STRATEGIES[1]
    table, ranked = signal_table(ranker), stored(trained, ranker)
    shutil.copytree(str(trained.market.store.root), tmp_path, dirs_exist_ok=True)
    store = Store(tmp_path)
    (step,) = steps(signal_assets([ranker]), DEFAULT)
    resources = {"ledger": UnrecordedLedger.over(trained.ledger)}

    def failing(frame: pl.DataFrame) -> set[str]:
        store.write(table, frame, SESSIONS)
        findings = judged(step, store, resources, SESSIONS)
        return {name for (_, name), finding in findings.items() if not finding.passed}

    assert failing(ranked) == set()
    # Scores that were made with the next session's knowledge are not what the session gives.
    shifted = ranked.sort("security_id", "session").with_columns(
        score=pl.col("score").shift(-1).over("security_id").fill_null(0.0)
    )
    assert failing(shifted) == {SAME_ALONE}
    other_model = ranked.with_columns(model_version=pl.lit("alpha158_lightgbm-2024-02-ffffffff"))
    assert failing(other_model) == {SAME_ALONE, NO_LOOK_AHEAD}


def test_on_demand_equals_what_was_stored(run, trained) -> None:
    day = date.fromisoformat(SESSIONS[0])
    frame = signals_on_demand(trained.market.store, trained.ledger, day, strategies=STRATEGIES)
    for strategy in STRATEGIES:
        computed = frame.filter(strategy=strategy.name).sort("security_id")
        kept = stored(trained, strategy).filter(session=day).sort("security_id")
        assert computed.equals(kept)
    few = signals_on_demand(
        trained.market.store, trained.ledger, day, ["s003", "S001"], strategies=STRATEGIES
    )
    assert few.height == 4
    assert few.equals(frame.filter(pl.col("symbol").is_in(["S001", "S003"])))


def test_on_demand_names_what_is_missing(trained) -> None:
    day = date.fromisoformat(SESSIONS[0])
    with pytest.raises(
        ConfigurationError, match=r"S999 is not in the trading universe of 2024-02-26"
    ):
        signals_on_demand(trained.market.store, trained.ledger, day, ["S999"])
    with pytest.raises(MissingPartitionError, match="No trading universe is stored for 2024-02-25"):
        signals_on_demand(trained.market.store, trained.ledger, date(2024, 2, 25))


def test_every_discovered_strategy_reads_what_exists() -> None:
    for strategy in discover():
        check_inputs(strategy)
    with pytest.raises(StrategyInputError):
        check_inputs(Broken())
