from __future__ import annotations

import doctest
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unfreeze import recipe
from unfreeze.errors import RecipeError
from unfreeze.recipe import Recipe
from unfreeze.schedule import gradual
from unfreeze.types import Duration


@pytest.fixture
def write(tmp_path):
    def to_file(text: str | bytes) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return to_file


def refused(**arguments) -> RecipeError:
    with pytest.raises(RecipeError) as raised:
        Recipe.build(**arguments)
    return raised.value


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(recipe).failed == 0


def test_nothing_is_inferred():
    empty = Recipe.build()
    assert empty.model is None
    assert empty.schedule is None
    assert all(value is None for value in empty.train.model_dump().values())
    assert empty.sources == {}


# keys


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("modle", "did you mean 'model'?"),
        ("data.lable", "did you mean 'data.label'?"),
        ("train.epoch", "did you mean 'train.epochs'?"),
        ("trian.epochs", "did you mean 'train.epochs'?"),
        ("train.batch-size", "did you mean 'train.batch_size'?"),
        ("batch_size", "train.batch_size"),
        ("data.epochs", "did you mean 'train.epochs'?"),
        ("zzz", "--help-recipe"),
        ("train.zzz.yyy", "--help-recipe"),
    ],
)
def test_cf_01_an_unknown_key_is_refused_with_what_was_meant(key, advice):
    error = refused(values={key: 3})
    assert error.code == "RECIPE-KEY"
    assert f"'{key}'" in error.what
    assert advice in error.remedy


def test_cf_01_the_line_of_an_unknown_key_is_named(write):
    error = refused(file=write("model: builtin:text\ntrain:\n  # a comment\n  epoch: 3\n"))
    assert error.where == "recipe.yaml:4"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("num_train_epochs", "train.epochs"),
        ("per_device_train_batch_size", "train.batch_size"),
        ("lr", "train.learning_rate"),
        ("output_dir", "output"),
        ("max_steps", "train.epochs='200 steps'"),
        ("load_best_model_at_end", "nothing: the best weights are always kept"),
    ],
)
def test_names_from_training_arguments_are_translated(name, ours):
    for key in (name, f"train.{name}"):
        assert f"in unfreeze this is {ours}" in refused(values={key: 1}).remedy


def test_every_translation_leads_to_a_key_that_exists():
    known = set(recipe.keys())
    leading = [n for n in recipe.HUGGING_FACE_NAMES.values() if not n.startswith(("nothing: ", "the command: "))]
    assert {name.partition("=")[0].partition(" (")[0] for name in leading} <= known


def test_a_section_with_a_value_is_told_from_an_unknown_key():
    assert refused(values={"data": "reviews.csv"}).remedy == "write data.source=reviews.csv"
    assert "section" in refused(values={"train": 3}).what


def test_cf_04_everything_that_is_wrong_is_listed_at_once(write):
    text = """\
    modle: x
    data: {lable: y, validation: 2}
    train:
      learning_rate: -1
      epochs: 0
      early_stopping: sometimes
    schedule: graduel
    """
    error = refused(file=write(text))
    assert error.what.startswith("7 things are wrong")
    for place in ("recipe.yaml:1", "recipe.yaml:2", "recipe.yaml:4", "recipe.yaml:5", "recipe.yaml:6", "recipe.yaml:7"):
        assert place in error.what
    for key in ("modle", "data.lable", "data.validation", "train.learning_rate", "train.epochs", "graduel"):
        assert error.what.count(key) == 1


# values


@pytest.mark.parametrize(
    ("written", "number"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("2.5e-05", 2.5e-5), ("0.001", 0.001), (".5", 0.5), ("3", 3.0), ("1.", 1.0)],
)
def test_cf_02_numbers_are_numbers(write, written, number):
    assert Recipe.build(settings=[f"train.learning_rate={written}"]).train.learning_rate == number
    assert Recipe.from_file(write(f"train:\n  learning_rate: {written}\n")).train.learning_rate == number


@pytest.mark.parametrize(
    "written",
    ["nan", ".nan", "inf", ".inf", "-.inf", "1e999", "-1", "0", "'0.1'", '"1e-4"', "yes", "true", "010", "1_0", "0x1",
     "2024-01-01", "[1]", "{a: 1}", "1,5", "null", "~", ""],
)  # fmt: skip
def test_cf_02_what_is_not_a_positive_number_is_refused(write, written):
    assert "learning_rate" in refused(settings=[f"train.learning_rate={written}"]).what
    error = refused(file=write(f"seed: 1\ntrain:\n  learning_rate: {written}\n"))
    assert "learning_rate" in error.what
    assert error.where == "recipe.yaml:3"


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0, True, "0.1"])
def test_cf_02_the_same_holds_for_values_from_python(value):
    assert "train.learning_rate" in refused(values={"train": {"learning_rate": value}}).what


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.batch_size", 0),
        ("train.batch_size", 2.5),
        ("train.batch_size", True),
        ("train.weight_decay", -0.1),
        ("train.warmup_fraction", 1),
        ("train.layer_decay", 0),
        ("train.max_length", 3),
        ("train.early_stopping", 0),
        ("train.class_weights", {"a": 0}),
        ("train.class_weights", "balance"),
        ("train.precision", "fp8"),
        ("train.epochs", "3 hours"),
        ("train.epochs", True),
        ("data.validation", 1),
        ("data.validation", -0.1),
        ("data.train_rows", 0),
        ("data.label", 1),
        ("data.text", []),
        ("seed", -1),
        ("seed", 2**63),
        ("baselines", "no"),
        ("baselines", 1),
    ],
)
def test_a_value_out_of_range_or_of_another_kind_is_refused_with_what_was_given(key, value):
    error = refused(values={key: value})
    assert error.code == "RECIPE-VALUE"
    assert key in error.what


