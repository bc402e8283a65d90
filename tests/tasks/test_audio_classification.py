"""Recordings to classes: the contract, lengths, what is varied, groups, damaged files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
import torch
import transformers
from transformers import Wav2Vec2Config

import unfreeze
from unfreeze.data.sounds import decode, encoded
from unfreeze.errors import DataError, ModelError, TaskError
from unfreeze.preparation import prepare
from unfreeze.randomness import generator
from unfreeze.recipe import Recipe
from unfreeze.tasks import _audio
from unfreeze.tasks._files import FileSource
from unfreeze.tasks.audio_classification import AudioClassification
from unfreeze.testing import AudioArchitecture, check_task, tiny_audio_model, tiny_model
from unfreeze.types import Example

PITCHES = {"high": 2000, "low": 150}
PER_CLASS = 24


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny_audio_model(folder / name, name) for name in get_args(AudioArchitecture)}


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of noisy tones by four speakers, of several rates, lengths and formats, with metadata."""
    root, draw = tmp_path_factory.mktemp("data") / "calls", np.random.default_rng(0)
    lines = ["file_name,label,speaker"]
    for label, pitch in PITCHES.items():
        (root / label).mkdir(parents=True)
        for i in range(PER_CLASS):
            rate = (8000, 16000, 22050)[i % 3]
            time = np.arange(int(rate * draw.uniform(0.4, 0.9))) / rate
            samples = 0.4 * np.sin(2 * np.pi * pitch * draw.uniform(0.9, 1.1) * time) + draw.normal(0, 0.02, len(time))
            name = f"{label}/{i}.{('wav', 'flac')[i % 2]}"
            soundfile.write(root / name, samples, rate)
            lines.append(f"{name},{label},{'ABCD'[i % 4]}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("name", get_args(AudioArchitecture))
def test_the_contract_is_kept(models: dict[str, Path], name: str) -> None:
    assert "gold predictions score perfectly" in check_task(AudioClassification, model=models[name])


def test_what_an_extractor_cuts_by_itself_is_a_limit() -> None:
    assert _audio.most_seconds(transformers.WhisperFeatureExtractor(chunk_length=30)) == 30
    assert _audio.most_seconds(transformers.ASTFeatureExtractor(max_length=1024, num_mel_bins=16)) == pytest.approx(
        10.24
    )
    assert _audio.most_seconds(transformers.Wav2Vec2FeatureExtractor()) is None


def test_more_seconds_than_the_model_hears_are_refused(calls: Path, models: dict[str, Path]) -> None:
    name = next(n for n in models if "whisper" in n)
    with pytest.raises(TaskError, match="hears at most") as caught:
        unfreeze.plan(calls, model=str(models[name]), settings=["options.seconds=300"])
    assert "options.seconds=" in str(caught.value.remedy)


@pytest.mark.parametrize("name", get_args(AudioArchitecture))
def test_class_folders_are_recognised_and_learned(
    calls: Path, models: dict[str, Path], name: str, tmp_path: Path
) -> None:
    run = unfreeze.train(
        calls, model=str(models[name]), output=tmp_path / "run", schedule="head",
        settings=["train.epochs=12", "train.learning_rate=0.02", f"cache.folder={tmp_path / 'cache'}"],
    )  # fmt: skip
    assert run.plan["task"] == "audio-classification"
    assert run.metrics["eval_accuracy"] > 0.7
    assert [e.values["boundary"] for e in run.events("recorded")] == ["head"]
    file = calls / "low" / "0.wav"
    answers = run.predict([str(file), file.read_bytes()])
    assert answers[0].label == answers[1].label
    assert (run.model_folder / "preprocessor_config.json").is_file()
    assert (run.folder / "report.html").is_file()


def test_a_resumed_run_is_the_unbroken_one(calls: Path, models: dict[str, Path], tmp_path: Path) -> None:
    def go(output: Path, *observers: Any) -> Any:
        return unfreeze.train(
            calls, model=str(models["wav2vec2"]), output=output, schedule="gradual", observers=observers,
            settings=["train.epochs=4", f"cache.folder={output}-cache", "train.checkpoint_steps=3"],
        )  # fmt: skip

    whole = go(tmp_path / "whole")
    with pytest.raises(unfreeze.Interrupted):
        go(tmp_path / "run", lambda event: event.kind == "step" and event.step == 10)
    again = unfreeze.resume(tmp_path / "run")
    one, other = (r.model_folder / "model.safetensors" for r in (whole, again))
    assert one.read_bytes() == other.read_bytes()


def prepared(calls: Path, model: Path, **settings: Any) -> Any:
    return prepare(Recipe.build({"model": str(model), **settings}), str(calls))


def test_every_recording_is_brought_to_one_length(calls: Path, models: dict[str, Path]) -> None:
    found = prepared(calls, models["wav2vec2"])
    assert found.max_length_reason.startswith("0.9 s: 95 % of the recordings")
    batch = found.task.collate(found.train_examples[:3])
    assert batch.inputs["input_values"].shape == (3, round(0.9 * 16000))
    assert "attention_mask" not in batch.inputs
    named = prepared(calls, models["wav2vec2"], **{"options.seconds": 0.5})
    assert "are cut" in named.max_length_reason
    assert any(e.is_cut for e in named.train_examples)
    features = prepared(calls, models["whisper"])
    assert features.task.collate(features.train_examples[:2]).inputs["input_features"].shape == (2, 16, 100)


def test_samples_in_a_row_to_predict_are_heard_rather_than_the_file_they_came_from(
    calls: Path, models: dict[str, Path]
) -> None:
    task = prepared(calls, models["wav2vec2"]).task
    tone = (0.5 * np.sin(np.arange(4000) / 10)).astype(np.float32)
    given = {"array": tone, "sampling_rate": 16000, "path": str(calls / "low" / "0.wav")}
    [row] = unfreeze.Predictor(task, torch.nn.Linear(1, 1)).rows([{task.column: given}])
    [example] = task.encode(row, train=False)
    assert np.array_equal(decode(example.origin.file.read(), "x", 16000), tone)


def test_variation_is_drawn_by_the_generator_alone(calls: Path, models: dict[str, Path]) -> None:
    found = prepared(calls, models["whisper"], **{"options.seconds": 0.5})
    example = max(found.train_examples, key=lambda e: e.origin.seconds)
    drawn = [found.task.augment(example, generator(0, "a", i)).origin for i in range(60)]
    assert drawn[1] == found.task.augment(example, generator(0, "a", 1)).origin
    assert max(d.start for d in drawn) <= example.origin.seconds - 0.5 + 1e-9
    assert max(d.start for d in drawn) > 0
    assert all(-6 <= d.gain_db <= 6 and len(d.band_masks) == 2 for d in drawn)
    plain = found.task.collate([example]).inputs["input_features"]
    varied = found.task.collate([found.task.augment(example, generator(0, "a", 3))]).inputs["input_features"]
    assert not torch.equal(plain, varied)
    assert plain.shape == varied.shape


def noise(seconds: float, **varied: Any) -> Example:
    """An example of a recording of so many seconds at 16 kHz, no sample of which is zero."""
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * 16000)).astype(np.float32)
    file = FileSource(None, encoded(samples, 16000)["bytes"], b"", "x")
    return Example({}, None, 0, 1, origin=_audio.Recording(file, seconds, **varied))


