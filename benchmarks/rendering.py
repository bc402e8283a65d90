"""RESULTS.md from the records: one section a question, every record shown, the unfavourable ones too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks import cells
from benchmarks.material import SHARED_TOKENS, WINDOW_TOKENS
from benchmarks.results import Record, Results, median, paired_difference, paired_f1_difference

NON_INFERIORITY_MARGIN = -0.015
BUSY_SHARE = 0.1
_DIFFERENCE = ("value", "low", "high")
_SYSTEM_NAMES = {
    "a": "a  Trainer, as the tutorial",
    "b": "b  Trainer at its best",
    "c": "c  b without attention dropout",
    "u": "u  unfreeze",
    "r": "r  unfreeze, from the top on recorded inputs",
}
_RECORDED_NAMES = {
    "b": "b  Trainer at its best, the same layers frozen",
    "u": "u  unfreeze, recording included",
    "again": "again  a second run of unfreeze, another rate",
    "pass": "pass  a bare inference pass, then the head",
}
Records = dict[str, Record]


def render(results: Results) -> str:
    """The page, in Markdown."""
    latest = results.latest()
    done = {name: record for name, record in latest.items() if record.state == "done"}
    parts = [_head(latest)]
    for title, section in _SECTIONS:
        lines = section(done)
        parts.append("\n".join([f"## {title}", "", *(lines or ["Not measured yet."])]))
    parts.append(_not_done(latest))
    return "\n\n".join(parts) + "\n"


def _head(latest: Records) -> str:
    lines = [
        "# Results",
        "",
        "Made by `python -m benchmarks render` from the records in `results/`; what is compared, and how, stands in",
        "`benchmarks/__init__.py`. Medians over rounds or seeds, with the range in brackets.",
        "",
    ]
    if latest:
        dates = sorted(record.date[:10] for record in latest.values())
        lines.append(f"Measured {dates[0]} to {dates[-1]}.")
    for text in dict.fromkeys(_machine(r.machine) for r in latest.values() if r.machine):
        lines.append(f"- {text}")
    commits = dict.fromkeys(r.machine["commit"] for r in latest.values() if r.machine)
    if commits:
        lines.append(f"- commits of unfreeze: {', '.join(commits)}")
    busy = sorted(name for name, record in latest.items() if record.busy > BUSY_SHARE)
    if busy:
        lines += ["", f"**The machine was busy with other work when these cells started:** {', '.join(busy)}."]
    return "\n".join(lines)


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; "
        f"{machine['threads']} threads; {versions}"
    )


def _not_done(latest: Records) -> str:
    lines = ["## Not finished", ""]
    for cell in cells.table():
        record = latest.get(cell.name)
        if record is not None and record.state == "failed":
            lines.append(f"- `{cell.name}` failed: {record.values.get('cause', '')}")
        elif record is not None and record.state == "partial":
            lines.append(f"- `{cell.name}` goes on after {_duration(record.seconds)}")
    missing = sum(cell.name not in latest for cell in cells.table())
    if missing:
        lines.append(f"- {missing} cells have not been run")
    return "\n".join(lines if len(lines) > 2 else [*lines, "Nothing: every cell has its record."])


# speed -----------------------------------------------------------------------------------------------------------


def _speed(done: Records) -> list[str]:
    lines: list[str] = []
    for data, rows in cells.SPEED_ROWS.items():
        rounds = {s: _rounds(done, f"speed/{data}/{{}}/{s}") for s in cells.SYSTEMS}
        if not any(rounds.values()):
            continue
        seeds = ", ".join(map(str, sorted({number for found in rounds.values() for number in found})))
        lines += [
            f"**{data}**, {rows} rows, MiniLM, all weights, 1 epoch, batches of 16, rate 2e-5; "
            f"rounds and seeds: {seeds}",
            "",
            "| system | training | whole process | memory above the loaded model | tokens computed / in the rows "
            "| share of the machine's peak | training, times u | whole, times u |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_speed_row(s, found, rounds["u"]) for s, found in rounds.items() if found]
        lines += [*_speed_notes(rounds), ""]
    return lines


def _rounds(done: Records, name: str, numbers: Sequence[int] = cells.ROUNDS) -> dict[int, dict[str, Any]]:
    return {n: done[name.format(n)].values for n in numbers if name.format(n) in done}


def _costs(values: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    """Training, the whole process, memory above the loaded model."""
    training, whole = (_seconds([v[key] for v in values]) for key in ("training_seconds", "whole_seconds"))
    return training, whole, _memory(values)


def _memory(values: Iterable[dict[str, Any]]) -> str:
    return f"{median(v['memory_bytes'] for v in values) / 1e6:,.0f} MB"


def _speed_row(system: str, found: dict[int, dict[str, Any]], ours: dict[int, dict[str, Any]]) -> str:
    values = list(found.values())
    computed = median(v["computed_tokens"] / v["tokens"] for v in values)
    return _row(
        _SYSTEM_NAMES[system],
        *_costs(values),
        f"{computed:.2f}",
        f"{median(v['share_of_peak'] for v in values):.0%}",
        _ratios(found, ours, "training_seconds"),
        _ratios(found, ours, "whole_seconds"),
    )


def _ratios(found: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]], key: str) -> str:
    """Within rounds, so that a slow hour of the machine cancels."""
    ratios = [found[n][key] / base[n][key] for n in found if n in base]
    return _spread(ratios, "{:.2f}") if ratios else "-"


def _speed_notes(rounds: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    notes = []
    if any(v["share_of_steps"] < 1 for v in rounds["a"].values()):
        notes.append(
            f"a: {cells.TUTORIAL_STEPS} steps were made and the time of all follows from theirs, since each step is of "
            "the same padded size."
        )
    for system, found in rounds.items():
        if any(v["share_of_peak"] >= 1 for v in found.values()):
            notes.append(f"**{system}: 100 % of the peak or more cannot be; these times are not to be trusted.**")
        shared = [n for n in found if n in rounds["u"]]
        slower = sum(found[n]["training_seconds"] < rounds["u"][n]["training_seconds"] for n in shared)
        if slower:
            notes.append(f"unfreeze trained slower than {system} in {slower} of {len(shared)} rounds.")
    return ["", *notes] if notes else []


def _recorded(done: Records) -> list[str]:
    lines: list[str] = []
    for span, (epochs, systems) in cells.FROZEN.items():
        for data, rows in cells.SPEED_ROWS.items():
            rounds = {s: _rounds(done, f"recorded/{span}/{data}/{{}}/{s}") for s in systems}
            if not any(rounds.values()):
                continue
            lines += [
                f"**{span}, {data}**, {rows} rows, MiniLM, {epochs} epochs, batches of 16",
                "",
                "| system | training | whole process | memory above the loaded model | training, times u "
                "| training, times again | whole, times u |",
                "|---|---|---|---|---|---|---|",
            ]
            for system, found in rounds.items():
                if not found:
                    continue
                values = list(found.values())
                lines.append(
                    _row(
                        _RECORDED_NAMES[system],
                        *_costs(values),
                        _ratios(found, rounds["u"], "training_seconds"),
                        _ratios(found, rounds.get("again", {}), "training_seconds"),
                        _ratios(found, rounds["u"], "whole_seconds"),
                    )
                )
            lines.append("")
    return lines


def _tags(done: Records) -> list[str]:
    lines: list[str] = []
    for data, (rows, epochs, rate) in cells.TAGS.items():
        found = {s: _rounds(done, f"tags/{data}/{{}}/{s}", cells.SEEDS) for s in "bur"}
        if not found["b"] or not found["u"]:
            continue
        lines += [
            f"**{data}**, {rows:,} rows, MiniLM, {epochs} epochs, batches of 16, rate {rate:g}; all test rows; "
            f"r: {_phases(cells.TAG_PHASES)}, on recorded inputs",
            "",
            "| system | training | whole process | memory above the loaded model | F1 of the spans, mean "
            "| training of b, times | whole of b, times | F1 minus b's, points, 95 % interval |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for system, of_seeds in found.items():
            values, both = list(of_seeds.values()), [n for n in of_seeds if n in found["b"]]
            if not both:
                continue
            spans = [[found[s][n]["spans"] for n in both] for s in (system, "b")]
            lines.append(
                _row(
                    _SYSTEM_NAMES[system],
                    *_costs(values),
                    f"{sum(v['f1'] for v in values) / len(values):.4f}",
                    _ratios(found["b"], of_seeds, "training_seconds"),
                    _ratios(found["b"], of_seeds, "whole_seconds"),
                    "" if system == "b" else _points(paired_f1_difference(spans[0], spans[1])),
                )
            )
        lines.append("")
    return lines


def _answers(done: Records) -> list[str]:
    lines: list[str] = []
    for data, (rows, epochs, rate, test_rows) in cells.ANSWERS.items():
        found = {s: _rounds(done, f"answers/{data}/{{}}/{s}", cells.SEEDS) for s in "bu"}
        both = [n for n in found["u"] if n in found["b"]]
        if not both:
            continue
        lines += [
            f"**{data}**, {rows:,} questions, MiniLM, {epochs} epochs, batches of 16, rate {rate:g}, windows of "
            f"{WINDOW_TOKENS} tokens that share {SHARED_TOKENS}; {test_rows:,} test questions",
            "",
            "| system | training | whole process | memory above the loaded model | F1, mean | exact match, mean "
            "| training, times u | whole, times u |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for system, of_seeds in found.items():
            values = list(of_seeds.values())
            lines.append(
                _row(
                    _SYSTEM_NAMES[system],
                    *_costs(values),
                    f"{sum(v['f1'] for v in values) / len(values):.4f}",
                    f"{sum(v['exact_match'] for v in values) / len(values):.4f}",
                    _ratios(of_seeds, found["u"], "training_seconds"),
                    _ratios(of_seeds, found["u"], "whole_seconds"),
                )
            )
        right = [[found[s][n]["right"] for n in both] for s in ("u", "b")]
        difference = paired_difference(right[0], right[1])
        lines += ["", f"Exact match, unfreeze minus the Trainer: {_points(difference)}. {_verdict(difference)}", ""]
    return lines


def _pictures(done: Records) -> list[str]:
    lines: list[str] = []
    for data in cells.PICTURES:
        rounds = {s: _rounds(done, f"pictures/{data}/{{}}/{s}") for s in ("b", "u")}
        if not all(rounds.values()):
            continue
        rows, epochs = (next(iter(rounds["u"].values()))[key] for key in ("rows", "epochs"))
        lines += [
            f"**{data}**, {rows:,} rows, MobileNetV2, the head alone, {epochs} epochs, batches of 16, rate "
            f"{cells.PICTURE_RATE:g}; reading the pictures included, which the Trainer then keeps in memory",
            "",
            "| system | training | whole process | memory above the loaded model | test accuracy | training, times u "
            "| whole, times u |",
            "|---|---|---|---|---|---|---|",
        ]
        for system, found in rounds.items():
            values = list(found.values())
            lines.append(
                _row(
                    _RECORDED_NAMES[system],
                    *_costs(values),
                    f"{sum(v['accuracy'] for v in values) / len(values):.4f}",
                    _ratios(found, rounds["u"], "training_seconds"),
                    _ratios(found, rounds["u"], "whole_seconds"),
                )
            )
        both = [n for n in rounds["u"] if n in rounds["b"]]
        right = [[rounds[s][n]["right"] for n in both] for s in ("u", "b")]
        difference = paired_difference(right[0], right[1])
        lines += [
            "",
            f"Accuracy, unfreeze minus the Trainer: {_points(difference)}. {_verdict(difference)} One cause is "
            "known, its share not measured: the Trainer keeps frozen norms in training mode, where they use the "
            "statistics of a batch and move their own; unfreeze keeps whatever is frozen in eval mode.",
            "",
        ]
    return lines


def _without(done: Records) -> list[str]:
    lines: list[str] = []
    for data, rows in cells.SPEED_ROWS.items():
        ours = _rounds(done, f"speed/{data}/{{}}/u")
        found = {d: _rounds(done, f"without/{data}/{{}}/{d}") for d in cells.UNDONE}
        if not any(found.values()):
            continue
        lines += [
            f"**{data}**, {rows} rows, as above; one decision of unfreeze undone at a time",
            "",
            "| without | training | training, times u | memory above the loaded model |",
            "|---|---|---|---|",
        ]
        for decision, rounds in found.items():
            if rounds:
                seconds = _seconds([v["training_seconds"] for v in rounds.values()])
                lines.append(
                    _row(decision, seconds, _ratios(rounds, ours, "training_seconds"), _memory(rounds.values()))
                )
        lines.append("")
    return lines


def _tutorial(done: Records) -> list[str]:
    lines = []
    for record in _of_kind(done, "tutorial"):
        values = record.values
        end = f"crashes: {values['error']}" if values["crashes"] else "runs"
        widths = ", ".join(map(str, values["widths"]))
        lines.append(f"- {record.cell}, {values['rows']} rows, padded to widths {widths}: {end}")
    return lines


# quality ---------------------------------------------------------------------------------------------------------


def _accuracy(done: Records) -> list[str]:
    lines: list[str] = []
    for name, (data, _, _, rate, _) in cells.ACCURACY.items():
        pairs = {
            seed: (done[f"accuracy/{name}/{seed}/u"].values, done[f"accuracy/{name}/{seed}/b"].values)
            for seed in cells.SEEDS
            if f"accuracy/{name}/{seed}/u" in done and f"accuracy/{name}/{seed}/b" in done
        }
        if not pairs:
            continue
        first = next(iter(pairs.values()))[0]
        lines += [
            f"**{data}**, {'MobileNetV2' if data in cells.PICTURES else 'MiniLM'}, all weights, "
            f"{first['train_rows']:,} training rows, epochs: {first['epochs']}, rate {rate:g}, "
            f"{len(first['right']):,} test rows",
            "",
            "| seed | unfreeze | Trainer (b) | difference in points, 95 % interval |",
            "|---|---|---|---|",
        ]
        for seed, (ours, theirs) in pairs.items():
            shown = _points(paired_difference([ours["right"]], [theirs["right"]]))
            lines.append(_row(str(seed), f"{ours['accuracy']:.4f}", f"{theirs['accuracy']:.4f}", shown))
        both = [[pair[i]["right"] for pair in pairs.values()] for i in (0, 1)]
        difference = paired_difference(both[0], both[1])
        means = [sum(pair[i]["accuracy"] for pair in pairs.values()) / len(pairs) for i in (0, 1)]
        lines.append(_row("all", f"{means[0]:.4f}", f"{means[1]:.4f}", _points(difference)))
        lines += ["", _verdict(difference), ""]
    return lines


def _curves(done: Records) -> list[str]:
    lines: list[str] = []
    for data, (_, _, form) in cells.CURVES.items():
        pairs = curve_pairs(done, data)
        if not pairs:
            continue
        how = "" if form == "b" else f" (b, scaled from {cells.CURVE_SCALED_ROWS} rows)"
        name = _SYSTEM_NAMES[form]
        first = next(iter(pairs.values()))[0]
        lines += [
            f"**{data}**, {first['train_rows']:,} training rows, {len(first['right'])} test rows, MiniLM; unfreeze: "
            f"{_phases(cells.CURVE_PHASES[data])}; "
            f"the peer: all weights, {cells.CURVE_PEER_EPOCHS} epochs, rate {cells.CURVE_PEER_RATE:g}; both keep their "
            "best weights on the rows held out; the phases of unfreeze were searched for, the rate of the peer, the "
            "Trainer's default, was not",
            "",
            f"| seed | unfreeze | {name} | difference in points, 95 % interval | unfreeze | Trainer{how} | times "
            "| unfreeze as good as the Trainer's last, held out |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for seed, (ours, theirs) in pairs.items():
            factor = peers_factor(done, data, seed)
            seconds = ours["training_seconds"], factor * theirs["training_seconds"]
            difference = _points(paired_difference([ours["right"]], [theirs["right"]]))
            reached = next((s for s, accuracy in ours["curve"] if accuracy >= theirs["curve"][-1][1]), None)
            lines.append(
                _row(
                    str(seed), f"{ours['accuracy']:.4f}", f"{theirs['accuracy']:.4f}", difference,
                    f"{seconds[0]:.0f} s", f"{seconds[1]:.0f} s", f"{seconds[1] / seconds[0]:.2f}",
                    "never" if reached is None else f"after {reached:.0f} s",
                )
            )  # fmt: skip
        fewer = [str(seed) for seed, (ours, theirs) in pairs.items() if ours.get("own_rows") != theirs["train_rows"]]
        both = [[pair[i]["right"] for pair in pairs.values()] for i in (0, 1)]
        means = [sum(pair[i]["accuracy"] for pair in pairs.values()) / len(pairs) for i in (0, 1)]
        difference_of_all = paired_difference(both[0], both[1])
        lines += [_row("all", *(f"{m:.4f}" for m in means), _points(difference_of_all), "", "", "", ""), ""]
        if fewer:
            # Until 27 November 2026 a cell named no test rows to unfreeze, which then kept some of its own.
            what = "unfreeze trained on nine tenths of these rows, in less time, the peer on all; to be run again."
            lines += [f"Seeds {', '.join(fewer)}: {what}", ""]
        lines += [_verdict(difference_of_all), "", f"![Accuracy over seconds on {data}]({curve_file(data)})", ""]
    return lines


def _phases(phases: Sequence[Mapping[str, Any]]) -> str:
    """``head, 1 epoch, its own rate; then ...``."""
    told = []
    for phase in phases:
        rate = f"rate {phase['learning_rate']:g}" if "learning_rate" in phase else "its own rate"
        told.append(f"{phase['span']}, {phase['epochs']}, {rate}")
    return "; then ".join(told)


def _verdict(difference: Sequence[float]) -> str:
    verdict = "above" if difference[1] > NON_INFERIORITY_MARGIN else "**not above**"
    return f"The lower bound is {verdict} {100 * NON_INFERIORITY_MARGIN:g} points."


def curve_pairs(done: Records, data: str) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    """Seed to the values of unfreeze and of its peer, where both are there."""
    form = cells.CURVES[data][2]
    found = {}
    for seed in cells.SEEDS:
        systems = ("u", form) if form == "b" else ("u", form, "scale")
        records = [done[name] for system in systems if (name := f"curves/{data}/{seed}/{system}") in done]
        if len(records) == len(systems):
            found[seed] = records[0].values, records[1].values
    return found


def peers_factor(done: Records, data: str, seed: int) -> float:
    """By what the peer's seconds are multiplied: 1, or what makes them those of form b on as many rows and epochs.

    Its evaluations are then left out, in the peer's favour.
    """
    form = cells.CURVES[data][2]
    if form == "b":
        return 1.0
    theirs, scale = done[f"curves/{data}/{seed}/{form}"].values, done[f"curves/{data}/{seed}/scale"].values
    passes = cells.CURVE_PEER_EPOCHS * theirs["train_rows"] / scale["train_rows"]
    return float(passes * scale["training_seconds"] / theirs["training_seconds"])


def curve_file(data: str) -> str:
    """The picture's place beside the page."""
    return f"results/curve-{data}.svg"


