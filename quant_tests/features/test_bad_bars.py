"""What a researcher may hand over by mistake: the right answer, or one sentence that names it.

Every table of features and labels is given the same spoiled bars twice, for one session alone and for
a range of sessions, and must answer alike. Guards against rows that vanish in a join, a null that
poisons a cross-section, a text that is taken for a number, a duplicate that doubles a volume, and a
daily run that accepts what the backfill refuses.
"""

from collections.abc import Callable
from datetime import date, timedelta
from typing import NamedTuple

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.features.alpha158 import alpha158
from quant_assets.features.labels import forward_returns
from quant_assets.features.session_features import (
    ALPHA158_FEATURES,
    ANOMALY_FEATURES,
    BAR_COLUMNS,
    TECHNICAL_FEATURES,
)
from quant_assets.features.technical import technical
from quant_resources.errors import DataError
from quant_tests.features.conftest import Market, raw_market

_RAW = raw_market(count=300, symbols=8, seed=29)
MARKET = _RAW._replace(
    bars=_RAW.bars.with_columns(pl.col("open", "high", "low", "close").round(2)),
)
"""Prices in whole cents, so that they are the same as decimals."""
LABELLED = MARKET.calendar[-4]
"""The last session whose label is known; all others have theirs on the last session."""
SESSION = MARKET.calendar[-1]
VICTIM = MARKET.bars.filter(pl.col("session") == SESSION)["security_id"][0]
TABLES = ("alpha158", "technical", "anomaly", "labels")
PATHS = ("day", "range")
KEY = ["session", "security_id"]

Spoil = Callable[[pl.DataFrame], pl.DataFrame]


def compute(table: str, path: str, market: Market) -> pl.DataFrame:
    """The rows of one session computed alone, or of the range that ends with it."""
    if table == "labels":
        last = market.calendar.index(LABELLED)
        sessions = market.calendar[last if path == "day" else last - 5 : last + 1]
        members = market.universe.filter(pl.col("session").is_in(sessions))
        seen = pl.col("session") >= sessions[0]
        return forward_returns(
            market.bars.filter(seen),
            members,
            [day for day in market.calendar if day >= sessions[0]],
        )
    features = {
        "alpha158": ALPHA158_FEATURES,
        "technical": TECHNICAL_FEATURES,
        "anomaly": ANOMALY_FEATURES,
    }[table]
    sessions = market.calendar[-1 if path == "day" else -6 :]
    return features.compute(market.bars.lazy(), market.universe.lazy(), sessions)


def clean(table: str, path: str) -> pl.DataFrame:
    return compute(table, path, MARKET)


def spoiled(spoil: Spoil) -> Market:
    return MARKET._replace(bars=spoil(MARKET.bars.select("symbol", *BAR_COLUMNS)))


def with_value(name: str, value: object, where: pl.Expr | None = None) -> Spoil:
    """Replace a value of the victim at the session that every table needs."""
    here = pl.col("session").is_in([SESSION, MARKET.calendar[-2]])
    here &= pl.col("security_id") == VICTIM
    changed = pl.when(here if where is None else where).then(pl.lit(value)).otherwise(name)
    return lambda bars: bars.with_columns(changed.alias(name))


every_table = pytest.mark.parametrize("table", TABLES)
every_path = pytest.mark.parametrize("path", PATHS)


class Harmless(NamedTuple):
    """A way to hand over the same bars."""

    name: str
    bars: Spoil


