"""Write the parts of the documents that follow from the code: errors, findings, models, recipe keys, options, faults.

``python docs/generate.py`` writes them; a test says when they are out of date.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

import unfreeze
from unfreeze import errors, recipe, tasks
from unfreeze.models import catalog
from unfreeze.report import findings

DOCS = Path(__file__).parent
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"

ERRORS_HEAD = """\
# Errors

<!-- Written by docs/generate.py; do not edit. -->

Every failure that was foreseen is one block on standard error: its code, what is wrong, where (file and row, column,
layer, run and step), and what to do, mostly the next thing to type.

```
E-DATA-COLUMN: there is no column 'lable' for data.label
  where: reviews.csv:2
  do:    did you mean 'label'? --set data.label=label
```

From Python the same is an exception of the class named below, with the attributes `code`, `what`, `where` and `remedy`.
An error that was not foreseen is shown with its traceback as `E-INTERNAL`; please report it.
"""
FINDINGS_HEAD = """\
# Findings

<!-- Written by docs/generate.py; do not edit. -->

What a run's records say about it. `unfreeze train` prints the findings, report.html shows them with their evidence, and
findings.json keeps them; each that asks for something says what to type. From Python: `run.findings`.

| code | found |
| --- | --- |
"""
MODELS_HEAD = """\
# Models to start from

<!-- Written by docs/generate.py; do not edit. -->

`--model` takes the name of a builtin model, any model of the Hugging Face Hub (`owner/name`, `owner/name@revision`), a
folder, or a finished run. Those that ship with unfreeze need no network:

BUILTIN
A few well-tried ones of the Hub. Any other does as well that transformers loads from safetensors for the task.

| model | tasks | weights | download | language | licence | when |
| --- | --- | --- | --- | --- | --- | --- |
"""
STATUSES = {
    0: "done",
    1: "an error of unfreeze itself",
    2: "the request was wrong: command line, recipe, data, task",
    4: "a model, tokenizer or weight file",
    5: "a number that is not finite",
    6: "memory or disk",
    75: "interrupted, after a checkpoint; `unfreeze resume RUN` goes on",
    130: "stopped by Ctrl-C where there is nothing to resume",
}
# How each code's messages begin is shown up to so many different ones.
MESSAGES_SHOWN = 4


def errors_page() -> str:
    """docs/errors.md: exit statuses, then every code with its meaning and the messages it comes with."""
    found = {**raised(), "INTERNAL": [("UnfreezeError", errors.INTERNAL_MESSAGE)]}
    lines = [ERRORS_HEAD, "## Exit statuses\n", "| status | meaning |", "| --- | --- |"]
    lines += [f"| {status} | {meaning} |" for status, meaning in STATUSES.items()]
    for code, meaning in errors.CODES.items():
        uses = found.get(code, [])
        classes = sorted({name for name, _ in uses})
        status = getattr(errors, classes[0]).exit_status if classes else 1
        named = f", `{'`, `'.join(classes)}`" if classes else ""
        lines.append(f"\n## E-{code}\n\n{meaning[0].upper()}{meaning[1:]}. Exit status {status}{named}.")
        messages = list(dict.fromkeys(message for _, message in uses if message))[:MESSAGES_SHOWN]
        lines += ["", *(f"- {message}" for message in messages)] if messages else []
    return "\n".join(lines) + "\n"


def models_page() -> str:
    """docs/models.md: the builtin models, and those of the Hub that are suggested."""
    builtin = "".join(f"- `builtin:{name}`: {what}.\n" for name, what in catalog.BUILTIN.items())
    rows = [
        f"| `{e.id}` | {', '.join(e.tasks)} | {e.parameters_millions:g} M | {e.download_mb:,} MB "
        f"| {e.language or '-'} | {e.licence} | {e.why} |\n"
        for e in catalog.RECOMMENDED
    ]
    return MODELS_HEAD.replace("BUILTIN", builtin) + "".join(rows)


def raised() -> dict[str, list[tuple[str, str]]]:
    """Code -> (error class, message) of each place in the package that makes such an error."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(Path(unfreeze.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for call in _errors_made(function):
                messages = _messages(call.args[1], function) if len(call.args) > 1 else []
                for code in _choices(call.args[0]):
                    found.setdefault(code, []).extend((ast.unparse(call.func), text) for text in messages or [""])
    return found


def _errors_made(function: ast.FunctionDef) -> Iterator[ast.Call]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            made = getattr(errors, node.func.id, None)
            if isinstance(made, type) and issubclass(made, errors.UnfreezeError):
                yield node


