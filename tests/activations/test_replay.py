"""What is replayed at a boundary gives the outputs and gradients of the full forward, or is refused; never wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from architectures import CONFIGS, build

from unfreeze import durable
from unfreeze.activations import record as record_module
from unfreeze.activations.boundary import Entry, capturing, entering_groups, run_to_boundary
from unfreeze.activations.decision import RowFacts, decide
from unfreeze.activations.record import Checked, Refused, check, find_boundary, inputs_like, probe_rows, record
from unfreeze.activations.replay import Replay
from unfreeze.activations.rows import RecordedRows, Rows
from unfreeze.activations.store import Store, entries, make_room
from unfreeze.errors import TaskError
from unfreeze.models.layers import LayerGroups
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.types import Example

# A later layer of these needs more than the hidden state (a position bias made once, shared layers), or the hidden
# state depends on the padding.
REFUSED = {("mpnet", "middle"), ("albert", "middle")} | {
    (name, place) for name in ("nystromformer", "convbert") for place in ("head", "middle")
}


def checked_at(
    task: TextClassification, model: torch.nn.Module, groups: LayerGroups, group: str, examples: list[Example]
) -> Checked:
    boundary = find_boundary(task, model, groups, group, probe_rows(examples, 0)[:6])
    return check(task, model, groups, boundary, probe_rows(examples, 0))


def recorded_in(
    folder: Path,
    task: TextClassification,
    model: torch.nn.Module,
    found: Checked,
    examples: list[Example],
    *,
    budget_bytes: int = 10**9,
    say: Callable[[str], object] = pytest.fail,
    on_row: Callable[[int], None] = lambda rows: None,
) -> Store:
    """One boundary recorded into `folder`/store."""
    (store,) = record(
        task, model, [found], examples, [folder / "store"], [{}],
        budget_bytes=budget_bytes, budget_tokens=256, reuse={"store"}, say=say, on_row=on_row,
    )  # fmt: skip
    return store


@pytest.mark.parametrize("place", ["head", "middle"])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_replay_gives_the_outputs_and_gradients_of_the_full_forward(
    name: str, place: str, task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    model, groups = build(name)
    group = "head" if place == "head" else f"group {groups.n_groups // 2}"
    if (name, place) in REFUSED:
        with pytest.raises(Refused):
            checked_at(task, model, groups, group, examples)
        return
    found = checked_at(task, model, groups, group, examples)
    exact = Checked(found.boundary, "float32", 0.0)
    store = recorded_in(tmp_path, task, model, exact, examples)
    rows = Rows(task, examples)
    replay = Replay(model, groups, exact.boundary, inputs_like(task, model, examples))
    recorded = RecordedRows(rows, exact, store, replay)
    above = groups.names[groups.names.index(group) :]
    trained = {n: p for g in above for n, p in groups.parameters(g).items()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    # The rows are padded to another length than when they were recorded.
    loss = rows.loss(model, rows.batch(examples[3:11])).terms["loss"].sum
    wanted = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    with recorded.open():
        again = recorded.loss(model, recorded.batch(recorded.examples[3:11])).terms["loss"].sum
        given = torch.autograd.grad(again, list(trained.values()), allow_unused=True)
    assert float(loss.detach()) == pytest.approx(float(again.detach()), rel=1e-5)
    largest = max(float(w.abs().max()) for w in wanted if w is not None)
    for parameter_name, w, g in zip(trained, wanted, given, strict=True):
        assert (w is None) == (g is None), parameter_name
        if w is not None and g is not None:
            assert float((w - g).abs().max()) <= 1e-5 * largest, parameter_name


@pytest.mark.parametrize(("name", "reads"), [("bert", "row"), ("distilbert", "row"), ("llama", "last")])
def test_a_head_keeps_only_what_it_reads(
    name: str, reads: str, task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    model, groups = build(name)
    found = checked_at(task, model, groups, "head", examples)
    assert found.boundary.reads == reads
    store = recorded_in(tmp_path, task, model, found, examples)
    assert store.values.shape == (len(examples), 32)


def test_a_head_that_answers_all_rows_alike_proves_nothing(task: TextClassification, examples: list[Example]) -> None:
    model, groups = build("gpt2")
    torch.nn.init.zeros_(model.score.weight)  # type: ignore[union-attr]
    with pytest.raises(Refused, match="the same for every row"):
        checked_at(task, model, groups, "head", examples)


def test_a_module_that_changes_its_input_in_place_is_run_in_evaluation_too(
    task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    """In inference mode torch does not count such changes, and the chain of the head would leave it out."""
    model, _ = build("bert")
    torch.manual_seed(1)
    model.classifier = torch.nn.Sequential(
        torch.nn.Linear(32, 16), torch.nn.ReLU(inplace=True), torch.nn.Linear(16, 3)
    ).eval()
    groups = LayerGroups.of(model)
    found = checked_at(task, model, groups, "head", examples)
    store = recorded_in(tmp_path, task, model, replace(found, dtype="float32"), examples)
    replay = Replay(model, groups, found.boundary, inputs_like(task, model, examples))
    recorded = RecordedRows(Rows(task, examples), replace(found, dtype="float32"), store, replay)
    batch = task.collate(examples[:4])
    with torch.inference_mode():
        wanted = task.predict(model, batch)
        with recorded.open():
            for _ in range(2):
                shown = recorded.batch([recorded.examples[i] for i in range(4)])
                assert torch.allclose(recorded.loss(model, shown).outputs, wanted, atol=1e-5)


@pytest.mark.parametrize(("setting", "value"), [("TOLERANCE_HALF", 0.0), ("SAME_TOP_CLASS", 1.01)])
def test_where_half_precision_is_not_good_enough_rows_are_recorded_in_single(
    setting: str, value: float, task: TextClassification, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, groups = build("bert")
    assert checked_at(task, model, groups, "head", examples).dtype == "float16"
    monkeypatch.setattr(record_module, setting, value)
    assert checked_at(task, model, groups, "head", examples).dtype == "float32"


def test_a_store_of_something_else_under_the_same_key_is_found(
    task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    """What we do not know the values to depend on is not in the key."""
    model, groups = build("bert")
    found = checked_at(task, model, groups, "group 2", examples)
    recorded_in(tmp_path, task, model, found, examples)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.LayerNorm.bias += 1  # type: ignore[union-attr,operator,index]
    said: list[str] = []
    store = recorded_in(tmp_path, task, model, found, examples, say=said.append)
    assert "not what this model gives" in said[0]
    recorded_in(tmp_path, task, model, found, examples)
    assert float(np.abs(store.values).max()) > 0


def test_one_pass_serves_all_boundaries(task: TextClassification, examples: list[Example], tmp_path: Path) -> None:
    model, groups = build("bert")
    found = [checked_at(task, model, groups, group, examples) for group in ("group 2", "head")]
    passes: list[int] = []
    handle = model.bert.embeddings.register_forward_hook(lambda m, a, output: passes.append(len(output)))  # type: ignore[union-attr,operator]
    record(
        task, model, found, examples, [tmp_path / "a", tmp_path / "b"], [{}, {}],
        budget_bytes=10**9, budget_tokens=256, reuse=(), say=pytest.fail,
    )  # fmt: skip
    handle.remove()
    assert sum(passes) == len(examples)


def test_examples_that_share_their_place_are_refused(task: TextClassification, examples: list[Example]) -> None:
    model, groups = build("bert")
    found = checked_at(task, model, groups, "head", examples)
    twice = [*examples, examples[0]]
    replay = Replay(model, groups, found.boundary, inputs_like(task, model, examples))
    with pytest.raises(TaskError, match="two examples of row"):
        RecordedRows(Rows(task, twice), found, None, replay)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["head", "middle"])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_very_batch_that_was_recorded_is_replayed_to_the_bit(
    name: str, place: str, task: TextClassification, examples: list[Example]
) -> None:
    model, groups = build(name)
    group = "head" if place == "head" else f"group {groups.n_groups // 2}"
    if (name, place) in REFUSED:
        return
    boundary = checked_at(task, model, groups, group, examples).boundary
    above = [p for g in groups.names if g not in boundary.below for p in groups.parameters(g).values()]
    batch = task.collate(examples[:4])
    with capturing(model, [boundary]) as found:
        run_to_boundary(model, batch.inputs)
    whole = task.loss(model, batch)
    wanted = torch.autograd.grad(whole.terms["loss"].sum, above, allow_unused=True)
    replay = Replay(model, groups, boundary, inputs_like(task, model, examples))
    replay.show(found[boundary], batch.inputs)
    with replay.installed():
        replayed = task.loss(model, batch)
        gradients = torch.autograd.grad(replayed.terms["loss"].sum, above, allow_unused=True)
    assert torch.equal(replayed.outputs, whole.outputs)
    for one, other in zip(wanted, gradients, strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or torch.equal(one, other)


def test_the_model_is_itself_again_after_a_replay(task: TextClassification, examples: list[Example]) -> None:
    model, groups = build("bert")
    batch = task.collate(examples[:4])
    with torch.no_grad():
        before = model(**batch.inputs).logits
        checked_at(task, model, groups, "group 2", examples)
        after = model(**batch.inputs).logits
    assert torch.equal(before, after)


def test_a_store_is_used_again_and_a_damaged_one_is_recorded_anew(
    task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    model, groups = build("bert")
    found = checked_at(task, model, groups, "group 2", examples)

    def once(say: Any) -> Store:
        return recorded_in(tmp_path, task, model, found, examples, say=say)

    first = np.array(once(pytest.fail).values)
    stamp = (tmp_path / "store" / "values.bin").stat().st_mtime_ns
    once(pytest.fail)
    assert (tmp_path / "store" / "values.bin").stat().st_mtime_ns == stamp
    content = bytearray((tmp_path / "store" / "values.bin").read_bytes())
    content[7] ^= 1
    (tmp_path / "store" / "values.bin").write_bytes(content)
    said: list[str] = []
    assert np.array_equal(np.array(once(said.append).values), first)
    assert len(said) == 1
    assert "SHA-256" in said[0]


def test_a_recording_that_is_killed_leaves_nothing_behind(
    task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    model, groups = build("bert")
    found = checked_at(task, model, groups, "group 2", examples)

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded_in(tmp_path, task, model, found, examples, on_row=stop)
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".lock")]


def test_a_budget_that_is_too_small_is_refused_with_the_figures(
    task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    model, groups = build("bert")
    found = checked_at(task, model, groups, "group 2", examples)
    with pytest.raises(Refused, match="budget"):
        recorded_in(tmp_path, task, model, found, examples, budget_bytes=100)


def test_the_least_recently_used_store_makes_room(tmp_path: Path) -> None:
    import os

    old, older, newest = (letter * 32 for letter in "abc")
    for name, age in ((old, 5000), (older, 9000), (newest, 10)):
        durable.publish(
            tmp_path / name, lambda staging: (staging / "store.json").write_text('{"width": 1}' + " " * 1000)
        )
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    total = sum(e.bytes for e in entries(tmp_path))
    assert [e.key for e in entries(tmp_path)] == [older, old, newest]
    assert make_room(tmp_path, 500, total) == ([older], True)
    # One that was used a moment ago may be open in another run; where that leaves too little, nothing is removed.
    assert make_room(tmp_path, total, total) == ([], False)
    assert make_room(tmp_path, 2 * total // 3, total, keep=[old]) == ([], False)
    assert make_room(tmp_path, 2 * total // 3, total) == ([old], True)


SIZES = {"stem": 1000, "group 0": 100, "group 1": 100, "group 2": 100, "head": 5}


def facts(**changes: Any) -> RowFacts:
    values: dict[str, Any] = {
        "train_tokens": 10**9,
        "train_rows": 10**6,
        "held_out_tokens": 10**7,
        "held_out_rows": 10**4,
        "width": 4,
        "are_drawn_anew": False,
        "budget_bytes": 10**15,
    }
    return RowFacts(**{**values, **changes})


BIG = {name: 1_000_000 * size for name, size in SIZES.items()}


def test_a_head_phase_of_many_epochs_is_recorded_and_one_of_half_an_epoch_is_not() -> None:
    assert decide([({"head"}, 5, 100, 0)], BIG, facts())[0][0] == "head"
    assert decide([({"head"}, 0.5, 100, 0)], BIG, facts())[0][0] is None


def test_what_an_earlier_run_recorded_is_said_and_changes_no_decision() -> None:
    recorded = facts(recorded=frozenset({"head"}))
    found = decide([({"head"}, 5, 100, 0)], BIG, recorded)[0]
    assert (found.boundary, found.is_there) == ("head", True)
    assert found.reason.startswith("recorded by an earlier run at head, ")
    assert decide([({"head"}, 0.5, 100, 0)], BIG, recorded)[0].boundary is None


def test_below_a_layer_of_a_decoder_only_the_encoder_is_saved() -> None:
    decoder = frozenset({"group 1", "group 2"})
    phases = [({"group 1", "group 2", "head"}, 3.0, 10, 0), ({"group 2", "head"}, 3.0, 10, 0)]
    first, second = decide(phases, BIG, facts(decoder=decoder))
    assert (first.boundary, second.boundary) == ("group 1", "group 2"), "group 1 has trained, the encoder has not"
    assert first.reason.rpartition("saves")[2] == second.reason.rpartition("saves")[2]
    assert decide(phases, BIG, facts())[1].boundary is None


def test_of_two_towers_without_layers_the_head_is_recorded() -> None:
    assert decide([({"head"}, 5.0, 10, 0)], {"stem": 10**8, "head": 1000}, facts())[0].boundary == "head"


def test_where_the_disk_is_what_is_short_it_is_named() -> None:
    short = facts(budget_bytes=10, limit="the disk that the run leaves")
    assert decide([({"head"}, 5, 10, 0)], BIG, short)[0].reason.endswith("exceed the disk that the run leaves")


def test_phases_share_one_pass() -> None:
    phases = [({"head"}, 0.7, 10, 0), ({"head", "group 2"}, 0.7, 10, 0)]
    assert [d.boundary for d in decide(phases, BIG, facts())] == ["head", "group 2"]
    assert decide(phases[:1], BIG, facts())[0][0] is None


@pytest.mark.parametrize(
    ("phases", "changes", "reason"),
    [
        ([({"stem", "group 0", "group 1", "group 2", "head"}, 5, 10, 0)], {}, "embeddings"),
        ([({"group 0", "group 1", "group 2", "head"}, 5, 10, 0)], {}, "only the embeddings"),
        ([({"head"}, 5, 10, 0)], {"are_drawn_anew": True}, "at random"),
        ([({"head"}, 5, 10, 0)], {"budget_bytes": 10}, "budget"),
    ],
)
def test_the_reason_for_not_recording_is_said(phases: Any, changes: Any, reason: str) -> None:
    boundary, why, *_ = decide(phases, BIG, facts(**changes))[-1]
    assert boundary is None
    assert reason in why


def test_a_stem_that_computes_is_recorded_above() -> None:
    """The convolutions of wav2vec 2.0 are few weights and a third of its work; embeddings only look up."""
    rows = {"train_tokens": 250 * 10**4, "train_rows": 10**4, "held_out_tokens": 0, "held_out_rows": 0}
    phases = [({"group 0", "group 1", "group 2", "head"}, 5.0, 10, 0)]
    counted = facts(**rows, entries={"group 0": Entry(1000, 10**9, 0.3)})
    assert decide(phases, BIG, counted)[0].boundary == "group 0"
    assert decide(phases, BIG, facts(**rows))[0].boundary is None


def test_operations_of_a_row_are_those_of_its_convolutions_and_products() -> None:
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    model = transformers.ViTForImageClassification(config).eval()
    found = entering_groups(LayerGroups.of(model), model, {"pixel_values": torch.zeros(1, 3, 8, 8)})
    tokens, width = 1 + 4, 8
    patches = 2 * 4 * (3 * 4 * 4) * width
    layer = 2 * tokens * (4 * width * width + 2 * width * 16) + 2 * (2 * tokens * tokens * width)
    classifier = 2 * width * 2
    assert found["group 0"] == (tokens * width, patches, pytest.approx(patches / (patches + 2 * layer + classifier)))
    assert found["group 1"].operations == patches + layer
    assert found["head"].operations == patches + 2 * layer


def test_what_was_trained_below_in_an_earlier_phase_is_not_recorded_for_a_later_one() -> None:
    phases = [(set(BIG), 1.0, 10, 0), ({"head"}, 5.0, 10, 0)]
    boundary, why, *_ = decide(phases, BIG, facts())[1]
    assert boundary is None
    assert "earlier phase" in why


def test_phases_at_one_boundary_share_its_bytes() -> None:
    phases = [({"head"}, 3.0, 10, 0), ({"head"}, 3.0, 10, 0)]
    one = decide(phases[:1], BIG, facts())[0].stored_bytes
    assert [d.boundary for d in decide(phases, BIG, facts(budget_bytes=one))] == ["head", "head"]


def test_what_would_fit_alone_is_told_what_takes_its_place() -> None:
    phases = [({"head"}, 5.0, 10, 0), ({"head", "group 2"}, 5.0, 10, 0)]
    alone = max(decide([phase], BIG, facts())[0].stored_bytes for phase in phases)
    found = decide(phases, BIG, facts(budget_bytes=alone))
    assert [d.boundary for d in found].count(None) == 1
    assert "for other phases exceed the budget" in next(d.reason for d in found if d.boundary is None)


def test_a_phase_for_each_of_many_layers_is_decided_at_once() -> None:
    layers = [f"group {i}" for i in range(60)]
    sizes = {"stem": 1, **dict.fromkeys(layers, 10**8), "head": 10**6}
    names = [*layers, "head"]
    phases = [(set(names[k:]), 1.0, 10, 0) for k in range(60, 0, -1)]
    found = decide(phases, sizes, facts())
    assert all(d.boundary == names[60 - i] for i, d in enumerate(found))
