"""The evidence gate: who takes over, who does not, and that it says why."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from quant_assets.models.evaluation import Evidence, summarise
from quant_assets.models.promotion import PromotionRule, decide

RULE = PromotionRule()


def daily(values: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "session": [date(2024, 1, 1) + timedelta(days=n) for n in range(len(values))],
            "ic": pl.Series(values, dtype=pl.Float64),
            "rank_ic": pl.Series(values, dtype=pl.Float64),
        }
    )


def noisy(mean: float, sessions: int, seed: int) -> pl.DataFrame:
    return daily((mean + 0.1 * np.random.default_rng(seed).standard_normal(sessions)).tolist())


def test_no_evidence_is_no_promotion() -> None:
    decision = decide(Evidence(0, None, None, None, None), rule=RULE)
    assert not decision.promote
    assert "no evidence" in decision.reason


def test_no_skill_is_no_promotion_even_without_a_rival() -> None:
    for mean in (0.0, -0.02):
        decision = decide(Evidence(60, mean, 0.1, mean, 0.1), rule=RULE)
        assert not decision.promote
        assert "is not above 0" in decision.reason


def test_the_first_skilled_model_is_promoted() -> None:
    decision = decide(Evidence(60, 0.03, 0.1, 0.03, 0.1), rule=RULE)
    assert decision.promote
    assert "no model was in force" in decision.reason


def test_a_clearly_worse_model_is_refused() -> None:
    candidate = noisy(0.02, 60, 1)
    better = candidate.with_columns(ic=pl.col("ic") + 0.05 + 0.01 * (pl.int_range(60) % 2))
    decision = decide(
        summarise(candidate),
        in_force="m-2024-01-abc",
        candidate_daily=candidate,
        in_force_daily=better,
        rule=RULE,
    )
    assert not decision.promote
    assert "m-2024-01-abc" in decision.reason
    assert decision.reason.endswith("clearly worse.")


def test_a_difference_within_the_noise_does_not_keep_the_old_model() -> None:
    candidate, in_force = noisy(0.03, 60, 1), noisy(0.04, 60, 2)
    decision = decide(
        summarise(candidate),
        in_force="old",
        candidate_daily=candidate,
        in_force_daily=in_force,
        rule=RULE,
    )
    assert decision.promote
    assert "not clearly worse" in decision.reason


def test_a_worse_mean_on_too_few_common_sessions_decides_nothing() -> None:
    candidate = noisy(0.05, 60, 1)
    in_force = candidate.tail(9).with_columns(ic=pl.lit(0.9))
    decision = decide(
        summarise(candidate),
        in_force="old",
        candidate_daily=candidate,
        in_force_daily=in_force,
        rule=RULE,
    )
    assert decision.promote
    assert "only 9 sessions" in decision.reason
