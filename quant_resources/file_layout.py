"""What a user's own files look like: the layout file (TOML), its keys and their meaning.

What belongs here: the declaration and its mistakes. What does not: finding and reading the files
(file_rows.py), what cells mean (file_cells.py), undoing adjustments (file_prices.py).

Nothing is guessed: prices are declared raw or adjusted, files are declared to hold the market, a symbol or
a session each, and a key that is not known is an error. Paths are relative to the layout file.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from quant_resources.errors import ConfigurationError

Prices = Literal["raw", "split_adjusted", "adjusted"]
EPOCHS = {"epoch_s": "s", "epoch_ms": "ms"}
_SAMPLE = date(2019, 12, 25)


class _Declaration(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CsvForm(_Declaration):
    """How the text of a CSV file is written."""

    delimiter: str = Field(",", min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    thousands: str = Field("", max_length=1, description="Between groups of three digits.")
    null_markers: tuple[str, ...] = Field(("",), description="Cells that mean: no value.")
    scientific: bool = Field(default=False, description="Whether 1e3 is a number.")
    encoding: str = "utf-8"
    header: tuple[str, ...] = Field((), description="Column names where the file has no header.")
    skip_lines: int = Field(0, ge=0, description="Lines before the header.")
    footers: tuple[str, ...] = Field((), description="How lines begin that are no data.")
    final_line_end: bool = Field(
        default=True, description="Whether a file without a last line end counts as cut off."
    )

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            return "x".encode(value).decode("ascii") and value.lower()
        except UnicodeDecodeError:
            return value.lower()
        except LookupError:
            raise ValueError(f"{value!r} is no text encoding; try utf-8 or latin-1") from None

    @model_validator(mode="after")
    def _distinct(self) -> CsvForm:
        if self.decimal == self.thousands or self.thousands.isalnum():
            raise ValueError("thousands must be another sign than decimal, and no letter or digit")
        if not self.delimiter.isascii() or self.delimiter in '"\r\n':
            raise ValueError("delimiter must be one plain sign, such as a comma or a tab (\\t)")
        return self


class FileForm(_Declaration):
    """What bars and actions have in common."""

    path: str = Field(min_length=1, description="A file, a folder, or a glob such as bars/*.csv.")
    format: Literal["parquet", "csv"]
    date_format: tuple[str, ...] = Field(
        ("%Y-%m-%d",), min_length=1, description="Every way in which dates are written."
    )
    time_zone: str | None = Field(
        None, description="Where stamps with a zone, or counted in seconds, have their day."
    )
    csv: CsvForm = Field(default_factory=lambda: CsvForm.model_validate({}))

    @field_validator("date_format", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("date_format")
    @classmethod
    def _writes_days(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for form in value:
            if form not in EPOCHS and not _is_day_format(form):
                raise ValueError(
                    f"{form!r} does not write year, month and day; write it as %Y-%m-%d, or epoch_s"
                )
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError):
                raise ValueError(f"{value!r} is no time zone; write America/New_York") from None
        return value

    @model_validator(mode="after")
    def _only_csv_has_text(self) -> FileForm:
        if self.format == "parquet" and self.csv.model_fields_set & {"header", "skip_lines"}:
            raise ValueError(
                "header and skip_lines belong to CSV; Parquet names its columns itself"
            )
        return self


class BarColumns(_Declaration):
    """Names of the columns in the files; symbol and date may be told by the file name instead."""

    symbol: str | None = None
    date: str | None = None
    open: str = "open"
    high: str = "high"
    low: str = "low"
    close: str = "close"
    volume: str = "volume"
    vwap: str | None = None
    trade_count: str | None = None

    @model_validator(mode="after")
    def _each_its_own(self) -> BarColumns:
        given = [text for _, text in self if text is not None]
        twice = sorted({text for text in given if given.count(text) > 1})
        if twice:
            raise ValueError(f"column {twice[0]!r} is named for two of ours; each has its own")
        return self


class BarFiles(FileForm):
    """The files of bars."""

    one_file_per: Literal["market", "symbol", "session"]
    file_name: str | None = Field(None, description="Such as daily_{symbol}.csv or {date}.csv.")
    file_date_format: str = Field("%Y-%m-%d", description="How {date} is written.")
    columns: BarColumns = BarColumns()

    @field_validator("file_date_format")
    @classmethod
    def _writes_a_day(cls, value: str) -> str:
        if not _is_day_format(value):
            raise ValueError(f"{value!r} does not write year, month and day; write it as %Y%m%d")
        return value

    @model_validator(mode="after")
    def _named_by_what_it_holds(self) -> BarFiles:
        if self.one_file_per == "market":
            if self.file_name is not None:
                raise ValueError('file_name belongs to one_file_per = "symbol" or "session"')
        elif self.name_pattern.count(self.placeholder) != 1:
            raise ValueError(
                f"file_name must hold {self.placeholder} once, such as {self.placeholder}.{self.format}"
            )
        return self

    @property
    def placeholder(self) -> str:
        """What stands in `file_name` for the symbol or the date of a file."""
        return "{date}" if self.one_file_per == "session" else "{symbol}"

    @property
    def name_pattern(self) -> str:
        """`file_name`, or the plain name of a file of this format."""
        return self.file_name or f"{self.placeholder}.{self.format}"

    @property
    def mapping(self) -> dict[str, str]:
        """Our column to the files' column, for all that is read from the files."""
        named = {name: text for name, text in self.columns if text is not None}
        if self.one_file_per != "symbol":
            named.setdefault("symbol", "symbol")
        if self.one_file_per != "session":
            named.setdefault("date", "date")
        return named

    @property
    def digest(self) -> str:
        """Changes whenever the same bytes would be read differently."""
        return hashlib.sha256(self.model_dump_json(exclude={"path"}).encode()).hexdigest()[:16]


