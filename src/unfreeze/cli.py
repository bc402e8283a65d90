"""The command line: each verb is a thin call into `unfreeze.api`, which is imported only when a verb runs."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from unfreeze import __version__
from unfreeze.errors import INTERNAL_MESSAGE, RequestError, ResourceError, UnfreezeError, command, did_you_mean
from unfreeze.machine import FULL_OR_BROKEN, foreseen
from unfreeze.training.interruption import second_signal_ends_the_process

app = typer.Typer(
    name="unfreeze",
    help="Fine-tune a pretrained model on your own data: one command, measured and resumable.",
    epilog="First steps:  unfreeze demo,  then  unfreeze train FILE.csv  and  unfreeze predict RUN TEXT",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
output = Console()
progress = Console(stderr=True)


def _flag(name: str, help: str, **settings: Any) -> Any:
    """An option without a value, shown without a kind."""
    return typer.Option(name, help=help, metavar="", **settings)


Data = Annotated[
    str | None,
    typer.Argument(
        help="A CSV, TSV, JSONL, JSON or Parquet file, a folder, a Hub id, or a recipe (.yaml).",
        metavar="DATA|RECIPE.yaml",
        show_default=False,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        help="What to learn, such as token-classification; docs/tasks.md lists all. By default seen from the rows.",
        metavar="NAME",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="A Hub id (org/name@revision), a folder, or a finished run to go on from. By default the builtin text or "
        "image model; sound, segmentation and writing texts need one.",
        metavar="MODEL",
    ),
]
Schedule = Annotated[
    str | None, typer.Option(help="head, last(k), gradual or full. By default gradual.", metavar="SCHEDULE")
]
Test = Annotated[
    str | None, typer.Option(help="Labelled test rows, used for the reported score alone.", metavar="DATA")
]
Output = Annotated[
    str | None, typer.Option("--output", help="The folder to make. By default runs/NAME.", metavar="RUN")
]
Seed = Annotated[
    int | None, typer.Option(help="Random seed of splits, new head, order and dropout. By default 0.", metavar="N")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any other recipe key, as often as you like: --set train.epochs=3. The value is read as YAML; "
        "unfreeze train --help-recipe lists the keys.",
        metavar="KEY=VALUE",
    ),
]
Remote = Annotated[
    bool,
    _flag(
        "--allow-remote-code",
        "Run code that comes with the model, or a task's that a run or recipe names. Only if you trust its authors.",
    ),
]
Json = Annotated[bool, _flag("--json", "Print JSON, and nothing else, on standard output.")]
RunFolder = Annotated[str, typer.Argument(help="The folder of a run.", metavar="RUN", show_default=False)]
Encoding = Annotated[
    str | None, typer.Option(help="Encoding of text files that are not UTF-8, such as cp1252.", metavar="NAME")
]

DropBroken = Annotated[bool, _flag("--drop-broken", "Leave out rows whose files cannot be read; they are counted.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, _flag("--version", "Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"unfreeze {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(epilog="Example:  unfreeze train reviews.csv --schedule 'last(2)' --set train.epochs=3")
def train(
    data: Data = None,
    task: Task = None,
    model: Model = None,
    schedule: Schedule = None,
    test: Test = None,
    output_folder: Output = None,
    seed: Seed = None,
    settings: Settings = None,
    allow_remote_code: Remote = False,
    as_json: Json = False,
    help_recipe: Annotated[bool, _flag("--help-recipe", "List all recipe keys.")] = False,
    recipe_schema: Annotated[bool, _flag("--recipe-schema", "Print the JSON schema of a recipe.")] = False,
) -> None:
    """Fine-tune a pretrained model on DATA.

    Shows the plan, trains, keeps the best weights, sets them beside baselines and writes the model and a report.
    """
    if help_recipe or recipe_schema:
        _print_recipe_help(recipe_schema)
        return
    from unfreeze import api

    run = api.train(
        **_arguments(data, task, model, schedule, test, output_folder, seed, settings, allow_remote_code),
        console=progress,
    )
    _print_summary(run, as_json)


@app.command(epilog="Example:  unfreeze plan reviews.csv --model bert-base-uncased")
def plan(
    data: Data = None,
    task: Task = None,
    model: Model = None,
    schedule: Schedule = None,
    test: Test = None,
    output_folder: Output = None,
    seed: Seed = None,
    settings: Settings = None,
    allow_remote_code: Remote = False,
    as_json: Json = False,
) -> None:
    """Show what train would do with the same arguments.

    Every value comes with its reason. Disk is estimated; on a CPU time and memory, too, of models below a billion
    weights. Trains and writes nothing.
    """
    from unfreeze import api
    from unfreeze.planview import print_plan

    found = api.plan(
        **_arguments(data, task, model, schedule, test, output_folder, seed, settings, allow_remote_code),
        console=progress,
    )
    if as_json:
        _print_json(found.to_json())
    else:
        print_plan(found, output)


@app.command()
def resume(run: RunFolder, allow_remote_code: Remote = False, as_json: Json = False) -> None:
    """Go on with an interrupted or failed run, from its newest checkpoint.

    A finished run is left as it is.
    """
    from unfreeze import api

    found = api.resume(run, allow_remote_code=allow_remote_code, console=progress)
    _print_summary(found, as_json)


@app.command(epilog="Example:  unfreeze evaluate runs/reviews more.csv")
def evaluate(
    run: RunFolder,
    data: Annotated[str, typer.Argument(help="Labelled rows, as for train.", metavar="DATA", show_default=False)],
    encoding: Encoding = None,
    drop_broken: DropBroken = False,
    allow_remote_code: Remote = False,
    as_json: Json = False,
) -> None:
    """Measure a finished run on other labelled rows."""
    from unfreeze import api

    found = api.evaluate(
        run, data, encoding=encoding, drop_broken=drop_broken, allow_remote_code=allow_remote_code, console=progress
    )
    if as_json:
        _print_json(found)
    else:
        _print_metrics(found)


@app.command(epilog="Example:  unfreeze predict runs/reviews new.csv --output labelled.csv")
def predict(
    run: RunFolder,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Texts in quotes; or one file or folder with the columns of the training data.",
            metavar="TEXT...|FILE",
            show_default=False,
        ),
    ],
    output_file: Annotated[
        str | None,
        typer.Option(
            "--output", help="Write a new .csv or .jsonl file: your columns, with the answers beside.", metavar="FILE"
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", help="Show the K best labels.", min=1, metavar="K")] = 1,
    encoding: Encoding = None,
    drop_broken: DropBroken = False,
    allow_remote_code: Remote = False,
    as_json: Annotated[bool, _flag("--json", "Print one JSON object a row.")] = False,
) -> None:
    """Answer new texts, files or rows with a finished run: one line each."""
    from unfreeze import answers, api

    if output_file is not None:
        answers.check_target(Path(output_file))
    inputs = [_as_typed(text) for text in inputs]
    file = next((text for text in inputs if _looks_like_a_file(text) and _exists(text)), None)
    if file is not None and len(inputs) > 1:
        what = f"{file!r} is a file, and {len(inputs)} inputs were given: files are answered one at a time"
        raise RequestError("USAGE", what, remedy=command("predict", run, file))
    is_path = len(inputs) == 1 and (_exists(inputs[0]) or _looks_like_a_file(inputs[0]))
    if encoding is not None and not is_path:
        raise RequestError("USAGE", "--encoding applies to a file, and texts were given", remedy="leave --encoding out")
    if drop_broken and not is_path:
        what = "--drop-broken applies to a file or a folder, and single inputs were given"
        raise RequestError("USAGE", what, remedy="leave --drop-broken out")
    found = api.TrainedRun(run)
    found.allows_remote_code = allow_remote_code
    if output_file is not None:
        data = inputs[0] if is_path else [_columns(found, text) for text in inputs]
        count = answers.write(
            Path(output_file),
            found,
            data,
            top_k=top_k,
            encoding=encoding,
            drop_broken=drop_broken,
            console=progress,
        )
        progress.print(f"{count:,} rows written to {output_file}", highlight=False, markup=False, soft_wrap=True)
        return
    for prediction in (
        api.predict(found, inputs[0], encoding=encoding, drop_broken=drop_broken, console=progress)
        if is_path
        else found.predict(inputs)
    ):
        if as_json:
            print(json.dumps(answers.as_record(prediction, top_k), ensure_ascii=False))
        else:
            print(answers.as_line(prediction, top_k))


@app.command(epilog="Example:  unfreeze inspect reviews.csv --row 3")
def inspect(
    data: Data = None,
    task: Task = None,
    model: Model = None,
    settings: Settings = None,
    row: Annotated[int, typer.Option(help="Which training row to follow, counted from 0.", min=0, metavar="N")] = 0,
    allow_remote_code: Remote = False,
    as_json: Json = False,
) -> None:
    """Follow one row through every step, and show the facts of the data.

    Where a step fails, the steps before it show what came in.
    """
    from unfreeze import inspection

    named = _arguments(data, task, model, None, None, None, None, settings, allow_remote_code)
    wanted = ("data", "recipe", "task", "model", "settings", "allow_remote_code")
    steps = inspection.inspect(row=row, **{name: named[name] for name in wanted})
    if as_json:
        _print_json([s.to_json() for s in steps])
    else:
        inspection.print_steps(steps, output)
    failed = next((s.error for s in steps if s.error is not None), None)
    if failed is not None:
        raise failed


@app.command()
def report(run: RunFolder, as_json: Json = False) -> None:
    """Write RUN/report.html anew from the run's records, and print where it is."""
    from unfreeze.report.build import build
    from unfreeze.run import Run

    path = build(Run(run))
    if as_json:
        _print_json({"report": str(path)})
    else:
        print(path)


