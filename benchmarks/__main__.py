"""``python -m benchmarks``: list, run and render; see the package's own words."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import cells, measure
from benchmarks.cells import Cell
from benchmarks.material import MaterialError
from benchmarks.results import Record, Results, State, without_paths

HERE = Path(__file__).parent
# What a cell's process says with its exit status; any other means that it was ended from outside.
_DONE, _FAILED, _PARTIAL = 0, 1, 75


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 where a cell failed, 2 where nothing matches."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = _parser().parse_args(arguments)
    if asked.command is None:
        status = main([*arguments, "run"])
        return main([*arguments, "render"]) or status
    if asked.command == "cell":
        return _run_in_this_process(cells.find(asked.name), asked.folder / "runs", asked.tiny)
    results = Results(asked.folder / "results")
    if asked.command == "render":
        from benchmarks.pictures import draw
        from benchmarks.rendering import render

        draw(results, asked.folder)
        page = asked.folder / "RESULTS.md"
        page.write_text(render(results), encoding="utf-8")
        print(page)
        return 0
    found = cells.matching(asked.pattern)
    if not found:
        print(f"no cell is called {asked.pattern!r}; see: python -m benchmarks list", file=sys.stderr)
        return 2
    if asked.command == "list":
        latest = results.latest()
        for cell in found:
            print(f"{latest[cell.name].state if cell.name in latest else 'open':8} {cell.name}")
        return 0
    return _run(found, results, asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE, help="of results/, runs/ and RESULTS.md")
    commands = parser.add_subparsers(dest="command", help="none: run, then render")
    for name, text in (("list", "show the cells"), ("run", "run the cells that are not finished")):
        command = commands.add_parser(name, help=text)
        command.add_argument("pattern", nargs="?", default="*", help="a shell pattern or the beginning of names")
        if name == "run":
            command.add_argument("--again", action="store_true", help="finished cells too, and half-finished ones anew")
            command.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    commands.add_parser("render", help="write RESULTS.md")
    one = commands.add_parser("cell")  # one cell in this process: what `run` starts
    one.add_argument("name")
    one.add_argument("--tiny", action="store_true")
    return parser


def _run(found: list[Cell], results: Results, asked: argparse.Namespace) -> int:
    if asked.tiny and asked.folder == HERE:
        print("--tiny figures mean nothing: name another --folder for them", file=sys.stderr)
        return 2
    skipped = set() if asked.again else results.finished()
    has_failed = False
    for cell in found:
        if cell.name in skipped:
            continue
        try:
            cells.check_material(cell)
        except MaterialError as missing:
            print(f"{cell.name}: not run: {missing}")
            continue
        if asked.again:
            shutil.rmtree(asked.folder / "runs" / cell.name.replace("/", "-"), ignore_errors=True)
        record = _in_a_process_of_its_own(cell, asked.folder, asked.tiny)
        results.add(record)
        has_failed |= record.state == "failed"
        print(f"{cell.name}: {record.state} after {record.seconds:.0f} s  {_short(record.values)}", flush=True)
    return int(has_failed)


def _in_a_process_of_its_own(cell: Cell, folder: Path, tiny: bool) -> Record:
    busy, started = measure.busy_share(), time.monotonic()
    command = [sys.executable, "-m", "benchmarks", "--folder", str(folder.absolute()), "cell", cell.name]
    process = subprocess.Popen(
        [*command, *(["--tiny"] if tiny else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        start_new_session=True,
    )
    try:
        output, complaints = process.communicate(timeout=cells.LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        _end(process)
        output, complaints = "", f"took longer than {cells.LIMIT_SECONDS} s"
    except BaseException:
        _end(process)
        raise
    state: State = {_DONE: "done", _PARTIAL: "partial"}.get(process.returncode, "failed")  # type: ignore[assignment]
    values: dict[str, Any] = json.loads(output.splitlines()[-1]) if output.strip() else {"machine": {}}
    if state == "failed":
        last_words = (complaints.strip().splitlines() or ["it ended without a word"])[-1]
        values["cause"] = without_paths(values.get("cause", last_words))
        print(complaints, file=sys.stderr)
    return Record(
        cell=cell.name,
        kind=cell.kind,
        state=state,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 2),
        busy=round(busy, 3),
        machine=values.pop("machine"),
        values=values,
    )


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it started: the session is its own. A run with defaults loses nothing; it is resumed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _run_in_this_process(cell: Cell, runs: Path, tiny: bool) -> int:
    """Measure one cell and print its values as one line; whatever libraries print goes to standard error."""
    line, status = sys.stdout, _DONE
    with contextlib.redirect_stdout(sys.stderr):
        try:
            values = cells.execute(cell, runs, tiny=tiny)
        except measure.Unfinished as unfinished:
            values, status = {"cause": str(unfinished)}, _PARTIAL
        except Exception as error:
            traceback.print_exc()
            values, status = {"cause": f"{type(error).__name__}: {error}".splitlines()[0]}, _FAILED
        values = {**values, "machine": measure.machine()}
    print(json.dumps(values), file=line)
    if status == _DONE:
        shutil.rmtree(runs / cell.name.replace("/", "-"), ignore_errors=True)
    return status


def _short(values: dict[str, Any]) -> str:
    shown = {k: v for k, v in values.items() if isinstance(v, int | float | bool) or k in ("cause", "error")}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())


if __name__ == "__main__":
    sys.exit(main())
