"""What is written of a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import unfreeze
from unfreeze.testing import tiny_model

WORDS = ("Ada", "lives", "in", "London", "Oslo", "rents", "rooms", "there")
TEXTS = [f"{WORDS[i % 8]} {WORDS[i // 3 % 8]} {WORDS[i // 5 % 8]} {i}" for i in range(40)]
ROWS: dict[str, list[dict[str, Any]]] = {
    "text-classification": [{"text": text, "label": "ab"[i % 3 == 0]} for i, text in enumerate(TEXTS)],
    "token-classification": [
        {"tokens": text.split(), "tags": ["B-X" if word in WORDS[: 2 + i % 3] else "O" for word in text.split()]}
        for i, text in enumerate(TEXTS)
    ],
    "text-generation": [{"text": text} for text in TEXTS],
}
FIGURES = {
    "text-classification": "eval_accuracy",
    "token-classification": "eval_overall_f1",
    "text-generation": "eval_perplexity",
}


def written(rows: list[dict[str, Any]], path: Path) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("task", ROWS)
@pytest.mark.parametrize("schedule", ["full", "head"])
def test_where_test_rows_are_training_rows_too_the_figure_without_them_is_given(
    task: str, schedule: str, tmp_path: Path
) -> None:
    """After a phase on recorded rows, too, whose test rows are recorded."""
    model = tiny_model(tmp_path / "tiny", "llama" if task == "text-generation" else "bert", texts=TEXTS)
    known, new = ROWS[task][:8], ROWS[task][30:]
    test = written([*new[:4], *known, *new[4:]], tmp_path / "test.jsonl")
    settings = ["train.epochs=2", "train.learning_rate=3e-2", "data.validation=0", f"data.test={test}"]
    settings.append(f"cache.folder={tmp_path / 'cache'}")
    run = unfreeze.train(
        ROWS[task][:30], model=str(model), task=task, schedule=schedule, settings=settings, output=tmp_path / "run"
    )
    without = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))["without_known"]
    alone = unfreeze.evaluate(run.folder, written(new, tmp_path / "new.jsonl"))
    of_all = run.metrics[FIGURES[task].replace("eval", "test")]
    assert without == {"rows": 10, "value": pytest.approx(alone[FIGURES[task]], rel=1e-4)}
    assert without["value"] != pytest.approx(of_all, rel=1e-4), "the two figures are not told apart"
    assert json.loads((run.folder / "test_results.json").read_text())["test_without_known"]["samples"] == 10
    [finding] = [f for f in run.findings if f.code == "DUP001"]
    assert "without them" in finding.sentence
    assert finding.evidence["value"] == without["value"]


@pytest.mark.parametrize(("first", "is_found"), [(30, False), (20, True)])
def test_where_none_or_all_of_the_rows_are_known_there_is_no_second_figure(
    first: int, is_found: bool, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "tiny", texts=TEXTS)
    rows = ROWS["text-classification"]
    test = written(rows[first : first + 10], tmp_path / "test.jsonl")
    settings = ["train.epochs=1", "data.validation=0", f"data.test={test}", f"cache.folder={tmp_path / 'cache'}"]
    run = unfreeze.train(rows[:30], model=str(model), schedule="head", settings=settings, output=tmp_path / "run")
    assert json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))["without_known"] is None
    assert not [name for name in run.metrics if "without" in name]
    assert ("DUP001" in [f.code for f in run.findings]) is is_found


def test_of_validation_rows_from_a_file_too(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny", texts=TEXTS)
    rows = ROWS["text-classification"]
    validation = written(rows[25:35], tmp_path / "held-out.jsonl")
    settings = ["train.epochs=1", f"data.validation={validation}", f"cache.folder={tmp_path / 'cache'}"]
    run = unfreeze.train(rows[:30], model=str(model), schedule="head", settings=settings, output=tmp_path / "run")
    summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["split"], summary["without_known"]["rows"]) == ("eval", 5)
