"""Claims: what a paper or the best peer has, what ours measured now, and whether the claim holds.

A table of claims is a measurement, not an advertisement: a claim that does not hold is shown as such. A row that a
clock decides (:mod:`papershelf_core.timed`) carries its interval; where that holds the bar, a miss is shown as within
noise, for another run may decide it otherwise.
"""

import html
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from papershelf_core.command import write_json
from papershelf_core.machine import Machine

__all__ = ["Claim", "Report", "from_json", "publish", "score", "table", "to_html", "to_json"]

SCHEMA = 2
_READABLE = (1, SCHEMA)  # rows of schema 1 have no interval
Better = Literal["lower", "higher", "equal"]
Verdict = Literal["holds", "within noise", "FAILS"]


@dataclass(frozen=True)
class Claim:
    """One measured row.

    Attributes
    ----------
    paper : str
        arXiv identifier, or ``-`` when the row is about engineering alone.
    statement : str
        What is claimed, bar included: "P_ee equals mpmath to 1e-12".
    peer : str
        Whom ours is compared with: a package and version, an oracle, the paper's abstract.
    ours, peer_value : float
        The two measured numbers in ``unit``; ``peer_value`` is None where the row has a bar but no peer.
    unit : str
        Unit of both numbers, empty for a pure number.
    better : {"lower", "higher", "equal"}
        Which direction is good.
    holds : bool
        Whether the statement held in this run.
    note : str
        Sample sizes, caveats, what is not covered.
    interval : (float, float), optional
        95 % interval of ``ours``, in its unit; of timed rows with a peer, of the ratio times ``peer_value``.
    timed : bool
        Whether a clock decides the row.
    bar : float, optional
        What ``ours`` is held to, in its unit.
    """

    paper: str
    statement: str
    peer: str
    ours: float
    peer_value: float | None
    unit: str
    better: Better
    holds: bool
    note: str = ""
    interval: tuple[float, float] | None = None
    timed: bool = False
    bar: float | None = None

    def __post_init__(self) -> None:
        for name in ("ours", "peer_value", "bar"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name}={value} of claim {self.statement!r} must be finite")
        if self.interval is not None:
            low, high = (float(edge) for edge in self.interval)
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(
                    f"interval={self.interval} of claim {self.statement!r} must be finite, low before high"
                )
            object.__setattr__(self, "interval", (low, high))
        if self.better not in ("lower", "higher", "equal"):
            raise ValueError(f"better={self.better!r} must be 'lower', 'higher' or 'equal'")
        # numpy scalars would break JSON and equality after a round trip
        object.__setattr__(self, "ours", float(self.ours))
        object.__setattr__(self, "peer_value", None if self.peer_value is None else float(self.peer_value))
        object.__setattr__(self, "bar", None if self.bar is None else float(self.bar))
        object.__setattr__(self, "holds", bool(self.holds))
        object.__setattr__(self, "timed", bool(self.timed))

    @property
    def ratio(self) -> float | None:
        """``ours / peer_value``, None without a peer or with a peer of zero."""
        return self.ours / self.peer_value if self.peer_value else None

    @property
    def verdict(self) -> Verdict:
        """Whether it holds; of a timed row that misses a bar inside its interval, that noise decides."""
        if self.holds:
            return "holds"
        if self.timed and self.interval is not None and self.bar is not None:
            low, high = self.interval
            if low <= self.bar <= high:
                return "within noise"
        return "FAILS"


@dataclass(frozen=True)
class Report:
    """The claims of one package, measured on one machine.

    Attributes
    ----------
    claims : tuple of Claim
    machine : str
        Processor, versions and date.
    pictures : dict[str, str]
        Title to SVG text.
    """

    claims: tuple[Claim, ...]
    machine: str
    pictures: dict[str, str] = field(default_factory=dict)


def table(rows: Sequence[Claim], title: str = "Claims") -> Table:
    """Lay claims out for a terminal.

    Examples
    --------
    >>> row = Claim("2202.04837", "AUC above the peer's", "peer 1.0", 0.91, 0.90, "AUC", "higher", True)
    >>> table([row]).row_count
    1
    """
    grid = Table(title=title, title_justify="left", header_style="bold", show_lines=False)
    for heading, justify in _COLUMNS:
        grid.add_column(heading, justify=justify, overflow="fold")
    for row in rows:
        cells = [escape(cell) for cell in _cells(row)[:-1]]
        grid.add_row(*cells, f"[{_COLOURS[row.verdict]}]{row.verdict}[/]")
    return grid


def to_json(rows: Sequence[Claim], pictures: Mapping[str, str] | None = None, *distributions: str) -> str:
    """Write claims, pictures and the machine as JSON; ``from_json`` reads it back.

    Parameters
    ----------
    rows : sequence of Claim
    pictures : mapping of title to SVG text, optional
    *distributions : str
        Distributions whose versions belong to the measurement.
    """
    document = {
        "schema": SCHEMA,
        "machine": str(Machine.here(*distributions)),
        "claims": [asdict(row) for row in rows],
        "pictures": dict(pictures or {}),
    }
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)


