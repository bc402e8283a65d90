"""What is replayed at a boundary gives the outputs and gradients of the full forward, or is refused; never wrong."""

from __future__ import annotations

import csv
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from unfreeze import durable
from unfreeze.activations.decision import RowFacts, decide
from unfreeze.activations.record import Checked, Refused, check, find_boundary, inputs_like, probe_rows, record
from unfreeze.activations.replay import Replay
from unfreeze.activations.rows import RecordedRows, Rows
from unfreeze.activations.store import Store, entries, make_room
from unfreeze.data.columns import Roles
from unfreeze.models.layers import LayerGroups
from unfreeze.tasks._labels import learn_labels
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.testing import tiny_model
from unfreeze.types import Example, Row

VOCABULARY = 600
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 140,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "num_labels": 3,
}
GROUPED: dict[str, Any] = {**COMMON, "num_key_value_heads": 2}
HEADED: dict[str, Any] = {**GROUPED, "head_dim": 16}
CONFIGS: dict[str, Any] = {
    "bert": lambda: transformers.BertConfig(**COMMON),
    "roberta": lambda: transformers.RobertaConfig(**COMMON),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**COMMON),
    "camembert": lambda: transformers.CamembertConfig(**COMMON),
    "electra": lambda: transformers.ElectraConfig(embedding_size=16, **COMMON),
    "ernie": lambda: transformers.ErnieConfig(**COMMON),
    "rembert": lambda: transformers.RemBertConfig(input_embedding_size=16, output_embedding_size=16, **COMMON),
    "convbert": lambda: transformers.ConvBertConfig(embedding_size=32, **COMMON),
    "nystromformer": lambda: transformers.NystromformerConfig(num_landmarks=8, segment_means_seq_len=8, **COMMON),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=4, n_heads=2, hidden_dim=64, max_position_embeddings=140, num_labels=3
    ),
    "deberta-v2": lambda: transformers.DebertaV2Config(
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, **COMMON
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **{**COMMON, "cls_token_id": 2, "sep_token_id": 3}, local_attention=16, global_attn_every_n_layers=2
    ),
    "mpnet": lambda: transformers.MPNetConfig(**COMMON),
    "albert": lambda: transformers.AlbertConfig(embedding_size=16, **COMMON),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=4,
        n_head=2,
        n_positions=140,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        num_labels=3,
    ),
    "opt": lambda: transformers.OPTConfig(ffn_dim=64, word_embed_proj_dim=32, **COMMON),
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "mistral": lambda: transformers.MistralConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**HEADED),
    "gemma": lambda: transformers.GemmaConfig(**HEADED),
    "gemma2": lambda: transformers.Gemma2Config(sliding_window=8, **HEADED),
    "gemma3": lambda: transformers.Gemma3TextConfig(sliding_window=8, **HEADED),
    "phi": lambda: transformers.PhiConfig(**GROUPED),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**COMMON),
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=32, n_layer=4, n_head=2, num_labels=3, pad_token_id=0
    ),
}
# A later layer of these needs more than the hidden state (a position bias made once, shared layers), or the hidden
# state depends on the padding.
REFUSED = {("mpnet", "middle"), ("albert", "middle")} | {
    (name, place) for name in ("nystromformer", "convbert") for place in ("head", "middle")
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TextClassification:
    folder = tiny_model(tmp_path_factory.mktemp("tiny"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    roles = Roles(text=("text",), label="label", group=None, reasons={})
    return TextClassification().bind(
        roles=roles, targets=learn_labels(["a", "b", "c"]), processor=tokenizer, max_length=100
    )


@pytest.fixture(scope="module")
def examples(task: TextClassification) -> list[Example]:
    reviews = resources.files("unfreeze") / "samples" / "reviews.csv"
    with reviews.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][:24]
    rows = [Row(i, {"text": text, "label": "abc"[i % 3]}, f"row {i}") for i, text in enumerate([*texts, "Good."])]
    return [e for row in rows for e in task.encode(row, train=True)]


def build(name: str) -> tuple[torch.nn.Module, LayerGroups]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForSequenceClassification.from_config(CONFIGS[name]())
    return model.eval(), LayerGroups.of(model)


def checked_at(
    task: TextClassification, model: torch.nn.Module, groups: LayerGroups, group: str, examples: list[Example]
) -> Checked:
    boundary = find_boundary(task, model, groups, group, probe_rows(examples, 0)[:6])
    return check(task, model, groups, boundary, probe_rows(examples, 0))


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
    (store,) = record(
        task,
        model,
        [exact],
        examples,
        [tmp_path / "store"],
        [{}],
        budget_bytes=10**9,
        budget_tokens=256,
        reuse=True,
        say=pytest.fail,
    )
    rows = Rows(task, examples)
    replay = Replay(model, groups, exact.boundary, inputs_like(task, examples))
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


@pytest.mark.parametrize(("name", "reads"), [("bert", "vector"), ("distilbert", "vector"), ("llama", "last")])
def test_a_head_keeps_only_what_it_reads(
    name: str, reads: str, task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    model, groups = build(name)
    found = checked_at(task, model, groups, "head", examples)
    assert found.boundary.reads == reads
    (store,) = record(
        task,
        model,
        [found],
        examples,
        [tmp_path / "store"],
        [{}],
        budget_bytes=10**9,
        budget_tokens=256,
        reuse=True,
        say=pytest.fail,
    )
    assert store.values.shape == (len(examples), 32)


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
        return record(
            task,
            model,
            [found],
            examples,
            [tmp_path / "store"],
            [{}],
            budget_bytes=10**9,
            budget_tokens=256,
            reuse=True,
            say=say,
        )[0]

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
        record(
            task,
            model,
            [found],
            examples,
            [tmp_path / "store"],
            [{}],
            budget_bytes=10**9,
            budget_tokens=256,
            reuse=True,
            say=pytest.fail,
            on_row=stop,
        )
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".lock")]


def test_a_budget_that_is_too_small_is_refused_with_the_figures(
    task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    model, groups = build("bert")
    found = checked_at(task, model, groups, "group 2", examples)
    with pytest.raises(Refused, match="budget"):
        record(
            task,
            model,
            [found],
            examples,
            [tmp_path / "store"],
            [{}],
            budget_bytes=100,
            budget_tokens=256,
            reuse=True,
            say=pytest.fail,
        )


def test_the_least_recently_used_store_makes_room(tmp_path: Path) -> None:
    import os

    for number, name in enumerate(["old", "older", "newest"]):
        durable.publish(
            tmp_path / name, lambda staging: (staging / "store.json").write_text('{"width": 1}' + " " * 1000)
        )
        age = {"old": 5000, "older": 9000, "newest": 10}[name]
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
        assert number >= 0
    total = sum(e.bytes for e in entries(tmp_path))
    assert [e.key for e in entries(tmp_path)] == ["older", "old", "newest"]
    assert make_room(tmp_path, 500, total) == ["older"]
    # One that was used a moment ago may be open in another run.
    assert make_room(tmp_path, 10**9, total) == ["old"]


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


def test_phases_share_one_pass() -> None:
    phases = [({"head"}, 0.7, 10, 0), ({"head", "group 2"}, 0.7, 10, 0)]
    assert [b for b, _ in decide(phases, BIG, facts())] == ["head", "group 2"]
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
    boundary, why = decide(phases, BIG, facts(**changes))[-1]
    assert boundary is None
    assert reason in why


def test_what_was_trained_below_in_an_earlier_phase_is_not_recorded_for_a_later_one() -> None:
    phases = [(set(BIG), 1.0, 10, 0), ({"head"}, 5.0, 10, 0)]
    boundary, why = decide(phases, BIG, facts())[1]
    assert boundary is None
    assert "earlier phase" in why
