"""Recipe: what the user asked for, and nothing that was inferred.

A recipe is a YAML file, keyword arguments, or ``--set a.b=c`` settings; later ones win, and `Recipe.sources` says for
every value where it came from. What is not named stays None, and the plan decides it.

Example:
    >>> recipe = Recipe.build({"model": "builtin:text"}, settings=["train.learning_rate=1e-4"])
    >>> recipe.train.learning_rate, recipe.sources["train.learning_rate"]
    (0.0001, '--set')
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unfreeze.errors import RecipeError, did_you_mean
from unfreeze.schedule import Schedule
from unfreeze.types import Duration

LARGEST_RECIPE_BYTES = 1 << 20

# Names of the Hugging Face TrainingArguments that people type, and ours.
HUGGING_FACE_NAMES = {
    "num_train_epochs": "train.epochs",
    "max_steps": "train.epochs='200 steps'",
    "per_device_train_batch_size": "train.batch_size",
    "per_device_eval_batch_size": "nothing: evaluation batches are chosen by length",
    "gradient_accumulation_steps": "nothing: train.batch_size is the whole batch, and the plan divides it",
    "learning_rate": "train.learning_rate",
    "weight_decay": "train.weight_decay",
    "warmup_ratio": "train.warmup_fraction",
    "warmup_steps": "train.warmup_fraction",
    "max_grad_norm": "train.max_gradient_norm",
    "max_seq_length": "train.max_length",
    "max_length": "train.max_length",
    "lr_scheduler_type": "schedule (a list of phases, each with its decay)",
    "evaluation_strategy": "train.evaluations_per_epoch",
    "eval_strategy": "train.evaluations_per_epoch",
    "eval_steps": "train.evaluations_per_epoch",
    "load_best_model_at_end": "nothing: the best weights are always kept",
    "metric_for_best_model": "nothing: the task's own metric chooses; see the plan",
    "early_stopping_patience": "train.early_stopping",
    "fp16": "train.precision=fp16",
    "bf16": "train.precision=bf16",
    "output_dir": "output",
    "overwrite_output_dir": "nothing: a run is never overwritten",
    "save_steps": "train.checkpoint_minutes",
    "save_strategy": "train.checkpoint_minutes",
    "save_total_limit": "nothing: the newest two checkpoints and the best are kept",
    "model_name_or_path": "model",
    "train_file": "data.source",
    "validation_file": "data.validation",
    "test_file": "data.test",
    "text_column": "data.text",
    "text_column_name": "data.text",
    "label_column": "data.label",
    "label_column_name": "data.label",
    "dataset_name": "data.source",
    "max_train_samples": "data.train_rows",
    "task_name": "task",
    "group_by_length": "nothing: batches are always bucketed by length",
    "logging_steps": "nothing: every step is in events.jsonl",
    "resume_from_checkpoint": "the command: unfreeze resume RUN",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False, allow_inf_nan=False)


class DataRecipe(_Section):
    """Which rows, and what their columns mean."""

    source: str | None = Field(None, description="a file, a folder or a Hub id")
    text: str | list[str] | None = Field(None, description="the column, or columns, with the text")
    label: str | list[str] | None = Field(None, description="the column with the label, or several 0/1 columns")
    group: str | None = Field(None, description="rows of one group (speaker, patient) stay on one side of a split")
    test: str | None = Field(None, description="a file or folder with test rows")
    validation: str | Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="a file, a fraction of the training rows, or 0 for none"
    )
    train_rows: Annotated[int, Field(ge=1)] | None = Field(None, description="train on a sample of so many rows")
    encoding: str | None = Field(None, description="the files' text encoding, where it is not UTF-8")
    drop_unlabelled: bool = Field(False, description="leave out rows without a label, counted, instead of stopping")


def _read_epochs(value: Any) -> Any:
    return value if value is None else Duration.parse(value)


class TrainRecipe(_Section):
    """How to train; what is None is decided by the plan."""

    epochs: Annotated[Duration, BeforeValidator(_read_epochs)] | None = Field(
        None, description="length of training over all phases: 3, '1.5 epochs' or '200 steps'"
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="rate of the pretrained layers; a new head's rate follows from it"
    )
    head_learning_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="rate of the new head")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="factor on the rate for each layer group further down (discriminative rates)"
    )
    batch_size: Annotated[int, Field(ge=1)] | None = Field(None, description="rows for one optimizer update")
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="share of a phase's steps")
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = Field(None, description="gradients are clipped to it")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] | None = None
    max_length: Annotated[int, Field(ge=4)] | None = Field(None, description="in tokens; longer texts are cut, counted")
    early_stopping: bool | Annotated[int, Field(ge=1)] | None = Field(
        None, description="false, or how many evaluations without improvement end a phase"
    )
    evaluations_per_epoch: Annotated[float, Field(gt=0)] | None = None
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="None: the plan decides by device"
    )
    micro_batch_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="tokens, padding included, that go through the model at once"
    )
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = Field(None, description="time between checkpoints")
    threads: Annotated[int, Field(ge=1)] | None = Field(None, description="CPU threads")


class Recipe(_Section):
    """What the user asked for. Build it with `Recipe.build` or `Recipe.from_file`.

    Attributes:
        sources: Dotted key to where its value came from, for every value that was given.
    """

    data: DataRecipe = Field(default_factory=DataRecipe)
    model: str | None = Field(None, description="a Hub id, a folder, a finished run, or builtin:text")
    task: str | None = Field(None, description="for example text-classification")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the task, such as problem_type")
    schedule: Schedule | None = Field(None, description="head, last(k), gradual, full, or a list of phases")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    output: str | None = Field(None, description="the folder of the run")
    train: TrainRecipe = Field(default_factory=TrainRecipe)
    baselines: bool = Field(True, description="set the result beside majority, TF-IDF and frozen features")
    sources: dict[str, str] = Field(default_factory=dict, exclude=True, repr=False)

    @classmethod
    def build(
        cls,
        values: Mapping[str, Any] | None = None,
        *,
        settings: Iterable[str] = (),
        file: str | Path | None = None,
        origin: str = "argument",
    ) -> Recipe:
        """Merge a file, then arguments, then ``a.b=c`` settings; the later wins.

        Args:
            values: Nested or dotted keys to values; None values mean "not named".
            settings: Texts such as ``train.learning_rate=1e-4``, each value read as YAML.
            file: A recipe in YAML.
            origin: What to call the source of `values` in the plan.

        Raises:
            RecipeError: Everything that is wrong, listed at once, with key, place and suggestion.
        """
        merged: dict[str, Any] = {}
        sources: dict[str, str] = {}
        if file is not None:
            for key, value, line in _read_file(Path(file)):
                _put(merged, key, value)
                sources[key] = f"{Path(file).name}:{line}"
        for key, value in _flatten(values or {}):
            if value is not None:
                _put(merged, key, value)
                sources[key] = origin
        for setting in settings:
            key, value = _read_setting(setting)
            _put(merged, key, value)
            sources[key] = "--set"
        return cls._validated(merged, sources)

    @classmethod
    def from_file(cls, path: str | Path) -> Recipe:
        """Read a YAML recipe, such as the one stored in a run."""
        return cls.build(file=path)

    @classmethod
    def _validated(cls, merged: dict[str, Any], sources: dict[str, str]) -> Recipe:
        problems = _unknown_keys(merged, sources)
        try:
            recipe = cls.model_validate({**merged, "sources": sources}) if not problems else None
        except ValidationError as error:
            recipe, problems = None, [_describe(problem, sources) for problem in error.errors()]
        if recipe is None:
            raise RecipeError(
                "RECIPE-KEY" if any("unknown" in p for p in problems) else "RECIPE-VALUE",
                "\n  ".join(problems),
                remedy="see all keys with: unfreeze train --help-recipe",
            )
        return recipe

    def to_yaml(self) -> str:
        """The recipe as YAML that reads back to the same recipe."""
        values = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        for key, value in (("seed", self.seed),):
            values.setdefault(key, value)
        if self.train.epochs is not None:
            values["train"]["epochs"] = str(self.train.epochs)
        if self.schedule is not None:
            values["schedule"] = self.schedule.to_plain()
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def keys() -> dict[str, str]:
    """Every dotted recipe key with its description."""
    found: dict[str, str] = {}
    for name, spec in Recipe.model_fields.items():
        if name == "sources":
            continue
        section = {"data": DataRecipe, "train": TrainRecipe}.get(name)
        if section is None:
            found[name] = spec.description or name.replace("_", " ")
        else:
            for inner, inner_spec in section.model_fields.items():
                found[f"{name}.{inner}"] = inner_spec.description or inner.replace("_", " ")
    return found


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors."""
    schema = Recipe.model_json_schema(mode="validation")
    schema["properties"].pop("sources")
    return schema


