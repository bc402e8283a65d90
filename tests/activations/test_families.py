"""Text, images, sound: a recorded part gives the outputs and gradients of the full forward, or is refused; never wrong.

`test_replay` does the same for classifiers of text with the real task; here the task is the least that recording needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import ARCHITECTURES, AUDIO, SEQ2SEQ, SPEECH_CONVS, Architecture, name_of

from unfreeze.activations.record import Checked, Refused, check, find_boundary, inputs_like, record
from unfreeze.activations.replay import Replay
from unfreeze.activations.rows import RecordedRows, Rows
from unfreeze.models.layers import LayerGroups
from unfreeze.tasks.base import Task
from unfreeze.types import Batch, Example, LossOutput, LossTerm

ROWS = 6


class Plain:
    """Rows are tensors as a family's models take them; texts are of different lengths."""

    augments = couples_rows = False
    answer_axis = -1

    def __init__(self, architecture: Architecture) -> None:
        self.makes_up = architecture.auto == SEQ2SEQ
        inputs = {name: values.numpy() for name, values in architecture.inputs(ROWS).items()}
        inputs.pop("attention_mask", None)
        if architecture.auto == SEQ2SEQ:
            inputs["decoder_input_ids"] = inputs["decoder_input_ids"][:, :4]
        self.examples = []
        for row in range(ROWS):
            own = {name: values[row] for name, values in inputs.items()}
            length = 16
            if "input_ids" in own:
                length -= 2 * row
                own["input_ids"] = own["input_ids"][-length:]
            self.examples.append(Example(own, row % 2, row, length))

    def beginning(self, example: Example, tokens: int) -> Example:
        return Task.beginning(self, example, tokens)  # type: ignore[arg-type]

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = {}
        for name in examples[0].inputs:
            values = [torch.from_numpy(np.ascontiguousarray(e.inputs.get(name))) for e in examples]
            if name == "input_ids":
                inputs[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True).long()
                lengths = torch.tensor([len(v) for v in values])
                inputs["attention_mask"] = (torch.arange(inputs[name].shape[1]) < lengths[:, None]).long()
            else:
                inputs[name] = torch.stack(values)
        if self.makes_up and "decoder_input_ids" not in inputs:
            inputs["decoder_input_ids"] = torch.ones(len(examples), 4, dtype=torch.long)
        size = sum(e.length for e in examples)
        return Batch(inputs, None, np.asarray([e.row for e in examples]), {"rows": float(len(examples))}, size)

    def predict(self, model: Any, batch: Batch) -> torch.Tensor:
        logits = model(**batch.inputs).logits
        mask = batch.inputs.get("attention_mask")
        if mask is not None and logits.ndim == 3 and logits.shape[1] == mask.shape[1]:
            logits = logits * mask.unsqueeze(-1)  # what is said of padding means nothing
        return logits

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        logits = self.predict(model, batch)
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(logits.shape[-1], generator=generator)
        return LossOutput({"loss": LossTerm((logits.float() * weights).sum())}, logits)


PLACES = ("head", "top", "middle")
# What cannot be recorded. Everything else is.
REFUSED: dict[str, tuple[str, ...]] = {
    # The layers share something that is made below them: a bias of relative positions, a table of positions.
    "mpnet-SequenceClassification": ("top", "middle"),
    "deberta-v2-SequenceClassification": ("top", "middle"),
    "roformer-SequenceClassification": ("top", "middle"),
    "wavlm-AudioClassification": ("top", "middle"),
    # T5 makes the bias in the first layer of its encoder.
    "t5-SequenceClassification": ("low",),
    "t5-Seq2SeqLM": ("low",),
    "mt5-Seq2SeqLM": ("low",),
    # What a row's hidden states are depends on the rows beside it, or on how far they are padded.
    "fnet-SequenceClassification": ("head", "top", "middle"),
    "nystromformer-SequenceClassification": ("head", "top", "middle"),
    "longformer-SequenceClassification": ("top", "middle"),
    "funnel-SequenceClassification": ("top", "middle"),
    # There is no one module that takes the hidden states of a layer, (batch, length, width), and is called once.
    "albert-SequenceClassification": ("top", "middle"),
    "xlm-SequenceClassification": ("top", "middle"),
    "xlnet-SequenceClassification": ("head", "top", "middle"),
    "squeezebert-SequenceClassification": ("top", "middle"),
    "pvt-ImageClassification": ("top", "middle"),
    # The head begins with an attention of its own (SigLIP), or beside a pooler that nobody reads (BigBird).
    "siglip-ImageClassification": ("head",),
    "big_bird-SequenceClassification": ("head",),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name_of)