def test_stretches_are_silenced_within_the_recording_whatever_it_is_brought_to() -> None:
    heard = noise(1.0, time_masks=((0.4, 0.5),)).origin.samples(16000, 30.0, 30.0)
    assert len(heard) == 30 * 16000
    assert np.flatnonzero(heard == 0)[:1600].tolist() == list(range(6400, 8000))
    assert heard[8000:16000].all()


def test_what_is_recorded_of_a_variant_depends_on_the_length_it_is_brought_to(
    calls: Path, models: dict[str, Path]
) -> None:
    def content(seconds: float) -> bytes:
        case = prepared(calls, models["wav2vec2"], **{"options.seconds": seconds, "options.views": 2})
        shortest = min(case.train_examples, key=lambda e: (e.origin.seconds, e.row))
        return bytes(case.task.view(shortest, 1).inputs["content"])

    assert content(0.8) != content(0.9)
    assert content(0.8) == content(0.8)


NORMALISING = {
    "wav2vec2": lambda: transformers.Wav2Vec2FeatureExtractor(do_normalize=True),
    "w2v-bert": lambda: transformers.SeamlessM4TFeatureExtractor(padding_value=1),
    "parakeet": lambda: transformers.ParakeetFeatureExtractor(),
}


@pytest.mark.parametrize("name", NORMALISING)
def test_recordings_are_normalised_over_what_is_heard_of_them(name: str) -> None:
    extractor, short, long = NORMALISING[name](), noise(0.4), noise(3.0)
    assert not _audio.hears_loudness(extractor)
    [inputs] = _audio.model_inputs([short, long], extractor, 2.0).values()
    for i, (example, seconds) in enumerate(((short, 0.4), (long, 2.0))):
        heard = decode(example.origin.file.read(), "x", 16000, seconds=seconds)
        made = extractor([heard], sampling_rate=16000, return_tensors="pt")
        alone = next(made[key][0] for key in ("input_values", "input_features") if key in made)
        assert torch.allclose(inputs[i, : len(alone)], alone, atol=1e-6), "as the model was pretrained on it"
        assert not inputs[i, len(alone) :].any()
        [again] = _audio.model_inputs([example], extractor, 2.0).values()
        assert torch.equal(again[0], inputs[i]), "whatever else is in the batch"
    [unread] = _audio.model_inputs([replace(short, origin=None)] * 2, extractor, 2.0).values()
    assert unread.shape == inputs.shape


