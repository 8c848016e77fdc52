"""The rules that a delivered row may break: what each means, what to do, and whether a person may overrule it.

What belongs here: words. What does not: how a rule is computed (validation.py, row_comparisons.py,
levels.py).
"""

from __future__ import annotations

from dataclasses import dataclass

_REFETCH = "Fetch the session again; a repaired row is accepted as a new vintage."


@dataclass(frozen=True)
class Rule:
    """One rule on rows.

    Attributes:
        name: As written in the quarantine.
        words: What it means that a row broke it.
        remedy: What to do.
        releasable: Whether a person may overrule it. A row without usable values leaves nothing to
            trade on, whoever vouches for it.
    """

    name: str
    words: str
    remedy: str
    releasable: bool = False


#: In the order in which a row is judged.
RULES: tuple[Rule, ...] = (
    Rule(
        "malformed_symbol",
        "The symbol is missing or is none that an exchange would list.",
        "Correct the symbol at the source or leave it out of the configured symbols.",
    ),
    Rule(
        "not_a_session",
        "The bar's own time lies on another day than the session that it came with.",
        "Ask the source why it has a bar on a day without trading.",
    ),
    Rule("missing_price", "Open, high, low or close is absent, NaN or infinite.", _REFETCH),
    Rule("non_positive_price", "A price is not above zero, or by less than any tick.", _REFETCH),
    Rule("high_below_low", "The highest price lies below the lowest one.", _REFETCH),
    Rule("outside_high_low", "Open or close lies outside of low to high.", _REFETCH),
    Rule("bad_volume", "The volume is absent, negative, NaN or infinite.", _REFETCH),
    Rule(
        "duplicate",
        "The same row was delivered more than once.",
        "Nothing: the same row was kept once.",
    ),
    Rule(
        "conflicting_duplicate",
        "Different rows were delivered for one symbol and session, and nothing says which is right.",
        "Compare with a second source and have the wrong row removed.",
    ),
    Rule(
        "zero_volume",
        "No share was traded, and yet the price moved.",
        "Compare with a second source: a price cannot move without a trade.",
        releasable=True,
    ),
    Rule(
        "stale_row",
        "Open, high, low, close and volume are those of the symbol's row before.",
        "Fetch the session again: the source has repeated an old bar.",
        releasable=True,
    ),
    Rule(
        "copied_row",
        "The row is another symbol's row of the same session, and fits only the other's prices.",
        "Fetch the session again: the source has given one symbol the bar of another.",
        releasable=True,
    ),
    Rule(
        "volume_spike",
        "The volume is hundreds of times the usual one, while the price hardly moved.",
        "Compare the volume with a second source.",
        releasable=True,
    ),
    Rule(
        "action_not_followed",
        "A corporate action should have moved the price on this session, but the price stayed.",
        "Check the corporate action: if the price stays, the action is ignored from the next session.",
        releasable=True,
    ),
    Rule(
        "suspected_missed_split",
        "From the open on, the price is a simple split ratio away from the close before, and no split "
        "was reported.",
        "Look for a split of this session; once the source reports it, fetch the session again.",
        releasable=True,
    ),
    Rule(
        "misplaced_decimal",
        "Prices are about 10, 100 or 1000 times what stands beside them: a misplaced decimal point.",
        _REFETCH,
        releasable=True,
    ),
    Rule(
        "return_outlier",
        "The price is more than 30 % from the close before, and neither a corporate action nor the "
        "trading of real news explains it.",
        "Compare with a second source; the sessions that follow confirm the level or refute it.",
        releasable=True,
    ),
)

BY_NAME: dict[str, Rule] = {rule.name: rule for rule in RULES}
REMEDIES: dict[str, str] = {rule.name: rule.remedy for rule in RULES}
