"""What a person should see of the sources: two that disagree, and index members that have no bar.

Belongs here: rules that compare what is stored with a second source or with a membership file. Does not
belong here: rules on the bars themselves (checks.py). None of these blocks: which of two sources is right
is a person's to say, and trading goes on with the first.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from quant_assets.market_data.index_membership import membership, read_membership
from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, SOURCE_DIFFERENCES, UNIVERSE
from quant_assets.table_checks import CheckScope, Finding, TableCheck
from quant_resources.settings import load_settings

_SAMPLE = 10


def sources_agree(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The second source confirms the bars of the first."""
    silent = frame.filter(field="answer").sort("session")
    told = frame.filter(pl.col("field") != "answer").sort(
        pl.col("relative_difference").fill_null(float("inf")),
        "session",
        "symbol",
        descending=[True, False, False],
    )
    if frame.is_empty():
        compared = "agree with the first" if load_settings().second_source else "are none"
        return Finding(True, f"{len(scope.partition_keys)} session(s): second sources {compared}.")
    sentences, remedies = [], []
    if told.height:
        worst = told.row(0, named=True)
        sentences.append(
            f"{worst['source']} and {worst['other_source']} differ in {told.height} value(s) of "
            f"{told['symbol'].n_unique()} symbol(s) and {told['session'].n_unique()} session(s), "
            f"most in {worst['field']} of {worst['symbol']} on {worst['session']} "
            f"({worst['value']:g} against {worst['other_value']:g})."
        )
        remedies.append(
            "Compare with a third source; where the first is wrong, fetch the session again "
            "(materialize raw_bars); where both mean the same, widen "
            "QUANT_SECOND_SOURCE_TOLERANCE or QUANT_SECOND_SOURCE_VOLUME_TOLERANCE."
        )
    if silent.height:
        sentences.append(
            f"{silent.item(0, 'other_source')} gave no usable answer for {silent.height} "
            f"session(s), such as {silent.item(0, 'session')}: they are not confirmed."
        )
        remedies.append(
            "The metadata of source_differences say why; materialize it again when the source answers."
        )
    shown = told if told.height else silent
    return Finding(
        False,
        " ".join(sentences),
        frame.height,
        shown.head(_SAMPLE),
        " ".join(remedies),
    )


def members_have_bars(frame: pl.DataFrame, scope: CheckScope) -> Finding:  # noqa: ARG001
    """Every member of the index has a bar at every session."""
    file = load_settings().universe_membership
    if file is None:
        return Finding(True, "No membership file is configured: the universe is no index.")
    sessions = [date.fromisoformat(key) for key in scope.partition_keys]
    found = membership(
        read_membership(file),
        scope.store.read(BARS, scope.partition_keys, ["session", "symbol"]).collect(),
        scope.store.read(CORPORATE_ACTIONS).collect(),
        sessions,
    )
    missing = found.without_bar
    members = missing.height + found.bars.height
    if not members:
        return Finding(
            False,
            f"{file.name} names no member at {sessions[0]} to {sessions[-1]}: the universe is empty.",
            len(sessions),
            remedy="Extend the membership file, or unset QUANT_UNIVERSE_MEMBERSHIP.",
        )
    if missing.is_empty():
        return Finding(True, f"All {members} members of {len(sessions)} session(s) have a bar.")
    by_member = missing.group_by("member").agg(
        sessions=pl.len(), first=pl.col("session").min(), last=pl.col("session").max()
    )
    by_member = by_member.sort("sessions", "member", descending=[True, False])
    return Finding(
        False,
        f"{missing.height} of {members} times a member has no bar ({by_member.height} members, such "
        f"as {by_member.item(0, 'member')} from {by_member.item(0, 'first')} on).",
        missing.height,
        by_member.head(_SAMPLE),
        "Look in quarantine and coverage for them; one that traded under an older name needs its "
        "name_change among the corporate actions, or its old name in the file.",
    )


CHECKS: tuple[TableCheck, ...] = (
    TableCheck(
        SOURCE_DIFFERENCES,
        "sources_agree",
        "The second source, where one is configured, has the same bars within the tolerance: a value "
        "that one vendor alone tells is not taken for certain.",
        sources_agree,
        blocking=False,
    ),
    TableCheck(
        UNIVERSE,
        "members_have_bars",
        "Every member of the index, where one is configured, has a bar: otherwise the universe is not "
        "that index.",
        members_have_bars,
        blocking=False,
        columns=("session", "symbol"),
    ),
)
