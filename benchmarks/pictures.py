"""Accuracy over seconds of the `curves` cells, as pictures beside RESULTS.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks import cells
from benchmarks.rendering import curve_file, curve_pairs, peers_factor
from benchmarks.results import Results

_COLOURS = ("#0072b2", "#d55e00")  # of Okabe and Ito, told apart with any colour vision


def draw(results: Results, folder: Path) -> list[Path]:
    """One picture a data set that has both systems' records; returns their files."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    done = {name: record for name, record in results.latest().items() if record.state == "done"}
    made = []
    for data in cells.CURVES:
        pairs = curve_pairs(done, data)
        if not pairs:
            continue
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        for system, name in enumerate(("unfreeze", "Trainer")):
            for number, (seed, pair) in enumerate(pairs.items()):
                seconds, accuracy = zip(*pair[system]["curve"], strict=True)
                label = name if number == 0 else None
                factor = peers_factor(done, data, seed) if system else 1.0
                at = [factor * s for s in seconds]
                axes.plot(at, accuracy, "o-", ms=3, lw=1, color=_COLOURS[system], label=label)
        axes.set_xscale("log")
        axes.set_xlabel("seconds of training, evaluations included")
        axes.set_ylabel("accuracy on the rows held out")
        axes.set_title(f"{data}, one line a seed", fontsize=10)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        path = folder / curve_file(data)
        # The same records give the same file.
        with rc_context({"svg.hashsalt": data}):
            figure.savefig(path, metadata={"Date": None})
        made.append(path)
    return made