def _with_counts(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(pl.col("volume").cast(pl.Int64))


HARMLESS = [
    Harmless("shuffled rows", lambda bars: bars.sample(fraction=1.0, shuffle=True, seed=3)),
    Harmless("rows backwards", lambda bars: bars.reverse()),
    Harmless("in pieces", lambda bars: pl.concat([bars[50:], bars[:50]], rechunk=False)),
    Harmless("whole numbers", _with_counts),
    Harmless(
        "decimal prices",
        lambda bars: bars.with_columns(
            pl.col("open", "high", "low", "close").cast(pl.Decimal(12, 2))
        ),
    ),
    Harmless(
        "mixed pieces",
        lambda bars: pl.concat([_with_counts(bars[:900]), bars[900:]], how="vertical_relaxed"),
    ),
    Harmless(
        "more columns", lambda bars: bars.with_columns(note=pl.lit("odd"), session_2="session")
    ),
    Harmless(
        "columns in another order", lambda bars: bars.select(*sorted(bars.columns, reverse=True))
    ),
]


@every_table
@every_path
@pytest.mark.parametrize("harmless", HARMLESS, ids=lambda case: case.name)
def test_the_same_bars_in_another_form_give_the_same(
    table: str, path: str, harmless: Harmless
) -> None:
    assert_frame_equal(
        compute(table, path, spoiled(harmless.bars)), clean(table, path), check_exact=True
    )


OWNERS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "categories": lambda owner: owner.cast(pl.Categorical),
    "enumeration": lambda owner: owner.cast(
        pl.Enum(MARKET.bars["security_id"].unique().sort().to_list())
    ),
    # The order of owners is kept: it decides which rows a tree of the forest samples.
    "numbers": lambda owner: owner.str.extract(r"^S(\d+)").cast(pl.Int64),
    "control characters": lambda owner: owner + "\n\x00\t",
    "looks like nothing": lambda owner: owner.str.extract(r"^S(\d+)") + "NaN null {} %s ../../",
    "other alphabets": lambda owner: owner.str.extract(r"^S(\d+)") + "ß∆🚀 ",
    "very long": lambda owner: owner + pl.lit("x" * 5000),
}


@every_table
@every_path
@pytest.mark.parametrize("owner", OWNERS)
def test_owners_of_any_type_and_name(table: str, path: str, owner: str) -> None:
    renamed = OWNERS[owner](pl.col("security_id"))
    market = MARKET._replace(
        bars=MARKET.bars.with_columns(security_id=renamed),
        universe=MARKET.universe.with_columns(security_id=renamed),
    )
    result, expected = compute(table, path, market), clean(table, path)
    assert_frame_equal(result.drop("security_id"), expected.drop("security_id"), check_exact=True)


@every_table
@every_path
@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_null_nan_and_infinite_are_not_observed(table: str, path: str, name: str) -> None:
    if table == "labels" and name != "close":
        pytest.skip("a label looks at closes only")
    missing = compute(table, path, spoiled(with_value(name, None)))
    others = pl.col("security_id") != VICTIM
    values = [column for column in missing.columns if missing.schema[column].is_float()]
    for value in (float("nan"), float("inf"), float("-inf")):
        other = compute(table, path, spoiled(with_value(name, value)))
        assert_frame_equal(other, missing, check_exact=True)
    if table in ("alpha158", "technical"):
        # No other security hears of it.
        assert_frame_equal(
            missing.filter(others), clean(table, path).filter(others), check_exact=True
        )
    day = LABELLED if table == "labels" else SESSION
    row = missing.filter(~others & (pl.col("session") == day))
    assert row.height == 1
    unknown = row.select(pl.col(values).fill_nan(None).is_null()).row(0)
    assert any(unknown) if table == "alpha158" else all(unknown)
    rest = missing.filter(others & (pl.col("session") == day))
    assert rest.select(pl.any_horizontal(pl.col(values).is_not_null()).all()).item()


class Refused(NamedTuple):
    """Bars that are none, and what the refusal must say."""

    name: str
    bars: Spoil
    message: str
    tables: tuple[str, ...] = TABLES


def _again(bars: pl.DataFrame) -> pl.DataFrame:
    last = bars.filter(pl.col("security_id") == VICTIM, pl.col("session") == SESSION)
    return pl.concat([last, bars])


def _saturday(bars: pl.DataFrame) -> pl.DataFrame:
    """Three sessions before the last lies within what every table reads, labels included."""
    here = (pl.col("security_id") == VICTIM) & (pl.col("session") == MARKET.calendar[-2])
    friday = next(day for day in reversed(MARKET.calendar[:-1]) if day.weekday() == 4)
    return bars.with_columns(
        session=pl.when(here).then(pl.lit(friday + timedelta(days=1))).otherwise("session")
    )


