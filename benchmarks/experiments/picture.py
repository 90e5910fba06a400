"""Differences with their intervals as SVG text: a row each, a dot a seed, coloured by the verdict. No library, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from worker.training.experiment.report.picture import ticks

COLOURS = {"helped": "#009e73", "hurt": "#d55e00", "no_effect": "#0072b2", "inconclusive": "#777777"}
"""Okabe and Ito's, which colour-blind readers tell apart."""

WIDTH, LABELS, WORDS, ROW, TOP, BOTTOM = 940, 360, 110, 20, 34, 46


@dataclass(frozen=True)
class Row:
    """One difference; `seeds` are its values, one a seed. Without an interval it is a heading."""

    label: str
    word: str = ""
    delta: float = 0.0
    interval: tuple[float, float] | None = None
    seeds: Sequence[float] = ()


def forest(title: str, axis: str, rows: Sequence[Row], legend: dict[str, str] | None = None) -> str:
    """The rows one below the other over one axis; `legend` says what else a verdict's word is called here."""
    drawn = [row for row in rows if row.interval is not None]
    low = min([0.0, *(min(row.interval[0], *row.seeds, row.delta) for row in drawn if row.interval)])
    high = max([0.0, *(max(row.interval[1], *row.seeds, row.delta) for row in drawn if row.interval)])
    room = 0.04 * (high - low or 1.0)
    low, high = low - room, high + room
    inner, height = WIDTH - LABELS - WORDS, TOP + ROW * len(rows) + BOTTOM

    def across(value: float) -> float:
        return LABELS + inner * (value - low) / (high - low)

    parts = _begin(title, WIDTH, height)
    bottom = TOP + ROW * len(rows)
    for value in ticks(low, high, 8):
        x = across(value)
        colour = "#888888" if abs(value) < 1e-9 else "#e4e4e4"
        parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="{colour}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555555">{_number(value)}</text>')
    parts.append(
        f'<text x="{LABELS + inner / 2}" y="{bottom + 34}" text-anchor="middle" fill="#555555">{escape(axis)}</text>'
    )
    for place, row in enumerate(rows):
        y = TOP + ROW * place + ROW / 2
        if row.interval is None:
            parts.append(f'<text x="8" y="{y + 4:.1f}" font-weight="600">{escape(row.label)}</text>')
            continue
        colour = COLOURS[row.word]
        word = (legend or {}).get(row.word, row.word)
        parts += [
            f'<text x="20" y="{y + 4:.1f}">{escape(row.label)}</text>',
            *(f'<circle cx="{across(v):.1f}" cy="{y:.1f}" r="2.2" fill="none" stroke="{colour}"/>' for v in row.seeds),
            f'<path d="M{across(row.interval[0]):.1f} {y:.1f}H{across(row.interval[1]):.1f}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{across(row.delta):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>',
            f'<text x="{WIDTH - WORDS + 10}" y="{y + 4:.1f}" fill="{colour}">{escape(word)}</text>',
        ]
    return _end(parts)


def caterpillars(title: str, panels: dict[str, Sequence[Row]]) -> str:
    """Many intervals a panel, in order of their middles: what calls nothing something stands out in colour."""
    width, height, plot = 440, 300, 220
    parts = _begin(title, width * len(panels), height)
    for place, (name, rows) in enumerate(panels.items()):
        ends = [end for row in rows for end in row.interval or ()]
        high = 1.05 * max(abs(end) for end in ends)
        left, inner = 52 + width * place, width - 70
        ordered = sorted(rows, key=lambda row: row.delta)

        def down(value: float, high: float = high) -> float:
            return TOP + plot * (high - value) / (2 * high)

        parts.append(f'<text x="{left}" y="20" font-size="13" font-weight="600">{escape(name)}</text>')
        for value in ticks(-high, high, 6):
            colour = "#888888" if abs(value) < 1e-9 else "#e4e4e4"
            parts.append(f'<path d="M{left} {down(value):.1f}H{left + inner}" stroke="{colour}"/>')
            parts.append(
                f'<text x="{left - 6}" y="{down(value) + 4:.1f}" text-anchor="end" fill="#555555">{_number(value)}</text>'
            )
        for number, row in enumerate(ordered):
            x = left + inner * (number + 0.5) / len(ordered)
            lo, hi = row.interval or (0.0, 0.0)
            strong = row.word in ("helped", "hurt")
            colour = COLOURS[row.word] if strong else "#bbbbbb"
            parts.append(
                f'<path d="M{x:.1f} {down(lo):.1f}V{down(hi):.1f}" stroke="{colour}" stroke-width="{1.8 if strong else 0.9}"/>'
            )
        parts.append(
            f'<text x="{left + inner / 2:.1f}" y="{TOP + plot + 22}" text-anchor="middle" fill="#555555">'
            f"{len(ordered)} verdicts in order; points of accuracy</text>"
        )
    return _end(parts)


def _number(value: float) -> str:
    return "0" if abs(value) < 1e-9 else f"{value:+.4g}"


def _begin(title: str, width: int, height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<g font-family="system-ui, sans-serif" font-size="11">',
    ]


def _end(parts: Sequence[str]) -> str:
    return "\n".join([*parts, "</g>", "</svg>", ""])