def _transfer(done: Records) -> list[str]:
    lines: list[str] = []
    for data, (prefix, model) in cells.TRANSFER.items():
        found = {
            (rows, weights): _rounds(done, f"transfer/{prefix}{rows}/{{}}/{weights}", cells.SEEDS)
            for rows, weights in (("all", "pretrained"), ("200", "pretrained"), ("200", "random"))
        }
        if not any(found.values()):
            continue
        lines += [f"| {data}, {model}, trained on | weights | test accuracy | seeds |", "|---|---|---|---|"]
        for (rows, weights), of_seeds in found.items():
            if of_seeds:
                figures = [v["accuracy"] for v in of_seeds.values()]
                lines.append(_row(f"{rows} rows", weights, _spread(figures, "{:.4f}"), str(len(figures))))
        pretrained, random = found["200", "pretrained"], found["200", "random"]
        if both := [n for n in pretrained if n in random]:
            right = [[of_seeds[n]["right"] for n in both] for of_seeds in (pretrained, random)]
            difference = _points(paired_difference(right[0], right[1]))
            lines += ["", f"Pretrained minus random weights on 200 rows: {difference} points."]
        lines.append("")
    return lines


# Of tasks with several figures that matter.
_FURTHER = (
    *("intent_accuracy", "overall_f1", "answer_f1", "has_answer_f1", "no_answer_accuracy"),
    *("balanced_accuracy", "rouge2", "rougeL", "cer", "pixel_accuracy"),
)