def _unknown_keys(merged: dict[str, Any], sources: dict[str, str]) -> list[str]:
    known = keys()
    problems = []
    for key, _ in _flatten(merged):
        root = key.split(".")[0]
        if key in known or root in ("options", "schedule") or any(key.startswith(f"{k}.") for k in known):
            continue
        last = key.rsplit(".", 1)[-1]
        if last in HUGGING_FACE_NAMES:
            advice = f"in unfreeze this is {HUGGING_FACE_NAMES[last]}"
        else:
            by_last = [k for k in known if k.rsplit(".", 1)[-1] == last.replace("-", "_")]
            advice = f"did you mean '{by_last[0]}'?" if by_last else did_you_mean(key, known)
        problems.append(f"unknown key '{key}'{_at(sources.get(key))}: {advice}")
    return problems


def _describe(problem: Any, sources: dict[str, str]) -> str:
    parts = [str(p) for p in problem["loc"]]
    known = keys()
    key = next((".".join(parts[:n]) for n in (2, 1) if ".".join(parts[:n]) in known), ".".join(parts))
    cause = problem.get("ctx", {}).get("error")
    text = getattr(cause, "what", None) or problem["msg"]
    place = sources.get(key) or next((s for k, s in sources.items() if k.startswith(key)), None)
    return f"{key}{_at(place)}: {text[0].lower() + text[1:]} (given: {problem['input']!r})"


