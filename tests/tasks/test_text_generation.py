"""Decoders that go on learning from plain text: next tokens, pieces, continuations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import unfreeze
from unfreeze.data.sources import read
from unfreeze.errors import ModelError, TaskError
from unfreeze.evaluation import evaluate_rows
from unfreeze.metrics import TokenState
from unfreeze.tasks.text_generation import TextGeneration
from unfreeze.testing import Architecture, check_task, tiny_model

ROWS = [{"text": f"{name} lives in {place}."} for name in ("Ada", "Grace", "Marie") for place in ("London", "Oslo")] * 8


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, texts = tmp_path_factory.mktemp("decoders"), [row["text"] for row in ROWS]
    names: tuple[Architecture, ...] = ("llama", "gpt2")
    return {name: tiny_model(folder / name, name, texts=texts) for name in names}


def bound(model: Path, max_length: int = 64, **options: Any) -> Any:
    from unfreeze.models.loading import resolve

    task, table = TextGeneration(**options), read(ROWS).train
    roles = task.find_roles(table, None, needs_label=False)
    processor = task.load_processor(resolve(str(model)))
    return task.bind(roles=roles, targets=None, processor=processor, max_length=max_length)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_contract_is_kept(name: str, models: dict[str, Path]) -> None:
    assert "a batch is the sum of its parts" in check_task(TextGeneration, ROWS[:4], models[name])


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_loss_is_that_of_transformers(name: str, models: dict[str, Path]) -> None:
    task, model = bound(models[name]), AutoModelForCausalLM.from_pretrained(models[name])
    batch = task.collate([e for row in read(ROWS[:5]).train for e in task.encode(row, train=True)])
    labels = batch.inputs["input_ids"].masked_fill(batch.inputs["attention_mask"] == 0, -100)
    with torch.no_grad():
        total = float(task.loss(model, batch).terms["loss"].sum)
        wanted = float(model(**batch.inputs, labels=labels).loss)
    assert total / batch.weights["next tokens"] == pytest.approx(wanted, rel=1e-5)


def test_every_token_but_the_first_is_guessed_once_however_long_the_text(models: dict[str, Path]) -> None:
    task = bound(models["llama"], max_length=8)
    row = read([{"text": " ".join(["Ada lives in London."] * 9)}]).train.row(0)
    examples = task.encode(row, train=True)
    assert [e.part for e in examples] == list(range(len(examples)))
    guessed = [int(t) for e in examples for t in task.collate([e]).targets.flatten() if t >= 0]
    whole = task.processor(row.values["text"])["input_ids"] + [task.processor.eos_token_id]
    assert guessed == whole[1:]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_texts_of_different_lengths_are_gone_on_with_as_each_alone(name: str, models: dict[str, Path]) -> None:
    task, model = bound(models[name], most_written=6), AutoModelForCausalLM.from_pretrained(models[name]).eval()
    tokenizer = AutoTokenizer.from_pretrained(models[name])
    texts = ["Ada lives", "Grace lives in London. Marie", "Oslo"]
    batch = task.collate([e for row in read([{"text": t} for t in texts]).train for e in task.encode(row, train=False)])
    with torch.no_grad():
        said = [p.label for p in task.decode(task.answer(model, batch), batch)]
        for text, found in zip(texts, said, strict=True):
            ids = tokenizer(text, return_tensors="pt")
            ids.pop("token_type_ids", None)
            alone = model.generate(**ids, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
            assert tokenizer.decode(alone[0, ids["input_ids"].shape[1] :], skip_special_tokens=True) == found


def test_trained_it_goes_on_as_the_texts_do(models: dict[str, Path], tmp_path: Path) -> None:
    run = unfreeze.train(
        ROWS,
        task="text-generation",
        model=str(models["llama"]),
        schedule="full",
        output=tmp_path / "run",
        settings=["train.epochs=25", "train.learning_rate=5e-3", "options.most_written=4", "data.validation=0.2"],
    )
    assert run.metrics["eval_perplexity"] < 2.0
    [said] = run.predict(["Ada lives"])
    assert said.label.startswith("in ")
    pipe = pipeline("text-generation", model=str(run.model_folder))
    [found] = pipe("Ada lives", max_new_tokens=4, do_sample=False, return_full_text=False)
    assert found["generated_text"].split() == said.label.split()
    assert "perplexity" in run.report().read_text()


def test_recorded_and_not_the_embeddings_train_alike(tmp_path: Path) -> None:
    """A decoder's embeddings are a stand-in while recorded rows train, and gathered words otherwise."""
    texts = [" ".join(f"w{(7 * i + j) % 90}" for j in range(20)) for i in range(40)]
    model = tiny_model(tmp_path / "model", "llama", texts=[" ".join(f"w{n}" for n in range(400))])
    moved = {}
    for enabled in ("true", "false"):
        cache = f"cache.folder={tmp_path / 'cache'}" if enabled == "true" else "cache.enabled=false"
        settings = [cache, "train.epochs=40", "data.validation=0"]
        run = unfreeze.train(
            [{"text": text} for text in texts],
            task="text-generation",
            model=str(model),
            output=tmp_path / enabled,
            settings=settings,
        )
        events = (run.folder / "events.jsonl").read_text()
        assert "words occur" in events
        assert ('"kind": "recorded"' in events) == (enabled == "true")
        before = AutoModelForCausalLM.from_pretrained(model).get_input_embeddings().weight
        after = AutoModelForCausalLM.from_pretrained(run.model_folder).get_input_embeddings().weight
        moved[enabled] = float((after - before).detach().abs().max())
    assert moved["true"] > 0
    assert moved["true"] == pytest.approx(moved["false"], rel=0.5)


