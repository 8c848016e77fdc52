"""`quant data quarantine` on stored tables, and a release that reaches the graph."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from quant_assets.cli.main import app
from quant_assets.market_data.releases import release_of
from quant_assets.market_data.schemas import (
    BARS,
    CORPORATE_ACTIONS,
    QUARANTINE,
    RAW_BARS,
)
from quant_assets.market_data.stored_gate import gate_stored
from quant_assets.market_data.stored_quarantine import (
    add_releases,
    rejected_rows,
    stored_releases,
)
from quant_resources.errors import ConfigurationError, DataError
from quant_resources.store import Store
from quant_tests.market_data.deliveries import (
    OBSERVED_AT,
    SESSIONS,
    action,
    action_frame,
    bar,
    raw_frame,
    steady,
)

SPAN = SESSIONS[:40]
KEYS = [str(session) for session in SPAN]
#: A split that nobody reported, on place 30, and a row without a price on place 35.
SPLIT, BROKEN = SPAN[30], SPAN[35]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("QUANT_DATA_ROOT", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    rows: list[dict[str, Any]] = [
        *steady("AAA", [100.0 + n % 3 for n in range(30)]),
        *steady("AAA", [50.0 + n % 3 / 2 for n in range(10)], start=30, volume=2e6),
        *steady("BBB", [20.0 + n % 3 / 4 for n in range(40)]),
    ]
    rows = [row for row in rows if (row["symbol"], row["session"]) != ("BBB", BROKEN)]
    rows.append(bar("BBB", BROKEN, None))
    store = Store(tmp_path)
    store.write(RAW_BARS, raw_frame(rows), KEYS)
    facts = [action("AAA", SPAN[28], "cash_dividend", cash=0.5)]
    store.write(CORPORATE_ACTIONS, action_frame(facts), KEYS)
    judge(store)
    return store


def judge(store: Store) -> None:
    found = gate_stored(store, SPAN[0], SPAN)
    store.write(QUARANTINE, found.quarantine, KEYS)
    store.write(BARS, found.bars, KEYS)


def quant(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["data", "quarantine", *arguments])


def shown(*arguments: str) -> Any:
    result = quant(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_list_counts_by_rule_and_shows_the_newest_first(store: Store) -> None:
    found = shown()
    assert [(one["rule"], one["rows"], one["symbols"]) for one in found["by_rule"]] == [
        ("suspected_missed_split", 10, 1),
        ("missing_price", 1, 1),
    ]
    assert found["rows"][0]["session"] == KEYS[39]
    assert len(found["rows"]) == 11
    text = quant().output
    assert "11 rows in quarantine" in text
    assert "suspected_missed_split" in text


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (("--symbol", "bbb"), 1),
        (("--rule", "missing_price"), 1),
        (("--session", str(BROKEN)), 2),
        (("--from", str(BROKEN)), 6),
        (("--to", str(SPLIT)), 1),
        (("--symbol", "CCC"), 0),
    ],
)
def test_list_is_filtered(store: Store, arguments: tuple[str, ...], rows: int) -> None:
    assert len(shown(*arguments)["rows"]) == rows


def test_unknown_rule_is_one_sentence_that_names_the_known_ones(store: Store) -> None:
    result = quant("--rule", "nonsense")
    assert isinstance(result.exception, DataError)
    assert "'nonsense'; rules are malformed_symbol" in str(result.exception)


def test_list_of_an_empty_data_root_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANT_DATA_ROOT", str(tmp_path / "none"))
    assert "No row is in quarantine" in quant().output
    assert "Nothing has been released" in quant("releases").output


def test_explain_tells_the_whole_story(store: Store) -> None:
    later = raw_frame(steady("AAA", [50.5], start=30, volume=2e6)).with_columns(
        observed_at=pl.lit(OBSERVED_AT + timedelta(days=1)).dt.cast_time_unit("us")
    )
    others = store.read(RAW_BARS, [str(SPLIT)]).filter(symbol="BBB").collect()
    store.write(RAW_BARS, pl.concat([later, others]), [str(SPLIT)])
    (told,) = shown("explain", "aaa", str(SPLIT))
    assert told["row"]["rule"] == "suspected_missed_split"
    assert told["rule_in_words"].startswith("From the open on, the price is a simple split ratio")
    assert told["releasable"] is True
    assert [row["session"] for row in told["neighbours"]] == KEYS[25:36]
    assert [row["verdict"] for row in told["neighbours"]][4:6] == ["bar", "suspected_missed_split"]
    assert told["neighbours"][5]["change"] == pytest.approx(50.0 / 102.0 - 1)
    assert [row["action_type"] for row in told["corporate_actions"]] == ["cash_dividend"]
    assert [row["close"] for row in told["vintages"]] == [50.0, 50.5]
    assert [row["observed_at"][:10] for row in told["vintages"]] == ["2025-01-01", "2025-01-02"]
    text = quant("explain", "AAA", str(SPLIT)).output
    assert "What to do: Look for a split of this session" in text
    assert "quant data quarantine release AAA" in text


def test_explain_says_when_a_row_was_withdrawn(store: Store) -> None:
    others = store.read(RAW_BARS, [str(SPLIT)]).filter(symbol="BBB").collect()
    store.write(
        RAW_BARS,
        others.with_columns(
            observed_at=pl.lit(OBSERVED_AT + timedelta(days=1)).dt.cast_time_unit("us")
        ),
        [str(SPLIT)],
    )
    (told,) = shown("explain", "AAA", str(SPLIT))
    assert [(row["state"], row["close"]) for row in told["vintages"]] == [
        ("sent", 50.0),
        ("withdrawn", None),
    ]


@pytest.mark.parametrize(
    ("symbol", "session", "said"),
    [
        ("AAA", "2024-01-06", "2024-01-06 is no session; the next one is 2024-01-08"),
        ("AAA", "2024-12-30", f"not been judged yet (stored are {KEYS[0]} to {KEYS[-1]})"),
        ("AAA", str(SPAN[3]), "is not in quarantine: it is a valid bar (close 100.0)"),
        ("ZZZ", str(SPAN[3]), "No row of ZZZ was delivered"),
    ],
)
@pytest.mark.parametrize("command", ["explain", "release"])
def test_what_is_not_there_is_one_sentence(
    store: Store, command: str, symbol: str, session: str, said: str
) -> None:
    reason = ["--reason", "why not"] if command == "release" else []
    result = quant(command, symbol, session, *reason)
    assert isinstance(result.exception, DataError)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)


def test_day_that_is_no_day_is_one_sentence(store: Store) -> None:
    result = quant("explain", "AAA", "yesterday")
    assert isinstance(result.exception, ConfigurationError)
    assert "'yesterday' is no day" in str(result.exception)


def test_worthless_row_is_refused_before_anything_is_started(store: Store) -> None:
    result = quant("release", "BBB", str(BROKEN), "--reason", "it must be right")
    assert isinstance(result.exception, DataError)
    assert f"BBB of {BROKEN} broke the rule missing_price" in str(result.exception)
    assert "cannot be released" in str(result.exception)
    assert stored_releases(store).is_empty()
    told = quant("explain", "BBB", str(BROKEN)).output
    assert "It cannot be released" in told


def test_release_is_kept_once_listed_and_makes_the_level_bars(store: Store) -> None:
    row = rejected_rows(store, "AAA", SPLIT)[0]
    release = release_of(row, "split confirmed", "tester", datetime(2025, 1, 2, tzinfo=UTC))
    assert add_releases(store, release).height == 1
    assert add_releases(store, release).is_empty()
    assert [(one["symbol"], one["released_by"]) for one in shown("releases")] == [("AAA", "tester")]
    (told,) = shown("explain", "AAA", str(SPLIT))
    assert told["releases"][0]["holds"] is True
    judge(store)
    assert shown()["by_rule"][0]["rule"] == "missing_price"
    result = quant("explain", "AAA", str(SPLIT))
    assert "it is a valid bar" in str(result.exception)


def test_later_releases_stand_behind_earlier_ones(store: Store) -> None:
    """The restatement plan counts the releases that it has seen."""
    at = datetime(2025, 1, 2, tzinfo=UTC)
    for day in (SPAN[33], SPAN[31]):
        add_releases(store, release_of(rejected_rows(store, "AAA", day)[0], "why", "me", at))
    assert stored_releases(store)["session"].to_list() == [SPAN[33], SPAN[31]]
