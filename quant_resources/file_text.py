"""CSV files as frames of text, with the proof that every line is whole.

What belongs here: bytes, encodings, lines and fields. What does not: what a cell means (file_cells.py).

A CSV reader fills short lines with nothing and knows no end of a file that was cut off, so lines are looked
at before they are parsed:

1. The file is read in blocks that end at a line end; it must be the same file before and after.
2. A block that begins as a web page, an archive, Parquet or UTF-16, holds NUL bytes or is not in the
   declared encoding is refused.
3. Line ends, delimiters and quotes are counted: every line must have as many fields as the header, and
   quotes must close within it. Blank lines and declared footers are left out, as is the header, which must
   be the same for all files that are read together.
4. The last line must end with a line end; without one a number may have lost its last digits.
5. What is left is parsed in one go, beside the file and the line that each row came from.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl

from quant_resources.errors import SourceError
from quant_resources.file_layout import CsvForm, nearest

BLOCK_BYTES = 32 * 2**20
#: Columns beside the file's own: the path and the line of a row.
FILE, LINE = "__file__", "__line__"
_NEW_LINE, _QUOTE = 10, 34
_SHOWN = 60
_STRANGE_BEGINNINGS = {
    b"\xff\xfe": 'is UTF-16, as spreadsheets write "Unicode text"; save it as UTF-8 or set csv.encoding = '
    '"utf-16"',
    b"\xfe\xff": 'is UTF-16; save it as UTF-8 or set csv.encoding = "utf-16"',
    b"PAR1": 'is Parquet; set format = "parquet"',
    b"\x1f\x8b": "is compressed; unpack it",
    b"PK\x03\x04": "is a zip archive or a spreadsheet; unpack it, or save it as CSV",
}


@dataclass(frozen=True)
class SourceFile:
    """A file as it was listed.

    Attributes:
        path: The file.
        size: Bytes.
        modified_ns: Time of the last change, nanoseconds since 1970.
    """

    path: Path
    size: int
    modified_ns: int

    @classmethod
    def at(cls, path: Path) -> SourceFile:
        """Look at a file.

        Raises:
            SourceError: It is not there or may not be looked at.
        """
        try:
            told = path.stat()
        except OSError as error:
            raise SourceError(cannot_read(path, error)) from error
        return cls(path, told.st_size, told.st_mtime_ns)

    def assert_unchanged(self) -> None:
        """Refuse what was read while somebody else wrote it.

        Raises:
            SourceError: The file is another one now.
        """
        if SourceFile.at(self.path) != self:
            raise SourceError(
                f"{self.path} changed while it was being read; nothing was taken. Run again when the "
                "delivery is complete."
            )


@dataclass(frozen=True)
class _Body:
    """Whole data lines of one file: their bytes, and where each stands in the file."""

    content: bytes
    lines: np.ndarray


def cannot_read(path: Path, error: OSError) -> str:
    """One sentence about a file that the system does not give."""
    remedy = (
        "allow this user to read it"
        if isinstance(error, PermissionError)
        else "check the path in the layout"
    )
    return f"{path} cannot be read ({error.strerror}); {remedy}."


def text_blocks(
    files: Sequence[SourceFile], form: CsvForm, wanted: Sequence[str]
) -> Iterator[pl.DataFrame]:
    """Read files of one header in blocks of bounded size.

    Args:
        files: What to read, in this order.
        form: How the text is written.
        wanted: Columns to take.

    Yields:
        The wanted columns as text (an empty cell is ""), `FILE` and `LINE`.

    Raises:
        SourceError: A file cannot be read, is no CSV or is not whole; naming file and line.
    """
    waiting: list[tuple[SourceFile, _Body]] = []
    names: tuple[str, ...] = ()
    size = 0
    for file in files:
        for header, body in _bodies(file, form, wanted):
            if waiting and (header != names or size + len(body.content) > BLOCK_BYTES):
                yield _parsed(waiting, names, form, wanted)
                waiting, size = [], 0
            names = header
            waiting.append((file, body))
            size += len(body.content)
    if waiting:
        yield _parsed(waiting, names, form, wanted)


def _bodies(
    file: SourceFile, form: CsvForm, wanted: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], _Body]]:
    names: tuple[str, ...] = ()
    seen = rows = 0
    for content, is_last in _contents(file, form):
        skip = 0
        if not seen:
            _assert_text(file.path, content)
        block = _Block.counted(file.path, content, form, seen, is_last)
        if not seen:
            names, skip = _header(block, wanted)
        body = _data(block, len(names), skip)
        seen += block.starts.size
        rows += body.lines.size
        yield names, body
    if not file.size:
        raise SourceError(f"{file.path} is empty; deliver it again or remove it.")
    if not rows:
        raise SourceError(f"{file.path} holds no row of data; deliver it again or remove it.")
    file.assert_unchanged()


def _contents(file: SourceFile, form: CsvForm) -> Iterator[tuple[bytes, bool]]:
    """UTF-8 without a mark, in blocks that end at a line end, and whether each is the last."""
    seen = 0
    try:
        with file.path.open("rb") as opened:
            if form.encoding not in ("utf-8", "utf8", "utf-8-sig"):
                yield _as_utf8(file.path, opened.read(), form.encoding, 0), True
                return
            while block := opened.read(BLOCK_BYTES):
                block += opened.readline()
                if not seen:
                    block = block.removeprefix(b"\xef\xbb\xbf")
                    if b"\n" not in block:
                        block = block.replace(b"\r", b"\n")
                if not block.isascii() and not block.startswith(tuple(_STRANGE_BEGINNINGS)):
                    _as_utf8(file.path, block, "utf-8", seen)
                yield block, opened.tell() >= file.size
                seen += block.count(b"\n")
    except OSError as error:
        raise SourceError(cannot_read(file.path, error)) from error


def _as_utf8(path: Path, content: bytes, encoding: str, seen: int) -> bytes:
    try:
        return content.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeDecodeError as error:
        line = seen + content[: error.start].count(b"\n") + 1
        raise SourceError(
            f"{path}, line {line}: the byte {content[error.start : error.start + 1]!r} is no {encoding}; "
            "declare how the file is written under csv.encoding (latin-1, cp1252, utf-16)."
        ) from None


def _assert_text(path: Path, content: bytes) -> None:
    for beginning, sentence in _STRANGE_BEGINNINGS.items():
        if content.startswith(beginning):
            raise SourceError(f"{path} {sentence}.")
    if content.lstrip()[:1] == b"<":
        raise SourceError(
            f"{path} is a web page and no CSV (it begins {_shown(content.lstrip())}), as when a "
            "download asks for a login; download it again."
        )


@dataclass(frozen=True)
class _Block:
    """A part of a file: where its lines begin and end, and how many fields each has.

    Attributes:
        path: The file.
        content: Bytes of the part.
        form: How the text is written.
        seen: Lines of the file before this part.
        is_last: Whether the file ends with it.
        starts: Position of each line's first byte.
        ends: Position after each line's last byte, its line end not counted.
        fields: Fields of each line.
    """

    path: Path
    content: bytes
    form: CsvForm
    seen: int
    is_last: bool
    starts: np.ndarray
    ends: np.ndarray
    fields: np.ndarray

    @classmethod
    def counted(cls, path: Path, content: bytes, form: CsvForm, seen: int, is_last: bool) -> _Block:
        """Count; a delimiter within quotes separates nothing."""
        if b"\0" in content:
            line = seen + content[: content.index(b"\0")].count(b"\n") + 1
            raise SourceError(
                f"{path}, line {line}: holds NUL bytes, as a disk or a transfer leaves them when it "
                "fails; deliver the file again."
            )
        signs = np.frombuffer(content, np.uint8)
        ends = np.flatnonzero(signs == _NEW_LINE)
        if content and signs[-1] != _NEW_LINE:
            ends = np.append(ends, len(content))
        starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
        separators = np.flatnonzero(signs == ord(form.delimiter))
        if b'"' in content:
            quotes = np.flatnonzero(signs == _QUOTE)
            odd = np.diff(np.searchsorted(quotes, np.append(starts, len(content)))) % 2 == 1
            if odd.any():
                at = int(odd.argmax())
                raise SourceError(
                    f"{path}, line {seen + at + 1}: a quote is not closed "
                    f"({_shown(content[starts[at] : ends[at]])}); a field cannot span lines."
                )
            separators = separators[np.searchsorted(quotes, separators) % 2 == 0]
        fields = 1 + np.searchsorted(separators, ends) - np.searchsorted(separators, starts)
        return cls(path, content, form, seen, is_last, starts, ends, fields)

    @property
    def size(self) -> int:
        """How many lines there are."""
        return int(self.starts.size)

    def line(self, at: int) -> bytes:
        """A line without its end."""
        return self.content[self.starts[at] : self.ends[at]].rstrip(b"\r")

    def place(self, at: int) -> str:
        """Where a line stands, for a message."""
        return f"{self.path}, line {self.seen + at + 1}"


def _header(block: _Block, wanted: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Column names, and how many lines come before the data."""
    first = block.form.skip_lines
    while first < block.size and not block.line(first).strip():
        first += 1
    if first >= block.size:
        raise SourceError(f"{block.path} holds no row of data; deliver it again or remove it.")
    if block.form.header:
        assert_columns(block.path, block.form.header, wanted)
        return block.form.header, first
    line = StringIO(block.line(first).decode())
    names = tuple(name.strip() for name in next(csv.reader(line, delimiter=block.form.delimiter)))
    assert_columns(block.path, names, wanted)
    return names, first + 1


