"""Line charts as SVG text: axes with round numbers, a legend, nothing else. No library, no script, no font but the reader's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Okabe and Ito's, which colour-blind readers tell apart."""

WIDTH, PLOT, LEFT, TOP, BOTTOM, ROW = 380, 220, 62, 34, 44, 18
MOST_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """`points`: (x, y) in the order of x; a y that is None or not finite is a gap. `dashed`: a control's."""

    label: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    curves: Sequence[Curve]


def chart(title: str, panels: Sequence[Panel]) -> str:
    """The panels side by side, as a whole SVG document; `title` is what a screen reader says."""
    legend = max((len(panel.curves) for panel in panels), default=0)
    height = TOP + PLOT + BOTTOM + legend * ROW
    width = WIDTH * max(1, len(panels))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{_text(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<g font-family="system-ui, sans-serif" font-size="11">',
    ]
    for place, panel in enumerate(panels):
        parts += [f'<g transform="translate({place * WIDTH} 0)">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</g>", "</svg>", ""])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], about so many: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    step = 10 ** math.floor(math.log10(span / about))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * about >= span)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _panel(panel: Panel) -> list[str]:
    drawn = [(curve, _known(curve)) for curve in panel.curves]
    known = [point for _, points in drawn for point in points if point is not None]
    xs, ys = [point[0] for point in known], [point[1] for point in known]
    left, right = (min(xs), max(xs)) if xs else (0.0, 1.0)
    low, high = _padded(min(ys), max(ys)) if ys else (0.0, 1.0)
    inner = WIDTH - LEFT - 16

    def across(value: float) -> float:
        return LEFT + (inner * (value - left) / (right - left) if right > left else inner / 2)

    def down(value: float) -> float:
        return TOP + PLOT - PLOT * (value - low) / (high - low)

    parts = [f'<text x="{LEFT}" y="20" font-size="13" font-weight="600">{_text(panel.title)}</text>']
    for value in ticks(low, high):
        y = down(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + inner}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{_number(value)}</text>')
    parts += [
        f'<text x="{across(value):.1f}" y="{TOP + PLOT + 16}" text-anchor="middle" fill="#555555">{_number(value)}</text>'
        for value in ticks(left, right)
    ]
    parts.append(
        f'<text x="{LEFT + inner / 2:.1f}" y="{TOP + PLOT + 34}" text-anchor="middle" fill="#555555">{_text(panel.x)}</text>'
    )
    parts.append(f'<path d="M{LEFT} {TOP}V{TOP + PLOT}H{LEFT + inner}" fill="none" stroke="#888888"/>')
    for row, (curve, points) in enumerate(drawn):
        style = f'stroke="{COLOURS[curve.colour % len(COLOURS)]}"' + (' stroke-dasharray="5 3"' if curve.dashed else "")
        placed = [None if point is None else (across(point[0]), down(point[1])) for point in points]
        parts += [
            f'<path d="{path}" fill="none" {style} stroke-width="1.8" stroke-linecap="round"/>'
            for path in _paths(placed)
        ]
        y = TOP + PLOT + BOTTOM + row * ROW
        parts.append(f'<path d="M{LEFT} {y}h24" {style} stroke-width="1.8"/>')
        parts.append(f'<text x="{LEFT + 30}" y="{y + 4}">{_text(curve.label)}</text>')
    return parts


def _known(curve: Curve) -> list[tuple[float, float] | None]:
    """The points, at most some hundred of them; None where the line breaks."""
    every = max(1, math.ceil(len(curve.points) / MOST_POINTS))
    thinned = [*curve.points[:-1:every], *curve.points[-1:]]
    return [(x, y) if y is not None and math.isfinite(y) else None for x, y in thinned]


def _paths(points: Sequence[tuple[float, float] | None]) -> list[str]:
    """A path for each unbroken piece; a piece of one point is a dot, drawn by its round cap."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            pieces.append([])
        else:
            pieces[-1].append(point)
    return [
        f"M{piece[0][0]:.1f} {piece[0][1]:.1f}" + "".join(f"L{x:.1f} {y:.1f}" for x, y in piece[1:] or piece[:1])
        for piece in pieces
        if piece
    ]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    return low - room, high + room


def _number(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:.10g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def _text(words: str) -> str:
    """Fit for XML: what no document may hold is left out."""
    return escape("".join(letter for letter in words if letter.isprintable()))