def _at(place: str | None) -> str:
    return f" ({place})" if place else ""


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and dotted not in ("train.class_weights", "options"):
            yield from _flatten(value, f"{dotted}.")
        else:
            yield dotted, value


def _put(merged: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = merged.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError("RECIPE-VALUE", f"'{section}' is a value and a section at once", where=key)
        merged = inner
    merged[last] = value


def _read_setting(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError("RECIPE-VALUE", f"cannot read the setting {setting!r}", remedy="write --set train.epochs=3")
    value, _ = _Reader(f"--set {key}").read(text)
    return key.strip(), value


def _read_file(path: Path) -> list[tuple[str, Any, int]]:
    if not path.is_file():
        raise RecipeError("RECIPE-FILE", "there is no such recipe file", where=str(path))
    content = path.read_bytes()
    if len(content) > LARGEST_RECIPE_BYTES:
        raise RecipeError("RECIPE-FILE", f"a recipe of {len(content):,} bytes is not a recipe", where=str(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError("RECIPE-FILE", "the recipe is not UTF-8 text", where=str(path)) from None
    value, lines = _Reader(path.name).read(text)
    if value is None:
        return []
    if not isinstance(value, dict):
        raise RecipeError("RECIPE-FILE", "a recipe is a list of 'key: value' lines", where=str(path))
    return [(key, inner, lines.get(key, 1)) for key, inner in _flatten(value)]


class _Reader:
    """YAML to plain data: numbers such as 1e-4 are numbers, equal keys and anchors are refused, no object is made."""

    # Trap: YAML 1.1 reads 1e-4 as text, 010 as eight, "yes" as True and 2020-01-01 as a date; none of that is wanted.
    _PLAIN = (
        (re.compile(r"(?:~|null|Null|NULL|)\Z"), lambda text: None),
        (re.compile(r"(?:true|True|TRUE)\Z"), lambda text: True),
        (re.compile(r"(?:false|False|FALSE)\Z"), lambda text: False),
        (re.compile(r"[-+]?(?:0|[1-9][0-9_]*)\Z"), lambda text: int(text.replace("_", ""))),
        (re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z"), float),
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[str, int] = {}

    def read(self, text: str) -> tuple[Any, dict[str, int]]:
        try:
            if any(isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken) for token in yaml.scan(text)):
                raise RecipeError("RECIPE-FILE", "anchors, aliases and tags are not read in a recipe", where=self.name)
            documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            what = str(getattr(error, "problem", None) or "this is not YAML")
            raise RecipeError("RECIPE-FILE", what, where=f"{self.name}{line}") from None
        except RecursionError:
            raise RecipeError("RECIPE-FILE", "the recipe is nested too deeply", where=self.name) from None
        if len(documents) > 1:
            raise RecipeError("RECIPE-FILE", "more than one document in a recipe", where=self.name)
        return (self._plain(documents[0], "") if documents else None), self.lines

    def _plain(self, node: yaml.Node, path: str) -> Any:
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                dotted = f"{path}.{key}" if path else key
                line = key_node.start_mark.line + 1
                if key in found:
                    raise RecipeError("RECIPE-FILE", f"the key '{dotted}' is there twice", where=f"{self.name}:{line}")
                self.lines[dotted] = line
                found[key] = self._plain(value_node, dotted)
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, f"{path}.{i}") for i, item in enumerate(node.value)]
        if node.style in ("'", '"', "|", ">"):
            return node.value
        for pattern, convert in self._PLAIN:
            if pattern.match(node.value):
                return convert(node.value)
        return node.value
