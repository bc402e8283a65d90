"""Limits of the operating system, met for real: a run ends with a sentence, and goes on when there is room again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas
import planted
import pytest
import small
import torch

from unfreeze import api, costs, durable
from unfreeze.durable import sha256_of_file
from unfreeze.errors import RequestError, ResourceError
from unfreeze.run import Run
from unfreeze.testing import tiny_model

COMMAND = [sys.executable, "-m", "unfreeze"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    rows = small.reviews(40)
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows)]
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")
    tiny_model(folder / "tiny", texts=[row["text"] for row in rows])
    recipe = {
        "data": {"source": str(folder / "reviews.csv"), "validation": 0.2},
        "model": str(folder / "tiny"),
        "schedule": [{"span": "head", "epochs": "4 steps"}, {"span": "all", "epochs": "4 steps"}],
        "train": {"batch_size": 8, "threads": 1},
        "cache": {"folder": str(folder / "cache")},
        "baselines": False,
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


def train(place, output, **changes):
    return api.train(recipe=place / "recipe.yaml", output=output, **changes)


def weights_of(folder):
    return sha256_of_file(Path(folder) / "model" / "model.safetensors")


def limited(limit, *command):
    """The command in a process of its own under a limit of the system."""
    code = (
        f"import resource, runpy, sys; resource.setrlimit(*{limit}); runpy.run_module('unfreeze', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_rs_01_a_limit_on_the_size_of_files_ends_the_run_which_goes_on_without_it(place, tmp_path):
    recipe = str(place / "recipe.yaml")
    kilobytes = (place / "tiny" / "model.safetensors").stat().st_size // 1024
    limit = f"(resource.RLIMIT_FSIZE, ({kilobytes * 512}, {kilobytes * 512}))"
    said = limited(limit, "train", recipe, "--output", str(tmp_path / "run"))
    assert said.returncode == 6, said.stderr
    assert "E-DISK" in said.stderr
    assert "Traceback" not in said.stderr
    again = subprocess.run([*COMMAND, "resume", str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert weights_of(tmp_path / "run") == weights_of(train(place, tmp_path / "unbroken").folder)


# Mounts a file system of its own, where nobody else sees it; fills it in the third step, then makes room.
FILLED_UP = """
import subprocess, sys
from pathlib import Path
from unfreeze import api
from unfreeze.errors import ResourceError

recipe, folder = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
filler = folder / "filler"

def fill(event):
    if event.kind == "step" and event.step == 3:
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

try:
    api.train(recipe=recipe, output=folder / "run", observers=[fill])
    sys.exit("nothing was said of the full disk")
except ResourceError as error:
    print(error.exit_status, error.code)
