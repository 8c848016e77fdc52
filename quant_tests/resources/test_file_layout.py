"""The layout file: what is required, what is refused, and whether the message names the mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant_resources.errors import ConfigurationError
from quant_resources.file_layout import FileLayout, example_layout, load_layout

GOOD = """
name = "vendor"
prices = "raw"
[bars]
path = "bars.csv"
format = "csv"
one_file_per = "market"
"""


def loaded(folder: Path, text: str) -> FileLayout:
    path = folder / "files.toml"
    path.write_text(text)
    return load_layout(path)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    return str(caught.value)


def test_the_example_is_a_layout_and_says_the_defaults(tmp_path: Path) -> None:
    example = loaded(tmp_path, example_layout())
    plain = loaded(tmp_path, GOOD.replace('"bars.csv"', '"bars"').replace('"market"', '"symbol"'))
    shown = example.model_dump()
    shown["bars"]["file_name"] = None  # the example writes the default out
    shown["bars"]["columns"]["date"] = None
    assert shown == plain.model_dump()


def test_paths_are_counted_from_the_layout(tmp_path: Path) -> None:
    layout = loaded(tmp_path, GOOD)
    assert layout.located(layout.bars.path) == tmp_path / "bars.csv"
    assert layout.located("/elsewhere/bars.csv") == Path("/elsewhere/bars.csv")


def test_a_missing_layout_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="quant data files --example"):
        load_layout(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('prices = "raw"', ""), "prices is missing (one of raw, split_adjusted, adjusted)"),
        (('prices = "raw"', 'prices = "clean"'), "prices: Input should be 'raw'"),
        (
            ('prices = "raw"', 'pirces = "raw"'),
            "pirces is no key of a layout (did you mean prices?)",
        ),
        (
            ("[bars]", "[bars]\ncolums = {}"),
            "bars.colums is no key of a layout (did you mean columns?)",
        ),
        (("[bars]", "[bars]\nzzz = 1"), "bars.zzz is no key of a layout (known here: path, format"),
        (
            ('one_file_per = "market"', ""),
            "one_file_per is missing (one of market, symbol, session)",
        ),
        (('format = "csv"', 'format = "xlsx"'), "bars.format: Input should be 'parquet' or 'csv'"),
        (("[bars]", '[bars]\ndate_format = "%H:%M"'), "does not write year, month and day"),
        (("[bars]", '[bars]\ntime_zone = "Mars/North"'), "'Mars/North' is no time zone"),
        (("[bars]", '[bars]\nfile_name = "{symbol}.csv"'), 'one_file_per = "symbol" or "session"'),
        (('"market"', '"symbol"\nfile_name = "x.csv"'), "file_name must hold {symbol} once"),
        (
            ("[bars]", "[bars]\ncsv = { thousands = '.', decimal = '.' }"),
            "another sign than decimal",
        ),
        (("[bars]", "[bars]\ncsv = { delimiter = ';;' }"), "at most 1 character"),
        (("[bars]", "[bars]\ncsv = { encoding = 'klingon' }"), "'klingon' is no text encoding"),
        (('name = "vendor"', 'name = "../x"'), "name: String should match pattern"),
        (
            ('prices = "raw"', 'prices = "adjusted"'),
            "add [actions], or take the vendor's raw prices",
        ),
        (('prices = "raw"', "prices = raw"), "is no TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    assert told in refused(tmp_path, GOOD.replace(*change))


def test_adjusted_prices_leave_open_what_volume_is(tmp_path: Path) -> None:
    actions = '[actions]\npath = "actions.csv"\nformat = "csv"\n'
    text = GOOD.replace('"raw"', '"split_adjusted"') + actions
    assert 'set volume = "raw" or "split_adjusted"' in refused(tmp_path, text)
    declared = text.replace('name = "vendor"', 'name = "vendor"\nvolume = "split_adjusted"')
    assert loaded(tmp_path, declared).volume == "split_adjusted"


def test_reading_the_same_bytes_differently_changes_the_digest(tmp_path: Path) -> None:
    plain = loaded(tmp_path, GOOD).bars.digest
    assert loaded(tmp_path, GOOD.replace("bars.csv", "other.csv")).bars.digest == plain
    changed = GOOD.replace("[bars]", '[bars]\ndate_format = "%d/%m/%Y"')
    assert loaded(tmp_path, changed).bars.digest != plain
