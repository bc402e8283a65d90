"""The peer: the Hugging Face Trainer, in three forms. No cell of it imports unfreeze, so that none pays for both.

=====  =========================================================================================================
form   what it is
=====  =========================================================================================================
``a``  the usual tutorial: ``map`` with ``padding="max_length", truncation=True``, the default collator
``b``  the Trainer at its best: padded to the longest of a batch, batches of like length, fused AdamW
``c``  ``b`` with attention dropout off, so that torch's quick attention kernel is used on a CPU
=====  =========================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.material import SHARED_TOKENS, WINDOW_TOKENS, Job, LabelledText, Question, TaggedWords
from benchmarks.measure import Meter, Unfinished

FORMS = ("a", "b", "c")
LONGEST_TOKENS = 512
# What stays trainable of an encoder like BERT, by the beginning of parameter names.
HEAD_ONLY = ("bert.pooler.", "classifier.")
TOP_TWO_OF_SIX = ("bert.encoder.layer.4.", "bert.encoder.layer.5.", *HEAD_ONLY)
# The rows that `datasets.Dataset.map` gives to a function at once: those that padding=True pads alike.
MAP_ROWS = 1000


@dataclass
class Trained:
    """What a peer's training left.

    Attributes:
        trainer: With its model.
        encode: Texts to a data set it can predict on.
        labels: Output to label.
        share_of_steps: Part of the job's steps that was really made.
        curve: Seconds since the start of training and accuracy on the rows held out, at each evaluation.
        seconds_before: Of training in earlier processes.
    """

    trainer: Any
    encode: Callable[[Sequence[str]], Any]
    labels: list[str]
    share_of_steps: float
    curve: list[tuple[float, float]] = field(default_factory=list)
    seconds_before: float = 0.0

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text, in order."""
        return [self.labels[i] for i in self.logits(texts).argmax(-1)]

    def logits(self, texts: Sequence[str]) -> Any:
        """(texts, labels), in the order of the texts."""
        # Trap: rows to predict are grouped by length too, and the answers would come in that order.
        self.trainer.args.train_sampling_strategy = "sequential"
        return self.trainer.predict(self.encode(texts)).predictions


def fine_tune(
    job: Job,
    form: str,
    meter: Meter,
    output: Path,
    *,
    most_steps: int | None = None,
    trained: tuple[str, ...] | None = None,
    held_out: Sequence[LabelledText] = (),
    most_seconds: float | None = None,
) -> Trained:
    """Train, and write the model.

    Args:
        job: As for every system.
        form: One of `FORMS`.
        meter: Measures `Trainer.train`.
        output: Folder for the model.
        most_steps: Stop after so many steps. Only for form ``a``, whose steps are all of the same padded size, so that
            the time of all follows from the time of some.
        trained: Beginnings of the names of the parameters that train; the others are frozen. None: all train.
        held_out: Rows that are evaluated on four times an epoch; the best weights are kept, as unfreeze does.
        most_seconds: Of training in one process: then it stops, and the next call goes on from `output`.

    Raises:
        Unfinished: The time was up.
    """
    import transformers

    transformers.set_seed(job.seed)
    padding = "max_length" if form == "a" else False
    tokenizer, encode = _encoding(job, padding)
    rows = _labelled(job.rows, encode, job.labels)
    all_steps = job.epochs * -(-len(job.rows) // job.batch_size)
    steps = min(most_steps or all_steps, all_steps)
    model = _model(job, attention_dropout=form != "c")
    if trained is not None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(trained))
    arguments = _arguments(job, output, by_length=form != "a", max_steps=steps if steps < all_steps else -1)
    following = _following(meter, output / "following.pt", most_seconds)
    if held_out:
        arguments.eval_strategy, arguments.eval_steps = "steps", -(-all_steps // (4 * job.epochs))
        arguments.per_device_eval_batch_size = 64
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=_labelled(held_out, encode, job.labels) if held_out else None,
        data_collator=None if form == "a" else transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
        callbacks=[following],
    )
    meter.watch(trainer.model)
    with meter:
        trainer.train(
            resume_from_checkpoint=transformers.trainer_utils.get_last_checkpoint(output) if held_out else None
        )
        if following.is_stopped:
            following.write()
            raise Unfinished(f"stopped at step {trainer.state.global_step}")
        following.give_back_best(model)
    trainer.save_model()
    return Trained(trainer, encode, job.labels, steps / all_steps, following.curve, following.seconds_before)