FEATURES = ("alpha158", "technical", "anomaly")
REFUSED = [
    Refused("a bar twice", _again, f"{VICTIM}.*{SESSION}.*keep one"),
    Refused(
        "close of zero", with_value("close", 0.0), f"close.*0.0.*{VICTIM}|{VICTIM}.*close.*0.0"
    ),
    Refused(
        "negative close", with_value("close", -3.5), f"{VICTIM}.*close -3.5|close = -3.5.*{VICTIM}"
    ),
    Refused("negative high", with_value("high", -1.0), f"high = -1.0 of {VICTIM}", FEATURES),
    Refused("zero open", with_value("open", 0.0), f"open = 0.0 of {VICTIM}", FEATURES),
    Refused("negative volume", with_value("volume", -1.0), f"volume = -1.0 of {VICTIM}", FEATURES),
    Refused("no factor", with_value("price_factor", None), "factor"),
    Refused("factor that is no number", with_value("price_factor", float("nan")), "factor"),
    Refused("factor of zero", with_value("price_factor", 0.0), "factor"),
    Refused(
        "infinite volume factor", with_value("volume_factor", float("inf")), "factor", FEATURES[:2]
    ),
    Refused("a day without trading", _saturday, f"{VICTIM}.*no session of the calendar"),
    Refused(
        "older than its listing",
        with_value("first_session", date(2031, 1, 2)),
        f"{VICTIM}.*before its first_session 2031-01-02",
        FEATURES,
    ),
    Refused("no owner", with_value("security_id", None), "without security_id"),
    Refused(
        "prices as text",
        lambda bars: bars.with_columns(pl.col("close").cast(pl.String)),
        "close as a number, not String",
    ),
    Refused(
        "prices as truth values",
        lambda bars: bars.with_columns(close=pl.lit(value=True)),
        "close as a number, not Boolean",
    ),
    Refused(
        "owners of another type than the members'",
        lambda bars: bars.with_columns(pl.col("security_id").cast(pl.Categorical)),
        "security_id as Categorical.*as String.*cast one",
    ),
    Refused(
        "owners as floats",
        lambda bars: bars.with_columns(security_id=pl.lit(1.5)),
        "security_id as text, category or whole number, not Float64",
    ),
]


@every_table
@every_path
@pytest.mark.parametrize("refused", REFUSED, ids=lambda case: case.name)
def test_bars_that_are_none_are_refused_by_name(table: str, path: str, refused: Refused) -> None:
    if table not in refused.tables:
        pytest.skip("the table does not look at it")
    with pytest.raises(DataError, match=refused.message) as refusal:
        compute(table, path, spoiled(refused.bars))
    sentence = str(refusal.value)
    assert sentence.isprintable()
    assert sentence.count("\n") == 0


@every_table
@every_path
def test_members_that_are_none_are_refused_by_name(table: str, path: str) -> None:
    day = LABELLED if table == "labels" else SESSION
    last = MARKET.universe.filter(pl.col("session") == day)
    twice = MARKET._replace(universe=pl.concat([MARKET.universe, last.head(1)]))
    with pytest.raises(DataError, match=f"{last['security_id'][0]}.*{day}"):
        compute(table, path, twice)
    nameless = last.with_columns(security_id=pl.lit(None, pl.String))
    with pytest.raises(DataError, match="universe.*without security_id"):
        compute(table, path, MARKET._replace(universe=pl.concat([MARKET.universe, nameless])))


@every_table
@every_path
def test_a_security_with_one_bar_disturbs_nobody(table: str, path: str) -> None:
    """A listing of the last session: its row is there, as far as one bar goes; the others' rows stay."""
    day = LABELLED if table == "labels" else SESSION
    new = {"symbol": "NEW", "security_id": f"NEW@{day}"}
    own = pl.col("session") == day, pl.col("security_id") == VICTIM
    bar = MARKET.bars.filter(own).with_columns(
        pl.lit(new["symbol"]).alias("symbol"),
        pl.lit(new["security_id"]).alias("security_id"),
        first_session=pl.lit(day),
    )
    member = MARKET.universe.filter(own).with_columns(
        pl.lit(new["symbol"]).alias("symbol"), pl.lit(new["security_id"]).alias("security_id")
    )
    result = compute(
        table,
        path,
        MARKET._replace(
            bars=pl.concat([MARKET.bars, bar]),
            universe=pl.concat([MARKET.universe, member]).sort(KEY),
        ),
    )
    row = result.filter(pl.col("security_id") == new["security_id"])
    assert row.height == 1
    unknown = row.select(pl.selectors.float().fill_nan(None).is_null()).row(0)
    assert any(unknown) if table == "alpha158" else all(unknown)
    if table != "anomaly":  # which compares with the session's median return, of all securities
        rest = result.filter(pl.col("security_id") != new["security_id"])
        assert_frame_equal(rest, clean(table, path).sort(KEY), check_exact=True)