def test_outputs_and_gradients_are_those_of_the_full_forward(architecture: Architecture, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = architecture.build().eval()
    groups = LayerGroups.of(model)
    task: Any = Plain(architecture)
    _wake(model, task)
    # Of encoder-decoders a layer of the encoder, too: T5 makes its position bias in the first.
    for place in (*PLACES, "low") if model.config.is_encoder_decoder else PLACES:
        group = {
            "low": "group 1",
            "head": "head",
            "top": f"group {groups.n_groups - 1}",
            "middle": f"group {(groups.n_groups + 1) // 2}",
        }[place]
        if group not in groups.names or (group == "head" and not groups.parameters(group)):
            continue
        refused = place in REFUSED.get(name_of(architecture), ())
        if refused:
            with pytest.raises(Refused):
                checked_at(task, model, groups, group)
            continue
        found = checked_at(task, model, groups, group)
        compare(task, model, groups, found, tmp_path / place)


def _wake(model: Any, task: Any) -> None:
    """Some draw weights so small that nothing but zeros comes out of a network of this size, which shows nothing."""
    with torch.no_grad():
        for gain in (1, 2):
            answers = task.predict(model, task.collate(task.examples))
            if (answers - answers[:1]).abs().max() > 0:
                return
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5)


def test_weights_of_the_head_that_are_read_below_its_first_module_would_not_learn_and_are_found() -> None:
    """SUPERB's way with wav2vec 2.0: what is recorded is the sum over layers, whose weights the head learns."""
    torch.manual_seed(0)
    sizes = {**SPEECH_CONVS, "use_weighted_layer_sum": True}
    architecture = Architecture("wav2vec2", AUDIO, 3, "wav2vec2.encoder.layers.0", sizes)
    model = architecture.build().eval()
    groups = LayerGroups.of(model)
    assert "layer_weights" in groups.parameters("head")
    before = [p.requires_grad for p in model.parameters()]
    with pytest.raises(Refused, match="layer_weights"):
        checked_at(Plain(architecture), model, groups, "head")
    assert [p.requires_grad for p in model.parameters()] == before


def checked_at(task: Any, model: Any, groups: LayerGroups, group: str) -> Checked:
    return check(task, model, groups, find_boundary(task, model, groups, group, task.examples), task.examples)


def compare(task: Any, model: Any, groups: LayerGroups, found: Checked, folder: Path) -> None:
    """Losses and gradients of rows that are padded otherwise than they were recorded."""
    exact = Checked(found.boundary, "float32", 0.0)
    (store,) = record(
        task, model, [exact], task.examples, [folder], [{}], budget_bytes=10**9, budget_tokens=24, reuse=(),
        say=pytest.fail,
    )  # fmt: skip
    rows = Rows(task, task.examples)
    recorded = RecordedRows(
        rows, exact, store, Replay(model, groups, exact.boundary, inputs_like(task, model, rows.examples))
    )
    above = groups.names[groups.names.index(exact.boundary.group) :]
    trained = {n: p for g in above for n, p in groups.parameters(g).items()}
    chosen = [4, 1, 2]
    loss = rows.loss(model, rows.batch([rows.examples[i] for i in chosen])).terms["loss"].sum
    wanted = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    with recorded.open():
        # The first forward finds what is called above the boundary, the second may call that alone.
        recorded.loss(model, recorded.batch([recorded.examples[i] for i in (0, 5)]))
        again = recorded.loss(model, recorded.batch([recorded.examples[i] for i in chosen])).terms["loss"].sum
        given = torch.autograd.grad(again, list(trained.values()), allow_unused=True)
    assert float(again.detach()) == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-5)
    largest = max(float(w.abs().max()) for w in wanted if w is not None)
    for name, w, g in zip(trained, wanted, given, strict=True):
        assert (w is None) == (g is None), name
        if w is not None and g is not None:
            assert float((w - g).abs().max()) <= 2e-5 * largest, name