def test_lengths_of_training_are_epochs_or_steps():
    for written, length in [("3", Duration(3)), ("1.5 epochs", Duration(1.5)), ("200 steps", Duration(200, "steps"))]:
        assert Recipe.build(settings=[f"train.epochs={written}"]).train.epochs == length


def test_texts_that_look_like_something_else_stay_texts_in_quotes(write):
    text = "data:\n  label: '1'\n  text: ['null', \"true\", '1e-4']\n"
    data = Recipe.from_file(write(text)).data
    assert (data.label, data.text) == ("1", ["null", "true", "1e-4"])


def test_words_that_yaml_1_1_would_change_stay_words():
    values = Recipe.build(settings=["data.text=[yes, no, on, 010, 2024-01-01, 0x10, 1_000, 12:30]"]).data.text
    assert values == ["yes", "no", "on", "010", "2024-01-01", "0x10", "1_000", "12:30"]


def test_settings_are_read_as_yaml():
    built = Recipe.build(settings=["train.class_weights={spam: 2, ham: 1.5}", "data.text=[a, b]", "baselines=false"])
    assert built.train.class_weights == {"spam": 2.0, "ham": 1.5}
    assert built.data.text == ["a", "b"]
    assert built.baselines is False


@pytest.mark.parametrize("setting", ["", "train.epochs", "=3", " =3"])
def test_a_setting_without_key_or_value_is_refused(setting):
    assert "--set train.epochs=3" in refused(settings=[setting]).remedy


def test_numbers_of_numpy_and_paths_are_taken_as_what_they_mean():
    built = Recipe.build(
        {"train.batch_size": np.int64(8), "train.learning_rate": np.float32(0.5), "data.source": Path("x.csv")}
    )
    assert (built.train.batch_size, built.train.learning_rate, built.data.source) == (8, 0.5, "x.csv")
    assert Recipe.build({"data.text": ("a", "b")}).data.text == ["a", "b"]


def test_a_tilde_is_the_folder_of_the_person(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    values = {"output": "~/runs/x", "data.source": "~/a.csv", "data.test": "~/b", "data.validation": "~/c.csv"}
    text = "".join(f"{key}: {value}\n" for key, value in values.items())
    built = [Recipe.build(values), Recipe.build(settings=[f"{key}={value}" for key, value in values.items()])]
    for found in (*built, Recipe.from_file(write(text)), Recipe.from_file(write(built[0].to_yaml()))):
        assert (found.output, found.data.source) == ("/home/ann/runs/x", "/home/ann/a.csv")
        assert (found.data.test, found.data.validation) == ("/home/ann/b", "/home/ann/c.csv")
    others = Recipe.build({"data.source": "org/name", "data.test": "a~b.csv", "data.validation": 0.1})
    assert (others.data.source, others.data.test, others.data.validation) == ("org/name", "a~b.csv", 0.1)


# files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nseed: 2\n", "twice"),
        ("train: {epochs: 1}\ntrain.epochs: 2\n", "twice"),
        ("train: &a {epochs: 1}\n", "anchors"),
        ("model: *a\n", "anchors"),
        ("model: !!python/object/apply:os.system ['true']\n", "tags"),
        ("model: !!str x\n", "tags"),
        ("seed: 1\n---\nseed: 2\n", "more than one document"),
        ("\tseed: 1\n", "YAML does not allow tabs"),
        ("seed: [1\n", "recipe.yaml:2"),
        ("- seed\n", "'key: value'"),
        ("just words\n", "'key: value'"),
        ("? [a, b]\n: 1\n", "a key is a name"),
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        ("a: " + "{b: " * 100_000, "nested too deeply"),
        ("- " * 100_000, "nested too deeply"),
    ],
)
def test_cf_03_tricks_and_broken_files_are_refused(write, text, said):
    error = refused(file=write(text))
    assert error.code == "RECIPE-FILE"
    assert said in error.block()
    assert "recipe.yaml" in error.where


def test_cf_03_a_file_that_is_no_recipe_is_refused(write, tmp_path):
    assert "MiB" in refused(file=write(b"#" * (recipe.LARGEST_RECIPE_BYTES + 1))).what
    error = refused(file=write("seed: 1\nmodel: café\n".encode("latin-1")))
    assert (error.what, error.where.rpartition(":")[2]) == ("the recipe is not UTF-8 text", "2")
    assert refused(file=tmp_path / "recpe.yaml").remedy == "did you mean 'recipe.yaml'?"
    assert "cannot be opened" in refused(file=tmp_path).what


