"""Which sessions train a month's model and which judge it, so that nothing is known too early.

Belongs here: the split of labelled sessions by what was known when. Does not belong here: training
(`gradient_boosting.py`), the measures of quality (`evaluation.py`) and reading tables (`assets.py`).

A label of session t is known at a later session (`known_session`), because it is a return that has
still to happen. The split of a month follows from that in six sentences:

1. *Purge against the month*: a session may be used when its label was known strictly before the
   month's first session; no session of the month itself ever satisfies that.
2. Of those, the last `training_sessions` are the window of the month.
3. The last `held_out_sessions` of the window are held out: they judge.
4. *Purge against the held-out part*: a session may fit the judged model only when its label was
   known strictly before the first held-out session, so that no return lies in both parts.
5. *Embargo*: of the sessions that remain, the last `embargo_sessions` are left out too, because
   features built from overlapping windows carry the held-out days' neighbourhood.
6. The judged model is fitted on what remains; the model that serves the month is then refitted on
   the whole window.

Source: M. López de Prado, *Advances in Financial Machine Learning* (2018), chapter 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from quant_assets.features.schemas import LABELS
from quant_resources.errors import DataError


class InsufficientHistoryError(DataError):
    """A month has too few sessions with known labels before it to train a model."""


class LookAheadError(DataError):
    """A label would be used before it was known."""


class WalkForwardConfig(BaseModel):
    """How much history a month's model sees and how it is divided; all counts are sessions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_sessions: int = Field(default=500, ge=2, description="Longest window of a month.")
    held_out_sessions: int = Field(
        default=63, ge=1, description="Sessions at the window's end that judge."
    )
    embargo_sessions: int = Field(default=5, ge=0, description="Gap before them, beside the purge.")
    minimum_fit_sessions: int = Field(
        default=60, ge=1, description="Fewest sessions the judged model sees."
    )

    @model_validator(mode="after")
    def _window_holds_its_parts(self) -> WalkForwardConfig:
        if self.training_sessions < self.required_sessions():
            raise ValueError(
                f"training_sessions is {self.training_sessions}, but fit, embargo, purge and "
                f"held-out part need {self.required_sessions()}"
            )
        return self

    def required_sessions(self, label_horizon: int = LABELS.horizon) -> int:
        """Fewest sessions with known labels before a month that can be split.

        Args:
            label_horizon: Sessions from a row to its `known_session`. The label of the session h
                before the held-out part is known on its first session, so h sessions are purged.
        """
        return (
            self.minimum_fit_sessions
            + self.embargo_sessions
            + label_horizon
            + self.held_out_sessions
        )


@dataclass(frozen=True, slots=True)
class WalkForwardSplit:
    """The sessions of a month's model, each tuple ascending and gapless within the window.

    Attributes:
        effective_session: First session of the month, the first one the model may serve.
        fit: Sessions that fit the model that is judged.
        withheld: Sessions between the two that neither fit nor judge (purge and embargo).
        held_out: Sessions that judge.
    """

    effective_session: date
    fit: tuple[date, ...]
    withheld: tuple[date, ...]
    held_out: tuple[date, ...]

    @property
    def window(self) -> tuple[date, ...]:
        """Every session the serving model is fitted on."""
        return self.fit + self.withheld + self.held_out


def walk_forward_split(
    known_sessions: pl.DataFrame, effective_session: date, config: WalkForwardConfig
) -> WalkForwardSplit:
    """Split labelled sessions for the model that serves from `effective_session` on.

    Args:
        known_sessions: One row per labelled session or per label: `session` and `known_session`
            (Date). Where the labels of one session become known at different times, the latest
            counts.
        effective_session: First session of the month.
        config: Lengths of window, held-out part and embargo.

    Returns:
        The split; see the module's opening for its rule.

    Raises:
        InsufficientHistoryError: Fewer sessions are left than the configuration needs.
        LookAheadError: A label claims to be known at or before its own session.
    """
    known = (
        known_sessions.lazy()
        .group_by("session")
        .agg(pl.col("known_session").max())
        .sort("session")
        .collect()
    )
    early = known.filter(pl.col("known_session") <= pl.col("session"))
    if early.height:
        session, known_session = early.row(0)
        raise LookAheadError(
            f"The label of session {session} claims to be known on {known_session}: a label is a "
            "later return, so repair features/labels before training."
        )
    usable = known.filter(pl.col("known_session") < effective_session).tail(
        config.training_sessions
    )
    sessions: list[date] = usable.get_column("session").to_list()
    held_out = sessions[-config.held_out_sessions :]
    before = usable.head(max(len(sessions) - config.held_out_sessions, 0))
    purged = (
        before.filter(pl.col("known_session") < held_out[0]).get_column("session").to_list()
        if held_out
        else []
    )
    fit = purged[: max(len(purged) - config.embargo_sessions, 0)]
    if len(fit) < config.minimum_fit_sessions:
        needed = config.required_sessions(_label_horizon(known))
        raise InsufficientHistoryError(
            f"The model of {effective_session:%Y-%m} needs {needed} sessions with labels known "
            f"before {effective_session} and has {len(sessions)} ({config.minimum_fit_sessions} to "
            f"fit, {config.embargo_sessions} embargo, {config.held_out_sessions} held out, the rest "
            f"purged): backfill {needed - len(sessions)} earlier sessions of features/alpha158 and "
            "features/labels, or begin with a later month."
        )
    return WalkForwardSplit(
        effective_session=effective_session,
        fit=tuple(fit),
        withheld=tuple(sessions[len(fit) : -config.held_out_sessions]),
        held_out=tuple(held_out),
    )


def _label_horizon(known: pl.DataFrame) -> int:
    """Sessions from a row to its label, as far as the rows show it."""
    if not known.height:
        return LABELS.horizon
    positions = known.get_column("session").search_sorted(known.get_column("known_session"))
    return max(int((positions.cast(pl.Int64) - pl.int_range(known.height, eager=True)).max()), 1)  # pyright: ignore[reportArgumentType]


def refuse_look_ahead(rows: pl.DataFrame, before: date, purpose: str) -> None:
    """Refuse rows whose label was not known strictly before `before`.

    The split makes this impossible; this is the last look at the very rows that go into a model.

    Args:
        rows: Frame with `session`, `symbol` and `known_session`.
        before: First session that may not be known.
        purpose: What the rows are for, named in the message.

    Raises:
        LookAheadError: Naming the first offending symbol and session.
    """
    late = rows.filter(
        (pl.col("known_session") >= before) | (pl.col("session") >= pl.col("known_session"))
    )
    if late.height:
        first = late.sort("session", "symbol").row(0, named=True)
        raise LookAheadError(
            f"{late.height} labels for {purpose} were not known before {before}, for example "
            f"{first['symbol']} of {first['session']}, known on {first['known_session']}."
        )