class ActionColumns(_Declaration):
    """Names of the columns of an actions file in form "terms"."""

    ex_date: str = "ex_date"
    symbol: str = "symbol"
    type: str = "type"
    ratio: str | None = None
    cash: str | None = None
    new_symbol: str | None = None
    id: str | None = None


class ActionFile(FileForm):
    """The file of corporate actions: terms, or price factors as described in history_actions.py."""

    form: Literal["terms", "price_factors"] = "terms"
    columns: ActionColumns = ActionColumns()
    types: dict[str, str] = Field({}, description="The vendor's word to our type.")

    @model_validator(mode="after")
    def _factors_have_fixed_names(self) -> ActionFile:
        if self.form == "price_factors" and self.model_fields_set & {"columns", "types"}:
            raise ValueError(
                "price_factors are read by their own column names (symbol, ex_date, adj_factor, kind, "
                "implied_cash, prev_close_raw); leave columns and types out"
            )
        return self


class FileLayout(_Declaration):
    """A whole layout.

    Attributes:
        name: Name of the vendor; rows carry the source files/<name>.
        prices: "raw" as traded; "split_adjusted" rescaled for splits and stock dividends after the
            bar; "adjusted" for cash dividends and spin-offs too.
        volume: Whether volume is rescaled as well; declared where prices are not raw.
        symbols: "as_written", or "upper" to strip and raise what the files write.
        bars: The files of bars.
        actions: The file of corporate actions.
        folder: Folder of the layout file, from which paths are counted.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_\-]{0,31}$")
    prices: Prices
    volume: Literal["raw", "split_adjusted"] | None = None
    symbols: Literal["as_written", "upper"] = "as_written"
    bars: BarFiles
    actions: ActionFile | None = None
    folder: Path = Path()

    @model_validator(mode="after")
    def _can_be_undone(self) -> FileLayout:
        if self.prices == "raw":
            if self.volume == "split_adjusted":
                raise ValueError(
                    'raw prices with adjusted volume: declare what prices are, or "raw"'
                )
            return self
        if self.actions is None:
            raise ValueError(
                f'prices = "{self.prices}" can only be stored raw again with the actions that adjusted '
                "them; add [actions], or take the vendor's raw prices"
            )
        if self.volume is None:
            raise ValueError(
                f'prices = "{self.prices}" leaves open what volume is; set volume = "raw" or '
                '"split_adjusted"'
            )
        return self

    def located(self, path: str) -> Path:
        """A path of the layout as an absolute one."""
        return self.folder / Path(path).expanduser()


def load_layout(path: Path) -> FileLayout:
    """Read a layout file.

    Raises:
        ConfigurationError: There is none, it is no TOML, or a key is unknown, missing or wrong.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no layout of files at {path}; `quant data files --example` prints one to start "
            "from (QUANT_FILES names another place)."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The layout {path} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"The layout {path} is no TOML: {error}.") from error
    try:
        return FileLayout.model_validate({**content, "folder": path.absolute().parent})
    except ValidationError as error:
        wrong = "; ".join(_sentence(dict(item)) for item in error.errors())
        raise ConfigurationError(f"The layout {path} is wrong: {wrong}.") from None


def example_layout() -> str:
    """A commented layout to start from."""
    return (Path(__file__).parent / "files_example.toml").read_text(encoding="utf-8")


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that looks most like a wrong one."""
    lowered = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    return lowered[found[0]] if found else None


def has_time(form: str) -> bool:
    """Whether a date format writes a time of day beside the day."""
    return re.search(r"%[HIMSpTXRz+:fkl]", form) is not None


def _is_day_format(form: str) -> bool:
    written = datetime(_SAMPLE.year, _SAMPLE.month, _SAMPLE.day, 12, tzinfo=UTC).strftime(form)
    try:
        text = pl.Series([written]).str
        read = text.to_datetime(form, strict=False) if has_time(form) else text.to_date(form)
    except pl.exceptions.PolarsError:
        return False
    return read.dt.date()[0] == _SAMPLE


def _sentence(item: dict[str, Any]) -> str:
    place = [str(part) for part in item["loc"] if part != "function-after"]
    name = ".".join(place) or "the layout"
    if item["type"] == "extra_forbidden":
        known = _keys(place[:-1])
        guess = nearest(place[-1], known)
        hint = f"did you mean {guess}?" if guess else f"known here: {', '.join(known)}"
        return f"{name} is no key of a layout ({hint})"
    if item["type"] == "missing":
        wanted = ""
        if place[-1] in ("prices", "one_file_per", "format"):
            annotation = _model(place[:-1]).model_fields[place[-1]].annotation
            wanted = f" (one of {', '.join(get_args(annotation))})"
        return f"{name} is missing{wanted}"
    return f"{name}: {str(item['msg']).removeprefix('Value error, ')}"


def _keys(place: list[str]) -> list[str]:
    return [name for name in _model(place).model_fields if name != "folder"]


def _model(place: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = FileLayout
    for part in place:
        annotation: Any = model.model_fields[part].annotation
        if get_origin(annotation) in (Union, UnionType):
            annotation = next(each for each in get_args(annotation) if each is not type(None))
        model = annotation
    return model
