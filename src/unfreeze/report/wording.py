"""How figures and foreign text are put into words, alike on the page, the card and the terminal.

*Foreign text* is whatever comes from data, labels, file and column names, or errors. It may hold anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unfreeze.errors import visible
from unfreeze.types import is_number

# Shown as percentages, their differences as points.
SHARES = (
    frozenset({"accuracy", "f1", "f1_micro", "f1_samples", "f1_weighted", "precision", "recall", "exact_match"})
    | {"balanced_accuracy"}
    | {*(f"overall_{name}" for name in ("f1", "precision", "recall", "accuracy")), "row_accuracy"}
    | {*("frame_accuracy", "intent_accuracy")}
    | {*("answer_f1", "has_answer_f1", "has_answer_exact_match", "no_answer_accuracy")}
    | {*("wer", "cer")}
    | {*("mean_iou", "pixel_accuracy", "mean_accuracy")}
    | {*("rouge1", "rouge2", "rougeL", "token_accuracy")}
)
LOWER_IS_BETTER = frozenset({"wer", "cer", "loss", "log_loss", "ece", "mse", "rmse", "mae", "perplexity"})
METRIC_NAMES = {
    "overall_f1": "entity-level F1",
    "overall_precision": "precision of spans",
    "overall_recall": "recall of spans",
    "overall_accuracy": "token accuracy",
    "frame_accuracy": "frame accuracy (intent and slots right)",
    "intent_accuracy": "intents right",
    "row_accuracy": "rows with all spans right",
    "answer_f1": "F1 of answers' words",
    "has_answer_f1": "F1 where there is an answer",
    "has_answer_exact_match": "exact match where there is an answer",
    "no_answer_accuracy": "no-answer accuracy",
    "balanced_accuracy": "mean recall of the classes (UAR)",
    "ece": "expected calibration error",
    "f1": "macro F1",
    "f1_micro": "micro F1",
    "f1_samples": "F1 by row",
    "f1_weighted": "weighted F1",
    "log_loss": "log loss",
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "r2": "R squared",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "wer": "word error rate",
    "cer": "character error rate",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "token_accuracy": "token accuracy",
    "written_words": "words written",
    "rmse": "root mean squared error",
}
_ABSOLUTE_PATH = re.compile(r"(?:(?<![\w.:/\\~])/|(?<![A-Za-z])[A-Za-z]:[\\/])(?:[^\s/\\:;,'\"<>|]+[/\\])+")


# foreign text


def visible_lines(value: object) -> list[str]:
    """`visible`, but line by line."""
    return [visible(line) for line in re.split(r"\r\n|\n|\r", str(value))]


def shortened(text: str, length: int = 240) -> str:
    """The beginning of a text, at most `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "\u2026"


def without_paths(value: object) -> str:
    """The text with folders of absolute paths left out: they name people and machines.

    >>> without_paths("cannot read /home/ann/work/rows.csv")
    'cannot read .../rows.csv'
    """
    text = str(value)
    home = str(Path.home())
    if len(home) > 1:
        text = text.replace(home, "~")
    return _ABSOLUTE_PATH.sub(".../", text)


def shown_value(value: Any) -> str:
    """A value of the plan as a person would write it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        if set(value) == {"value", "unit"}:  # a Duration
            return f"{value['value']:g} {value['unit']}"
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(shown_value, value))
    return without_paths(value)


def answer(value: Any) -> str:
    """A label, several labels, or a number, as true or predicted."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) if value else "(no label)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# figures


def metric_name(metric: str) -> str:
    """The metric in words."""
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def figure(metric: str, value: Any) -> str:
    """A metric's value: ``91.2 %`` for shares, four digits for others, ``n/a`` where it is undefined."""
    if not is_number(value):
        return "n/a"
    return f"{100 * value:.1f} %" if metric in SHARES else f"{value:.4g}"


def interval(metric: str, low: float, high: float) -> str:
    """The 95 % interval of a metric."""
    if metric in SHARES:
        return f"{100 * low:.1f} to {100 * high:.1f} %"
    return f"{low:.4g} to {high:.4g}"


def signed(metric: str, value: float) -> str:
    """A difference with its sign, without unit."""
    return f"{100 * value:+.1f}" if metric in SHARES else f"{value:+.3g}"


def distance(metric: str, value: float) -> str:
    """The size of a difference."""
    return f"{abs(100 * value):.1f} points" if metric in SHARES else f"{abs(value):.3g}"


def count(value: Any) -> str:
    """A number of things, or ``n/a``."""
    return f"{round(value):,}" if is_number(value) else "n/a"


def duration(seconds: Any) -> str:
    """Seconds as a person would say them: ``3 min 20 s``."""
    if not is_number(seconds):
        return "n/a"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(n_bytes: Any) -> str:
    """Bytes as MB or GB (powers of ten)."""
    if not is_number(n_bytes):
        return "n/a"
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def percent(share: Any) -> str:
    """A share in [0, 1] with one digit."""
    return f"{100 * share:.1f} %" if is_number(share) else "n/a"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names with quotes, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{visible(shortened(name, 60))}'" for name in names[:most]) + more
