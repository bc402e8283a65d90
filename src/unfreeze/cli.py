"""The command line: each verb is a thin call into `unfreeze.api`, which is imported only when a verb runs."""

from __future__ import annotations

import csv
import json
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from unfreeze import __version__
from unfreeze.errors import DataError, RecipeError, UnfreezeError, did_you_mean

app = typer.Typer(
    name="unfreeze",
    help="Fine-tune a pretrained model on your own data.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
output = Console()
progress = Console(stderr=True)

Data = Annotated[str | None, typer.Argument(help="A file, a folder, a Hub id, or a RECIPE.yaml.", metavar="DATA|RECIPE")]
Task = Annotated[str | None, typer.Option(help="For example text-classification.")]
Model = Annotated[str | None, typer.Option(help="A Hub id, a folder, a finished run, or builtin:text.")]
Schedule = Annotated[str | None, typer.Option(help="head, last(k), gradual or full.")]
Test = Annotated[str | None, typer.Option(help="Rows for the reported figure.", metavar="DATA")]
Output = Annotated[str | None, typer.Option(help="Folder of the run.", metavar="RUN")]
Seed = Annotated[int | None, typer.Option(help="Of every draw.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A recipe key: train.epochs=3", metavar="A.B=C")]
Remote = Annotated[
    bool, typer.Option("--allow-remote-code", help="Run code that comes with the model. Only if you trust its authors.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunFolder = Annotated[str, typer.Argument(help="Folder of a run.", metavar="RUN")]
Encoding = Annotated[str | None, typer.Option(help="Of text files that are not UTF-8.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        output.print(__version__)
        raise typer.Exit


@app.command()
def train(
    data: Data = None,
    task: Task = None,
    model: Model = None,
    schedule: Schedule = None,
    test: Test = None,
    output_folder: Annotated[str | None, typer.Option("--output", help="Folder of the run.", metavar="RUN")] = None,
    seed: Seed = None,
    settings: Settings = None,
    allow_remote_code: Remote = False,
    as_json: Json = False,
    help_recipe: Annotated[bool, typer.Option("--help-recipe", help="List all recipe keys.")] = False,
    recipe_schema: Annotated[bool, typer.Option("--recipe-schema", help="Print the JSON schema of a recipe.")] = False,
) -> None:
    """Fine-tune a pretrained model on DATA."""
    if help_recipe or recipe_schema:
        _print_recipe_help(recipe_schema)
        return
    from unfreeze import api

    run = api.train(
        **_arguments(data, task, model, schedule, test, output_folder, seed, settings, allow_remote_code),
        console=progress,
    )
    _print_summary(run, as_json)


@app.command()
def plan(
    data: Data = None,
    task: Task = None,
    model: Model = None,
    schedule: Schedule = None,
    test: Test = None,
    output_folder: Annotated[str | None, typer.Option("--output", help="Folder of the run.", metavar="RUN")] = None,
    seed: Seed = None,
    settings: Settings = None,
    allow_remote_code: Remote = False,
    as_json: Json = False,
) -> None:
    """Show what train would do with the same arguments; trains nothing."""
    from unfreeze import api
    from unfreeze.planview import print_plan

    found = api.plan(
        **_arguments(data, task, model, schedule, test, output_folder, seed, settings, allow_remote_code),
        console=None if as_json else progress,
    )
    if as_json:
        _print_json(found.to_json())
    else:
        print_plan(found, output)


@app.command()
def resume(run: RunFolder, allow_remote_code: Remote = False, as_json: Json = False) -> None:
    """Go on with an interrupted run; a finished one is left as it is."""
    from unfreeze import api
    from unfreeze.run import Run

    if Run(run).status.state == "done":
        progress.print(f"{escape(run)} is finished already; nothing to do")
    found = api.resume(run, allow_remote_code=allow_remote_code, console=progress)
    _print_summary(found, as_json)


@app.command()
def evaluate(
    run: RunFolder,
    data: Annotated[str, typer.Argument(help="Labelled rows.")],
    encoding: Encoding = None,
    as_json: Json = False,
) -> None:
    """Measure a finished run on other labelled rows."""
    from unfreeze import api

    found = api.evaluate(run, data, encoding=encoding)
    if as_json:
        _print_json(found)
        return
    intervals = found.get("eval_intervals", {})
    for key, value in found.items():
        if isinstance(value, int | float):
            low_high = intervals.get(key.removeprefix("eval_"))
            shown = f"   [{low_high[0]:.4f}, {low_high[1]:.4f}] (95 %)" if low_high else ""
            output.print(f"{key:28} {value:.4f}{shown}" if isinstance(value, float) else f"{key:28} {value}", markup=False)


@app.command()
def predict(
    run: RunFolder,
    inputs: Annotated[list[str], typer.Argument(help="Texts, or one file.", metavar="TEXT...|FILE")],
    output_file: Annotated[str | None, typer.Option("--output", help="Write a CSV or JSONL file.", metavar="FILE")] = None,
    top_k: Annotated[int, typer.Option("--top-k", help="Also the k best labels with their probabilities.", min=1)] = 1,
    encoding: Encoding = None,
    as_json: Json = False,
) -> None:
    """Label new texts with a finished run."""
    from unfreeze import api

    if output_file is not None and Path(output_file).exists():
        raise DataError("RUN-EXISTS", "the output file exists; it is not overwritten", where=output_file)
    is_file = len(inputs) == 1 and (Path(inputs[0]).exists() or _looks_like_a_file(inputs[0]))
    found = api.predict(run, inputs[0], encoding=encoding) if is_file else api.TrainedRun(run).predict(inputs)
    records = (_record(p, top_k) for p in found)
    if output_file is not None:
        count = _write_records(Path(output_file), records, inputs[0] if is_file else inputs, encoding)
        progress.print(f"{count:,} rows written to {escape(output_file)}", highlight=False)
        return
    for record in records:
        if as_json:
            print(json.dumps(record, ensure_ascii=False))
        else:
            output.print(_as_line(record), highlight=False, markup=False)


@app.command()
def inspect(
    data: Data = None,
    task: Task = None,
    model: Model = None,
    settings: Settings = None,
    row: Annotated[int, typer.Option(help="Which training row to follow, from 0.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Follow one row through every step, and show the facts of the data."""
    from unfreeze import inspection

    steps = inspection.inspect(
        data, task=task, model=model, settings=settings or (), row=row, recipe=None
    )
    if as_json:
        _print_json([s.to_json() for s in steps])
    else:
        for step in steps:
            mark = "[green]ok[/green]  " if step.ok else "[red]fails[/red]"
            output.print(f"{mark} [bold]{step.name}[/bold]  {escape(step.shown)}", highlight=False)
    failed = next((s for s in steps if s.error is not None), None)
    if failed is not None and failed.error is not None:
        raise failed.error


@app.command()
def report(run: RunFolder) -> None:
    """Write RUN/report.html anew from the run's records."""
    from unfreeze.report.build import build
    from unfreeze.run import Run

    output.print(str(build(Run(run))), highlight=False, markup=False)


@app.command()
def demo(
    kind: Annotated[str, typer.Argument(help="text")] = "text",
    output_folder: Annotated[str | None, typer.Option("--output", help="Folder of the run.", metavar="RUN")] = None,
) -> None:
    """Fine-tune the builtin model on the packaged reviews, and use it."""
    from unfreeze import demonstration

    demonstration.run(kind, output_folder, output, progress)


@app.command()
def env(as_json: Json = False) -> None:
    """Versions, devices, and what is missing for which feature."""
    from unfreeze.environment import describe

    found = describe()
    if as_json:
        _print_json(found)
        return
    for section, values in found.items():
        output.print(f"[bold]{section}[/bold]")
        for key, value in values.items():
            output.print(f"  {key:16} {value}", highlight=False, markup=False)


# pieces ----------------------------------------------------------------------------------------------------------


def _arguments(
    data: str | None,
    task: str | None,
    model: str | None,
    schedule: str | None,
    test: str | None,
    output_folder: str | None,
    seed: int | None,
    settings: list[str] | None,
    allow_remote_code: bool,
) -> dict[str, Any]:
    is_recipe = data is not None and data.endswith((".yaml", ".yml"))
    return {
        "data": None if is_recipe else data,
        "recipe": data if is_recipe else None,
        "task": task,
        "model": model,
        "schedule": schedule,
        "test": test,
        "output": output_folder,
        "seed": seed,
        "settings": settings or (),
        "allow_remote_code": allow_remote_code,
    }


def _print_recipe_help(schema: bool) -> None:
    from unfreeze import recipe

    if schema:
        _print_json(recipe.json_schema())
        return
    for key, description in recipe.keys().items():
        output.print(f"{key:30} {description}", highlight=False, markup=False)


def _print_summary(run: Any, as_json: bool) -> None:
    if as_json:
        _print_json({"run": str(run.folder), "status": run.status.state, **run.metrics})
        return
    from unfreeze.report.text import summary_lines

    for line in summary_lines(run):
        output.print(line, highlight=False)


def _print_json(value: Any) -> None:
    from unfreeze.durable import to_json

    print(to_json(value))


def _looks_like_a_file(text: str) -> bool:
    return Path(text).suffix.lower() in (".csv", ".tsv", ".jsonl", ".json", ".parquet") and " " not in text


def _record(prediction: Any, top_k: int) -> dict[str, Any]:
    record = {"label": prediction.label, "probability": prediction.probability, **prediction.extra}
    if top_k > 1:
        record["top"] = dict(list(prediction.scores.items())[:top_k])
    return record


def _as_line(record: dict[str, Any]) -> str:
    label = ", ".join(record["label"]) or "(none)" if isinstance(record["label"], list) else record["label"]
    shown = label if isinstance(label, str) else f"{label:.4g}"
    if record["probability"] is not None:
        shown += f"  {record['probability']:.3f}"
    if "top" in record:
        shown += "   " + "  ".join(f"{k} {v:.3f}" for k, v in record["top"].items())
    return shown


def _write_records(path: Path, records: Iterable[dict[str, Any]], source: Any, encoding: str | None) -> int:
    """Write the rows with their answers beside their own columns; the file appears when it is complete."""
    from unfreeze.data.sources import read

    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise DataError("DATA-FORMAT", "answers are written as .csv or .jsonl", where=str(path))
    if isinstance(source, str):
        splits = read(source, encoding=encoding)
        table = splits.test if splits.test is not None else splits.train
        rows: Iterable[dict[str, Any]] = (dict(r.values) for r in table)
    else:
        rows = ({"text": text} for text in source)
    staged = path.with_name(f".staging-{os.getpid()}-{path.name}")
    count = 0
    try:
        with open(staged, "w", encoding="utf-8", newline="") as handle:
            writer: Any = None
            for row, record in zip(rows, records, strict=True):
                merged = {**row, **_named_apart(record, row)}
                if path.suffix.lower() == ".jsonl":
                    handle.write(json.dumps(merged, ensure_ascii=False, default=str) + "\n")
                else:
                    writer = writer or csv.DictWriter(handle, list(merged), lineterminator="\n")
                    if count == 0:
                        writer.writeheader()
                    writer.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in merged.items()})
                count += 1
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    return count


def _named_apart(record: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The user's own columns keep their names; an answer of the same name is called ``predicted_...``."""
    return {(f"predicted_{k}" if k in row else k): v for k, v in record.items()}


def main() -> None:
    """Run the command; every foreseen failure is one block on standard error and its exit status."""
    try:
        code = app(standalone_mode=False)
    except UnfreezeError as error:
        progress.print(error.block(), style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        progress.print("stopped")
        sys.exit(75)
    except Exception as error:
        sys.exit(_usage_or_internal(error))
    sys.exit(code if isinstance(code, int) else 0)


def _usage_or_internal(error: Exception) -> int:
    """Typer's own complaints are the user's; anything else is ours, told with its traceback."""
    if hasattr(error, "format_message"):
        option = getattr(error, "option_name", None)
        if option and not getattr(error, "possibilities", None):
            known = ["--task", "--model", "--schedule", "--test", "--output", "--seed", "--set", "--json"]
            hint = did_you_mean(option, known)
        else:
            hint = "see: unfreeze --help"
        block = RecipeError("RECIPE-KEY", error.format_message().rstrip("."), remedy=hint).block()
        progress.print(block, style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    traceback.print_exception(error)
    progress.print("E-INTERNAL: this is an error of unfreeze itself; please report it with the lines above", style="red")
    return 1


if __name__ == "__main__":
    main()
