"""What was said: alphabets, the loss beside transformers' own, error rates, pieces, service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForCTC

import unfreeze
from unfreeze.data.columns import recognised_files
from unfreeze.data.sources import read
from unfreeze.errors import DataError, ModelError, TaskError
from unfreeze.metrics.speech import SpeechState, errors
from unfreeze.preparation import prepare
from unfreeze.recipe import Recipe
from unfreeze.tasks import _ctc
from unfreeze.tasks._ctc import Letters, frames_of, new_alphabet
from unfreeze.tasks.automatic_speech_recognition import AutomaticSpeechRecognition
from unfreeze.testing import check_task, tiny_audio_model, tiny_image_model

RATE = 8000
PITCHES = {"a": 300, "b": 900, "c": 1800, " ": 0}
TEXTS = ("ab", "ba", "abc", "cab", "a b", "b c", "ca", "bc a", "acb", "c")
QUICK = ["train.epochs=40", "train.learning_rate=3e-3", "train.head_learning_rate=1e-2", "data.validation=0.2"]


def sound(text: str, i: int = 0) -> np.ndarray:
    """A tone a letter, 0.2 s each, silence between words."""
    time = np.arange(int(0.2 * RATE)) / RATE
    return np.concatenate([0.5 * np.sin(2 * np.pi * (PITCHES[c] + (5 * i if c != " " else 0)) * time) for c in text])


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken") / "spoken"
    folder.mkdir()
    lines = ["file_name,transcription,speaker"]
    for i in range(60):
        text = TEXTS[i % len(TEXTS)]
        soundfile.write(folder / f"{i:02}.flac", sound(text, i % 4), RATE)
        lines.append(f"{i:02}.flac,{text.upper()}.,{'xyz'[i % 3]}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio_model(tmp_path_factory.mktemp("models") / "wav2vec2", hidden_dropout=0.0, attention_dropout=0.0)


@pytest.fixture(scope="module")
def prepared(spoken: Path, model: Path) -> Any:
    return prepare(Recipe.build({"data.source": str(spoken), "model": str(model), "data.validation": 0.0}))


def built(prepared: Any) -> Any:
    torch.manual_seed(0)
    return prepared.task.build(prepared.source, prepared.config).model.eval()


def test_the_contract_is_kept(model: Path) -> None:
    assert "the predictor answers as evaluation" in check_task(AutomaticSpeechRecognition, model=model)


def test_it_is_recognised_by_its_transcripts(spoken: Path, prepared: Any) -> None:
    table = read(str(spoken)).train
    assert prepared.task.name == "automatic-speech-recognition"
    assert recognised_files(table, "audio") is None, "not for classes"
    assert prepared.task.targets.letters == ("a", "b", "c"), "lower case, no punctuation"
    assert any("'speaker' looks like a group" in note for note in prepared.notes)


def test_the_loss_is_that_of_transformers(prepared: Any) -> None:
    network, batch = built(prepared), prepared.task.collate(prepared.train_examples[:6])
    with torch.no_grad():
        term = prepared.task.loss(network, batch).terms["loss"]
        letters = [list(s.ids) for s in batch.targets.said]
        width = max(map(len, letters))
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in letters])
        wanted = network(**batch.inputs, labels=labels).loss
    assert network.config.ctc_loss_reduction == "sum"
    assert float(term.sum) == pytest.approx(float(wanted), rel=1e-5)
    assert batch.weights["letters"] == sum(map(len, letters))


def test_where_torch_has_no_such_loss_the_cpu_computes_it(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _ctc.device_of_loss(torch.device("mps")) == torch.device("cpu")
    assert _ctc.device_of_loss(torch.device("cuda:1")) == torch.device("cuda:1")
    asked = []
    monkeypatch.setattr(_ctc, "device_of_loss", lambda device: asked.append(device) or torch.device("cpu"))
    network, batch = built(prepared), prepared.task.collate(prepared.train_examples[:2])
    prepared.task.loss(network, batch).terms["loss"].sum.backward()
    assert asked == [torch.device("cpu")], "it is asked of the logits"
    assert network.lm_head.weight.grad is not None


def test_trained_it_hears_what_was_said(spoken: Path, model: Path, tmp_path: Path) -> None:
    settings = [*QUICK, "baselines=false", f"cache.folder={tmp_path / 'cache'}"]
    run = unfreeze.train(spoken, model=str(model), schedule="full", output=tmp_path / "run", settings=settings)
    assert run.metrics["eval_cer"] < 0.5
    assert run.metrics["eval_wer"] is not None
    [said] = run.predict([str(spoken / "02.flac")])
    assert set(said.label) <= set("abc ")
    loaded = AutoModelForCTC.from_pretrained(run.model_folder)
    assert loaded.config.vocab_size == 6
    again = run.evaluate(spoken)
    assert again["eval_cer"] < 0.5
    assert "word error rate" in run.report().read_text()
    # Another run goes on with the alphabet and the head of this one.
    more = unfreeze.train(
        spoken,
        model=str(tmp_path / "run"),
        schedule="head",
        output=tmp_path / "more",
        settings=[*settings, "train.epochs=8"],
    )
    assert more.metrics["eval_cer"] < 0.5
    notices = [json.loads(line).get("text", "") for line in (more.folder / "events.jsonl").read_text().splitlines()]
    assert any("the checkpoint's own" in text for text in notices)
    events = [json.loads(line) for line in (more.folder / "events.jsonl").read_text().splitlines()]
    [recorded] = [event for event in events if event["kind"] == "recorded"]
    assert (recorded["boundary"], recorded["reads"]) == ("head", "row")


class TestAlphabet:
    def test_signs_come_first_and_letters_in_order(self) -> None:
        tokenizer = new_alphabet(("a", "é", "ß"))
        assert [tokenizer.convert_tokens_to_ids(s) for s in ("[PAD]", "[UNK]", "|", "a", "é", "ß")] == [
            0,
            1,
            2,
            3,
            4,
            5,
        ]

    def test_double_letters_are_heard_and_unknown_ones_are_nothing(self, prepared: Any) -> None:
        logits = torch.nn.functional.one_hot(torch.tensor([[3, 3, 0, 3, 2, 4, 0, 0, 1]]), 6).float()
        assert prepared.task.heard(logits) == ["aa b"]

    def test_one_of_capitals_serves_small_letters(self, prepared: Any) -> None:
        extractor = prepared.task.processor.extractor
        assert Letters(extractor, new_alphabet(("A", "B", "C"))).knows(("a", "b"))
        assert not Letters(extractor, new_alphabet(("A", "B"))).knows(("a", "ä"))

    @pytest.mark.parametrize(
        ("spelling", "wanted"), [("plain", "it's 3 o'clock ok"), ("as written", "It’s 3 o'clock: OK!")]
    )
    def test_spelling(self, spelling: Any, wanted: str) -> None:
        assert AutomaticSpeechRecognition(spelling=spelling).spelled("It’s  3 o'clock: OK!") == wanted

    @pytest.mark.parametrize("text", ["नमस्ते दुनिया", "مُحَمَّد", "vis-à-vis"])
    def test_vowel_signs_are_letters(self, text: str) -> None:
        kept = AutomaticSpeechRecognition().spelled(f"«{text}»!")
        assert kept == text.replace("-", " ")

    def test_capitals_are_letters_of_their_own_where_transcripts_are_kept_as_written(self, prepared: Any) -> None:
        extractor = prepared.task.processor.extractor
        assert not Letters(extractor, new_alphabet(("A", "B")), folds_case=False).knows(("a", "b"))

    def test_another_alphabet_of_the_same_size_gets_a_new_head(
        self, spoken: Path, prepared: Any, tmp_path: Path
    ) -> None:
        from unfreeze.models.loading import load_config, resolve

        network = built(prepared)
        network.save_pretrained(tmp_path / "before")
        new_alphabet(("x", "y", "z")).save_pretrained(tmp_path / "before")
        prepared.task.processor.extractor.save_pretrained(tmp_path / "before")
        again = prepare(Recipe.build({"data.source": str(spoken), "model": str(tmp_path / "before")}))
        assert again.task.processor.is_new
        source = resolve(str(tmp_path / "before"))
        loaded = again.task.build(source, load_config(source))
        assert load_config(source).vocab_size == len(again.task.processor.tokenizer)
        assert any("is new, for 6 letters" in note for note in loaded.notes)

    def test_a_letter_that_training_rows_lack_is_unknown_and_counted_as_wrong(
        self, prepared: Any, spoken: Path
    ) -> None:
        row = prepared.train.row(0)
        changed = type(row)(0, {**row.values, "transcription": "abz"}, row.place, row.files)
        [example] = prepared.task.encode(changed, train=True)
        assert example.target.ids[-1] == prepared.task.processor.tokenizer.unk_token_id
        assert example.target.text == "abz"


class TestLengths:
    def test_a_length_between_two_tokens_holds_its_recordings(self, spoken: Path, model: Path) -> None:
        rows = [{"audio": str(spoken / "02.flac"), "transcription": "abc"}] * 4  # 0.6 s
        asked = {"model": str(model), "task": "automatic-speech-recognition", "options.seconds": 0.605}
        case = prepare(Recipe.build({**asked, "data.validation": 0.0}), rows)
        assert case.task.used_seconds == pytest.approx(0.62)
        assert all(len(example.target.ids) == 3 for example in case.train_examples)

    def test_a_training_row_longer_than_named_is_refused_with_its_place(self, spoken: Path, model: Path) -> None:
        with pytest.raises(DataError, match=r"longer than 0\.5 s: their transcripts cannot be cut") as caught:
            prepare(Recipe.build({"data.source": str(spoken), "model": str(model), "options.seconds": 0.5}))
        assert "metadata.csv" in str(caught.value.where)
        assert "options.seconds=1" in str(caught.value.remedy)

    def test_a_transcript_that_cannot_fit_is_refused(self, prepared: Any) -> None:
        row = prepared.train.row(0)
        changed = type(row)(0, {**row.values, "transcription": "a" * 200}, row.place, row.files)
        with pytest.raises(DataError, match="the transcript has 200 letters"):
            prepared.task.encode(changed, train=True)

    def test_frames_are_those_of_the_model(self, prepared: Any) -> None:
        network = built(prepared)
        with torch.no_grad():
            logits = prepared.task.predict(network, prepared.task.collate(prepared.train_examples[:1]))
        assert logits.shape[1] == prepared.task.targets.longest
        samples = round(prepared.task.used_seconds * 16000)
        assert frames_of(prepared.config, samples) == logits.shape[1]

    def test_longer_ones_are_heard_in_pieces(self, prepared: Any, tmp_path: Path) -> None:
        long = np.concatenate([sound("abca")] * 3)
        soundfile.write(tmp_path / "long.wav", long, RATE)
        task, network = prepared.task, built(prepared)
        rows = task.row_values(str(tmp_path / "long.wav"), "input 1")
        row = prepared.train.row(0)
        made = type(row)(0, {**rows, "transcription": "abca abca abca"}, "input 1", None)
        examples = task.encode(made, train=True)
        assert len(examples) == int(np.ceil(len(long) / RATE / task.used_seconds))
        assert [e.origin.start for e in examples] == [i * task.used_seconds for i in range(len(examples))]
        batch = task.collate(examples)
        metric = task.metric()
        with torch.no_grad():
            found = task.loss(network, batch)
            metric.update(found.outputs, batch)
        assert float(found.terms["loss"].sum) == 0.0, "which letters lie in which piece is not known"
        assert metric.state.n == 1
        whole = task.merge(task.decode(found.outputs, batch))
        assert len(whole) == 1


class TestFigures:
    def test_errors_by_hand(self) -> None:
        assert errors("one too", "one two three") == (2, 3, 7, 13)
        assert errors("", "a b") == (2, 2, 3, 3)
        assert errors("x", "") == (1, 0, 1, 0)

    def test_all_errors_over_all_words(self) -> None:
        heard, said = ("a b c", "x"), ("a b c", "a b")
        whole, parts = SpeechState(), [SpeechState(), SpeechState()]
        whole.update(heard, said, np.arange(2))
        for i in range(2):
            parts[i].update(heard[i : i + 1], said[i : i + 1], np.arange(i, i + 1))
        parts[0].merge(parts[1])
        assert whole.compute()["wer"] == pytest.approx(2 / 5), "not the mean of 0 and 1"
        assert whole.compute()["exact_match"] == 0.5
        assert parts[0].compute() == whole.compute()
        assert SpeechState.load(whole.state_dict()).compute() == whole.compute()

    def test_nothing_said_is_no_figure(self) -> None:
        state = SpeechState()
        state.update(["x"], [""])
        assert state.compute()["wer"] is None
        assert state.reasons["wer"] == "nothing was said"


class TestRefusals:
    def test_rows_without_a_transcript_are_named(self, spoken: Path, model: Path, tmp_path: Path) -> None:
        rows = [{"audio": str(spoken / "00.flac"), "transcription": t} for t in ("ab", None, "c")]
        with pytest.raises(DataError, match="1 of 3 train rows have no label"):
            prepare(Recipe.build({"model": str(model), "task": "automatic-speech-recognition"}), rows)

    def test_a_transcript_of_signs_alone(self, spoken: Path, model: Path) -> None:
        rows = [{"audio": str(spoken / "00.flac"), "transcription": t} for t in ("ab", "?!", "c")]
        with pytest.raises(DataError, match="has no letters") as caught:
            prepare(Recipe.build({"model": str(model), "task": "automatic-speech-recognition"}), rows)
        assert caught.value.where == "data:2"

    def test_a_model_that_hears_nothing(self, spoken: Path, tmp_path: Path) -> None:
        seeing = tiny_image_model(tmp_path / "vit")
        with pytest.raises(ModelError, match="no form for CTC"):
            prepare(Recipe.build({"data.source": str(spoken), "model": str(seeing)}))

    @pytest.mark.parametrize("options", [{"seconds": 0}, {"spelling": "loud"}, {"augmentation": "often"}])
    def test_options_that_mean_nothing(self, options: dict[str, Any]) -> None:
        with pytest.raises(TaskError, match=next(iter(options))):
            AutomaticSpeechRecognition(**options)