@pytest.mark.parametrize("name", NORMALISING)
def test_stretches_that_are_silenced_change_nothing_of_the_others(name: str) -> None:
    plain, masked = (
        next(iter(_audio.model_inputs([noise(1.0, time_masks=masks)], NORMALISING[name](), 1.0).values()))[0]
        for masks in ((), ((0.4, 0.5),))
    )
    silenced = slice(int(0.4 * len(plain)), int(0.5 * len(plain)))
    assert plain[silenced].any()
    assert not masked[silenced].any()
    masked[silenced] = plain[silenced]
    assert torch.equal(masked, plain)


@pytest.mark.parametrize("name", NORMALISING)
@pytest.mark.parametrize("samples", [1, 300, 800])
def test_recordings_too_short_for_a_spread_are_followed_by_silence(name: str, samples: int) -> None:
    [inputs] = _audio.model_inputs([noise(samples / 16000)], NORMALISING[name](), 1.0).values()
    assert torch.isfinite(inputs).all()
    assert inputs.any()


@pytest.mark.parametrize(
    ("extractor", "by_band"),
    [
        (lambda: transformers.SeamlessM4TFeatureExtractor(), lambda found: found.unflatten(1, (2, 80)).flatten(0, 1).T),
        (lambda: transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=80), lambda found: found.T),
        (lambda: transformers.WhisperFeatureExtractor(feature_size=128, chunk_length=1), lambda found: found),
    ],
    ids=["w2v-bert", "ast", "whisper"],
)
def test_bands_are_masked_and_not_times_where_there_are_fewer_of_these(extractor: Any, by_band: Any) -> None:
    made = extractor()
    plain, masked = (
        by_band(next(iter(_audio.model_inputs([noise(0.6, band_masks=masks)], made, 0.6).values()))[0])
        for masks in ((), ((0.25, 0.5),))
    )
    assert plain.shape[0] > plain.shape[1]
    wanted = list(range(len(plain) // 4, len(plain) // 2))
    assert (plain != masked).all(1).nonzero().flatten().tolist() == wanted, "at all times"
    assert (plain != masked).any(1).nonzero().flatten().tolist() == wanted, "and no others"


def test_a_speaker_is_pointed_out_and_kept_on_one_side_where_named(calls: Path, models: dict[str, Path]) -> None:
    plan = unfreeze.plan(calls, model=str(models["wav2vec2"]))
    assert any("'speaker' looks like a group" in note for note in plan.data["notes"])
    found = prepared(calls, models["wav2vec2"], **{"data.group": "speaker", "data.validation": 0.3})
    assert found.validation is not None
    assert not set(found.train.column("speaker")) & set(found.validation.column("speaker"))


class TestRefusals:
    def test_damaged_files_are_named(self, calls: Path, models: dict[str, Path], tmp_path: Path) -> None:
        root = tmp_path / "calls"
        for label in PITCHES:
            (root / label).mkdir(parents=True)
            for i in range(6):
                data = (calls / label / f"{2 * i}.wav").read_bytes()
                (root / label / f"{i}.wav").write_bytes(data[: 100 if i == 3 else None])
        with pytest.raises(DataError, match="2 of 12 train rows cannot be read") as caught:
            unfreeze.plan(root, model=str(models["wav2vec2"]))
        assert "high/3.wav" in str(caught.value.where)
        plan = unfreeze.plan(root, model=str(models["wav2vec2"]), settings=["data.drop_broken=true"])
        assert sum(plan.data["rows"].values()) == 10

    def test_a_model_of_texts(self, calls: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="not for sound"):
            unfreeze.plan(calls, model=str(tiny_model(tmp_path / "texts")))

    def test_lengths_that_are_none(self, calls: Path, models: dict[str, Path]) -> None:
        with pytest.raises(TaskError, match="a length of time"):
            AudioClassification(seconds=-1.0)
        with pytest.raises(TaskError, match=r"options\.seconds"):
            unfreeze.plan(calls, model=str(models["wav2vec2"]), settings=["train.max_length=100"])


def test_nothing_is_drawn_by_the_model_itself() -> None:
    """As wav2vec 2.0 comes: with masks, and with layers that are left out at random."""
    config = Wav2Vec2Config(layerdrop=0.1, apply_spec_augment=True)
    adapted = AudioClassification().adapted(config)
    assert (adapted.layerdrop, adapted.apply_spec_augment) == (0.0, False)
    assert config.layerdrop == 0.1, "what was given stays as it is"