def assert_columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a file whose columns are not those of the layout.

    Raises:
        SourceError: Naming what is missing, what is there and what looks most like it.
    """
    repeated = [name for name in wanted if list(names).count(name) > 1]
    if repeated:
        raise SourceError(f"{path} names the column {repeated[0]} more than once; rename one.")
    missing = [name for name in wanted if name not in names]
    if not missing:
        return
    guess = nearest(missing[0], [name for name in names if name not in wanted])
    listed = ", ".join(name[:_SHOWN] for name in names[:20]) + (" …" if len(names) > 20 else "")
    raise SourceError(
        f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has {listed}"
        + (f" (was {missing[0]} renamed to {guess}?)" if guess else "")
        + "; correct the columns of the layout, or have the file delivered again."
    )


def _data(block: _Block, width: int, skip: int) -> _Body:
    """The lines of data, each with as many fields as the header."""
    kept = np.arange(block.size) >= skip
    for footer in block.form.footers:
        kept[_beginning(block, footer.encode())] = False
    suspect = kept & ((block.fields != width) | (block.ends - block.starts <= 1))
    for at in map(int, np.flatnonzero(suspect)):
        if not block.line(at).strip():
            kept[at] = False
        elif block.fields[at] != width:
            _raise_ragged(block, width, at)
    lines = np.flatnonzero(kept)
    if not lines.size:
        return _Body(b"", lines)
    ended = block.content[-1:] == b"\n"
    if block.is_last and block.form.final_line_end and kept[-1] and not ended:
        raise SourceError(
            f"{block.place(block.size - 1)}: the last line has no line end, as when a download is cut "
            "off, and may lack its last digits; deliver the file again, or set csv.final_line_end = "
            "false if this vendor never writes one."
        )
    runs = np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1)
    body = b"".join(block.content[block.starts[run[0]] : block.ends[run[-1]] + 1] for run in runs)
    return _Body(body if body.endswith(b"\n") else body + b"\n", lines + block.seen + 1)


def _beginning(block: _Block, footer: bytes) -> list[int]:
    found = []
    position = block.content.find(footer)
    while position >= 0:
        at = int(np.searchsorted(block.starts, position, side="right")) - 1
        if block.starts[at] == position:
            found.append(at)
        position = block.content.find(footer, position + 1)
    return found


def _raise_ragged(block: _Block, width: int, at: int) -> None:
    line, fields = block.line(at), int(block.fields[at])
    told = f"{fields} field(s) where the header has {width}: {_shown(line)}"
    if block.is_last and at == block.size - 1 and fields < width:
        if not block.content.endswith(b"\n"):
            raise SourceError(f"{block.place(at)}: the file is cut off, {told}; deliver it again.")
        raise SourceError(
            f"{block.place(at)}: {told}; if this is how the vendor ends a file, name its beginning "
            "under csv.footers, else deliver the file again."
        )
    if line.lstrip().startswith(b"<"):
        raise SourceError(
            f"{block.place(at)}: a web page begins within the file ({_shown(line)}); deliver it again."
        )
    remedy = (
        "a field that holds the delimiter must be quoted"
        if fields > width
        else "correct the line or deliver the file again"
    )
    raise SourceError(
        f"{block.place(at)}: {told}; check csv.delimiter ({block.form.delimiter!r}); {remedy}."
    )


def _shown(line: bytes) -> str:
    text = line[: 2 * _SHOWN].decode(errors="replace").splitlines()
    return repr((text or [""])[0][:_SHOWN])


def _parsed(
    bodies: Sequence[tuple[SourceFile, _Body]],
    names: Sequence[str],
    form: CsvForm,
    wanted: Sequence[str],
) -> pl.DataFrame:
    files = pl.Series(FILE, [str(file.path) for file, _ in bodies], pl.String)
    counts = [body.lines.size for _, body in bodies]
    content = b"".join(body.content for _, body in bodies)
    lines = np.concatenate([body.lines for _, body in bodies])
    columns = {f"column_{number}": name for number, name in enumerate(names, start=1)}
    taken = [key for key, name in columns.items() if name in wanted]
    if not lines.size:
        empty = {columns[key]: pl.String for key in taken}
        return pl.DataFrame(schema={**empty, FILE: pl.String, LINE: pl.Int64})
    try:
        frame = pl.read_csv(
            content,
            has_header=False,
            schema=dict.fromkeys(columns, pl.String),
            separator=form.delimiter,
            columns=taken,
            empty_string_is_null=False,
        )
    except pl.exceptions.PolarsError as error:
        first = bodies[0][0].path
        raise SourceError(
            f"{first} cannot be read as CSV: {str(error).splitlines()[0]}."
        ) from error
    if frame.height != lines.size:
        raise SourceError(
            f"{bodies[0][0].path} and what is read with it have {lines.size} lines of data, of which "
            f"{frame.height} could be read; nothing was taken. Look for stray quotes."
        )
    return frame.rename({key: columns[key] for key in taken}).with_columns(
        files.gather(np.repeat(np.arange(len(bodies)), counts)),
        pl.Series(LINE, lines, pl.Int64),
    )