def from_json(text: str) -> Report:
    """Read what ``to_json`` wrote.

    Raises
    ------
    ValueError
        If the text is no claims document or of a schema that this version does not know.
    """
    document: Any = json.loads(text)
    if not isinstance(document, dict) or "claims" not in document:
        raise ValueError("no claims document: the field 'claims' is missing; write it with claims.to_json")
    if document.get("schema") not in _READABLE:
        known = " and ".join(map(str, _READABLE))
        raise ValueError(f"schema={document.get('schema')!r} is unknown; this version reads schemas {known}")
    return Report(
        claims=tuple(Claim(**row) for row in document["claims"]),
        machine=document["machine"],
        pictures=document["pictures"],
    )


def to_html(reports: Mapping[str, Report], title: str = "Claims") -> str:
    """Write reports, one section a name, as one self-contained page: no script, no address, SVG inline.

    Examples
    --------
    >>> row = Claim("-", "a < b", "peer", 1.0, 2.0, "s", "lower", True)
    >>> page = to_html({"demo": Report((row,), "a machine", {"A picture": "<svg></svg>"})})
    >>> "a &lt; b" in page and "<svg></svg>" in page
    True
    """
    sections = "\n".join(_section(name, report) for name, report in reports.items())
    held = score([row for report in reports.values() for row in report.claims])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>{html.escape(title)}</h1><p>{html.escape(held)}</p>\n{sections}\n</body></html>\n"
    )


def publish(
    rows: Sequence[Claim],
    title: str,
    *distributions: str,
    pictures: Mapping[str, str] | None = None,
    json_path: str | os.PathLike[str] | None = None,
) -> None:
    """Write the JSON where a path is given (whole or not at all; ``-``: standard output alone) and print the table.

    What every package's ``reproduce`` command ends with.
    """
    if json_path is not None:
        write_json(to_json(rows, pictures, *distributions) + "\n", json_path)
        if os.fspath(json_path) == "-":
            return
    # A pipe has no width of its own: wide enough then for every column.
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table(rows, title))
    console.print(f"{score(rows)} {Machine.here(*distributions)}", highlight=False)


def score(rows: Sequence[Claim]) -> str:
    """Say how many claims hold, and how many of the others are within noise.

    Examples
    --------
    >>> score([Claim("-", "a < b", "peer", 1.0, 2.0, "s", "lower", True)])
    '1 of 1 claims hold.'
    """
    noise = sum(row.verdict == "within noise" for row in rows)
    return f"{sum(row.holds for row in rows)} of {len(rows)} claims hold{f', {noise} within noise' if noise else ''}."


_COLOURS = {"holds": "green", "within noise": "yellow", "FAILS": "bold red"}
_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("paper", "left"),
    ("claim", "left"),
    ("peer", "left"),
    ("ours", "right"),
    ("theirs", "right"),
    ("ratio", "right"),
    ("verdict", "left"),
)


def _cells(row: Claim) -> list[str]:
    unit = f" {row.unit}" if row.unit else ""
    ratio = "" if row.ratio is None or row.better == "equal" else f"{row.ratio:.3g}x"
    theirs = "" if row.peer_value is None else f"{row.peer_value:.4g}{unit}"
    statement = f"{row.statement} ({row.note})" if row.note else row.statement
    spread = "" if row.interval is None else f" [{row.interval[0]:.3g}, {row.interval[1]:.3g}]"
    return [row.paper, statement, row.peer, f"{row.ours:.4g}{unit}{spread}", theirs, ratio, row.verdict]


def _section(name: str, report: Report) -> str:
    head = "".join(f'<th class="{justify}">{heading}</th>' for heading, justify in _COLUMNS)
    body = "".join(
        f'<tr class="{row.verdict.split()[0].lower()}">'
        + "".join(
            f'<td class="{justify}">{html.escape(cell)}</td>'
            for cell, (_, justify) in zip(_cells(row), _COLUMNS, strict=True)
        )
        + "</tr>"
        for row in report.claims
    )
    # an SVG file begins with an XML prologue that has no place inside a page
    figures = "".join(
        f"<figure>{svg[svg.index('<svg') :]}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, svg in report.pictures.items()
    )
    rows = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if report.claims else ""
    machine = f"<p class=machine>{html.escape(report.machine)}</p>"
    return f"<section><h2>{html.escape(name)}</h2>{rows}{figures}{machine}</section>"


_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24}"
    "table{border-collapse:collapse;width:100%}th,td{padding:.35rem .6rem;border-bottom:1px solid #d7dbe0;"
    "vertical-align:top;text-align:left}td.right,th.right{text-align:right;font-variant-numeric:tabular-nums;"
    "white-space:nowrap}tr.holds td:last-child{color:#117a37}tr.within td:last-child{color:#8a5a00}"
    "tr.fails td:last-child{color:#b3261e;font-weight:bold}"
    "figure{margin:1.5rem 0}figure svg{max-width:100%;height:auto}figcaption{color:#57606a}.machine{color:#57606a;"
    "font-size:.85em}"
)
