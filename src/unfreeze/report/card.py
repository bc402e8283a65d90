"""The model card: README.md beside the weights, with the metadata that the Hugging Face Hub reads.

It goes where the model goes, so it holds no data row, no place in a file, no path and no name of a machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze import durable
from unfreeze.errors import visible
from unfreeze.report import wording
from unfreeze.report.build import model_name
from unfreeze.report.records import SPLIT_NAMES, Records
from unfreeze.run import Run
from unfreeze.types import is_number

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

CARD = "README.md"
CLASSES_LISTED = 100
_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*\Z")
# Neutral inputs; never a row of the data.
_EXAMPLES = {
    "text-classification": '"This is a short example text."',
    "token-classification": '"This is a short example text."',
    "fill-mask": 'f"The weather today is {pipe.tokenizer.mask_token}."',
    "text-generation": '"The weather today is"',
    "image-classification": '"picture.jpg"',
    "image-segmentation": '"picture.jpg"',
    "audio-classification": '"recording.wav"',
    "automatic-speech-recognition": '"recording.wav"',
}
_TEXT = '"This is a short example text."'
# transformers 5 has no pipeline for them, nor for a task of the user's own.
_WITHOUT_PIPELINE = {
    "question-answering": "`AutoModelForQuestionAnswering.from_pretrained` reads it: logits of the first and the last "
    "token of the answer.",
    "intent-and-slots": "`AutoModelForTokenClassification.from_pretrained` reads it: the outputs that are tags at a "
    "word's first token, those that are intents at the token for the whole row.",
    "summarization": "`AutoModelForSeq2SeqLM.from_pretrained` reads it, and its `generate` writes.",
    "text2text-generation": "`AutoModelForSeq2SeqLM.from_pretrained` reads it, and its `generate` writes.",
}
_OWN_TASK = "Only `unfreeze.Predictor` knows this task, where the file that defines it has been imported."
# What the Hub calls a task; of others it knows nothing.
_HUB_TASKS = {**{name: name for name in (*_EXAMPLES, *_WITHOUT_PIPELINE)}, "intent-and-slots": "token-classification"}
_MARKDOWN = re.compile(r"[\\`*_\[\]|~$#!@{}]|:(?=//)|(?<=www)\.")


def write_card(run: Run, folder: Path) -> None:
    """Write ``README.md`` into `folder`: what the model is, how to use it, how good it is and where that ends.

    There is no license in it: only the user knows which one holds.

    Raises:
        ResourceError: E-DISK.
    """
    durable.write_text(folder / CARD, render(Records(run)))


def render(records: Records) -> str:
    """The card as text."""
    body = (
        environment()
        .get_template("card.md")
        .render(
            records=records,
            headline=records.headline,
            title=wording.without_paths(records.run.name),
            model=model_name(records.model),
            data_name=_data_name(records),
            example=_example(records.task),
            input=_input(records.task),
            has_pipeline=records.task in _EXAMPLES or not records.task,
            without_pipeline=_without_pipeline(records.task),
            arguments=_arguments(records),
            figures=list(_figures(records)),
            classes=_classes(records),
            limits=list(_limits(records)),
            phases=list(_phases(records)),
            settings=_settings(records),
        )
    )
    return f"---\n{metadata(records)}---\n\n{body}\n"


def metadata(records: Records) -> str:
    """The YAML header: https://huggingface.co/docs/hub/model-cards."""
    import yaml

    found: dict[str, Any] = {"library_name": "transformers"}
    if records.task in _HUB_TASKS:
        found["pipeline_tag"] = _HUB_TASKS[records.task]
    # The Hub takes ids of its own only: a builtin model or a folder is named in the text.
    if _is_hub_id(records.model):
        found["base_model"] = records.model
    found["tags"] = ["unfreeze"]
    if results := _model_index_results(records):
        found["model-index"] = [{"name": visible(records.run.name), "results": results}]
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000)


def _is_hub_id(model: str) -> bool:
    return bool(_HUB_ID.match(model)) and not Path(model).exists()


def _model_index_results(records: Records) -> list[dict[str, Any]]:
    headline = records.headline
    values = {k: v for k, v in records.metrics.items() if v is not None}
    if headline is None or not values:
        return []
    name = visible(_data_name(records))
    return [
        {
            "task": {"type": visible(records.task)},
            "dataset": {
                "name": name,
                "type": re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data",
                "split": SPLIT_NAMES[headline.split],
            },
            "metrics": [{"type": k, "value": values[k], "name": wording.metric_name(k)} for k in values],
        }
    ]


def _data_name(records: Records) -> str:
    return wording.without_paths(records.data.get("name") or "data").removeprefix(".../")


# what the card says --------------------------------------------------------------------------------------------------