def fine_tune_tags(job: Job, meter: Meter, output: Path) -> Callable[[Sequence[TaggedWords]], list[list[str]]]:
    """Train all weights on tagged words as the example script does: the first token of a word has its tag.

    Form b: padded to the longest of a batch, batches of like length, fused AdamW.

    Returns:
        What answers rows with a tag for each word.
    """
    import datasets
    import torch
    import transformers

    transformers.set_seed(job.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.model)

    def encode(rows: Sequence[TaggedWords]) -> list[dict[str, Any]]:
        found = tokenizer([list(row.words) for row in rows], is_split_into_words=True, truncation=True)
        encoded = []
        for i, row in enumerate(rows):
            words = found.word_ids(i)
            is_first = [
                word is not None and word != before for before, word in zip([None, *words], words, strict=False)
            ]
            tags = [job.labels.index(row.tags[w]) if f else -100 for f, w in zip(is_first, words, strict=True)]
            encoded.append({"input_ids": found["input_ids"][i], "labels": tags})
        return encoded

    model = transformers.AutoModelForTokenClassification.from_pretrained(
        job.model, num_labels=len(job.labels), dtype="float32"
    )
    trainer = transformers.Trainer(
        model,
        _arguments(job, output, by_length=True, max_steps=-1),
        train_dataset=datasets.Dataset.from_list(encode(job.rows)),
        data_collator=transformers.DataCollatorForTokenClassification(tokenizer),
    )
    meter.watch(model)
    with meter:
        trainer.train()
    trainer.save_model()

    def answer(rows: Sequence[TaggedWords]) -> list[list[str]]:
        model.eval()
        answers = []
        for start in range(0, len(rows), 32):
            encoded = [tokenizer(list(r.words), is_split_into_words=True) for r in rows[start : start + 32]]
            with torch.inference_mode():
                best = model(**tokenizer.pad(encoded, return_tensors="pt")).logits.argmax(-1)
            for i, one in enumerate(encoded):
                firsts = {word: place for place, word in reversed(list(enumerate(one.word_ids()))) if word is not None}
                answers.append([job.labels[int(best[i, firsts[word]])] for word in sorted(firsts)])
        return answers

    return answer


# Of the best first and last tokens of a window, how many are tried together; and an answer's tokens, at most.
_TRIED, _LONGEST_ANSWER = 20, 30