@every_table
@every_path
def test_no_bars_at_all_leave_the_members_without_values(table: str, path: str) -> None:
    result = compute(table, path, MARKET._replace(bars=MARKET.bars.clear()))
    expected = clean(table, path)
    assert result.select(KEY).equals(expected.select(KEY))
    assert result.schema == expected.schema
    unknown = result.select(pl.selectors.float().fill_nan(None).is_null().all()).row(0)
    assert all(unknown)


@every_table
@every_path
def test_no_members_leave_an_empty_table(table: str, path: str) -> None:
    result = compute(table, path, MARKET._replace(universe=MARKET.universe.clear()))
    assert result.is_empty()
    assert set(clean(table, path).columns) <= set(result.columns)


FRAMES: dict[str, Callable[..., pl.DataFrame]] = {"alpha158": alpha158, "technical": technical}
"""The functions of a frame by itself, which know symbols and no universe."""
OWN = MARKET.bars.filter(pl.col("session") >= MARKET.calendar[-70]).select(
    "symbol", "session", "open", "high", "low", "close", "volume", "vwap"
)
every_frame = pytest.mark.parametrize("frame", FRAMES)


@every_frame
@pytest.mark.parametrize("owner", ["categories", "enumeration", "numbers"])
def test_symbols_of_any_type(frame: str, owner: str) -> None:
    symbols = OWN["symbol"].unique().sort().reverse()
    typed = {
        "categories": pl.col("symbol").cast(pl.Categorical),
        "enumeration": pl.col("symbol").cast(pl.Enum(symbols)),
        "numbers": pl.col("symbol").str.slice(1).cast(pl.UInt8),
    }[owner]
    result = FRAMES[frame](OWN.with_columns(typed).sample(fraction=1.0, shuffle=True, seed=1))
    assert result.schema["symbol"] == OWN.with_columns(typed).schema["symbol"]
    text = pl.col("symbol").cast(pl.String)
    if owner == "numbers":
        text = pl.format("S{}", "symbol").alias("symbol")
    assert_frame_equal(
        result.with_columns(text).sort("symbol", "session"),
        FRAMES[frame](OWN).sort("symbol", "session"),
        check_exact=True,
    )


@every_frame
def test_order_of_the_calendar_does_not_matter(frame: str) -> None:
    backwards = MARKET.calendar[::-1] + MARKET.calendar[:5]
    result = FRAMES[frame](OWN, backwards)
    assert_frame_equal(result, FRAMES[frame](OWN, MARKET.calendar), check_exact=True)


@every_frame
def test_an_empty_frame_of_any_types_gives_the_columns(frame: str) -> None:
    empty = FRAMES[frame](pl.DataFrame({name: [] for name in OWN.columns}))
    assert empty.is_empty()
    assert empty.columns == FRAMES[frame](OWN).columns
    assert FRAMES[frame](OWN.clear(), []).is_empty()


@every_frame
@pytest.mark.parametrize(
    ("bars", "message"),
    [
        (OWN.drop("high", "low"), "not there: high, low"),
        (OWN.with_columns(pl.col("session").cast(pl.Datetime)), "session as Date, not Datetime"),
        (OWN.with_columns(pl.col("session").cast(pl.String)), "session as Date, not String"),
        (OWN.with_columns(session=pl.lit(None, pl.Date)), "without symbol, session"),
        (OWN.with_columns(symbol=pl.struct("symbol")), "symbol as text.*not Struct"),
        (OWN.with_columns(close=pl.lit([1.0])), "close as a number, not List"),
        (OWN.with_columns(wanted=pl.lit(None, pl.Boolean)), "wanted as true or false"),
        (OWN.with_columns(wanted=pl.lit(1)), "wanted as true or false"),
        (OWN.with_columns(low=-pl.col("low")), "low = -"),
        (pl.concat([OWN, OWN]), f"got {OWN.height} rows twice"),
        (pl.concat([OWN, OWN.head(1)]).with_columns(symbol=pl.lit(" \n")), r"' \\n' on"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_frames_that_are_none_are_refused(frame: str, bars: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message) as refusal:
        FRAMES[frame](bars)
    assert str(refusal.value).startswith(frame)
    assert str(refusal.value).isprintable()


def test_a_calendar_out_of_order_is_refused_where_it_numbers_the_sessions() -> None:
    members = MARKET.universe.filter(pl.col("session") == SESSION)
    for features in (ALPHA158_FEATURES, TECHNICAL_FEATURES, ANOMALY_FEATURES):
        with pytest.raises(DataError, match="calendar that ascends"):
            features.function(MARKET.bars, members, MARKET.calendar[::-1])
