"""Turn a report's parts into its folder: report.md, report.html, figures and tables."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.report.figures.drawing import Figure
from sweep.report.kept import CONCLUSIONS, PAGE_FILE
from sweep.report.page_data import packed
from sweep.report.samples import Samples
from sweep.report.table import Table, records_of, to_csv, to_parquet
from sweep.report.templates import PAGE, REPORT

SCRIPT, STYLE = ((Path(__file__).parent / name).read_text(encoding="utf-8").strip() for name in ("page.js", "page.css"))
PARALLEL = (
    "One line a trial, through its settings and results; colours from dark (low) to light (high accuracy, or else the "
    "last axis). A gap: the field means nothing for that trial. Intervals are in the table above; its filter "
    "holds here, too."
)
"""The first page's sentences as data; the last file of a report that is written."""


@dataclass(frozen=True)
class Section:
    """One heading with its texts, tables and figures."""

    heading: str
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class ReportAnswer:
    """A question, what the statistics say to it, and the figure that shows it."""

    question: str
    sentences: Sequence[str]
    figure: Figure | None = None


@dataclass(frozen=True)
class Report:
    """All parts of a report.

    Attributes:
        title: heading.
        summary: first paragraph.
        progress: how far each sweep and stage is.
        answers: what comes first.
        warnings: lines on what could not be used.
        findings: one line per set of comparisons.
        sections: in order.
        samples: answers printed for people, those of a heading together.
        data: further rows that go into files only, by slug; they take the place of a printed table's rows.
        page: what the page's own script shows of every trial (`page_data`); without it there is no table of all trials.
    """

    title: str
    summary: str
    progress: Table | None
    sections: Sequence[Section]
    answers: Sequence[ReportAnswer] = ()
    warnings: Sequence[str] = ()
    findings: Sequence[str] = ()
    samples: Sequence[Samples] = ()
    data: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    page: Mapping[str, Any] | None = None


def write_report(report: Report, folder: Path) -> Path:
    """Write the report's files; what an earlier report left in the folder under the same names is replaced.

    Returns:
        The path of `report.html`.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "tables").mkdir(exist_ok=True)
    figures = [figure for section in report.sections for figure in section.figures]
    for figure in [*figures, *(answer.figure for answer in report.answers if answer.figure)]:
        (folder / "figures" / f"{figure.slug}.png").write_bytes(figure.png)
        (folder / "figures" / f"{figure.slug}.svg").write_bytes(figure.svg)
    rows = {table.slug: records_of(table) for section in report.sections for table in section.tables}
    for slug, content in {**rows, **report.data}.items():
        (folder / "tables" / f"{slug}.csv").write_text(to_csv(content), encoding="utf-8")
        (folder / "tables" / f"{slug}.parquet").write_bytes(to_parquet(content))
    (folder / "report.md").write_text(markdown_text(report, embed=False), encoding="utf-8")
    page, half = folder / PAGE_FILE, folder / f"{PAGE_FILE}.part"
    half.write_text(html_page(report), encoding="utf-8")
    half.replace(page)  # who is stopped in the middle leaves the page of before
    told = {answer.question: list(answer.sentences) for answer in report.answers}
    (folder / CONCLUSIONS).write_text(json.dumps({"conclusions": told}, indent=1, ensure_ascii=False), encoding="utf-8")
    return page


def markdown_text(report: Report, embed: bool) -> str:
    """Return the report as Markdown, its images as links to files or embedded."""
    from jinja2 import Environment, StrictUndefined

    def image(figure: Figure) -> str:
        encoded = base64.b64encode(figure.png).decode()
        return f"data:image/png;base64,{encoded}" if embed else f"figures/{figure.slug}.png"

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    text = environment.from_string(REPORT).render(
        title=report.title,
        summary=report.summary,
        progress=report.progress,
        answers=report.answers,
        escape=escape,
        warnings=[escape(line) for line in report.warnings],
        findings=[escape(line) for line in report.findings],
        sections=report.sections,
        samples=report.samples,
        table=html_table if embed else markdown_table,
        files=_files,
        embed=embed and report.page is not None,
        parallel=PARALLEL,
        figure_files=_figure_files,
        image=image,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def html_page(report: Report) -> str:
    """Return the report as one page that needs no other file."""
    import markdown
    from jinja2 import Environment

    converter = markdown.Markdown(
        extensions=["tables", "fenced_code", "toc"], extension_configs={"toc": {"toc_depth": 2}}
    )
    body = converter.convert(markdown_text(report, embed=True))
    environment = Environment(autoescape=False)
    page = environment.from_string(PAGE)
    data = "" if report.page is None else packed(report.page)
    return page.render(
        title=html.escape(report.title), nav=converter.toc, body=body, data=data, script=SCRIPT, style=STYLE
    )


def markdown_table(table: Table) -> str:
    """Return a table as Markdown, best cells in bold, with its legend."""
    header = [*table.labels, *table.columns]
    lines = [
        _line(escape(name.replace("_", " ")) for name in header),
        _line([*("---" for _ in table.labels), *("---:" for _ in table.columns)]),
    ]
    for labels, cells in table.rows:
        values = [f"**{escape(cell.text)}**" if cell.best else escape(cell.text) for cell in cells]
        lines.append(_line([*map(escape, labels), *values]))
    legend = " ".join(table.legend)
    return "\n".join(lines) + (f"\n\n{legend}" if legend else "")


def html_table(table: Table) -> str:
    """Return a table as HTML that the page's script can sort, its trials linked to their own sections."""
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in (*table.labels, *table.columns))
    lines = []
    for place, (labels, cells) in enumerate(table.rows):
        own = table.trials[place] if table.trials else ""
        texts = [_linked(html.escape(label), own if not i else "") for i, label in enumerate(labels)]
        row = [f"<td>{text}</td>" for text in texts]
        for cell in cells:
            text = _linked(html.escape(cell.text), cell.trial)
            key = f' data-key="{cell.value:.10g}"' if isinstance(cell.value, (int, float)) else ""
            row.append(f"<td{key}>{f'<strong>{text}</strong>' if cell.best else text}</td>")
        lines.append(f"<tr>{''.join(row)}</tr>")
    kind = ' class="judged"' if table.columns[-1:] == ("result",) else ""
    body = f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    legend = " ".join(table.legend)
    return f'<div class="wide">{body}</div>' + (f"\n\n{legend}" if legend else "")


def _linked(text: str, trial: str) -> str:
    return f'<a href="#trial-{html.escape(trial)}">{text}</a>' if trial else text


def escape(text: str) -> str:
    """Make a value safe to stand in Markdown and HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    return re.sub(r"([*_`\[\]])", r"\\\1", text).replace("\n", " ")


def _line(values: Any) -> str:
    return f"| {' | '.join(values)} |"


def _figure_files(figure: Figure) -> str:
    return f"[PNG](figures/{figure.slug}.png) · [SVG](figures/{figure.slug}.svg)"


def _files(table: Table) -> str:
    return f"[CSV](tables/{table.slug}.csv) · [Parquet](tables/{table.slug}.parquet)"
