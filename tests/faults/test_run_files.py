"""MF-04, MF-05, MF-16, NU-08, SC-03: what a run writes runs nothing, serves anywhere, and names nobody."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import planted
import pytest

import unfreeze
from unfreeze.durable import sha256_of_file

PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


@pytest.fixture
def run(monkeypatch, tmp_path, tmp_path_factory):
    planted.plant(monkeypatch, tmp_path_factory.getbasetemp())
    monkeypatch.chdir(tmp_path)
    planted.reviews("reviews.csv", rows=24)
    return unfreeze.train("reviews.csv", output="run", schedule="head", settings=["train.epochs=2", "baselines=false"])


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_mf_04_a_run_holds_no_pickle_and_opens_none(run, tmp_path):
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [p.name for p in files if p.read_bytes()[:4].startswith(PICKLES)] == []
    canary = tmp_path / "was-run"
    newest = sorted((run.folder / "checkpoints").glob("step-*"))[-1]
    for folder in (run.folder, newest, run.model_folder):
        for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "tokenizer.pkl"):
            (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    status = json.loads((run.folder / "status.json").read_text(encoding="utf-8"))
    (run.folder / "status.json").write_text(json.dumps({**status, "state": "interrupted"}), encoding="utf-8")
    unfreeze.resume(run.folder)
    unfreeze.api.TrainedRun(run.folder).predict(["Works as promised."])
    assert not canary.exists()


def test_mf_05_a_task_that_a_file_names_is_not_imported_unasked(run, tmp_path, monkeypatch):
    """I5: of a model's folder, a run or a recipe, all in the folder that the code lies in."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("canary_task.py").write_text("from pathlib import Path\nPath('was-run').touch()\n", encoding="utf-8")
    recipe = "data:\n  source: reviews.csv\ntask: canary_task:Canary\n"
    for path in (Path("own.yaml"), run.recipe_path):
        path.write_text(recipe, encoding="utf-8")
    for path, values in (
        (run.folder / "plan.json", {"recipe_sha256": sha256_of_file(run.recipe_path)}),
        (run.folder / "status.json", {"state": "interrupted"}),
        (run.model_folder / "unfreeze.json", {"task_class": "canary_task:Canary"}),
    ):
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")
    found = unfreeze.TrainedRun(run.folder)
    for use, code in (
        (lambda: unfreeze.Predictor.load(run.model_folder), "MODEL-REMOTE-CODE"),
        (lambda: found.predict(["Works as promised."]), "MODEL-REMOTE-CODE"),
        (lambda: found.evaluate("reviews.csv"), "MODEL-REMOTE-CODE"),
        (lambda: unfreeze.resume(run.folder), "RECIPE-VALUE"),
        (lambda: unfreeze.plan(recipe="own.yaml"), "RECIPE-VALUE"),
        (lambda: unfreeze.train(recipe="own.yaml"), "RECIPE-VALUE"),
    ):
        with pytest.raises(unfreeze.UnfreezeError, match="code of somebody's own") as caught:
            use()
        assert caught.value.code == code
        assert "--allow-remote-code" in caught.value.remedy
    assert unfreeze.inspect(recipe="own.yaml")[-1].error.code == "RECIPE-VALUE"
    assert not Path("was-run").exists()
    assert str(tmp_path) not in sys.path
    with pytest.raises(unfreeze.TaskError, match="'Canary' is not a Task"):
        unfreeze.plan(recipe="own.yaml", allow_remote_code=True)
    assert Path("was-run").exists(), "allowed, it is"
    del sys.modules["canary_task"]


def test_mf_16_a_model_answers_the_same_in_another_process_from_another_folder(run, tmp_path):
    texts = ["Works as promised.", "It broke on the second day."]
    here = [(p.label, round(p.probability, 5)) for p in run.predict(texts)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = tmp_path / "moved"
    run.model_folder.rename(moved)
    code = (
        "import json, sys, unfreeze\n"
        "found = unfreeze.Predictor.load(sys.argv[1]).predict(json.loads(sys.argv[2]))\n"
        "print(json.dumps([(p.label, round(p.probability, 5)) for p in found]))\n"
    )
    settings = {"HF_HUB_OFFLINE": "1", "HOME": str(elsewhere), "HF_HOME": str(elsewhere)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(moved), json.dumps(texts)],
        cwd=elsewhere, env={**os.environ, **settings}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [tuple(answer) for answer in json.loads(done.stdout)] == here


def test_nu_08_bfloat16_trains_after_a_run_in_float32(run):
    more = unfreeze.train(
        "reviews.csv", output="bf16", schedule="gradual",
        settings=["train.epochs=2", "train.precision=bf16", "baselines=false"],
    )  # fmt: skip
    assert more.plan["settings"]["precision"] == "bf16"
    losses = [event.values["loss"] for event in more.events("step")]
    assert losses
    assert all(0 < loss < 10 for loss in losses)


def test_sc_03_what_travels_names_no_folder_and_no_person(run, tmp_path):
    """Report and model; the run's own records keep their places for the person who made it."""
    travels = [run.report(), *(p for p in run.model_folder.rglob("*") if p.is_file())]
    told = {str(tmp_path), str(Path.home()), os.environ.get("USER") or "nobody's name"} - {"/"}
    for path in travels:
        held = path.read_bytes()
        assert [name for name in told if len(name) > 4 and name.encode() in held] == [], path.name
