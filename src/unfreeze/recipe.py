"""Recipe: what the user asked for, and nothing that was inferred.

A recipe is a YAML file, keyword arguments, or ``--set a.b=c`` settings; later ones win, and `Recipe.sources` says for
every value where it came from. What is not named stays None, and the plan decides it.

Example:
    >>> recipe = Recipe.build({"model": "builtin:text"}, settings=["train.learning_rate=1e-4"])
    >>> recipe.train.learning_rate, recipe.sources["train.learning_rate"]
    (0.0001, '--set')
"""

from __future__ import annotations

import functools
import os.path
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from unfreeze.errors import RecipeError, did_you_mean
from unfreeze.schedule import LENGTH_SCHEMA, Phase, Schedule, length_text, read_length, sentence, shortened
from unfreeze.types import Duration

# Where runs go that are given no folder.
RUNS_FOLDER = "runs"
LARGEST_RECIPE_BYTES = 1 << 20
DEEPEST_RECIPE = 32

# Names of the Hugging Face TrainingArguments that people type, and ours.
HUGGING_FACE_NAMES = {
    "num_train_epochs": "train.epochs",
    "max_steps": "train.epochs='200 steps'",
    "per_device_train_batch_size": "train.batch_size",
    "per_device_eval_batch_size": "nothing: evaluation batches are chosen by length",
    "gradient_accumulation_steps": "nothing: train.batch_size is the whole batch, and the plan divides it",
    "num_epochs": "train.epochs",
    "learning_rate": "train.learning_rate",
    "lr": "train.learning_rate",
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
    "save_steps": "train.checkpoint_steps",
    "save_strategy": "train.checkpoint_steps (or train.checkpoint_minutes)",
    "save_total_limit": "nothing: the newest two checkpoints and the best are kept",
    "model_name_or_path": "model",
    "train_file": "data.source",
    "validation_file": "data.validation",
    "test_file": "data.test",
    "text_column": "data.text",
    "text_column_name": "data.text",
    "image_column_name": "data.image",
    "audio_column_name": "data.audio",
    "label_column": "data.label",
    "label_column_name": "data.label",
    "dataset_name": "data.source",
    "dataset_config_name": "data.config_name",
    "subset": "data.config_name",
    "max_train_samples": "data.train_rows",
    "task_name": "task",
    "group_by_length": "nothing: batches are always bucketed by length",
    "logging_steps": "nothing: every step is in events.jsonl",
    "resume_from_checkpoint": "the command: unfreeze resume RUN",
}


# What a token or key of a well-known service looks like. A recipe is stored in the run, and runs are shared.
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_[A-Za-z0-9]{20,}|(?:api_org|hf_oauth)_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|sk-(?:[a-z]+[0-9]*-){0,2}[A-Za-z0-9_]{20,}"  # OpenAI, Anthropic
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|AIza[A-Za-z0-9_-]{35}|xox[abposr]-[A-Za-z0-9-]{10,}"  # Google, Slack
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\."  # a JSON web token
    r")|://[^/\s:@]+:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY"
)