@cache
def environment() -> jinja2.Environment:
    """The card's template; whatever an expression yields is inert in Markdown and in HTML."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("unfreeze.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        count=wording.count,
        percent=wording.percent,
        duration=wording.duration,
        shown=wording.shown_value,
        metric_name=wording.metric_name,
        pathless=wording.without_paths,
    )
    found.globals["figure"] = wording.figure
    return found


def inert(value: object) -> Markup:
    """Foreign text as Markdown that shows it and does nothing.

    >>> inert("<b>[x](y)")
    Markup('&lt;b&gt;\\\\[x\\\\](y)')
    """
    from markupsafe import Markup, escape

    if isinstance(value, Markup):
        return value
    marked = _MARKDOWN.sub(lambda match: "\\" + match[0], visible(value))
    # Trap: the escaper writes quotes as numbered entities, which are ugly in a text file and needless outside tags.
    return Markup(str(escape(marked)).replace("&#39;", "'").replace("&#34;", '"'))


def _example(task: str) -> Markup:
    from markupsafe import Markup

    return Markup(_EXAMPLES.get(task, _TEXT))


def _without_pipeline(task: str) -> Markup:
    from markupsafe import Markup

    return Markup(_WITHOUT_PIPELINE.get(task, _OWN_TASK))


def _input(task: str) -> Markup:
    """What `unfreeze.Predictor` takes."""
    from markupsafe import Markup

    if task == "question-answering":
        return Markup('("Where does Ada live?", "Ada lives in London.")')
    if task == "fill-mask":
        return Markup('f"The weather today is {predictor.task.processor.mask_token}."')
    return Markup(
        _EXAMPLES[task] if task.startswith(("image-", "audio-", "automatic-")) and task in _EXAMPLES else _TEXT
    )


def _settings(records: Records) -> dict[str, Any]:
    """Of the plan; the tokens that a picture or a recording counts as are no length that anybody knows."""
    settings = dict(records.plan.get("settings") or {})
    if not records.reads_tokens:
        settings.pop("max_length_tokens", None)
    return settings


def _arguments(records: Records) -> Markup:
    """What the pipeline must be told to give the same answers."""
    from markupsafe import Markup

    if records.task == "token-classification":
        return Markup(', aggregation_strategy="first"')  # the first token of a word is the one that was trained
    if records.task != "text-classification":
        return Markup("")
    if records.is_multi_label:
        return Markup(', top_k=None, function_to_apply="sigmoid"')
    return Markup("") if records.labels else Markup(', function_to_apply="none"')


def _figures(records: Records) -> Iterator[tuple[str, str, str]]:
    intervals = records.results.get("intervals") or {}
    for metric, value in records.metrics.items():
        span = intervals.get(metric)
        yield (
            wording.metric_name(metric),
            wording.figure(metric, value),
            wording.interval(metric, *span) if span else "",
        )


def _classes(records: Records) -> list[tuple[str, str]]:
    """Class and its training rows, the first `CLASSES_LISTED`; of tags the kinds of spans that they name."""
    counts = records.training_counts
    known = [label for label in records.labels if label in counts] if counts else records.labels
    return [
        (wording.shortened(label, 80), wording.count(counts.get(label)) if label in counts else "")
        for label in (known or sorted(counts))[:CLASSES_LISTED]
    ]


def _limits(records: Records) -> Iterator[str]:
    """What a user of the model should know; sentences of the gravest findings included."""
    rows = records.rows.get("train")
    if rows:
        yield f"It has seen {rows:,} training rows of one source; on inputs of another kind it may be much worse."
    length = (records.plan.get("settings") or {}).get("max_length_tokens")
    if is_number(length) and records.task == "text-classification":
        if records.choice("options.windows").get("value"):
            yield (
                f"Texts of more than {length:,} tokens are read in windows whose answers are averaged; "
                "a pipeline reads the first alone."
            )
        else:
            yield f"It reads the first {length:,} tokens of an input."
    if records.selection_remark:
        yield records.selection_remark
    if records.is_multi_label:
        yield "A label is given where its probability reaches the label's own threshold, stored in unfreeze.json."
    for finding in records.findings:
        if finding.severity in ("warning", "bad") and not finding.code.startswith(("BASE", "SEL")):
            yield wording.without_paths(finding.sentence)


def _phases(records: Records) -> Iterator[dict[str, Any]]:
    """The plan's phases with the steps that were made: fewer, where one ended early."""
    made = {phase.number: phase.steps for phase in records.timeline.phases}
    for number, phase in enumerate(records.phases, start=1):
        planned, epochs = phase.get("steps"), phase.get("epochs")
        steps = made.get(number, 0 if made else planned)  # a log that could not be written tells nothing
        if is_number(epochs) and is_number(planned) and is_number(steps) and planned:
            epochs = round(epochs * steps / planned, 3)
        found = {"steps": steps, "epochs": epochs, "span": wording.answer(phase.get("span")), "rates": _rates(phase)}
        yield {**phase, **found}


def _rates(phase: dict[str, Any]) -> str:
    rates = list((phase.get("learning_rates") or {}).values())
    if not rates:
        return ""
    low, high = min(rates), max(rates)
    return f"{high:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
