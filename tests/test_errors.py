from __future__ import annotations

import ast
import doctest
import functools
from pathlib import Path

import pytest

import unfreeze
from unfreeze import errors
from unfreeze.errors import CODES, DataError, UnfreezeError, did_you_mean

SOURCES = sorted(Path(unfreeze.__file__).parent.rglob("*.py"))


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(below) for below in cls.__subclasses__()))


ERRORS = {cls.__name__ for cls in subclasses(UnfreezeError) if cls.__module__ == "unfreeze.errors"}


@functools.cache
def raised_codes() -> dict[str, set[str]]:
    """Code -> names of the error classes it is raised with."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                for code in constants(node.args[0]) if node.args else ():
                    found.setdefault(code, set()).add(node.func.id)
    return found


def constants(node: ast.expr) -> list[str]:
    """The texts an expression may be: itself, or either side of a choice."""
    if isinstance(node, ast.IfExp):
        return constants(node.body) + constants(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def test_what_a_terminal_would_act_on_is_shown_as_an_escape():
    error = DataError(
        "DATA-EMPTY", "'a\x1b[31m\u202eb\udcff' is empty", where="\u0645\u06cc\u200c\u062e", remedy="one\ntwo"
    )
    assert str(error) == (
        "E-DATA-EMPTY: 'a\\x1b[31m\\u202eb\\udcff' is empty\n"
        "  where: \u0645\u06cc\u200c\u062e\n  do:    one\n         two"
    )


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(errors).failed == 0


def test_the_exit_statuses_are_the_documented_ones():
    statuses = {cls.__name__: cls.exit_status for cls in subclasses(UnfreezeError)}
    assert {name: statuses[name] for name in ERRORS} == {
        "UnfreezeError": 1,
        "RequestError": 2,
        "RecipeError": 2,
        "DataError": 2,
        "TaskError": 2,
        "ModelError": 4,
        "NumericsError": 5,
        "ResourceError": 6,
        "Interrupted": 75,
    }


def test_the_tree_in_the_docstring_is_the_tree_there_is():
    drawn = errors.__doc__ or ""
    assert {name for name in ERRORS if name in drawn} == ERRORS


def test_cf_10_every_code_that_is_raised_is_declared():
    assert set(raised_codes()) - set(CODES) == set()


def test_cf_10_every_code_that_is_declared_is_raised():
    # INTERNAL is what the command line says of an error without a class.
    assert set(CODES) - set(raised_codes()) <= {"INTERNAL"}


def test_a_code_always_ends_with_the_same_exit_status():
    statuses = {cls.__name__: cls.exit_status for cls in subclasses(UnfreezeError)}
    for code, names in raised_codes().items():
        assert len({statuses[name] for name in names}) == 1, f"{code}: {names}"


def test_a_code_without_a_declaration_is_a_mistake_of_the_programmer():
    with pytest.raises(AssertionError, match="NOPE"):
        UnfreezeError("NOPE", "something")


def test_a_block_has_what_where_and_do_and_leaves_out_what_is_not_known():
    assert DataError("DATA-EMPTY", "no rows").block() == "E-DATA-EMPTY: no rows"
    full = DataError("DATA-ROW", "broken", where="a.csv:3", remedy="this\nor that")
    assert str(full).splitlines() == [
        "E-DATA-ROW: broken",
        "  where: a.csv:3",
        "  do:    this",
        "         or that",
    ]


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("Lable", ["text", "label"], "did you mean 'label'?"),
        ("batch-size", ["batch_size"], "did you mean 'batch_size'?"),
        ("TEXT", ["text"], "did you mean 'text'?"),
        ("zzz", ["b", "a"], "known are: a, b"),
        ("zzz", [], "none are known"),
        ("zzz", [f"n{i:02d}" for i in range(30)], "known are: " + ", ".join(f"n{i:02d}" for i in range(20)) + " ..."),
    ],
)
def test_a_mistyped_name_gets_the_nearest_one_or_the_list(name, known, said):
    assert did_you_mean(name, known) == said
