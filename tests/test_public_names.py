from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import unfreeze

PACKAGE = Path(unfreeze.__file__).parent


def test_the_public_names_are_a_sorted_list_that_can_be_read():
    assert unfreeze.__all__ == sorted(set(unfreeze.__all__))
    assert dir(unfreeze) == unfreeze.__all__
    assert len(unfreeze.__all__) <= 44


@pytest.mark.parametrize("name", unfreeze.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(unfreeze, name)
    if name != "__version__":
        assert inspect.getdoc(value), f"{name} has no docstring"
        assert value.__module__.startswith("unfreeze")


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    imported = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(unfreeze.__all__) - {"__version__"}


def test_plan_and_report_stay_functions_when_their_modules_are_imported():
    import unfreeze.plan
    import unfreeze.report.build

    assert inspect.isfunction(unfreeze.plan)
    assert inspect.isfunction(unfreeze.report)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = unfreeze.trian


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_every_module_says_what_it_is_for():
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path.relative_to(PACKAGE)
