"""Whether a newly trained model takes over, decided from out-of-sample evidence alone.

Belongs here: the rule and its reason in words. Does not belong here: measuring (`evaluation.py`) and
recording (the ledger's registry).

The rule, in order:

1. Without a finite mean IC on held-out sessions there is no evidence: the model stays a candidate.
2. A mean IC that is not above `minimum_ic` is no skill: the model stays a candidate.
3. With no model in force, it is promoted.
4. Otherwise both are compared day by day on the held-out sessions that lie at or after the session
   from which the model in force serves: those neither has seen. The candidate is refused only when it
   is clearly worse, that is when the mean of the daily differences of IC lies more than
   `tolerance_standard_errors` of its standard errors below zero.
5. With fewer than `minimum_common_sessions` of them nothing is clear, and the candidate is promoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from quant_assets.models.evaluation import Evidence


class PromotionRule(BaseModel):
    """The thresholds of the gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_ic: float = Field(default=0.0, description="Mean held-out IC must lie above this.")
    tolerance_standard_errors: float = Field(default=2.0, ge=0)
    minimum_common_sessions: int = Field(default=10, ge=2)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the model takes over, and one sentence why."""

    promote: bool
    reason: str


def decide(
    candidate: Evidence,
    *,
    in_force: str | None = None,
    candidate_daily: pl.DataFrame | None = None,
    in_force_daily: pl.DataFrame | None = None,
    rule: PromotionRule,
) -> Decision:
    """Apply the rule.

    Args:
        candidate: Held-out evidence of the candidate.
        in_force: Version of the model in force; None when there is none.
        candidate_daily: `session`, `ic` of the candidate (`evaluation.daily_ic`).
        in_force_daily: The same of the model in force, on sessions that it had not seen.
        rule: Thresholds.

    Returns:
        The decision with its reason.
    """
    if candidate.ic_mean is None:
        return Decision(
            promote=False, reason="No held-out session has an IC: no evidence of skill."
        )
    skill = f"mean IC {candidate.ic_mean:+.4f} over {candidate.sessions} held-out sessions"
    if candidate.ic_mean <= rule.minimum_ic:
        return Decision(promote=False, reason=f"{skill} is not above {rule.minimum_ic:g}.")
    if in_force is None:
        return Decision(promote=True, reason=f"{skill}; no model was in force.")
    differences = _differences(candidate_daily, in_force_daily)
    if differences.len() < rule.minimum_common_sessions:
        return Decision(
            promote=True,
            reason=f"{skill}; only {differences.len()} sessions are unseen by {in_force} too, "
            f"{rule.minimum_common_sessions} are needed to call it worse.",
        )
    mean = float(differences.to_numpy().mean())
    error = float(differences.to_numpy().std(ddof=1)) / sqrt(differences.len())
    floor = -rule.tolerance_standard_errors * error
    compared = (
        f"{skill}; against {in_force} the daily IC differs by {mean:+.4f} ± {error:.4f} over "
        f"{differences.len()} sessions unseen by both"
    )
    if mean < floor:
        return Decision(promote=False, reason=f"{compared}: clearly worse.")
    return Decision(promote=True, reason=f"{compared}: not clearly worse.")


def _differences(candidate: pl.DataFrame | None, in_force: pl.DataFrame | None) -> pl.Series:
    if candidate is None or in_force is None:
        return pl.Series("difference", [], dtype=pl.Float64)
    return (
        candidate.select("session", "ic")
        .join(in_force.select("session", in_force_ic="ic"), on="session")
        .drop_nulls()
        .select(difference=pl.col("ic") - pl.col("in_force_ic"))
        .to_series()
    )
