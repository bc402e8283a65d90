"""Speech that is written down: the prompt, the loss and the search beside transformers' own, training, service."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoTokenizer, pipeline

import unfreeze
from unfreeze.errors import DataError, TaskError
from unfreeze.preparation import prepare
from unfreeze.recipe import Recipe
from unfreeze.tasks.automatic_speech_recognition import AutomaticSpeechRecognition
from unfreeze.testing import check_task, tiny_dictation_model

RATE = 8000
PITCHES = {"a": 300, "b": 900, "c": 1800}
TEXTS = ("a", "b", "c")


def sound(text: str, i: int = 0) -> np.ndarray:
    """A tone a letter, 0.5 s each."""
    time = np.arange(int(0.5 * RATE)) / RATE
    return np.concatenate([0.5 * np.sin(2 * np.pi * (PITCHES[c] + 5 * i) * time) for c in text])


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken") / "spoken"
    folder.mkdir()
    lines = ["file_name,transcription"]
    for i in range(48):
        text = TEXTS[i % len(TEXTS)]
        soundfile.write(folder / f"{i:02}.flac", sound(text, i % 4), RATE)
        lines.append(f"{i:02}.flac,{text.upper()}.")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dictation_model(tmp_path_factory.mktemp("models") / "whisper", dropout=0.0)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dictation_model(tmp_path_factory.mktemp("models") / "many", languages=("en", "de"))


def prepared(spoken: Path, model: Path, **asked: Any) -> Any:
    return prepare(Recipe.build({"data.source": str(spoken), "model": str(model), "data.validation": 0.0, **asked}))


def built(case: Any) -> Any:
    torch.manual_seed(0)
    return case.task.build(case.source, case.config).model.eval()


def test_the_contract_is_kept(model: Path) -> None:
    assert "the predictor answers as evaluation" in check_task(AutomaticSpeechRecognition, model=model)


def test_an_answer_begins_with_language_and_task(spoken: Path, model: Path, many: Path) -> None:
    names = prepared(spoken, model).task.processor.tokenizer.convert_ids_to_tokens
    assert names(list(prepared(spoken, model).task.targets.prompt)) == ["<|startoftranscript|>", "<|notimestamps|>"]
    case = prepared(spoken, many, **{"options.language": "de"})
    names = case.task.processor.tokenizer.convert_ids_to_tokens
    wanted = ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    assert names(list(case.task.targets.prompt)) == wanted
    batch = case.task.collate(case.train_examples[:2])
    assert names(batch.inputs["decoder_input_ids"][0].tolist()) == [*wanted, "a"]
    assert batch.targets.tensors["tokens"][0, :3].tolist() == [-100] * 3, "what is given is not asked for"
    assert names(batch.targets.tensors["tokens"][0, 3:].tolist()) == ["a", "<|endoftext|>"]
    settings = built(case).generation_config
    assert (settings.language, settings.task) == ("de", "transcribe")


def test_the_loss_is_that_of_transformers(spoken: Path, many: Path) -> None:
    case = prepared(spoken, many, **{"options.language": "en"})
    network, batch = built(case), case.task.collate(case.train_examples[:6])
    with torch.no_grad():
        term = case.task.loss(network, batch).terms["loss"]
        wanted = network(**batch.inputs, labels=batch.targets.tensors["tokens"]).loss
    assert batch.weights["written tokens"] == 12.0
    assert float(term.sum) / 12 == pytest.approx(float(wanted), rel=1e-5)


def test_what_is_written_is_what_transformers_writes(spoken: Path, many: Path) -> None:
    case = prepared(spoken, many, **{"options.language": "en"})
    network, batch = built(case), case.task.collate(case.train_examples[:4])
    tokenizer = case.task.processor.tokenizer
    with torch.no_grad():
        ours = case.task.answer(network, batch).texts
        theirs = network.generate(
            batch.inputs["input_features"], language="en", task="transcribe", max_new_tokens=case.task.targets.written
        )
    assert ours == tokenizer.batch_decode(theirs, skip_special_tokens=True)


def test_trained_it_writes_what_was_said(spoken: Path, model: Path, tmp_path: Path) -> None:
    settings = [
        "train.epochs=25", "train.learning_rate=3e-3", "data.validation=0.2", "options.augmentation=none",
        f"cache.folder={tmp_path / 'cache'}",
    ]  # fmt: skip
    run = unfreeze.train(spoken, model=str(model), schedule="full", output=tmp_path / "run", settings=settings)
    assert run.metrics["eval_wer"] < 0.2
    assert [p["name"] for p in run.plan["phases"]] == ["full"]
    [said] = run.predict([str(spoken / "02.flac")])
    assert (said.label, said.probability) == ("c", None)
    assert run.evaluate(spoken)["eval_wer"] < 0.2
    assert "word error rate" in run.report().read_text()
    AutoModelForSpeechSeq2Seq.from_pretrained(run.model_folder)
    heard = pipeline("automatic-speech-recognition", model=str(run.model_folder))(
        {"raw": np.repeat(sound("c", 2), 2).astype(np.float32), "sampling_rate": 2 * RATE},
        generate_kwargs={"max_new_tokens": 32},
    )
    assert heard["text"].strip() == "c"


def test_the_frozen_encoder_is_recorded_and_changes_nothing(spoken: Path, model: Path, tmp_path: Path) -> None:
    runs = [
        unfreeze.train(
            spoken, model=str(model), schedule="last(1)", seed=0, output=tmp_path / str(enabled),
            settings=["train.epochs=3", "data.validation=0.2", cache],
        )
        for enabled, cache in (("true", f"cache.folder={tmp_path / 'cache'}"), ("false", "cache.enabled=false"))
    ]  # fmt: skip
    events = [json.loads(line) for line in (runs[0].folder / "events.jsonl").read_text().splitlines()]
    told = [e for e in events if e["kind"] == "recorded"]
    assert told, [p["source_reason"] for p in runs[0].plan["phases"]]
    planned = next(p["recorded_bytes"] for p in runs[0].plan["phases"] if p["boundary"] == told[0]["boundary"])
    assert told[0]["bytes"] == pytest.approx(planned, rel=0.05), "disk as the plan said"
    assert runs[0].metrics["eval_loss"] == pytest.approx(runs[1].metrics["eval_loss"], rel=1e-3)


def test_longer_recordings_are_heard_in_pieces(spoken: Path, model: Path, tmp_path: Path) -> None:
    case = prepared(spoken, model)
    soundfile.write(tmp_path / "long.wav", np.concatenate([sound("abc")] * 3), RATE)
    row = case.train.row(0)
    values = {**case.task.row_values(str(tmp_path / "long.wav"), "input 1"), "transcription": "abc abc abc"}
    examples = case.task.encode(type(row)(0, values, "input 1", None), train=True)
    assert len(examples) == 3
    batch, network, metric = case.task.collate(examples), built(case), case.task.metric()
    with torch.no_grad():
        found = case.task.loss(network, batch)
        metric.update(case.task.answer(network, batch, found.outputs), batch)
    assert batch.weights["written tokens"] == 0.0
    assert float(found.terms["loss"].sum) == 0.0
    assert metric.state.n == 1


def test_an_answer_may_be_as_long_as_the_model_can_write_whatever_training_rows_say(spoken: Path, model: Path) -> None:
    case = prepared(spoken, model)
    assert (case.task.targets.longest, case.task.targets.written) == (62, 62)
    row = case.train.row(0)
    changed = type(row)(0, {**row.values, "transcription": "a" * 50}, row.place, row.files)
    [example] = case.task.encode(changed, train=True)
    assert len(example.target.ids) == 51
    assert len(case.task.answer(built(case), case.task.collate([example])).texts[0]) > 50


def test_a_test_row_that_cannot_be_written_is_refused_before_training(spoken: Path, model: Path) -> None:
    test = [{"audio": str(spoken / "00.flac"), "transcription": "a" * 70}]
    with pytest.raises(DataError, match="has 71 tokens, and the model writes at most 62"):
        prepare(Recipe.build({"data.source": str(spoken), "model": str(model)}), None, test=test)


def test_tokens_that_the_checkpoint_bars_are_written_where_the_transcripts_have_them(
    spoken: Path, tmp_path: Path
) -> None:
    model = tiny_dictation_model(tmp_path / "whisper")
    path = model / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    a, z = (tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "az")
    end = tokenizer.eos_token_id
    path.write_text(json.dumps({**settings, "suppress_tokens": [a, z], "begin_suppress_tokens": [a, end]}))
    found = built(prepared(spoken, model)).generation_config
    assert found.suppress_tokens == [z]
    assert found.begin_suppress_tokens == [end], "an answer does not begin with its end"


def test_a_checkpoint_that_does_not_say_what_it_knows(spoken: Path, many: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(many, tmp_path / "many")
    (copied / "generation_config.json").unlink()
    assert len(prepared(spoken, copied).task.targets.prompt) == 2, "its vocabulary is too small for many languages"
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(json.dumps({**config, "vocab_size": 51_865}), encoding="utf-8")
    with pytest.raises(TaskError, match="hears many languages"):
        prepared(spoken, copied)


def test_masks_of_the_models_own_are_off(spoken: Path, model: Path) -> None:
    case = prepared(spoken, model)
    case.config.apply_spec_augment, case.config.encoder_layerdrop = True, 0.5
    network = built(case)
    assert (network.config.apply_spec_augment, network.config.encoder_layerdrop) == (False, 0.0)


class TestRefusals:
    def test_validation_rows_that_are_all_heard_in_pieces(self, spoken: Path, model: Path, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "long.wav", np.concatenate([sound("abc")] * 3), RATE)
        rows = [{"audio": str(spoken / f"{i:02}.flac"), "transcription": TEXTS[i % 3]} for i in range(8)]
        held_out = tmp_path / "held-out.jsonl"
        held_out.write_text(json.dumps({"audio": "long.wav", "transcription": "abc abc abc"}))
        with pytest.raises(DataError, match="none of them has a loss"):
            prepare(Recipe.build({"model": str(model), "data.validation": str(held_out)}), rows)

    def test_a_transcript_that_cannot_be_written(self, spoken: Path, model: Path) -> None:
        case = prepared(spoken, model)
        row = case.train.row(0)
        changed = type(row)(0, {**row.values, "transcription": "a" * 200}, row.place, row.files)
        with pytest.raises(DataError, match="has 201 tokens, and the model writes at most 62 for a recording"):
            case.task.encode(changed, train=True)

    @pytest.mark.parametrize(
        ("which", "options", "told"),
        [
            ("many", {}, "hears many languages"),
            ("many", {"options.language": "fr"}, "does not know the language 'fr'"),
            ("model", {"options.language": "en"}, "hears one language alone"),
            ("model", {"options.seconds": 1}, "hears 2 s at a time, always"),
            ("model", {"options.language": 5}, "language is a code"),
        ],
    )
    def test_options_that_do_not_fit(
        self, spoken: Path, which: str, options: dict[str, Any], told: str, request: pytest.FixtureRequest
    ) -> None:
        with pytest.raises(TaskError, match=told):
            prepared(spoken, request.getfixturevalue(which), **options)