def test_figures_need_no_answers(models: dict[str, Path]) -> None:
    task, model = bound(models["llama"]), AutoModelForCausalLM.from_pretrained(models["llama"])
    model.generate = None
    found = evaluate_rows(task, model, read(ROWS[:6]).train)
    assert found.metrics["perplexity"] == pytest.approx(np.exp(found.loss), rel=1e-5)


def test_sums_over_tokens_merge() -> None:
    one, other, whole = TokenState(), TokenState(), TokenState()
    one.update(2.0, 1, 3)
    other.update(4.0, 2, 3)
    whole.update(6.0, 3, 6)
    one.merge(other)
    assert one.compute() == whole.compute() == {"perplexity": pytest.approx(np.e), "token_accuracy": 0.5}
    assert TokenState.load(whole.state_dict()).compute() == whole.compute()
    assert TokenState().compute() == {"perplexity": None, "token_accuracy": None}
    assert set(TokenState().reasons) == {"perplexity", "token_accuracy"}


class TestRefusals:
    def test_an_encoder_does_not_go_on_with_a_text(self, tmp_path: Path) -> None:
        model = tiny_model(tmp_path / "bert")
        with pytest.raises(ModelError, match="does not go on with one") as caught:
            unfreeze.train(ROWS, task="text-generation", model=str(model), output=tmp_path / "run")
        assert "fill-mask" in str(caught.value.remedy)

    def test_more_to_write_than_the_model_takes(self, models: dict[str, Path], tmp_path: Path) -> None:
        settings = ["options.most_written=64"]
        with pytest.raises(TaskError, match="none is left to read"):
            unfreeze.train(
                ROWS, task="text-generation", model=str(models["gpt2"]), output=tmp_path / "run", settings=settings
            )

    @pytest.mark.parametrize("options", [{"beams": 0}, {"most_written": 0}, {"beams": True}])
    def test_options_that_mean_nothing(self, options: dict[str, Any]) -> None:
        with pytest.raises(TaskError, match=next(iter(options))):
            TextGeneration(**options)