filler.unlink()
run = api.resume(folder / "run")
sys.stdout.write((run.folder / "model" / "model.safetensors").read_bytes().hex())
"""


def test_rs_02_a_small_disk_that_fills_up_ends_the_run_which_goes_on_when_there_is_room(place, tmp_path):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no user mount a file system of his own")
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-rm", sys.executable, "-c", FILLED_UP, str(place / "recipe.yaml"), str(tmp_path / "disk")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said, weights = done.stdout.splitlines()
    assert said == "6 DISK"
    unbroken = train(place, tmp_path / "unbroken").folder / "model" / "model.safetensors"
    assert bytes.fromhex(weights) == unbroken.read_bytes()


def test_rs_03_a_run_that_will_not_fit_on_the_disk_does_not_begin(place, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(costs, "free_disk_bytes", lambda folder: asked.append(str(folder)) or 1000)
    with pytest.raises(ResourceError, match=r"needs about .* GB of disk, 0\.00 GB are free") as caught:
        train(place, tmp_path / "run")
    assert caught.value.exit_status == 6
    assert set(asked) == {str(tmp_path / "run")}
    assert not (tmp_path / "run").exists()


def test_rs_04_a_log_that_cannot_be_written_waits_and_training_goes_on(place, tmp_path, monkeypatch):
    append, failures = durable.append_line, iter(range(5))

    def fails_five_times(path, line):
        if next(failures, None) is not None:
            raise ResourceError("DISK", "No space left on device", where=str(path))
        append(path, line)

    monkeypatch.setattr(durable, "append_line", fails_five_times)
    seen = []
    run = train(place, tmp_path / "run", observers=[lambda event: seen.append(event) and None])
    said = [e.values["text"] for e in seen if e.kind == "notice" and "training goes on" in str(e.values["text"])]
    assert said == ["No space left on device; training goes on, and the log is tried again with every event"]
    assert [(e.kind, e.step) for e in Run(run.folder).events()] == [(e.kind, e.step) for e in seen], (
        "in order, none lost"
    )
    assert said[0] in (run.folder / "report.html").read_text(encoding="utf-8")
    assert weights_of(run.folder) == weights_of(train(place, tmp_path / "unbroken").folder)


def test_rs_04_a_log_that_is_never_written_costs_the_log_alone(place, tmp_path, monkeypatch):
    def fails(path, line):
        raise ResourceError("DISK", "Input/output error", where=str(path))

    wanted = train(place, tmp_path / "unbroken")
    monkeypatch.setattr(durable, "append_line", fails)
    run = train(place, tmp_path / "run")
    assert run.status.state == "done"
    assert not (run.folder / "events.jsonl").exists()
    assert run.metrics["train_loss"] == wanted.metrics["train_loss"]
    assert "Input/output error; training goes on" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_rs_05_memory_that_ends_while_reading_is_told_with_what_to_do(place, tmp_path, monkeypatch):
    from unfreeze import preparation

    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(preparation, "read", fails)
    said = planted.unfreeze("train", place / "recipe.yaml", "--output", tmp_path / "run")
    assert (said.status, "E-MEMORY: " in said.err) == (6, True)
    assert not (tmp_path / "run").exists()


def test_rs_12_sixty_four_open_files_are_enough(place, tmp_path):
    said = limited(
        "(resource.RLIMIT_NOFILE, (64, 64))",
        "train", str(place / "recipe.yaml"), "--output", str(tmp_path / "run"),
    )  # fmt: skip
    assert said.returncode == 0, said.stderr


def stopped(place, output):
    """A run that was asked to stop after its fifth step."""
    from unfreeze.errors import Interrupted

    with pytest.raises(Interrupted):
        train(place, output, observers=[lambda event: event.kind == "step" and event.step == 5])
    return output


def test_kr_18_a_run_that_was_moved_goes_on_from_any_folder(place, tmp_path, monkeypatch):
    wanted = weights_of(train(place, tmp_path / "unbroken").folder)
    stopped(place, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere" / "renamed run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert weights_of(api.resume("renamed run").folder) == wanted
    stopped(place, tmp_path / "other")
    shutil.copytree(tmp_path / "other", tmp_path / "copy", copy_function=shutil.copy)  # without the times
    assert weights_of(api.resume(tmp_path / "copy").folder) == wanted


def test_kr_14_the_newest_checkpoint_is_not_told_by_its_time(place, tmp_path):
    wanted = weights_of(train(place, tmp_path / "unbroken").folder)
    run = stopped(place, tmp_path / "run")
    checkpoints = sorted((run / "checkpoints").glob("step-*"))
    assert len(checkpoints) > 1
    for number, path in enumerate(checkpoints):
        for file in (*path.rglob("*"), path):
            os.utime(file, (10**9 - number * 10**5,) * 2)  # the later, the older
    assert weights_of(api.resume(run).folder) == wanted


def test_kr_13_killed_right_after_the_request_to_stop(place, tmp_path):
    """The checkpoint of the request may be half-written: the one before is used, or it is whole."""
    wanted = weights_of(train(place, tmp_path / "unbroken").folder)
    for number, grace in enumerate((0.0, 0.05)):
        output = tmp_path / f"run {number}"
        process = subprocess.Popen(
            [*COMMAND, "train", str(place / "recipe.yaml"), "--output", str(output), "--set", "train.threads=1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        log = output / "events.jsonl"
        while process.poll() is None and not (log.is_file() and '"kind": "step"' in log.read_text()):
            pass
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        assert weights_of(api.resume(output).folder) == wanted


def test_kr_17_a_run_that_another_process_works_on_is_left_to_it(place, tmp_path):
    run = stopped(place, tmp_path / "run")
    written_now = run / ".staging-0a1b2c3d-eval_results.json"
    written_now.write_text("{")
    before = Run(run).status
    with Run(run).held(), pytest.raises(RequestError, match=f"another process works on this run: {os.getpid()} on"):
        api.resume(run)
    assert written_now.exists(), "what the other process writes is not half-written"
    assert Run(run).status == before
    assert api.resume(run).status.state == "done", "the hold ended with its owner"


def test_kr_17_a_run_is_held_from_its_first_record_to_its_last(place, tmp_path):
    def try_to_resume(event):
        with pytest.raises(RequestError, match="another process works on this run"):
            api.resume(tmp_path / "run")
        seen.append(event.kind)

    seen = []
    train(place, tmp_path / "run", observers=[try_to_resume])
    assert "step" in seen


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_da_34_a_file_that_is_replaced_while_training_changes_nothing_of_this_run(place, tmp_path, suffix):
    rows = pandas.read_csv(place / "reviews.csv")
    data = tmp_path / f"reviews{suffix}"

    def write(table):
        table.to_csv(data, index=False) if suffix == ".csv" else table.to_parquet(data)

    def replace_it(event):
        if event.kind == "step" and event.step == 3:
            write(rows.assign(label="another"))

    write(rows)
    wanted = train(place, tmp_path / "unbroken", data=data)
    run = train(place, tmp_path / "run", data=data, observers=[replace_it])
    assert weights_of(run.folder) == weights_of(wanted.folder)
    assert run.metrics["eval_accuracy"] == wanted.metrics["eval_accuracy"]


@pytest.fixture
def threads():
    """An observer, and the numbers of threads it has seen at the steps of a run."""
    seen, before = [], torch.get_num_threads()

    def observe(event):
        if event.kind == "step":
            seen.append(torch.get_num_threads())

    yield observe, seen
    torch.set_num_threads(before)


def test_kr_11_another_number_of_threads_at_the_resume_is_that_of_the_plan(place, tmp_path, threads):
    observe, seen = threads
    wanted = weights_of(train(place, tmp_path / "unbroken").folder)
    stopped(place, tmp_path / "run")
    torch.set_num_threads(2)
    assert weights_of(api.resume(tmp_path / "run", observers=[observe]).folder) == wanted
    assert set(seen) == {1}


def test_kr_11_a_machine_that_could_not_have_planned_the_run_goes_on_with_it(place, tmp_path, threads, monkeypatch):
    observe, seen = threads
    wanted = weights_of(train(place, tmp_path / "unbroken").folder)
    run = stopped(place, tmp_path / "run")
    plan = json.loads((run / "plan.json").read_text())
    plan["settings"]["threads"] = 512
    (run / "plan.json").write_text(json.dumps(plan))
    monkeypatch.setattr(api, "most_threads", lambda: 1)
    monkeypatch.setattr(api, "make", lambda *_: pytest.fail("there is a plan, and nothing to decide"))
    assert weights_of(api.resume(run, observers=[observe]).folder) == wanted
    assert set(seen) == {1}
    sentence = "1 threads instead of 512, more than this machine can use: not bit for bit the same"
    assert sentence in [event.values["text"] for event in Run(run).events("notice")]


@pytest.mark.parametrize(
    ("then", "is_said"),
    [
        ({}, False),
        ({"device": "cuda", "name": "NVIDIA H100"}, True),
        ({"name": "another processor"}, True),
        ({"name": ""}, False),
    ],
)
def test_kr_11_another_device_than_at_the_start_is_said(place, tmp_path, then, is_said):
    run = stopped(place, tmp_path / "run")
    plan = json.loads((run / "plan.json").read_text())
    before = {**plan["machine"], **then}
    (run / "plan.json").write_text(json.dumps({**plan, "machine": before}))
    api.resume(run)
    said = [event.values["text"] for event in Run(run).events("notice") if " instead of " in event.values["text"]]
    expected = f"instead of {before['device']} ({before['name']}): not bit for bit the same"
    assert [text.endswith(expected) for text in said] == [True] * is_said


def test_nu_10_two_threads_give_the_losses_of_one_to_a_rounding(place, tmp_path, threads):
    observe, seen = threads
    losses = []
    for count in (1, 2):
        seen.clear()
        run = train(place, tmp_path / str(count), settings=[f"train.threads={count}"], observers=[observe])
        losses.append([e.values["loss"] for e in run.events("step")])
        assert set(seen) == {count}
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
