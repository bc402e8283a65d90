"""The recipes in recipes/ are valid, accepted by the JSON schema, and run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import planted
import pytest
import yaml

from unfreeze.recipe import Recipe, json_schema

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "") -> list[str]:
    """Where a value breaks a schema; of JSON schema 2020-12 as much as ours uses, and nothing else is let through."""
    known = {"$schema", "$defs", "$ref", "title", "description", "default", "type", "properties", "required", "items",
             "additionalProperties", "anyOf", "enum", "const", "pattern", "minItems",
             "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}  # fmt: skip
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        return problems(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, path)
    if "anyOf" in schema:
        found = [problems(value, choice, root, path) for choice in schema["anyOf"]]
        return [] if [] in found else [f"{path}: none of the kinds fits"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{path}: {value!r} is not {kind}"]
    wrong = [
        "enum" in schema and value not in schema["enum"],
        "const" in schema and value != schema["const"],
        "pattern" in schema and not re.search(schema["pattern"], value),
        "minItems" in schema and len(value) < schema["minItems"],
        "minimum" in schema and value < schema["minimum"],
        "maximum" in schema and value > schema["maximum"],
        "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"],
        "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"],
    ]
    inner = [f"{path}: {value!r} is out of range"] * any(wrong)
    if isinstance(value, list) and "items" in schema:
        inner += [p for i, v in enumerate(value) for p in problems(v, schema["items"], root, f"{path}[{i}]")]
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        inner += [f"{path}: {key} is missing" for key in schema.get("required", []) if key not in value]
        for key, v in value.items():
            if key in properties:
                inner += problems(v, properties[key], root, f"{path}.{key}")
            elif more is False:
                inner += [f"{path}: there is no key {key}"]
            elif isinstance(more, dict):
                inner += problems(v, more, root, f"{path}.{key}")
    return inner


def against_schema(value: Any) -> list[str]:
    schema = json_schema()
    return problems(value, schema, schema)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch, tmp_path_factory.mktemp("planted"))
        yield


def test_there_are_recipes_to_start_from():
    assert [path.name for path in RECIPES] == [
        "audio-classification.yaml",
        "automatic-speech-recognition.yaml",
        "fill-mask.yaml",
        "gradual.yaml",
        "image-classification.yaml",
        "image-segmentation.yaml",
        "intent-and-slots.yaml",
        "phases.yaml",
        "question-answering.yaml",
        "summarization.yaml",
        "text-classification.yaml",
        "text-generation.yaml",
        "text2text-generation.yaml",
        "token-classification.yaml",
    ]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_accepted_by_the_schema_and_says_how_to_run_it(path):
    # BaseLoader would make every value a text; our own reader and YAML agree on these files but for numbers like 1e-4.
    value = Recipe.from_file(path)
    plain = yaml.safe_load(re.sub(r"(\d)e-(\d)", r"\1.0e-\2", path.read_text(encoding="utf-8")))
    assert against_schema(plain) == []
    assert value.data.source in (
        "reviews.csv",
        "names.conll",
        "commands.jsonl",
        "pictures",
        "questions.jsonl",
        "calls",
        "talks.jsonl",
        "street",
        "speech",
        "novel.txt",
    )
    assert f"unfreeze train recipes/{path.name}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_trains_as_it_stands(path, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planted.files(".")
    planted.reviews("reviews.csv", rows=24)
    shutil.copy(path, "recipe.yaml")
    said = planted.unfreeze("train", "recipe.yaml", "--set", "baselines=false", "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    plan = json.loads(Path(found["run"], "plan.json").read_text())
    asked = Recipe.from_file(path)
    if asked.schedule is not None:
        assert [phase["name"] for phase in plan["phases"]] == [phase.name for phase in asked.schedule.phases]
    assert against_schema(yaml.safe_load(Path(found["run"], "recipe.yaml").read_text())) == []


def test_the_phases_of_the_recipe_are_those_that_are_planned(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planted.reviews("reviews.csv", rows=24)
    said = planted.unfreeze("plan", ROOT / "recipes" / "phases.yaml", "--json")
    first, second, third = json.loads(said.out)["phases"]
    assert first["learning_rates"] == {"head": 2e-3}
    assert (second["steps"], second["decay"]) == (20, "cosine")
    assert "stem" in second["learning_rates"]
    assert third["learning_rates"]["group 1"] == 5e-5
    assert third["learning_rates"]["group 0"] == pytest.approx(5e-5 * 0.9)


@pytest.mark.parametrize(
    "value",
    [
        {"modle": "x"},
        {"data": "reviews.csv"},
        {"train": {"epochs": 0}},
        {"train": {"learning_rate": "1e-4"}},
        {"train": {"precision": "fp8"}},
        {"train": {"epochs": None}},
        {"schedule": "graduel"},
        {"schedule": [{"epochs": 1}]},
        {"schedule": [{"span": "hed"}]},
        {"seed": -1},
        {"data": {"validation": 1}},
    ],
)
def test_the_schema_refuses_what_the_recipe_refuses(value):
    assert against_schema(value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"train": {"epochs": "200 steps", "class_weights": {"a": 2}, "early_stopping": False}},
        {"train": {"class_weights": "balanced", "early_stopping": 3}},
        {"data": {"text": ["a", "b"], "label": "c", "validation": 0}},
        {"schedule": "last(3)", "cache": {"budget": "10 GB"}},
        {"schedule": ["head", {"span": "all", "epochs": 1.5}]},
        {"options": {"problem_type": "regression"}},
    ],
)
def test_the_schema_accepts_what_the_recipe_accepts(value):
    assert against_schema(value) == []
    Recipe.build(value)