def fine_tune_answers(job: Job, meter: Meter, output: Path) -> Callable[[Sequence[Question]], list[str]]:
    """Train all weights on questions as the example script does: windows, the best span over a row's windows.

    Form b: padded to the longest of a batch, batches of like length, fused AdamW.

    Returns:
        What answers questions.
    """
    import datasets
    import torch
    import transformers

    transformers.set_seed(job.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.model)

    def windows(rows: Sequence[Question]) -> Any:
        return tokenizer(
            [row.question.strip() for row in rows],
            [row.context for row in rows],
            truncation="only_second",
            max_length=WINDOW_TOKENS,
            stride=SHARED_TOKENS,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )

    found = windows(job.rows)
    encoded = []
    for i, number in enumerate(found["overflow_to_sample_mapping"]):
        row, of_text = job.rows[number], [place == 1 for place in found.sequence_ids(i)]
        first, last = _span(found["offset_mapping"][i], of_text, row)
        inputs = {name: found[name][i] for name in ("input_ids", "token_type_ids", "attention_mask")}
        encoded.append({**inputs, "start_positions": first, "end_positions": last})
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(job.model, dtype="float32")
    trainer = transformers.Trainer(
        model,
        _arguments(job, output, by_length=True, max_steps=-1),
        train_dataset=datasets.Dataset.from_list(encoded),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )
    meter.watch(model)
    with meter:
        trainer.train()
    trainer.save_model()

    def answer(rows: Sequence[Question]) -> list[str]:
        model.eval()
        answers = []
        for row in rows:
            found = windows([row])
            inputs = {name: found[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
            with torch.inference_mode():
                output = model(**tokenizer.pad(inputs, return_tensors="pt"))
            best = (-float("inf"), "")
            for i, offsets in enumerate(found["offset_mapping"]):
                of_text = [place == 1 for place in found.sequence_ids(i)]
                for first in output.start_logits[i].topk(min(_TRIED, len(offsets))).indices.tolist():
                    for last in output.end_logits[i].topk(min(_TRIED, len(offsets))).indices.tolist():
                        if last >= len(offsets) or not (first < len(offsets) and of_text[first] and of_text[last]):
                            continue
                        if first <= last < first + _LONGEST_ANSWER:
                            score = float(output.start_logits[i, first] + output.end_logits[i, last])
                            best = max(best, (score, row.context[offsets[first][0] : offsets[last][1]]))
            answers.append(best[1])
        return answers

    return answer


def _span(offsets: Sequence[tuple[int, int]], of_text: Sequence[bool], row: Question) -> tuple[int, int]:
    """First and last token of the first answer in a window; the first token of all where it is not whole in it."""
    start, end = row.starts[0], row.starts[0] + len(row.answers[0])
    first = [i for i, (begin, _) in enumerate(offsets) if of_text[i] and begin <= start]
    last = [i for i, (_, stop) in enumerate(offsets) if of_text[i] and stop >= end]
    return (first[-1], last[0]) if first and last else (0, 0)


def fine_tune_pictures(
    job: Job, meter: Meter, output: Path, *, head_alone: bool = False
) -> Callable[[Sequence[str]], list[str]]:
    """Train all weights on pictures as the example script does, or the head alone.

    All weights see a part of each picture drawn anew in every epoch, mirrored or not. For the head alone the whole
    pictures are decoded and brought to the model's size once, and then kept in memory: the script does that in every
    epoch; this is the better of the two for the peer. Reading them counts as training, as it does for unfreeze, which
    records while it reads.

    Returns:
        What answers files of pictures, in order.
    """
    import torch
    import transformers

    transformers.set_seed(job.seed)
    processor = transformers.AutoImageProcessor.from_pretrained(job.model)
    model = transformers.AutoModelForImageClassification.from_pretrained(
        job.model, num_labels=len(job.labels), ignore_mismatched_sizes=True, dtype="float32"
    )
    arguments = _arguments(job, output, by_length=False, max_steps=-1)
    meter.watch(model)
    with meter:
        files, numbers = [row.text for row in job.rows], [job.labels.index(row.label) for row in job.rows]
        if head_alone:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.startswith("classifier."))
            pixels = _pixels(files, processor)
            rows: Any = [{"pixel_values": p, "labels": n} for p, n in zip(pixels, numbers, strict=True)]
        else:
            rows = _drawn_anew(files, numbers, processor, job.seed)
        trainer = transformers.Trainer(model, arguments, train_dataset=rows)
        trainer.train()
    trainer.save_model()

    def answer(files: Sequence[str]) -> list[str]:
        model.eval()
        with torch.inference_mode():
            parts = [model(pixel_values=_pixels(files[i : i + 32], processor)) for i in range(0, len(files), 32)]
        return [job.labels[int(n)] for part in parts for n in part.logits.argmax(-1)]

    return answer


# Of a picture, what a part drawn from it covers at least, and how much wider than high it may be, or higher than wide.
# The script takes 8 % at least, for a million pictures and hundreds of epochs; half, as unfreeze does for a few
# thousand, is meant to be the better of the two for the peer.
_SMALLEST_PART, _WIDEST_PART = 0.5, 4 / 3


def _drawn_anew(files: Sequence[str], numbers: Sequence[int], processor: Any, seed: int) -> Any:
    """Rows of a picture's part, brought to the model's size, and of its class: the usual augmentation of photographs.

    Szegedy et al. 2015, section 6, much as torchvision's RandomResizedCrop and RandomHorizontalFlip have it.
    """
    import math
    import random

    import torch
    from PIL import Image, ImageOps

    draw = random.Random(seed)
    size = processor.crop_size if processor.do_center_crop else processor.size
    pictures = [Image.open(file).convert("RGB") for file in files]

    def part(picture: Any) -> Any:
        for _ in range(10):
            area = picture.width * picture.height * draw.uniform(_SMALLEST_PART, 1)
            shape = math.exp(draw.uniform(-math.log(_WIDEST_PART), math.log(_WIDEST_PART)))
            width, height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if width <= picture.width and height <= picture.height:
                left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
                picture = picture.crop((left, top, left + width, top + height))
                break
        picture = picture.resize((size["width"], size["height"]), Image.Resampling.BILINEAR)
        return ImageOps.mirror(picture) if draw.random() < 0.5 else picture

    class Drawn(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int) -> dict[str, Any]:
            whole = processor(images=part(pictures[i]), do_resize=False, do_center_crop=False, return_tensors="pt")
            return {"pixel_values": whole["pixel_values"][0], "labels": numbers[i]}

    return Drawn()


def _pixels(files: Sequence[str], processor: Any) -> Any:
    """(files, channels, height, width)"""
    import torch
    from PIL import Image

    found = []
    for start in range(0, len(files), 64):
        pictures = [Image.open(file).convert("RGB") for file in files[start : start + 64]]
        found.append(processor(images=pictures, return_tensors="pt")["pixel_values"])
    return torch.cat(found)


def _following(meter: Meter, place: Path, most_seconds: float | None) -> Any:
    """A callback that notes when an evaluation was done and what it found, and keeps the best weights in memory.

    Args:
        meter: Of this process.
        place: Where it lies between processes.
        most_seconds: When to stop; None: never.
    """
    import torch
    import transformers

    class Following(transformers.TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.curve: list[tuple[float, float]] = []
            self.seconds_before = 0.0
            self.best: tuple[float, dict[str, Any]] | None = None
            self.is_stopped = False
            if place.is_file():
                self.curve, self.best, self.seconds_before = torch.load(place, weights_only=True)

        def write(self) -> None:
            torch.save((self.curve, self.best, self.seconds_before + meter.so_far()), place)

        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            if most_seconds is not None and meter.so_far() > most_seconds and state.global_step < state.max_steps:
                self.is_stopped = control.should_save = control.should_training_stop = True

        def on_evaluate(self, arguments: Any, state: Any, control: Any, *, model: Any, metrics: Any, **_: Any) -> None:
            accuracy = metrics["eval_accuracy"]
            self.curve.append((self.seconds_before + meter.so_far(), accuracy))
            if self.best is None or accuracy > self.best[0]:
                self.best = accuracy, {name: tensor.clone() for name, tensor in model.state_dict().items()}

        def give_back_best(self, model: Any) -> None:
            if self.best is not None:
                model.load_state_dict(self.best[1])

    return Following()


def _labelled(rows: Sequence[LabelledText], encode: Callable[[Sequence[str]], Any], labels: list[str]) -> Any:
    return encode([row.text for row in rows]).add_column("label", [labels.index(row.label) for row in rows])


def try_padding_in_map(job: Job, output: Path) -> dict[str, Any]:
    """The tutorial's other form, ``padding=True`` inside a batched map: does it get through its first steps?

    It pads to the longest of the `MAP_ROWS` rows that are mapped together; a training batch then mixes rows of
    different widths as soon as there are more rows than that.
    """
    import transformers

    transformers.set_seed(job.seed)
    _, encode = _encoding(job, padding=True)
    rows = _labelled(job.rows, encode, job.labels)
    arguments = _arguments(job, output, by_length=False, max_steps=3)
    trainer = transformers.Trainer(_model(job, attention_dropout=True), arguments, train_dataset=rows)
    widths = sorted({len(ids) for ids in rows["input_ids"]})
    try:
        trainer.train()
    except (ValueError, RuntimeError) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"rows": len(job.rows), "widths": widths, "crashes": True, "error": cause}
    return {"rows": len(job.rows), "widths": widths, "crashes": False, "error": ""}


def bare_pass(job: Job, meter: Meter) -> None:
    """The least that a head on a frozen encoder can cost: one bucketed `inference_mode` pass, then the head alone.

    No dropout, no checkpoints, no records; rows are sorted by length and cut into batches of 4,096 tokens.
    """
    import torch
    import transformers

    transformers.set_seed(job.seed)
    tokenizer, _ = _encoding(job, False)
    model = _model(job, attention_dropout=False)
    model.eval()
    meter.watch(model.bert)
    labels = torch.tensor([job.labels.index(r.label) for r in job.rows])
    with meter:
        encoded = tokenizer([row.text for row in job.rows], truncation=True, max_length=LONGEST_TOKENS)["input_ids"]
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
        vectors = torch.empty(len(order), model.config.hidden_size)
        while order:
            part = order[: max(1, 4096 // len(encoded[order[0]]))]
            order = order[len(part) :]
            batch = tokenizer.pad({"input_ids": [encoded[i] for i in part]}, return_tensors="pt")
            with torch.inference_mode():
                vectors[part] = model.bert(**batch).last_hidden_state[:, 0]
        _train_head(model, vectors, labels, job)


def _train_head(model: Any, vectors: Any, labels: Any, job: Job) -> None:
    import torch

    head = [*model.bert.pooler.parameters(), *model.classifier.parameters()]
    optimizer = torch.optim.AdamW(head, lr=job.rate, weight_decay=0.0, fused=True)
    for _ in range(job.epochs):
        for part in torch.randperm(len(labels)).split(job.batch_size):  # type: ignore[no-untyped-call]
            pooled = torch.tanh(model.bert.pooler.dense(vectors[part]))
            torch.nn.functional.cross_entropy(model.classifier(pooled), labels[part]).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(head, 1.0)
            optimizer.step()
            optimizer.zero_grad()


def _encoding(job: Job, padding: bool | str) -> tuple[Any, Callable[[Sequence[str]], Any]]:
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.model)

    def tokenize(rows: dict[str, list[str]]) -> Any:
        return tokenizer(rows["text"], padding=padding, truncation=True, max_length=LONGEST_TOKENS)

    def encode(texts: Sequence[str]) -> Any:
        rows = datasets.Dataset.from_dict({"text": list(texts)})
        return rows.map(tokenize, batched=True, batch_size=MAP_ROWS, remove_columns=["text"])

    return tokenizer, encode


def _model(job: Job, *, attention_dropout: bool) -> Any:
    from transformers import AutoModelForSequenceClassification

    changed: dict[str, Any] = {} if attention_dropout else {"attention_probs_dropout_prob": 0.0}
    # Trap: without dtype the weights keep the precision of the file, which may be half.
    return AutoModelForSequenceClassification.from_pretrained(
        job.model, num_labels=len(job.labels), dtype="float32", **changed
    )


def _arguments(job: Job, output: Path, *, by_length: bool, max_steps: int) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(output),
        num_train_epochs=job.epochs,
        max_steps=max_steps,
        per_device_train_batch_size=job.batch_size,
        per_device_eval_batch_size=32,
        learning_rate=job.rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        train_sampling_strategy="group_by_length" if by_length else "random",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=job.seed,
    )
