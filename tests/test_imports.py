"""The import directions of docs/architecture.md, and what no line of the package may do, over the syntax tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unfreeze

PACKAGE = Path(unfreeze.__file__).parent

# Part of the package -> the parts it may import. A part is a folder or a module of the package.
FOUNDATION = {"errors", "types", "durable"}
BASE = FOUNDATION | {"randomness", "metrics", "run", "recipe", "schedule", "machine"}
MATERIAL = BASE | {"data", "models", "tasks"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors"},
    "durable": {"errors"},
    "randomness": FOUNDATION,
    "metrics": FOUNDATION | {"randomness"},
    "run": FOUNDATION,
    "machine": FOUNDATION,
    "schedule": FOUNDATION,
    "recipe": FOUNDATION | {"schedule"},
    "data": BASE - {"run", "recipe", "schedule"},
    "models": BASE - {"run", "recipe", "schedule"},
    "tasks": BASE - {"run"} | {"data", "models", "baselines"},
    "activations": MATERIAL - {"recipe", "schedule"},
    "preparation": MATERIAL - {"run"},
    "plan": MATERIAL - {"run"} | {"preparation", "activations"},
    "costs": MATERIAL - {"run"} | {"preparation", "activations", "plan", "training"},
    "evaluation": MATERIAL - {"recipe", "schedule", "run"} | {"activations"},
    "training": MATERIAL | {"activations", "plan", "evaluation"},
    "baselines": FOUNDATION | {"randomness", "metrics"},
    "results": MATERIAL | {"preparation", "evaluation", "activations"},
    "report": FOUNDATION | {"run"},
    "serving": MATERIAL - {"schedule", "run"} | {"evaluation"},
    "testing": MATERIAL | {"preparation", "evaluation", "serving", "activations", "plan"},
    "api": MATERIAL
    | {"activations", "preparation", "plan", "costs", "evaluation", "training", "results", "serving", "report"}
    | {"planview"},
    # views: what a terminal shows
    "planview": FOUNDATION | {"plan", "costs"},
    "cacheview": FOUNDATION | {"activations"},
    "inspection": MATERIAL | {"preparation", "report"},
    "environment": FOUNDATION | {"machine", "models"},
    "demonstration": FOUNDATION | {"api", "models", "recipe", "run", "report"},
    "answers": FOUNDATION | {"api", "run", "report", "serving"},
    "cli": FOUNDATION
    | {"activations", "api", "machine", "recipe", "run", "report", "training"}
    | {"planview", "cacheview", "inspection", "environment", "demonstration", "answers"},
    "__main__": {"cli"},
    "__init__": set(),
}
# These are light enough to be imported before anybody knows what a command is about.
LIGHT = {"errors", "types", "durable", "randomness", "run", "machine", "recipe", "schedule", "cli"}
HEAVY = ("torch", "transformers", "datasets", "pandas", "sklearn", "matplotlib", "pyarrow", "accelerate", "scipy")


def modules() -> dict[str, ast.Module]:
    """Dotted name within the package -> syntax tree."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def part(name: str) -> str:
    return name.partition(".")[0]


def imports(tree: ast.AST, *, for_types: bool = False) -> Iterator[tuple[str, int]]:
    """Full names of the modules a module imports, wherever the import stands, with the line."""
    for node in ast.iter_child_nodes(tree):
        if not for_types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        yield from imports(node, for_types=for_types)


def own_imports(name: str, *, for_types: bool = False) -> Iterator[tuple[str, int]]:
    """Modules of the package that a module imports, by their dotted name within it."""
    for full, line in imports(MODULES[name], for_types=for_types):
        if full.partition(".")[0] != "unfreeze":
            continue
        inside = full.partition(".")[2]
        while inside and inside not in MODULES:
            inside = inside.rpartition(".")[0]
        if inside:
            yield inside, line


def test_every_part_of_the_package_has_its_place_in_the_order():
    assert {part(name) for name in MODULES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_lies_below_it(name):
    # Annotations bind modules as much as calls do; a task names the recipe's section and no more.
    own = part(name)
    wrong = [
        f"{name}:{line} imports {other}"
        for other, line in own_imports(name, for_types=name != "__init__")
        if part(other) != own and part(other) not in MAY_IMPORT[own]
    ]
    assert not wrong


def test_the_rules_themselves_allow_no_cycle():
    done: set[str] = set()
    while ready := {name for name, below in MAY_IMPORT.items() if name not in done and below <= done}:
        done |= ready
    assert done == set(MAY_IMPORT)


def test_no_module_imports_itself_in_a_circle():
    graph = {name: {other for other, _ in own_imports(name)} - {name} for name in MODULES}
    while leaves := [name for name, others in graph.items() if not others]:
        for leaf in leaves:
            del graph[leaf]
        graph = {name: others - set(leaves) for name, others in graph.items()}
    assert not graph


def test_no_module_is_a_drawer_for_odds_and_ends():
    assert not {"utils", "util", "common", "helpers", "core", "misc"} & {p for name in MODULES for p in name.split(".")}


@pytest.mark.parametrize(
    "program",
    [
        "import unfreeze; unfreeze.__all__; unfreeze.gradual; unfreeze.Recipe; unfreeze.Run",
        "import unfreeze.cli",
        "import sys; sys.argv = ['unfreeze', '--help']; from unfreeze.cli import main; main()",
        "import sys; sys.argv = ['unfreeze', 'train', '--help-recipe']; from unfreeze.cli import main; main()",
        "import sys; sys.argv = ['unfreeze', 'train', '--recipe-schema']; from unfreeze.cli import main; main()",
    ],
)
def test_what_does_not_need_torch_does_not_wait_for_it(program):
    check = f"""
import atexit, sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
heavy = lambda: [name for name in {HEAVY!r} if name in sys.modules]
atexit.register(lambda: print("HEAVY", heavy()))
{program}
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_light_modules_import_nothing_heavy_at_their_head():
    for name in LIGHT:
        tops = [node for node in MODULES[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
        found = [full for top in tops for full, _ in imports(ast.Module([top], []))]
        assert not [full for full in found if full.partition(".")[0] in HEAVY], name


# what no line of the package may do (SC-07)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_sc_07_no_line_runs_what_data_or_a_model_says(name):
    tree = MODULES[name]
    imported = {full.partition(".")[0] for full, _ in imports(tree, for_types=True)}
    assert not imported & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for function, call in calls(tree):
        where = f"{name}:{call.lineno} {function}"
        assert function not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), where
        assert not function.endswith(("torch.load", ".extractall", "read_pickle")), where
        assert keyword(call, "allow_pickle") in (None, "False"), where
        assert keyword(call, "shell") in (None, "False"), where
        assert keyword(call, "weights_only") != "False", where
        assert function not in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"), where
        if function.startswith("yaml.compose"):
            assert keyword(call, "Loader") == "yaml.SafeLoader", where


def test_sc_07_remote_code_is_allowed_in_one_module_only():
    places = [name for name, tree in MODULES.items() for _, call in calls(tree) if keyword(call, "trust_remote_code")]
    assert set(places) == {"models.loading"}
    values = {keyword(c, "trust_remote_code") for _, c in calls(MODULES["models.loading"])} - {None}
    assert values == {"allow_remote_code"}


def test_the_gate_sees_what_it_is_there_to_stop():
    bad = ast.parse("import pickle\nexec('1')\ntorch.load('x')\nyaml.load(t)\nrun('x', shell=True)")
    assert [full for full, _ in imports(bad)] == ["pickle"]
    assert [function for function, _ in calls(bad)] == ["exec", "torch.load", "yaml.load", "run"]
