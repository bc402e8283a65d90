"""Small files and tiny models under well-known names, so that a whole command runs in a second."""

import csv
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile
from huggingface_hub import constants
from PIL import Image

from unfreeze import cli
from unfreeze.models import loading
from unfreeze.testing import tiny_audio_model, tiny_dictation_model, tiny_image_model, tiny_model, tiny_writing_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
QUICK = ["--set", "train.epochs=1", "--set", "baselines=false", "--schedule", "head"]


@dataclass
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


def unfreeze(*arguments):
    """Run the command in this process, as the console script would."""
    before, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["unfreeze", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        return Said(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("the command did not end with an exit status")


def plant(monkeypatch, folder):
    """Make the builtin models and some models of the Hub tiny random ones, without a network."""
    builtin, cache = Path(folder) / "builtin", Path(folder) / "hub"
    if not builtin.is_dir():
        tiny_model(builtin / "text", texts=texts())
        tiny_image_model(builtin / "image")
        for name, make in _HUB.items():
            repository = cache / f"models--{name.replace('/', '--')}"
            make(repository / "snapshots" / COMMIT)
            (repository / "refs").mkdir()
            (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(loading, "_builtin_folder", lambda: builtin)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("UNFREEZE_CACHE", str(Path(folder) / "cache"))
    monkeypatch.setenv("COLUMNS", "100")


def _texts_model(folder):
    tiny_model(folder, texts=texts(), seed=1)


_HUB = {
    "bert-base-uncased": _texts_model,
    "microsoft/resnet-50": tiny_image_model,
    "facebook/wav2vec2-base-960h": tiny_audio_model,
    "openai/whisper-small": partial(tiny_dictation_model, seconds=1, languages=("en", "de")),
    "google-t5/t5-small": tiny_writing_model,
    "openai-community/gpt2": partial(tiny_model, architecture="gpt2"),
    "nvidia/segformer-b0-finetuned-ade-512-512": partial(tiny_image_model, architecture="segformer"),
}


def files(folder):
    """What the documents and recipes speak of, in a folder."""
    folder = Path(folder)
    reviews(folder / "reviews.csv", rows=16)
    reviews(folder / "more.csv", rows=20)
    names(folder / "names.conll")
    commands(folder / "commands.jsonl")
    pictures(folder / "pictures")
    questions(folder / "questions.jsonl")
    calls(folder / "calls")
    talks(folder / "talks.jsonl")
    street(folder / "street")
    speech(folder / "speech")
    novel(folder / "novel.txt")


def novel(path, paragraphs=12):
    """Paragraphs of plain text."""
    people, places = ("Ada", "Grace", "Marie"), ("London", "Oslo", "Rome", "Paris")
    told = (f"{people[i % 3]} went to {places[i % 4]}.\nIt rained for {i + 2} days." for i in range(paragraphs))
    Path(path).write_text("\n\n".join(told) + "\n", encoding="utf-8")
    return Path(path)


def commands(path, rows=24):
    """Orders to play something and questions for the weather, with who and where."""
    with Path(path).open("w", encoding="utf-8") as file:
        for i in range(rows):
            who, where = ("Ada", "Byron", "Marie")[i % 3], ("Oslo", "Rome")[i // 3 % 2]
            row = [
                {"tokens": ["play", who], "slots": ["O", "B-artist"], "intent": "PlayMusic"},
                {"tokens": ["rain", "in", where], "slots": ["O", "O", "B-city"], "intent": "GetWeather"},
            ][i % 2]
            file.write(json.dumps(row) + "\n")
    return Path(path)


def speech(folder, rows=12):
    """Recordings of two tones, and which they are."""
    Path(folder).mkdir(parents=True)
    pitches, texts, lines = {"a": 300, "b": 1200}, ("ab", "ba", "a", "b"), ["file_name,transcription"]
    for i in range(rows):
        time, text = np.arange(2000) / 8000, texts[i % len(texts)]
        tones = [0.5 * np.sin(2 * np.pi * (pitches[letter] + i) * time) for letter in text]
        soundfile.write(Path(folder) / f"{i}.wav", np.concatenate(tones), 8000)
        lines.append(f"{i}.wav,{text}")
    (Path(folder) / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(folder)


def street(folder, rows=8):
    """Pictures of a bright box, and their masks."""
    for name in ("images", "masks"):
        (Path(folder) / name).mkdir(parents=True)
    (Path(folder) / "classes.txt").write_text("ground\nbox\n", encoding="utf-8")
    for i in range(rows):
        pixels, mask = np.full((40, 48, 3), 40, dtype=np.uint8), np.zeros((40, 48), dtype=np.uint8)
        pixels[8 + i : 30, 10:36], mask[8 + i : 30, 10:36] = (220, 60, 60), 1
        Image.fromarray(pixels).save(Path(folder) / "images" / f"{i}.png")
        Image.fromarray(mask).save(Path(folder) / "masks" / f"{i}.png")
    return Path(folder)


def talks(path, rows=24):
    """Short conversations, and what they say."""
    people, places = ("Ada", "Grace", "Marie"), ("London", "Oslo", "Rome", "Paris")
    with open(path, "w", encoding="utf-8") as handle:
        for i in range(rows):
            name, place = people[i % 3], places[i % 4]
            talk = f"{name}: I live in {place}.\nEmmy: Is it far, {i}?\n{name}: No."
            handle.write(json.dumps({"dialogue": talk, "summary": f"{name} lives in {place}."}) + "\n")
    return Path(path)


def names(path, rows=24):
    """Sentences with a name and a place, a word a line."""
    people, places = ("Ada", "Grace", "Marie"), ("London", "Oslo", "Rome", "Paris")
    with open(path, "w", encoding="utf-8") as handle:
        for i in range(rows):
            words = {people[i % 3]: "B-PER", "lives": "O", "in": "O", places[i % 4]: "B-LOC", ".": "O"}
            handle.write("".join(f"{word} {tag}\n" for word, tag in words.items()) + "\n")
    return Path(path)


def calls(folder, rows=8):
    """Class folders of short tones by four speakers, with metadata."""
    lines = ["file_name,label,speaker"]
    for label, pitch in {"high": 2000, "low": 150}.items():
        (Path(folder) / label).mkdir(parents=True)
        for i in range(rows):
            time = np.arange(4000) / 8000
            soundfile.write(Path(folder) / label / f"{i}.wav", 0.5 * np.sin(2 * np.pi * (pitch + i) * time), 8000)
            lines.append(f"{label}/{i}.wav,{label},{'ABCD'[i % 4]}")
    (Path(folder) / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(folder)


def questions(path, rows=24):
    """Where somebody lives, asked of a sentence that says so."""
    people, places = ("Ada", "Grace", "Marie"), ("London", "Oslo", "Rome", "Paris")
    with open(path, "w", encoding="utf-8") as handle:
        for i in range(rows):
            name, place = people[i % 3], places[i % 4]
            row = {"question": f"Where does {name} live?", "context": f"{name} lives in {place}, {i}."}
            handle.write(json.dumps({**row, "answers": [place]}) + "\n")
    return Path(path)


def pictures(folder, rows=8):
    """Class folders of small pictures in one colour each."""
    for label, colour in {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}.items():
        (Path(folder) / label).mkdir(parents=True)
        for i in range(rows):
            Image.new("RGB", (20 + i, 24), tuple(min(255, c + i) for c in colour)).save(
                Path(folder) / label / f"{i}.png"
            )
    return Path(folder)


def texts(rows=40):
    """Texts of the packaged reviews."""
    return [text for text, _ in _samples()[1 : rows + 1]]


def reviews(path, rows=24):
    """The first of the packaged reviews, as a file of the user's own."""
    with open(path, "w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows(_samples()[: rows + 1])
    return Path(path)


def _samples():
    source = resources.files("unfreeze") / "samples" / "reviews.csv"
    with source.open(encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))