@app.command()
def demo(
    kind: Annotated[
        str,
        typer.Argument(help="Reviews (text), or written digits (image).", metavar="[text|image]", show_default=False),
    ] = "text",
    output_folder: Output = None,
) -> None:
    """Fine-tune a builtin model on sample data, and label three new rows."""
    from unfreeze import demonstration

    demonstration.run(kind, output_folder, output, progress)


@app.command(epilog="Example:  unfreeze cache --clear")
def cache(
    clear: Annotated[bool, _flag("--clear", "Remove them all. Runs record anew what they need.")] = False,
    folder: Annotated[
        str | None, typer.Option("--folder", help="Where cache.folder of the recipe puts them.", metavar="FOLDER")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recorded activations of frozen layers, or remove them."""
    from unfreeze import cacheview
    from unfreeze.activations import store

    place = Path(folder) if folder else store.default_folder()
    if clear:
        removed, freed = store.clear(place)
        if as_json:
            _print_json({"folder": str(place), "removed": removed, "bytes": freed})
        else:
            print(f"{removed} removed, {freed / 1e6:,.0f} MB freed")
    elif as_json:
        _print_json({"folder": str(place), "stores": cacheview.as_records(place)})
    else:
        cacheview.print_stores(place, output)


@app.command()
def env(as_json: Json = False) -> None:
    """Show versions, the machine and the builtin models."""
    from unfreeze import environment

    found = environment.describe()
    if as_json:
        _print_json(found)
    else:
        environment.print_facts(found, output)


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
    is_recipe = data is not None and data.lower().endswith((".yaml", ".yml"))
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


def _columns(run: Any, text: str) -> dict[str, Any]:
    """One text, or one file of a picture or a recording, as a row of the columns that the run reads."""
    columns = run.predictor.task.roles.text
    if len(columns) > 1:
        raise RequestError(
            "USAGE",
            f"this run reads {len(columns)} columns together ({', '.join(columns)}), which a single text cannot fill",
            where=str(run.folder),
            remedy="give a file with these columns: unfreeze predict RUN FILE",
        )
    return dict(run.predictor.task.row_values(text, text))


def _exists(text: str) -> bool:
    try:
        return bool(text.strip()) and Path(text).exists()
    except (OSError, ValueError):  # a text may be longer than any path, or hold what no path can
        return False


def _looks_like_a_file(text: str) -> bool:
    suffixes = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".conll", ".txt")
    return Path(text).suffix.lower() in suffixes and " " not in text


def _print_recipe_help(schema: bool) -> None:
    from unfreeze import recipe

    if schema:
        _print_json(recipe.json_schema())
        return
    grid = Grid(box=None, pad_edge=False, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column()
    for key, description in recipe.keys().items():
        grid.add_row(key, escape(description))
    output.print(grid)


def _print_summary(run: Any, as_json: bool) -> None:
    if as_json:
        _print_json({"run": str(run.folder), "status": run.status.state, **run.metrics})
        return
    from unfreeze.report.text import summary_lines

    for line in summary_lines(run):
        output.print(line, highlight=False)


def _print_metrics(found: dict[str, Any]) -> None:
    intervals = found.get("eval_intervals", {})
    for key, value in found.items():
        if not isinstance(value, int | float):
            continue
        between = intervals.get(key.removeprefix("eval_"))
        shown = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
        print(f"{key:26}{shown:>12}" + (f"   {between[0]:.4f} to {between[1]:.4f} (95 %)" if between else ""))


def _print_json(value: Any) -> None:
    from unfreeze.durable import to_json

    print(to_json(value))


# the end ---------------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the command; every foreseen failure is one block on standard error and its exit status."""
    _prepare_streams()
    try:
        with second_signal_ends_the_process():
            code = app(prog_name="unfreeze", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Trap: Python flushes once more at exit and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (KeyboardInterrupt, typer.Abort):
        # While it trains, a signal ends in `Interrupted` and 75; here there is nothing to resume.
        progress.print("stopped")
        sys.exit(130)
    except Exception as error:
        told = _foreseen(error)
        if told is None:
            traceback.print_exception(error)
            progress.print(f"E-INTERNAL: {INTERNAL_MESSAGE}", style="red", soft_wrap=True)
            sys.exit(1)
        progress.print(told.block(), style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(told.exit_status)
    sys.exit(code if isinstance(code, int) else 0)


def _as_typed(text: str) -> str:
    """An argument as UTF-8, whatever the locale made of its bytes."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text


def _prepare_streams() -> None:
    """Output that is closed goes nowhere; characters that an old terminal does not have become ``\\u2019``."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  until the process ends
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _foreseen(error: Exception) -> UnfreezeError | None:
    """What to tell the person; None for what is nobody's fault but ours."""
    if hasattr(error, "format_message"):
        return _usage_error(error)
    if isinstance(error, OSError) and error.filename is None and error.errno in FULL_OR_BROKEN:
        # Trap: what is left in the buffer would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ResourceError("DISK", f"the output cannot be written: {error.strerror}", where="standard output")
    return foreseen(error)


def _usage_error(error: Any) -> UnfreezeError:
    """Typer's complaint about the command line, with the nearest option or verb."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "unfreeze"
    what, remedy = error.format_message().rstrip("."), f"see: {path} --help"
    option = getattr(error, "option_name", None)
    if option and context is not None:
        known = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
        what = f"{path} has no option {option}"
        remedy = f"{did_you_mean(option, known)}\n{remedy}"
    return RequestError("USAGE", what, remedy=remedy)


if __name__ == "__main__":
    main()
