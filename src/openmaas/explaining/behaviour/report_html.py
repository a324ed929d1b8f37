"""What is said of a whole model as a page: one file, nothing from elsewhere, no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from openmaas.explaining.behaviour.calibration import Calibration
from openmaas.explaining.behaviour.confusion import Confusion
from openmaas.explaining.behaviour.importance import Importances
from openmaas.explaining.behaviour.neighbours import Nearest, Neighbours
from openmaas.explaining.behaviour.report import Report

# Okabe and Ito (2008): told apart by those who see no red or green, on light and dark alike.
STYLE = """
:root { --ground: #fff; --ink: #1a1a1a; --faint: #666; --line: #d9d9d9;
        --blue: #0072B2; --orange: #E69F00; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16181c; --ink: #ececec; --faint: #a8adb5; --line: #3a3f47; } }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p.about, caption, .faint { color: var(--faint); }
table { border-collapse: collapse; } th, td { padding: .2rem .7rem .2rem 0; text-align: left;
       vertical-align: top; } th { border-bottom: 1px solid var(--line); font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
.bar { fill: var(--blue); } .dot { fill: var(--orange); stroke: var(--ink); }
.whisker { stroke: var(--orange); stroke-width: 2; }
.even { stroke: var(--faint); stroke-dasharray: 4 3; } .axis { stroke: var(--ink); }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
.matrix td { text-align: center; padding: .3rem .6rem; border: 1px solid var(--line);
       font-variant-numeric: tabular-nums; }
.other { border-left: 4px solid var(--orange); padding-left: .4rem; }
.same { border-left: 4px solid var(--blue); padding-left: .4rem; }
"""
WIDTH = 240  # of a bar of importance
SIDE = 300  # of the reliability diagram
COLUMNS = 60  # that have a bar
LABELS = 40  # of a matrix


def page(report: Report) -> str:
    """HTML of its own; texts of the caller's are escaped, long ones were shortened before."""
    name = f"{report.model} version {report.version}"
    parts = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="about">{escape(_about(report))}</p>',
        _metrics(report),
    ]
    if report.importance is not None:
        parts.append(_importance(report.importance))
    if report.calibration is not None:
        parts.append(_calibration(report.calibration))
    if report.confusion is not None:
        parts.append(_confusion(report.confusion))
    if report.neighbours is not None:
        parts.append(_neighbours(report.neighbours))
    said = [f"{one.part}: {one.why}" for one in report.left_out] + report.notes
    if said:
        parts.append("<h2>What to know</h2><ul>")
        parts += [f"<li>{escape(one)}</li>" for one in said]
        parts.append("</ul>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )


def _about(report: Report) -> str:
    used, cost = report.dataset, report.cost
    seconds = "" if cost.seconds is None else f" in {cost.seconds:.1f} s"
    return (
        f"{report.rows:,} of {used.rows:,} rows of {used.name} ({used.id}), split {used.split}, "
        f"target {used.target}, seed {report.seed}; {cost.forward_passes:,} forward passes{seconds}"
    )


def _metrics(report: Report) -> str:
    if not report.metrics:
        return ""
    told = "; ".join(f"{escape(name)} {value:.4g}" for name, value in report.metrics.items())
    return f"<p><b>{told}</b></p>"


def _importance(part: Importances) -> str:
    shown = part.columns[:COLUMNS]
    most = max([one.mean + one.deviation for one in shown] + [1e-12])
    worse = "accuracy falls" if part.metric == "accuracy" else "RMSE rises"
    rows = []
    for one in shown:
        length = max(0.0, one.mean) / most * WIDTH
        low, high = (max(0.0, one.mean + sign * one.deviation) / most * WIDTH for sign in (-1, 1))
        bar = (
            f'<svg width="{WIDTH}" height="14" role="img" aria-label="{one.mean:.4g}">'
            f'<rect class="bar" y="1" width="{length:.1f}" height="12"/>'
            f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="7" y2="7"/></svg>'
        )
        rows.append(
            f"<tr><td>{escape(one.column)}</td><td>{bar}</td>"
            f'<td class="n">{one.mean:.4g}</td><td class="n">± {one.deviation:.2g}</td></tr>'
        )
    more = len(part.columns) - len(shown)
    rest = f'<p class="faint">{more} columns less important are in the JSON.</p>' if more else ""
    return (
        f"<h2>Importance of columns</h2><p>How far the {worse}, from {part.baseline:.4g}, where a "
        "column's values are dealt out anew: mean and standard deviation of the repeats. Columns "
        'that say the same hide one another.</p><div class="scroll"><table>'
        + "".join(rows)
        + f'</table></div>{rest}<p class="faint">{escape(part.source)}</p>'
    )


def _calibration(part: Calibration) -> str:
    marks = []
    for one in part.bins:
        if one.accuracy is None or one.confidence is None:
            continue
        x, width = one.low * SIDE, (one.high - one.low) * SIDE
        middle, right, sure = x + width / 2, one.accuracy * SIDE, one.confidence * SIDE
        marks.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{SIDE - right:.1f}" width="{width - 2:.1f}" '
            f'height="{right:.1f}"/>'
            f'<circle class="dot" cx="{middle:.1f}" cy="{SIDE - sure:.1f}" r="4"/>'
            f'<text x="{middle:.1f}" y="{SIDE - max(right, sure) - 8:.1f}" text-anchor="middle">'
            f"{one.count:,}</text>"
        )
    picture = (
        f'<svg viewBox="-34 -22 {SIDE + 44} {SIDE + 56}" width="{SIDE + 80}" role="img" '
        'aria-label="Reliability diagram">'
        + "".join(marks)
        + f'<line class="even" x1="0" y1="{SIDE}" x2="{SIDE}" y2="0"/>'
        f'<line class="axis" x1="0" y1="{SIDE}" x2="{SIDE}" y2="{SIDE}"/>'
        f'<line class="axis" x1="0" y1="0" x2="0" y2="{SIDE}"/>'
        + "".join(
            f'<text x="{at * SIDE / 4:.0f}" y="{SIDE + 15}" text-anchor="middle">{at / 4:g}</text>'
            f'<text x="-6" y="{SIDE - at * SIDE / 4 + 4:.0f}" text-anchor="end">{at / 4:g}</text>'
            for at in range(5)
        )
        + f'<text x="{SIDE / 2}" y="{SIDE + 31}" text-anchor="middle">confidence</text></svg>'
    )
    return (
        "<h2>Reliability</h2><p>Bars: how often the model is right where it is so sure; dots: how "
        "sure it is; the dashed line: as sure as right; numbers: rows.</p>"
        f"{picture}<p>Expected calibration error {part.expected_calibration_error:.4f}, largest "
        f"{part.maximum_calibration_error:.4f}; Brier score {part.brier_score:.4f}; mean "
        f"confidence {part.mean_confidence:.4f}, accuracy {part.accuracy:.4f}.</p>"
        f'<p class="faint">{escape(part.source)}</p>'
    )


def _confusion(part: Confusion) -> str:
    found = [f"<h2>Confusion</h2><p>{part.mistaken:,} mistakes; macro-F1 {part.macro_f1:.4f}.</p>"]
    if part.matrix is not None and len(part.labels) <= LABELS:
        head = "".join(f"<th>{escape(label)}</th>" for label in part.labels)
        rows = [
            f"<tr><th>{escape(label)}</th>{''.join(_cell(cell, sum(row)) for cell in row)}</tr>"
            for label, row in zip(part.labels, part.matrix, strict=True)
        ]
        found.append(
            '<div class="scroll"><table class="matrix"><caption>rows: true, columns: told'
            f"</caption><tr><th></th>{head}</tr>{''.join(rows)}</table></div>"
        )
    if part.mistakes:
        rows = [
            f'<tr><td class="n">{one.row}</td><td>{escape(one.true)}</td>'
            f'<td>{escape(one.predicted)}</td><td class="n">{one.confidence:.3f}</td>'
            f"<td>{escape(one.shown)}</td></tr>"
            for one in part.mistakes
        ]
        found.append(
            "<h2>The mistakes it is the surest of</h2>"
            + _table(["row", "true", "told", "confidence", "what"], rows, (0, 3))
        )
    return "".join(found)


def _cell(count: int, total: int) -> str:
    """A single hue, by the share of the true label's rows; its number is legible on all shares."""
    share = count / total if total else 0.0
    ink = "#fff" if share > 0.55 else "#08306b"
    red, green, blue = (round(255 - share * (255 - end)) for end in (8, 81, 156))
    return f'<td style="background:rgb({red},{green},{blue});color:{ink}">{count:,}</td>'


def _neighbours(part: Neighbours) -> str:
    head = (
        f"<h2>Nearest training examples</h2><p>By {escape(part.by)}, among {part.searched:,} of "
        f"{part.training_rows:,} training rows. Blue: of the label that is predicted; orange: of "
        "another.</p>"
    )
    return (
        head + "".join(map(_nearest, part.found)) + (f'<p class="faint">{escape(part.source)}</p>')
    )


def _nearest(one: Nearest) -> str:
    told = f"predicted {one.predicted}"
    told += "" if one.confidence is None else f" ({one.confidence:.3f})"
    told += "" if one.true is None else f", true {one.true}"
    told += "" if one.agreement is None else f"; {one.agreement:.0%} of the examples agree"
    rows = []
    for example in one.examples:
        same = example.label == one.predicted or one.confidence is None
        mark = f'<span class="{"same" if same else "other"}">{escape(example.label)}</span>'
        rows.append(
            f'<tr><td class="n">{example.similarity:.3f}</td><td>{mark}</td>'
            f'<td class="n">{example.row}</td><td>{escape(example.shown)}</td></tr>'
        )
    where = "" if one.row is None else f"Row {one.row}: "
    return f"<p><b>{escape(where)}</b>{escape(one.shown)}<br>{escape(told)}</p>" + _table(
        ["cosine", "label", "row", "what"], rows, (0, 2)
    )


def _table(names: Sequence[str], rows: Sequence[str], right: tuple[int, ...]) -> str:
    head = "".join(
        f"<th{' class=n' if at in right else ''}>{escape(name)}</th>"
        for at, name in enumerate(names)
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