def _choices(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return _choices(node.body) + _choices(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _messages(node: ast.expr, function: ast.FunctionDef) -> list[str]:
    """Messages with an ellipsis for every part that depends on the case; none where they are made elsewhere."""
    if isinstance(node, ast.Name):
        return [text for value in _last_given(node, function) for text in _messages(value, function)]
    if isinstance(node, ast.IfExp):
        return _messages(node.body, function) + _messages(node.orelse, function)
    if isinstance(node, ast.BinOp):
        return _messages(node.left, function)
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = re.sub(r"\s+", " ", "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts)).strip()
    return [text] if re.search(r"[a-z]{3}", text) else []


def _last_given(name: ast.Name, function: ast.FunctionDef) -> list[ast.expr]:
    """What a name was last given before it is used."""
    given: list[tuple[int, ast.expr]] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and node.lineno < name.lineno:
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                given += [(node.lineno, value) for named, value in pairs if ast.unparse(named) == name.id]
    return [max(given, key=lambda pair: pair[0])[1]] if given else []


def keys_table() -> str:
    """Every recipe key with what it means."""
    rows = [f"| `{key}` | {description} |" for key, description in recipe.keys().items()]
    return "\n".join(["| key | meaning |", "| --- | --- |", *rows])


def options_table() -> str:
    """Every option of a task with what it means, from the docstrings of the task and of what it builds on."""
    found: dict[tuple[str, str, str], list[str]] = {}
    keys = set(recipe.keys())
    for name in tasks.names():
        task = tasks.find(name)
        for field in dataclasses.fields(task):
            if field.init and f"train.{field.name}" not in keys:
                is_plain = field.default not in (None, "", dataclasses.MISSING)
                default = f"`{json.dumps(field.default).strip(chr(34))}`" if is_plain else ""
                found.setdefault((field.name, default, _meaning_of(task, field.name)), []).append(name)
    rows = [
        f"| `options.{option}` | {', '.join(of)} | {default} | {meaning} |"
        for (option, default, meaning), of in sorted(found.items())
    ]
    return "\n".join(["| option | tasks | default | meaning |", "| --- | --- | --- | --- |", *rows])


def _meaning_of(task: type, option: str) -> str:
    """What stands after ``option:`` in the nearest docstring that does not send the reader to another one.

    Raises:
        LookupError: Nothing is written of it.
    """
    for kind in task.__mro__:
        written = re.search(rf"^    {option}: (.*?)(?=\n\s*\n|\n    \w+: |\Z)", inspect.getdoc(kind) or "", re.S | re.M)
        if written and not written[1].startswith("See "):
            return re.sub(r"``?", "`", re.sub(r"\s+", " ", written[1].strip())).replace("|", "\\|")
    raise LookupError(f"{task.__name__} has an option {option} of which no docstring says what it means")


def faults_tables() -> str:
    """What can go wrong, what happens then, and the tests that show it, from docs/faults.yaml.

    Raises:
        LookupError: A test that is named there does not exist.
    """
    lines = []
    for section, faults in yaml.safe_load((DOCS / "faults.yaml").read_text(encoding="utf-8")).items():
        lines += ["", f"**{section}**", "", "| id | fault | what happens | tests |", "| --- | --- | --- | --- |"]
        for name, fault in faults.items():
            counts = [f"`{test.split('::')[0]}` ({len(_tests_named(test))})" for test in _one_a_file(fault["tests"])]
            lines.append(f"| {name} | {fault['fault']} | {fault['happens']} | {', '.join(counts)} |")
    return "\n".join(lines[1:])


def _one_a_file(tests: list[str]) -> list[str]:
    """Patterns of the same file joined by ``|``."""
    files: dict[str, list[str]] = {}
    for test in tests:
        file, _, pattern = test.partition("::")
        files.setdefault(file, []).append(pattern)
    return [f"{file}::{'|'.join(patterns)}" for file, patterns in files.items()]


def _tests_named(test: str) -> set[str]:
    file, _, patterns = test.partition("::")
    tree = ast.parse((DOCS.parent / "tests" / file).read_text(encoding="utf-8"))
    known = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found: set[str] = set()
    for pattern in patterns.split("|"):
        matching = fnmatch.filter(known, pattern)
        if not matching:
            raise LookupError(f"docs/faults.yaml names {pattern} in tests/{file}, which is not there")
        found.update(matching)
    return found


def with_generated(text: str, generated: str) -> str:
    """A document with what stands between the two marks anew."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{generated}\n{END}{rest.split(END)[1]}"


def pages() -> dict[Path, str]:
    """Each generated document with what should stand in it."""
    recipes, of_tasks, reliability = DOCS / "recipes.md", DOCS / "tasks.md", DOCS / "reliability.md"
    return {
        DOCS / "errors.md": errors_page(),
        DOCS / "models.md": models_page(),
        DOCS / "findings.md": FINDINGS_HEAD
        + "".join(f"| {code} | {found} |\n" for code, found in findings.CODES.items()),
        recipes: with_generated(recipes.read_text(encoding="utf-8"), keys_table()),
        of_tasks: with_generated(of_tasks.read_text(encoding="utf-8"), options_table()),
        reliability: with_generated(reliability.read_text(encoding="utf-8"), faults_tables()),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