def test_cf_03_a_byte_order_mark_is_no_part_of_the_first_key(write):
    assert Recipe.from_file(write(b"\xef\xbb\xbfseed: 7\r\n")).seed == 7


def test_a_section_whose_lines_are_all_comments_is_empty(write):
    built = Recipe.from_file(write("seed: 3\ntrain:\n  # epochs: 2\ndata:\noptions:\n"))
    assert (built.seed, built.train.epochs) == (3, None)
    assert "no key 'trian'" in refused(file=write("trian:\n")).what
    assert "no key 'trian'" in refused(file=write("trian: {}\n")).what


# sources


def test_cf_05_the_later_wins_and_every_value_knows_where_it_comes_from(write):
    file = write("model: a\nseed: 1\ntrain:\n  epochs: 1\n  batch_size: 4\n")
    built = Recipe.build({"seed": 2, "train": {"epochs": 2}, "model": None}, settings=["train.epochs=3"], file=file)
    assert (built.model, built.seed, built.train.epochs, built.train.batch_size) == ("a", 2, Duration(3), 4)
    assert built.sources == {
        "model": "recipe.yaml:1",
        "seed": "argument",
        "train.epochs": "--set",
        "train.batch_size": "recipe.yaml:5",
    }


def test_a_value_and_a_section_at_once_is_refused():
    assert "at once" in refused(values={"train.class_weights": "balanced"}, settings=["train.class_weights.a=2"]).what


# secrets


SECRETS = [
    "hf_" + "aB3" * 12,
    "sk-" + "aB3x" * 12,
    "sk-proj-" + "aB3x" * 12,
    "AKIA" + "ABCD1234" * 2,
    "ghp_" + "aB3x" * 9,
    "https://ann:s3cret@example.org/data.csv",
    "-----BEGIN RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_cf_06_a_token_is_refused_without_being_shown(write, secret):
    for error in (
        refused(values={"model": secret}),
        refused(settings=[f"data.text=['a', '{secret}']"]),
        refused(values={"options": {"deep": [{"key": secret}]}}),
        refused(values={"train.epochs": secret}),
        refused(values={f"x{'' if secret.startswith('http') else ' '}{secret}": 1}),
        refused(file=write(f"seed: 1\noutput: '{secret}'\n")),
    ):
        assert error.code == "RECIPE-SECRET"
        assert secret not in error.block()
        assert "HF_TOKEN" in error.remedy
    assert error.where == "recipe.yaml:2"


@pytest.mark.parametrize(
    "innocent",
    ["hf_models/bert", "sk-learn-experiments-of-2024-and-2025", "https://example.org/a:b@c", "task-force", "AKIA",
     "user:name@host"],
)  # fmt: skip
def test_cf_06_ordinary_names_are_not_taken_for_tokens(innocent):
    assert Recipe.build({"model": innocent}).model == innocent


# writing


def test_what_is_written_down_reads_back_as_the_same_recipe(write):
    built = Recipe.build(
        {
            "data.source": "reviews.csv",
            "data.text": ["1e-4", "yes", "null", "010"],
            "data.label": "3",
            "data.validation": 0,
            "model": "café ☕: 'quoted' #1",
            "schedule": gradual(epochs=1 / 3),
            "train.epochs": 0.1234567890123,
            "train.learning_rate": 1e-5,
            "train.class_weights": {"1.0": 2, "true": 1},
            "train.early_stopping": False,
            "options": {"problem_type": "regression"},
        }
    )
    again = Recipe.from_file(write(built.to_yaml()))
    assert again.model_dump(exclude={"schedule"}) == built.model_dump(exclude={"schedule"})
    assert again.schedule.phases == built.schedule.phases


def test_what_is_written_down_names_the_seed():
    assert yaml.safe_load(Recipe.build().to_yaml()) == {"seed": 0}


# anything at all

NAMES = st.sampled_from([*recipe.keys(), "data", "train", "cache", "epochs", "train.epoch", "x"]) | st.text(max_size=8)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["3", "200 steps", "gradual", "last(2)", "balanced", "fp32", "head", "10 GB"])
    | st.binary(max_size=3)
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, VALUES, max_size=5), st.lists(st.text(max_size=30), max_size=2))
def test_cf_08_any_mapping_is_a_recipe_or_is_refused_as_one(values, written):
    try:
        built = Recipe.build(values, settings=written)
    except RecipeError:
        return
    if not built.options:  # which may hold any Python object
        again = Recipe.build(recipe._Reader("again").read(built.to_yaml())[0])
        assert again.model_dump(exclude={"schedule"}) == built.model_dump(exclude={"schedule"})


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}'\"#&*!|>%@ \t\n\r\0,?~01e.\x85\ufeff"), max_size=40))
def test_cf_08_any_text_is_a_recipe_or_is_refused_as_one(tmp_path, text):
    path = tmp_path / "any.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(RecipeError):  # at the latest by the last setting
        Recipe.build(file=path, settings=[f"data.source={text}", "seed=-1"])