# Numbers are numbers and true is true: text that looks like one is a mistake to be told, not to be guessed at.
Positive = Annotated[float, Field(gt=0, strict=True)]
NotNegative = Annotated[float, Field(ge=0, strict=True)]
Fraction = Annotated[float, Field(ge=0, lt=1, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
YesNo = Annotated[bool, Field(strict=True)]
Names = Annotated[list[str], Field(min_length=1)]
# ``~`` is the person's own folder, as on the command line.
Place = Annotated[str, AfterValidator(os.path.expanduser)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False, allow_inf_nan=False)


class DataRecipe(_Section):
    """Which rows, and what their columns mean."""

    source: Place | None = Field(default=None, description="a file, a folder or a Hub id")
    config_name: str | None = Field(
        default=None,
        description="which configuration (subset) of a Hub data set with several, such as sst2 of glue",
    )
    text: str | Names | None = Field(default=None, description="the column, or columns, with the text")
    image: str | None = Field(default=None, description="the column that names, or holds, the pictures")
    audio: str | None = Field(default=None, description="the column that names, or holds, the audio files")
    label: str | Names | None = Field(default=None, description="the column with the label, or several 0/1 columns")
    group: str | None = Field(
        default=None, description="rows of one group (speaker, patient) stay on one side of a split"
    )
    test: Place | None = Field(default=None, description="a file or folder with test rows")
    validation: Place | Fraction | None = Field(
        default=None, description="a file, a fraction of the training rows, or 0 for none"
    )
    train_rows: Count | None = Field(default=None, description="train on a sample of so many rows")
    encoding: str | None = Field(default=None, description="the files' text encoding, where it is not UTF-8")
    drop_unlabelled: YesNo = Field(
        default=False, description="leave out rows without a label, counted, instead of stopping"
    )
    drop_broken: YesNo = Field(
        default=False, description="leave out files that cannot be read, counted, instead of stopping"
    )


class TrainRecipe(_Section):
    """How to train; what is None is decided by the plan."""

    epochs: Annotated[Duration | None, BeforeValidator(read_length), WithJsonSchema(LENGTH_SCHEMA)] = Field(
        default=None, description="length of training over all phases: 3, '1.5 epochs' or '200 steps'"
    )
    learning_rate: Positive | None = Field(
        default=None, description="peak rate of the topmost pretrained layers; a new head's rate follows from it"
    )
    head_learning_rate: Positive | None = Field(default=None, description="peak rate of the new head")
    layer_decay: Annotated[float, Field(gt=0, le=1, strict=True)] | None = Field(
        default=None, description="factor on the rate for each layer group further down (discriminative rates)"
    )
    batch_size: Count | None = Field(default=None, description="rows for one optimizer update")
    weight_decay: NotNegative | None = Field(
        default=None, description="decoupled, as in AdamW; biases and norms have none"
    )
    warmup_fraction: Fraction | None = Field(
        default=None, description="share of a phase's steps in which the rate rises from 0"
    )
    max_gradient_norm: Positive | None = Field(default=None, description="gradients are clipped to this norm")
    label_smoothing: Fraction | None = Field(default=None, description="share of each target spread over all classes")
    max_length: Annotated[int, Field(ge=4, strict=True)] | None = Field(
        default=None, description="in tokens; longer texts are cut and counted"
    )
    early_stopping: YesNo | Count | None = Field(
        default=None, description="false, or how many evaluations without improvement end a phase"
    )
    evaluations_per_epoch: Positive | None = Field(
        default=None, description="evaluations on the validation rows in each epoch; may be less than 1"
    )
    class_weights: Literal["balanced"] | dict[str, Positive] | None = Field(
        default=None, description="'balanced', or class to weight in the loss"
    )
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(default=None, description="fp32, bf16 or fp16 arithmetic")
    attention_dropout: Fraction | None = Field(
        default=None, description="dropout on attention weights while training; the plan decides it by device"
    )
    micro_batch_tokens: Count | None = Field(
        default=None, description="tokens, padding included, that go through the model at once"
    )
    checkpoint_minutes: Positive | None = Field(default=None, description="time between checkpoints")
    checkpoint_steps: Count | None = Field(
        default=None, description="optimizer steps between checkpoints, beside those by time"
    )
    threads: Count | None = Field(default=None, description="CPU threads")


_SCHEDULE_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^(head|gradual|full|last\([0-9]+\))$"},
        {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, Phase.model_json_schema()]},
            "minItems": 1,
        },
    ]
}


def _read_bytes(value: Any) -> Any:
    """``"10 GB"``, ``"500 MB"`` or a number of bytes."""
    match = (
        re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(kB|KB|MB|GB|TB|B)?\s*", str(value)) if value is not None else None
    )
    if value is None or isinstance(value, bool) or match is None:
        return value
    unit = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}.get((match[2] or "B").lower(), 1)
    return int(float(match[1]) * unit)


_BYTES_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^\s*[0-9.]+\s*([kKmMgGtT]?[bB])?\s*$"},
    ]
}