def _reached(record: Record) -> tuple[str, ...]:
    """Of a run: its rows, its figures, its distance to the baselines, its time."""
    values = record.values
    interval = values["interval"]
    shown = f"{values['value']:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")
    shown += "".join(
        f"<br>{name} {values['figures'][name]:.4f}" for name in _FURTHER if name in values.get("figures", {})
    )
    against = "<br>".join(
        f"{b['name']} ({b['metric']}) {b['value']:.4f}: {_points([b['difference'][k] for k in _DIFFERENCE])}"
        for b in values["baselines"]
    )
    size = f"{values['train_rows']:,} / {values['samples']:,} {values['split']}"
    return size, f"{values['metric']} {shown}", against, _duration(record.seconds)


_REACHED = ("rows to train on / reported", "figure, 95 % interval", "baseline: difference", "time")


def _defaults(done: Records) -> list[str]:
    rows = []
    for record in _of_kind(done, "defaults"):
        _, data, model = record.cell.split("/")
        rows.append(_row(data, model, *_reached(record)))
    if not rows:
        return []
    return [
        "`unfreeze train DATA --model M --output RUN`, no other option. Differences are the run's minus the",
        "baseline's, in points, on the same rows, with a 95 % interval.",
        "",
        _row("data", "model", *_REACHED),
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _commands(done: Records) -> list[str]:
    rows = []
    for record in _of_kind(done, "commands"):
        name = record.cell.partition("/")[2]
        _, model, options = cells.COMMANDS[name]
        rows.append(_row(name, model, f"`{' '.join(options)}`", *_reached(record)))
    if not rows:
        return []
    return [
        "`unfreeze train DATA --model M OPTIONS --output RUN`; otherwise as above. Models that are called untrained",
        "have random weights: their figures show that a task learns, and how little comes of it without a pretrained",
        "model. Numbers of fsdd are 3 to 7 of its spoken digits by one speaker in a row. By speaker, no voice of",
        "urdu_emotion is on both sides of the split; by chance most are, and the model is flattered.",
        "",
        _row("data", "model", "options", *_REACHED),
        "|---|---|---|---|---|---|---|",
        *rows,
    ]


# memory and forecasts --------------------------------------------------------------------------------------------


def _growth(found: Sequence[Record]) -> list[str]:
    """How memory grew from the fewest rows to the most."""
    if len(found) < 2:
        return []
    few, many = found[0].values, found[-1].values
    factor = many["memory_bytes"] / max(1, few["memory_bytes"])
    return ["", f"{many['rows'] / few['rows']:g} times the rows took {factor:.2f} times the memory."]


def _evaluation(done: Records) -> list[str]:
    found = _of_kind(done, "evaluation")
    lines = [_row(f"{r.values['rows']:,}", f"{r.values['memory_bytes'] / 1e6:,.1f} MB") for r in found]
    lines += _growth(found)
    return ["| rows | memory above the loaded model |", "|---|---|", *lines] if lines else []


def _flat(done: Records) -> list[str]:
    found = _of_kind(done, "flat")
    lines = []
    for record in found:
        values = record.values
        disk = ", ".join(
            f"{happened / 1e6:,.1f} MB" + (f" ({planned / 1e6:,.0f} in the plan)" if planned else "")
            for planned, happened in values["disk_bytes"]
        )
        lines.append(_row(f"{values['rows']:,}", f"{values['memory_bytes'] / 1e6:,.1f} MB", disk))
    lines += _growth(found)
    heading = "| rows | memory above the loaded rows and model | recorded for the head, for the upper layer |"
    return [heading, "|---|---|---|", *lines] if lines else []


def _plans(done: Records) -> list[str]:
    lines = []
    for record in _of_kind(done, "plan"):
        v = record.values
        lines.append(
            _row(
                record.cell.removeprefix("plan/"),
                _forecast(v["train_seconds"], 1, "s"),
                _forecast(v["total_seconds"], 1, "s"),
                _forecast(v["memory_bytes"], 1e6, "MB"),
            )
        )
    head = ["| run | training | whole | memory at the peak |", "|---|---|---|---|"]
    return ["Forecast, what happened, and happened / forecast.", "", *head, *lines] if lines else []


def _forecast(pair: Sequence[float | None], unit: float, name: str) -> str:
    expected, happened = pair
    if expected is None or happened is None:
        return "no forecast"
    return f"{expected / unit:,.0f} {name}, {happened / unit:,.0f} {name}, {happened / max(expected, 1e-9):.2f}"


# words and numbers -----------------------------------------------------------------------------------------------


def _of_kind(done: Records, kind: str) -> list[Record]:
    """In the order of the table."""
    return [done[c.name] for c in cells.table() if c.kind == kind and c.name in done]


def _row(*values: str) -> str:
    return "| " + " | ".join(values) + " |"


def _spread(values: Sequence[float], form: str) -> str:
    shown = form.format(median(values))
    return shown if len(values) < 2 else f"{shown} [{form.format(min(values))}, {form.format(max(values))}]"


def _seconds(values: Sequence[float]) -> str:
    return _spread(values, "{:.1f}") + " s"


def _points(difference: Sequence[float]) -> str:
    value, low, high = (100 * d for d in difference)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


_SECTIONS: tuple[tuple[str, Callable[[Records], list[str]]], ...] = (
    ("Full fine-tuning: time and memory", _speed),
    ("The frozen part, computed once", _recorded),
    ("A head on pictures, computed once", _pictures),
    ("Tags of words, beside the Trainer", _tags),
    ("Answers to questions, beside the Trainer", _answers),
    ("What each decision contributes", _without),
    ("The tutorial's padding=True inside map", _tutorial),
    ("Accuracy beside the Trainer", _accuracy),
    ("From the top, on recorded inputs, beside full fine-tuning", _curves),
    ("Without any option", _defaults),
    ("Tasks that need options, or have no pretrained model here", _commands),
    ("What the builtin models bring", _transfer),
    ("Memory of an evaluation", _evaluation),
    ("Memory of training on recorded inputs", _flat),
    ("Forecasts of the plan", _plans),
)
