"""The plots of a report, as matplotlib figures (Agg, no global state) and as data URIs.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart. Where a label cannot be drawn
with matplotlib's own font, its number stands beside what can; the tables of the report have names and numbers.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze.errors import visible
from unfreeze.report.records import Comparison, PhaseRecord, Timeline
from unfreeze.report.wording import LOWER_IS_BETTER, SHARES, metric_name, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#767676"
VERDICT_COLOURS = {"better": GREEN, "worse": RED, "not distinguishable": GREY}
WIDTH_INCHES, DOTS_PER_INCH = 7.2, 160
CLASSES_IN_MATRIX = 20
_POINTS_DRAWN = 2000
_RATES_NAMED = 8
_LABEL_LENGTH = 22


def data_uri(figure: Figure) -> str:
    """The figure as a PNG data URI; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _figure(height_inches: float, width_inches: float = WIDTH_INCHES) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _legend(axes: Axes) -> None:
    """Beside the panel, where it hides no point."""
    axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


# text


@cache
def _drawable_codes() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def drawn(text: str, number: int | None = None, length: int = _LABEL_LENGTH) -> str:
    """Foreign text for a plot: short, without what the font lacks or matplotlib would read as mathematics.

    Args:
        text: A label or a name.
        number: Put in front where something had to be left out, so that the label can still be told.
        length: In characters, at most.
    """
    whole = visible(text)
    known = "".join(c if ord(c) in _drawable_codes() else "\u25a1" for c in shortened(whole, length))
    if known != whole and number is not None:
        known = f"#{number} {known}"
    # Trap: matplotlib sets what stands between two dollar signs as a formula, and fails on a broken one.
    return known.replace("$", r"\$") or "(empty)"


# baselines


def baseline_differences(comparisons: Sequence[Comparison]) -> Figure:
    """Dot and whisker: run minus each baseline with its paired interval, and the line of no difference."""
    compared = [c for c in comparisons if c.difference is not None]
    metric = compared[0].metric
    scale = 100 if metric in SHARES else 1
    figure = _figure(1.1 + 0.42 * len(compared))
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=1)
    for row, c in enumerate(compared):
        assert c.difference is not None
        value, low, high = (scale * d for d in c.difference)
        colour = VERDICT_COLOURS.get(c.verdict, GREY)
        axes.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
        axes.plot([value], [row], "o", color=colour, markersize=7)
    axes.set_yticks(range(len(compared)), [drawn(c.title.removeprefix("the "), length=30) for c in compared])
    axes.set_ylim(len(compared) - 0.4, -0.6)
    unit = ", in points" if scale == 100 else ""
    better = "left" if metric in LOWER_IS_BETTER else "right"
    axes.set_xlabel(
        f"{drawn(metric_name(metric), length=40)}: this run minus the baseline{unit} (further {better} is better)",
        fontsize=8,
    )
    _tidy(axes)
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    return figure


# curves


def curves(timeline: Timeline, metric: str | None = None) -> Figure:
    """Training loss raw and smoothed, validation loss and metric, phases as bands, the best step, rates by group.

    Args:
        timeline: With steps, or evaluations, or both.
        metric: Of the validation rows to draw beside the loss; None, or one that no evaluation has, for none.
    """
    with_metric = metric is not None and metric != "loss" and any(metric in e.metrics for e in timeline.evaluations)
    with_rates = any(p.rates for p in timeline.phases) and bool(timeline.steps)
    heights = [3.0, *([1.7] if with_metric else []), *([1.7] if with_rates else [])]
    figure = _figure(sum(heights) + 0.4)
    panels = list(np.atleast_1d(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)))
    _draw_losses(panels[0], timeline)
    if with_metric and metric is not None:
        _draw_metric(panels[1], timeline, metric)
    if with_rates:
        _draw_rates(panels[-1], timeline)
    for axes in panels:
        _draw_phases(axes, timeline.phases, named=axes is panels[0])
        _tidy(axes)
    panels[-1].set_xlabel("optimizer steps", fontsize=8)
    return figure