class CacheRecipe(_Section):
    """Recorded activations of the frozen part."""

    enabled: YesNo = Field(default=True, description="whether what the frozen part computes may be recorded")
    reuse: YesNo = Field(default=True, description="whether recorded activations of earlier runs may be used")
    budget: Annotated[int, BeforeValidator(_read_bytes), Field(ge=0), WithJsonSchema(_BYTES_SCHEMA)] | None = Field(
        default=None, description="disk for recorded activations: '10 GB'"
    )
    folder: str | None = Field(
        default=None,
        description="where recorded activations lie; otherwise $UNFREEZE_CACHE/activations or "
        "~/.cache/unfreeze/activations",
    )


class Recipe(_Section):
    """What the user asked for. Build it with `Recipe.build` or `Recipe.from_file`.

    Attributes:
        sources: Dotted key to where its value came from, for every value that was given.
    """

    data: DataRecipe = DataRecipe()
    model: str | None = Field(
        default=None,
        description="a Hub id (org/name@revision for a branch, tag or commit), a folder, a finished run, "
        "builtin:text or builtin:image",
    )
    task: str | None = Field(
        default=None,
        description="its name on the Hub, such as token-classification; seen from the data where it is not named",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the task, such as problem_type")
    schedule: Annotated[Schedule | None, WithJsonSchema(_SCHEDULE_SCHEMA)] = Field(
        default=None, description="head, last(k), gradual, full, or a list of phases"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = Field(
        default=0, description="of every random draw: splits, new head, order, dropout"
    )
    output: Place | None = Field(default=None, description="the folder of the run")
    train: TrainRecipe = TrainRecipe()
    cache: CacheRecipe = CacheRecipe()
    baselines: YesNo = Field(default=True, description="set the result beside majority, TF-IDF and frozen features")
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
        found = [] if file is None else _read_file(Path(file))
        found += [(key, _plain(value), origin) for key, value in _flatten(values or {}) if value is not None]
        found += [_read_setting(setting) for setting in settings]
        _refuse_secrets(found)
        problems = []
        for key, value, place in found:
            if (problem := _unknown_key(key, value, place)) is not None:
                problems.append(problem)
                continue
            _put(merged, key, value, place)
            sources[key] = place
        return cls._validated(merged, sources, problems)

    @classmethod
    def from_file(cls, path: str | Path) -> Recipe:
        """Read a YAML recipe, such as the one stored in a run."""
        return cls.build(file=path)

    @classmethod
    def _validated(cls, merged: dict[str, Any], sources: dict[str, str], problems: list[RecipeError]) -> Recipe:
        if merged.get("schedule") is not None:
            try:
                merged["schedule"] = Schedule.parse(merged["schedule"])
            except RecipeError as error:
                where = ", ".join(t for t in (error.where, sources.get("schedule")) if t)
                problems.append(RecipeError(error.code, error.what, where=where, remedy=error.remedy))
                merged.pop("schedule")
        try:
            recipe = cls.model_validate({**merged, "sources": sources})
        except ValidationError as error:
            problems += _invalid_values(error, sources)
        if problems:
            raise _all_at_once(problems)
        return recipe

    def to_yaml(self) -> str:
        """The recipe as YAML that reads back to the same recipe."""
        values = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        values.setdefault("seed", self.seed)
        if self.train.epochs is not None:
            values["train"]["epochs"] = length_text(self.train.epochs)
        if self.schedule is not None:
            values["schedule"] = self.schedule.to_plain()
        return yaml.dump(values, Dumper=_Writer, sort_keys=False, allow_unicode=True)


@functools.cache
def keys() -> dict[str, str]:
    """Every dotted recipe key with its description."""
    found: dict[str, str] = {}
    for name, spec in Recipe.model_fields.items():
        if name == "sources":
            continue
        if isinstance(spec.default, _Section):
            inner = type(spec.default).model_fields
            found |= {f"{name}.{key}": str(field.description) for key, field in inner.items()}
        else:
            found[name] = str(spec.description)
    return found


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors."""
    schema = Recipe.model_json_schema(mode="validation")
    schema["properties"].pop("sources")
    cleaned: dict[str, Any] = _without_null(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cleaned, "title": "unfreeze recipe"}


def _without_null(schema: Any) -> Any:
    """A recipe leaves a key out rather than saying null."""
    if isinstance(schema, list):
        return [_without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _without_null(value) for key, value in schema.items() if (key, value) != ("default", None)}
    if "anyOf" in found:
        found["anyOf"] = [choice for choice in found["anyOf"] if choice != {"type": "null"}]
        if len(found["anyOf"]) == 1:
            found |= found.pop("anyOf")[0]
    return found


# what is wrong ---------------------------------------------------------------------------------------------------


def _all_at_once(problems: list[RecipeError]) -> RecipeError:
    if len(problems) == 1:
        return problems[0]
    lines = [f"{p.what}{f' ({p.where})' if p.where else ''}{f': {p.remedy}' if p.remedy else ''}" for p in problems]
    return RecipeError(
        problems[0].code,
        f"{len(problems)} things are wrong with the recipe\n  - " + "\n  - ".join(lines),
        remedy="see all keys with: unfreeze train --help-recipe",
    )


def _unknown_key(key: str, value: Any, place: str) -> RecipeError | None:
    """What may have been meant by a key that no recipe knows; None for one that it knows."""
    known = keys()
    # Below a key that takes a value, the value's own check complains.
    if key in known or any(key.startswith(f"{k}.") for k in known):
        return None
    if key in _SECTIONS:
        what, advice = f"'{key}' is a section, not a value", _section_advice(key, value)
    else:
        what, advice = f"there is no key '{key}'", _key_advice(key, known)
    return RecipeError("RECIPE-KEY", what, where=place, remedy=advice)


def _section_advice(key: str, value: Any) -> str:
    first = {"data": "data.source", "train": "train.epochs", "cache": "cache.enabled"}[key]
    return f"write {first}={value}" if isinstance(value, str | int | float) else f"write for example {first}=..."


def _key_advice(key: str, known: dict[str, str]) -> str:
    last = key.rsplit(".", 1)[-1].replace("-", "_")
    if last in HUGGING_FACE_NAMES:
        return f"in unfreeze this is {HUGGING_FACE_NAMES[last]}"
    by_last = [k for k in known if k.rsplit(".", 1)[-1] == last]
    if by_last:
        return f"did you mean '{by_last[0]}'?"
    near = did_you_mean(key, known)
    return near if near.startswith("did you mean") else "see all keys with: unfreeze train --help-recipe"


def _invalid_values(error: ValidationError, sources: dict[str, str]) -> list[RecipeError]:
    """One problem a key: where a value may be of several kinds, pydantic complains about each."""
    by_key: dict[str, list[Any]] = {}
    known = keys()
    for problem in error.errors():
        parts = [str(p) for p in problem["loc"]]
        key = next((".".join(parts[:n]) for n in (2, 1) if ".".join(parts[:n]) in known), ".".join(parts))
        by_key.setdefault(key, []).append(problem)
    return [_invalid_value(key, problems, sources) for key, problems in by_key.items()]


def _invalid_value(key: str, problems: list[Any], sources: dict[str, str]) -> RecipeError:
    """What is said of a value of the right kind matters more than the kinds it might have had."""
    deepest = max(len(p["loc"]) for p in problems)
    inside = [p for p in problems if len(p["loc"]) == deepest]
    ranges = [p for p in inside if not p["type"].endswith("_type")]
    said = [sentence(p).removesuffix(f" (given: {shortened(p['input'])})") for p in ranges or inside]
    text = " or ".join(dict.fromkeys(said)).replace(" or should be ", " or ")
    value = (ranges or inside)[0]["input"]
    given = "" if (ranges or inside)[0]["type"] == "value_error" else f" (given: {shortened(value)})"
    is_bare = isinstance(value, bool | int | float) and any(p["type"] == "string_type" for p in inside)
    remedy = f"write it in quotes: '{value}'" if is_bare and not ranges else None
    return RecipeError("RECIPE-VALUE", f"{key}: {text}{given}", where=_place(key, sources), remedy=remedy)


def _place(key: str, sources: dict[str, str]) -> str | None:
    return sources.get(key) or next((place for k, place in sources.items() if k.startswith(f"{key}.")), None)


def _refuse_secrets(found: Iterable[tuple[str, Any, str]]) -> None:
    """Stop before a token is written into a run's folder; the message does not show it.

    Raises:
        RecipeError: E-RECIPE-SECRET.
    """
    for key, value, place in found:
        if _SECRET.search(key) or any(_SECRET.search(text) for text in _texts(value)):
            shown = "a key" if _SECRET.search(key) else f"'{key}'"
            raise RecipeError(
                "RECIPE-SECRET",
                f"{shown} holds what looks like a password or an access token; recipes are stored with the run",
                where=place,
                remedy="take it out. For the Hugging Face Hub: hf auth login, or the environment variable HF_TOKEN",
            )


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (*_texts(str(key)), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


# keys and values -------------------------------------------------------------------------------------------------


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and dotted not in _WHOLE and (value or dotted in _SECTIONS):
            yield from _flatten(value, f"{dotted}.")
        else:
            yield dotted, value


# Keys whose value is itself a mapping, with keys of the user's own.
_WHOLE = ("train.class_weights", "options", "schedule")
# May have nothing below them, as when all their lines in a file are comments.
_SECTIONS = ("data", "train", "cache", "options")


def _plain(value: Any) -> Any:
    """What Python programs pass, as what YAML would have given: tuples as lists, NumPy numbers as numbers."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value


def _put(merged: dict[str, Any], key: str, value: Any, place: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = merged.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError("RECIPE-VALUE", f"'{section}' is a value and a section at once", where=f"{key} ({place})")
        merged = inner
    merged[last] = value


def _read_setting(setting: str) -> tuple[str, Any, str]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        what = f"cannot read the setting {shortened(setting)}"
        raise RecipeError("RECIPE-VALUE", what, where="--set", remedy="write --set train.epochs=3")
    key = key.strip()
    value, _ = _Reader(f"--set {key}").read(text)
    if value is None and key in keys():
        raise _without_value(key, "--set")
    return key, value, "--set"


def _without_value(key: str, place: str) -> RecipeError:
    return RecipeError(
        "RECIPE-VALUE",
        f"'{key}' has no value",
        where=place,
        remedy=f'leave {key} out, and the plan decides it. The text "null" is written in quotes',
    )


def _read_file(path: Path) -> list[tuple[str, Any, str]]:
    """Dotted keys, values and places of a recipe file."""
    value, lines = _Reader(path.name).read(_recipe_text(path))
    if value is None:
        raise RecipeError(
            "RECIPE-FILE", "the recipe is empty", where=str(path), remedy="write for example: schedule: gradual"
        )
    if not isinstance(value, dict):
        raise RecipeError("RECIPE-FILE", "a recipe is a list of 'key: value' lines", where=str(path))
    found: dict[str, tuple[str, Any, str]] = {}
    known = keys()
    for key, inner in _flatten(value):
        place = f"{path.name}:{lines.get(key, 1)}"
        if inner is None and key in _SECTIONS:
            continue
        if inner is None and key in known:
            raise _without_value(key, place)
        if key in found:
            raise RecipeError("RECIPE-FILE", f"the key '{key}' is there twice", where=place)
        found[key] = (key, inner, place)
    return list(found.values())


def _recipe_text(path: Path) -> str:
    try:
        with open(path, "rb") as handle:
            content = handle.read(LARGEST_RECIPE_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError("RECIPE-FILE", "there is no such recipe file", where=str(path), remedy=_near(path)) from None
    except OSError as error:
        raise RecipeError("RECIPE-FILE", f"the recipe cannot be opened: {error.strerror}", where=str(path)) from None
    if len(content) > LARGEST_RECIPE_BYTES:
        what = f"a file of more than {LARGEST_RECIPE_BYTES >> 20} MiB is not a recipe"
        raise RecipeError("RECIPE-FILE", what, where=str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        what = "the recipe is not UTF-8 text"
        raise RecipeError("RECIPE-FILE", what, where=f"{path}:{row}", remedy="save it as UTF-8") from None


def _near(path: Path) -> str:
    beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return did_you_mean(path.name, beside) if beside else "print all keys with: unfreeze train --help-recipe"


_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


class _Reader:
    """YAML to plain data: numbers such as 1e-4 are numbers, equal keys and anchors are refused, no object is made."""

    # Trap: YAML 1.1 reads 1e-4 as text, 010 as eight, "yes" as True and 2020-01-01 as a date; none of that is wanted.
    # A number with a leading zero stays a text: it may be a name, and where a number is wanted it is refused.
    _PLAIN: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
        (re.compile(r"(?:~|null|Null|NULL|)\Z"), lambda text: None),
        (re.compile(r"(?:true|True|TRUE)\Z"), lambda text: True),
        (re.compile(r"(?:false|False|FALSE)\Z"), lambda text: False),
        (re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})\Z", re.ASCII), int),
        (re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z", re.ASCII), float),
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[str, int] = {}

    @classmethod
    def is_read_as_other(cls, text: str) -> bool:
        """Whether this text, written without quotes, would not come back as a text."""
        return any(pattern.match(text) for pattern, _ in cls._PLAIN)

    def read(self, text: str) -> tuple[Any, dict[str, int]]:
        """The plain value, and the line of each dotted key.

        Raises:
            RecipeError: E-RECIPE-FILE, with line and column.
        """
        try:
            self._refuse_tricks(text)
            documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
            if len(documents) > 1:
                raise RecipeError("RECIPE-FILE", "more than one document in a recipe", where=self.name)
            return (self._value(documents[0], "") if documents else None), self.lines
        except yaml.YAMLError as error:
            raise self._not_yaml(error) from None

    def _refuse_tricks(self, text: str) -> None:
        depth = 0
        for token in yaml.scan(text):
            place = f"{self.name}:{token.start_mark.line + 1}"
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken):
                raise RecipeError(
                    "RECIPE-FILE",
                    "anchors (&), aliases (*) and tags (!) are not read in a recipe",
                    where=place,
                    remedy="write the value out; a text that starts with one of these signs is written in quotes",
                )
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            # Trap: PyYAML takes time with the square of the depth; what is deep has to be seen early.
            if depth > DEEPEST_RECIPE:
                raise RecipeError("RECIPE-FILE", "the recipe is nested too deeply", where=place)

    def _not_yaml(self, error: yaml.YAMLError) -> RecipeError:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        what = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "this is not YAML")
        remedy = None
        if "\\t" in what:
            remedy = "indent with spaces: YAML does not allow tabs"
        return RecipeError("RECIPE-FILE", what, where=f"{self.name}{place}", remedy=remedy)

    def _value(self, node: yaml.Node, path: str) -> Any:
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise RecipeError("RECIPE-FILE", "a key is a name, not a list", where=f"{self.name}:{line}")
                key = str(key_node.value)
                dotted = f"{path}.{key}" if path else key
                if key in found:
                    raise RecipeError("RECIPE-FILE", f"the key '{dotted}' is there twice", where=f"{self.name}:{line}")
                self.lines[dotted] = line
                found[key] = self._value(value_node, dotted)
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, f"{path}.{i}") for i, item in enumerate(node.value)]
        if getattr(node, "style", None) in ("'", '"', "|", ">"):
            return node.value
        return next((convert(node.value) for p, convert in self._PLAIN if p.match(node.value)), node.value)


class _Writer(yaml.SafeDumper):
    """Puts into quotes what `_Reader` would take for a number."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "'" if _Reader.is_read_as_other(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Writer.add_representer(str, _Writer.represent_text)