def _draw_losses(axes: Axes, timeline: Timeline) -> None:
    steps = np.array([s.step for s in timeline.steps])
    losses = np.array([s.loss for s in timeline.steps])
    if np.isfinite(losses).any():
        every = max(1, len(steps) // _POINTS_DRAWN)
        axes.plot(steps[::every], losses[::every], color=BLUE, alpha=0.22, linewidth=0.8)
        axes.plot(steps[::every], smoothed(losses)[::every], color=BLUE, linewidth=1.6, label="train, smoothed")
    seen = [(e.step, e.metrics["loss"]) for e in timeline.evaluations if "loss" in e.metrics]
    if seen:
        axes.plot(*zip(*seen, strict=True), "o-", color=RED, markersize=3.5, linewidth=1.4, label="validation")
    best = timeline.best
    if best is not None and "loss" in best.metrics:
        axes.axvline(best.step, color="black", linewidth=0.8, linestyle=":")
        label = f"best, step {best.step}"
        axes.plot([best.step], [best.metrics["loss"]], "*", color="black", markersize=11, label=label)
    axes.set_ylabel("loss", fontsize=8)
    if axes.get_legend_handles_labels()[1]:
        _legend(axes)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Exponential mean over about a twentieth of the steps, unbiased at the start; NaN is passed over."""
    keep = 1 - 2 / (1 + max(5.0, len(values) / 20))
    total = weight = 0.0
    found = np.empty(len(values))
    for i, value in enumerate(values):
        total, weight = total * keep, weight * keep
        if math.isfinite(value):
            total, weight = total + (1 - keep) * value, weight + (1 - keep)
        found[i] = total / weight if weight else np.nan
    return found


def _draw_metric(axes: Axes, timeline: Timeline, metric: str) -> None:
    scale = 100 if metric in SHARES else 1
    seen = [(e.step, scale * e.metrics[metric]) for e in timeline.evaluations if metric in e.metrics]
    axes.plot(*zip(*seen, strict=True), "o-", color=GREEN, markersize=3.5, linewidth=1.4)
    best = timeline.best
    if best is not None:
        axes.axvline(best.step, color="black", linewidth=0.8, linestyle=":")
        if metric in best.metrics:
            axes.plot([best.step], [scale * best.metrics[metric]], "*", color="black", markersize=11)
    name = drawn(metric_name(metric).replace("mean absolute error", "mean abs. error"), length=24)
    axes.set_ylabel(f"validation\n{name}" + (", %" if scale == 100 else ""), fontsize=8)


def _draw_rates(axes: Axes, timeline: Timeline) -> None:
    """One line a layer group; the groups are named, or where they are many the outermost ones."""
    from matplotlib import colormaps

    groups = list(dict.fromkeys(g for p in reversed(timeline.phases) for g in p.rates))
    colours = colormaps["viridis"](np.linspace(0, 0.92, max(2, len(groups))))
    named = set(groups if len(groups) <= _RATES_NAMED else [*groups[:3], groups[-1]])
    shapes = {p.number: _rates_of(timeline, p) for p in timeline.phases if p.rates}
    for group, colour in zip(groups, colours, strict=False):
        label: str | None = drawn(group) if group in named else None
        for phase in timeline.phases:
            if group not in phase.rates:
                continue
            steps, share = shapes[phase.number]
            axes.plot(steps, share * phase.rates[group], color=colour, linewidth=1.3, label=label)
            label = None
    axes.set_yscale("log")
    axes.set_ylabel("learning rate", fontsize=8)
    # The rate falls to 0 at a phase's end; on a log axis that would take all the room.
    axes.set_ylim(bottom=min(r for p in timeline.phases for r in p.rates.values()) / 20)
    _legend(axes)


def _rates_of(timeline: Timeline, phase: PhaseRecord) -> tuple[np.ndarray, np.ndarray]:
    """The steps of a phase, and the share of the peak rates at each; rates of 0 are left out of a log axis."""
    peak = max(phase.rates.values())
    inside = [s for s in timeline.steps if phase.start < s.step <= phase.end and s.rate > 0]
    inside = inside[:: max(1, len(inside) // 300)]
    return np.array([s.step for s in inside]), np.array([s.rate / peak for s in inside])


def _draw_phases(axes: Axes, phases: Sequence[PhaseRecord], *, named: bool) -> None:
    whole = max((p.end for p in phases), default=0) - min((p.start for p in phases), default=0)
    for phase in phases:
        if phase.end > phase.start:
            axes.axvspan(phase.start, phase.end, color=GREY, alpha=0.1 if phase.number % 2 else 0.02, linewidth=0)
            if named:
                room = max(4, round(90 * phase.steps / max(1, whole)))
                axes.text(
                    (phase.start + phase.end) / 2,
                    1.01,
                    drawn(phase.name, length=min(room, 30)),
                    transform=axes.get_xaxis_transform(),
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color="#444444",
                )


# answers


def confusion_matrix(labels: Sequence[str], matrix: np.ndarray) -> Figure:
    """Heat map of counts (classes, classes), true class down; the shade is the share of the true class's rows."""
    width = len(labels)
    rows = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    side = max(3.4, 1.9 + 0.34 * width)
    figure = _figure(side, min(WIDTH_INCHES + 1.5, side + 1.0))
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [drawn(label, number) for number, label in enumerate(labels, start=1)]
    upright = width <= 3 and max(map(len, names)) <= 12
    axes.set_xticks(range(width), names, rotation=0 if upright else 45, ha="center" if upright else "right")
    axes.set_yticks(range(width), names)
    for i in range(width):
        for j in range(width):
            if matrix[i, j]:
                colour = "white" if share[i, j] > 0.55 else "black"
                size = 9 if width <= 8 else 6.5
                axes.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", color=colour, fontsize=size)
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("true", fontsize=8)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[:].set_visible(False)
    return figure


def most_confused(labels: Sequence[str], matrix: np.ndarray, most: int = 15) -> list[tuple[str, str, int, float]]:
    """The pairs with most rows off the diagonal: true label, predicted label, rows, share of the true label's rows."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    pairs = [divmod(int(i), len(labels)) for i in order]
    return [
        (labels[i], labels[j], int(off[i, j]), float(off[i, j] / matrix[i].sum())) for i, j in pairs if off[i, j] > 0
    ]


def calibration(bins: Sequence[dict[str, Any]]) -> Figure:
    """How often the model is right against how sure it is; the dots' area and the lower panel show a bin's rows."""
    filled = [b for b in bins if b.get("count")]
    confidence, accuracy, rows = (np.array([b[k] for b in filled], float) for k in ("confidence", "accuracy", "count"))
    figure = _figure(4.4, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    upper.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="perfect calibration")
    upper.plot(confidence, accuracy, color=BLUE, linewidth=1)
    upper.scatter(confidence, accuracy, s=18 + 160 * rows / rows.max(), color=BLUE, alpha=0.75, linewidth=0)
    upper.set_ylabel("accuracy", fontsize=8)
    upper.set_ylim(-0.03, 1.03)
    upper.legend(fontsize=8, frameon=False, loc="upper left")
    lower.bar(confidence, rows, width=0.045, color=GREY)
    lower.set_ylabel("rows", fontsize=8)
    lower.set_xlabel("probability of the answer", fontsize=8)
    lower.set_xlim(0, 1.02)
    for axes in (upper, lower):
        _tidy(axes)
    return figure
