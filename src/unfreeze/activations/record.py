"""Recording: one pass over the rows that stores what enters every boundary asked for; and the check that it is true."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unfreeze import durable
from unfreeze.activations.boundary import (
    Boundary,
    capturing,
    encoder_of,
    entry_module,
    positions_read,
    run_to_boundary,
)
from unfreeze.activations.replay import Replay
from unfreeze.activations.store import Store, Writer, make_room, only_builder, only_reserving, stored_bytes
from unfreeze.data.loading import length_batches
from unfreeze.machine import in_smaller_parts, is_out_of_memory
from unfreeze.models.layers import HEAD, LayerGroups, device_of
from unfreeze.tasks.base import Task
from unfreeze.types import Batch, Example

# Relative to the largest output. In float32 the replay does the same arithmetic; half precision rounds the input.
TOLERANCE_FLOAT32 = 1e-5
TOLERANCE_HALF = 1e-2
SAME_TOP_CLASS = 0.99
# Relative to the largest of all gradients; of a loss, to the loss. Sums in another order differ by far less, a weight
# that learns nothing by all.
TOLERANCE_OF_GRADIENTS = 1e-3
_ROWS_OF_GRADIENTS = 4
# Relative to the largest value of the rows: a row alone and in a batch, and half precision's rounding.
_TOLERANCE_OF_STORED = {"float16": 4e-3, "float32": 1e-3}
# Rows of the check, fewer where they are long: it costs a few forwards of them.
PROBE_ROWS, PROBE_TOKENS = 24, 3072
# What enters and what is read of it does not depend on the length: short pieces of real rows tell.
_PIECES = (4, 7, 11, 16)


class Refused(Exception):
    """The frozen part cannot be recorded for this model; the message says why, for the user."""


class OverBudget(Refused):
    """What would be recorded takes more than the budget, or than other runs leave of it."""


class Overflow(Refused):
    """A value is too large for the stored precision; `group` names the boundary."""

    def __init__(self, group: str, dtype: str) -> None:
        super().__init__(f"a value that enters {group} is not finite in {dtype}")
        self.group = group


def over_budget(wanted: int, budget: int) -> OverBudget:
    """Of a recording that would not fit into an empty cache."""
    return OverBudget(f"{wanted / 1e6:,.0f} MB are needed, the budget is {budget / 1e6:,.0f} MB")


@dataclass(frozen=True)
class Checked:
    """A boundary that was found, and replayed truly.

    Attributes:
        boundary: Where.
        dtype: The precision in which stored values reproduce the outputs.
        error: Largest difference of the outputs, relative to the largest output, in that precision.
    """

    boundary: Boundary
    dtype: str
    error: float


def find_boundary(
    task: Task, model: nn.Module, groups: LayerGroups, group: str, examples: Sequence[Example]
) -> Boundary:
    """The boundary below `group`.

    Args:
        examples: A few rows of different lengths.

    Raises:
        Refused: Where the model has no single place that could be recorded.
    """
    model.eval()
    try:
        return _find_boundary(task, model, groups, group, pieces(task, model, examples))
    except Refused:
        raise
    except Exception:
        # A model or a task that wants whole rows: BART pools at the end token.
        return _find_boundary(task, model, groups, group, examples)


def _find_boundary(
    task: Task, model: nn.Module, groups: LayerGroups, group: str, examples: Sequence[Example]
) -> Boundary:
    device = device_of(model)
    inputs = task.collate(list(examples)).to(device).inputs
    if group == HEAD and "decoder_input_ids" in inputs:
        raise Refused("what enters this head belongs to the tokens that are written, and not to the row alone")
    if _attends_sparsely(model):
        raise Refused("sparse attention (block_sparse) depends on the length of a batch, and changes with short ones")
    below = tuple(groups.names[: groups.names.index(group)])
    encoder = encoder_of(groups, model, group)
    module = encoder or entry_module(groups, model, group, inputs)
    if module is None:
        raise Refused(f"no single module of this model is entered at {group}")
    place = Boundary(group, module, below, "row", (), "output" if encoder else "input")
    hidden = _at(model, place, inputs)
    if "input_ids" in inputs and hidden.ndim == 3 and hidden.shape[:2] == inputs["input_ids"].shape:
        reads = positions_read(model, module, inputs) if group == HEAD else "all"
        # Trap: an encoder's padding is masked by the decoder, which needs all of the row's inputs for it.
        return replace(place, reads=reads, shape=(hidden.shape[-1],), keeps_inputs=encoder is not None)
    alone = _at(model, place, task.collate(list(examples[:1])).to(device).inputs)
    if len(hidden) != len(examples) or alone.shape[1:] != hidden.shape[1:]:
        shapes = f"{tuple(alone.shape)} for one row, {tuple(hidden.shape)} for {len(examples)}"
        raise Refused(f"what enters {group} is neither one vector a token nor of one shape for all rows: {shapes}")
    return replace(place, shape=tuple(hidden.shape[1:]))


def _at(model: nn.Module, boundary: Boundary, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What is at a boundary in a forward of these inputs."""
    with capturing(model, [boundary]) as found:
        run_to_boundary(model, inputs)
    return found[boundary]


def check(
    task: Task,
    model: nn.Module,
    groups: LayerGroups,
    boundary: Boundary,
    examples: Sequence[Example],
    dtype: str | None = None,
) -> Checked:
    """Compare replayed outputs with those of the full forward, in float32 and then in half precision.

    Args:
        dtype: The precision that was found before, when the head was another: it stays.

    Raises:
        Refused: Where they disagree in float32: a later layer needs more than what enters the boundary.
    """
    try:
        if boundary.reads != "all" and not boundary.keeps_inputs:
            try:
                return _check(task, model, groups, boundary, examples, dtype)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                boundary = replace(boundary, keeps_inputs=True)
        return _check(task, model, groups, boundary, examples, dtype)
    except (AssertionError, RuntimeError, IndexError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        # A model that does more between its layers than stand-ins can imitate fails in its own way.
        raise Refused(f"this model cannot be replayed at {boundary.group}: {str(error).splitlines()[0]}") from error


def _check(
    task: Task,
    model: nn.Module,
    groups: LayerGroups,
    boundary: Boundary,
    examples: Sequence[Example],
    dtype: str | None,
) -> Checked:
    device = device_of(model)
    batch = task.collate(list(examples)).to(device)
    model.eval()
    with torch.no_grad():
        outputs = task.predict(model, batch)
    full = _of_real_tokens(outputs, batch.inputs)
    if len(full) > 1 and not (full.float() - full[:1].float()).abs().max() > 0:
        raise Refused("the head gives the same for every row, so nothing can be checked")
    recorded = _recorded_alone(task, model, boundary, examples)
    shown = task.collate([shortened(task, e, boundary) for e in examples]).to(device)
    replay = Replay(model, groups, boundary, inputs_like(task, model, examples))

    def replayed(values: torch.Tensor) -> torch.Tensor:
        replay.show(values, shown.inputs)
        with replay.installed(), torch.no_grad():
            return task.predict(model, shown)

    exact = _difference(full, _of_real_tokens(replayed(recorded), shown.inputs))
    if not exact <= TOLERANCE_FLOAT32:
        raise Refused(
            f"replaying at {boundary.group} changes the outputs by {exact:.1g} of the largest "
            f"({TOLERANCE_FLOAT32:g} allowed): a layer above needs more than the hidden states, "
            "or they depend on the padding"
        )
    few = list(examples[:_ROWS_OF_GRADIENTS])
    _check_gradients(task, model, groups, boundary, few, replay, recorded)
    half = recorded.to(torch.float16)
    if dtype != "float32" and torch.isfinite(half).all():
        of_half = replayed(half.float())
        error = _difference(full, _of_real_tokens(of_half, shown.inputs))
        same = _same_answers(task, outputs, of_half, batch.inputs)
        if dtype == "float16" or (error <= TOLERANCE_HALF and same >= SAME_TOP_CLASS):
            return Checked(boundary, "float16", error)
    return Checked(boundary, "float32", exact)


def _check_gradients(
    task: Task,
    model: nn.Module,
    groups: LayerGroups,
    boundary: Boundary,
    examples: Sequence[Example],
    replay: Replay,
    recorded: torch.Tensor,
) -> None:
    """What lies above must learn from a replay what it learns from a forward.

    Trap: weights of the head may be read below its first module: a weighted sum of all layers (SUPERB's way with
    wav2vec 2.0) is recorded summed, and the weights of the sum would never move.

    Raises:
        Refused: Where a loss or a gradient differs.
    """
    device = device_of(model)
    above = {n: p for g in groups.names if g not in boundary.below for n, p in groups.parameters(g).items()}
    batch = task.collate(examples).to(device)
    shown = task.collate([shortened(task, e, boundary) for e in examples]).to(device)
    values = recorded[: len(examples)]
    if boundary.reads == "all":
        values = values[:, : shown.inputs["input_ids"].shape[1]]
    with only_these_train(model, above.values()):
        losses, wanted = _losses_and_gradients(task, model, batch, above)
        replay.show(values, shown.inputs)
        with replay.installed():
            found_losses, found = _losses_and_gradients(task, model, shown, above)
    for name, loss in losses.items():
        if not abs(found_losses[name] - loss) <= TOLERANCE_OF_GRADIENTS * max(1.0, abs(loss)):
            raise Refused(f"replaying at {boundary.group} changes the loss from {loss:.6g} to {found_losses[name]:.6g}")
    largest = max((float(g.abs().max()) for g in wanted.values() if g is not None), default=0.0)
    for name, gradient in wanted.items():
        replayed = found[name]
        if gradient is None or not gradient.any():
            continue
        if replayed is None:
            raise Refused(f"{name} is read below {boundary.group}, too, and would not learn")
        if not (replayed - gradient).abs().max() <= TOLERANCE_OF_GRADIENTS * largest:
            raise Refused(f"replaying at {boundary.group} changes the gradient of {name}")


def _losses_and_gradients(
    task: Task, model: nn.Module, batch: Batch, parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, float], dict[str, torch.Tensor | None]]:
    """The sum of each term of the loss, and the gradient of all together; None of what they do not depend on."""
    with torch.enable_grad():
        terms = task.loss(model, batch).terms
        total = torch.stack([term.sum.float() for term in terms.values()]).sum()
        if not total.requires_grad:
            gradients: Sequence[torch.Tensor | None] = [None] * len(parameters)
        else:
            gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return {n: float(t.sum.detach()) for n, t in terms.items()}, dict(zip(parameters, gradients, strict=True))


@contextmanager
def only_these_train(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside the block these parameters get gradients and no others."""
    chosen = {id(parameter) for parameter in parameters}
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in chosen)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


def _same_answers(task: Task, one: torch.Tensor, other: torch.Tensor, inputs: dict[str, torch.Tensor]) -> float:
    """The share of answers that are the same: classes of rows or of real tokens; or the tokens that are looked for."""
    axis = task.answer_axis
    if axis == -1:
        one, other = _of_real_tokens(one, inputs), _of_real_tokens(other, inputs)
    elif (mask := inputs.get("attention_mask")) is not None and one.shape[:2] == mask.shape:
        padding = (mask == 0).reshape(*mask.shape, *[1] * (one.ndim - 2))
        one, other = (tensor.masked_fill(padding, -torch.inf) for tensor in (one, other))
    if one.shape[axis] < 2:
        return 1.0
    return float((one.argmax(axis) == other.argmax(axis)).float().mean())


def _of_real_tokens(outputs: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Outputs for each token without those of the padding, which nobody reads; other outputs as they are."""
    mask = inputs.get("attention_mask")
    if mask is None or outputs.ndim < 3 or outputs.shape[:2] != mask.shape:
        return outputs
    return outputs[mask.bool()]


def _recorded_alone(task: Task, model: nn.Module, boundary: Boundary, examples: Sequence[Example]) -> torch.Tensor:
    """What enters the boundary for each row by itself, padded together.

    Trap: a model whose hidden states depend on the padding (Nystromformer's landmarks) would pass a comparison within
    one batch, and be wrong as soon as rows are batched otherwise than they were recorded.
    """
    found = []
    for example in examples:
        inputs = task.collate([example]).to(device_of(model)).inputs
        kept = _kept_positions(_at(model, boundary, inputs), boundary, np.asarray([example.length]))
        found.append(kept[0])
    if boundary.reads == "all":
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    return torch.stack(found)


def pieces(task: Task, model: nn.Module, examples: Sequence[Example]) -> list[Example]:
    """The beginnings of a few rows, of different lengths."""
    longest = sorted(examples, key=lambda e: -e.length)[: len(_PIECES)]
    if not _is_text(longest):
        return longest
    # Trap: a BigBird that sees short rows gives up its sparse attention for good. `unread` asks, too.
    if _attends_sparsely(model):
        return longest
    return [task.beginning(example, tokens) for example, tokens in zip(longest, _PIECES, strict=False)]


def _attends_sparsely(model: nn.Module) -> bool:
    """BigBird's own attention."""
    return getattr(getattr(model, "config", None), "attention_type", None) == "block_sparse"


def _is_text(examples: Sequence[Example]) -> bool:
    return all("input_ids" in example.inputs for example in examples)


def probe_rows(examples: Sequence[Example], seed: int) -> list[Example]:
    """The shortest, the longest and random rows, within `PROBE_TOKENS` padded together."""
    lengths = np.asarray([e.length for e in examples])
    drawn = np.random.default_rng(seed).choice(len(examples), min(len(examples), PROBE_ROWS - 2), replace=False)
    chosen = dict.fromkeys([int(lengths.argmin()), int(lengths.argmax()), *map(int, drawn)])
    most = max(4, PROBE_TOKENS // max(1, int(lengths.max())))
    return [examples[i] for i in list(chosen)[:most]]


def record(
    task: Task,
    model: nn.Module,
    checked: Sequence[Checked],
    examples: Sequence[Example],
    places: Sequence[Path],
    facts: Sequence[dict[str, Any]],
    *,
    budget_bytes: int,
    budget_tokens: int,
    reuse: Collection[str],
    say: Callable[[str], None],
    on_row: Callable[[int], None] = lambda rows: None,
    keep: Collection[str] = (),
    check_stop: Callable[[], None] = lambda: None,
) -> list[Store]:
    """Stores of all boundaries, in one pass over the rows; those that are there already are used again.

    Args:
        checked: Boundaries from the input upwards.
        places: Folder of each boundary's store; its name is the key.
        facts: What each store depends on, written with it.
        budget_bytes: Of all stores together; the least recently used make room.
        budget_tokens: Of one forward.
        reuse: Keys of stores that may be used where they are there already.
        say: Told what is done unasked.
        on_row: Told the number of rows done; may raise to stop.
        keep: Keys of stores that make no room: the run's own.
        check_stop: Called while another run records the same; may raise to stop.

    Raises:
        OverBudget: The budget is too small.
        Refused: It is taken by runs at work. `Overflow`: a value is not finite.
        ResourceError: E-DISK.
    """
    lengths = np.asarray([e.length for e in examples])
    parent = places[0].parent
    with only_builder(parent, [place.name for place in places], say, check_stop):
        found: dict[int, Store] = {}
        for i, place in enumerate(places):
            store, problem = Store.open(place) if place.name in reuse else (None, None)
            if store is not None and not _is_what_the_model_gives(task, model, checked[i], examples, lengths, store):
                store, problem = None, "they are not what this model gives"
            if problem is not None:
                say(f"the recorded activations {place.name[:8]} are recorded anew: {problem}")
            if store is None and place.is_dir():
                durable.remove(place)  # what replaces it must not find its room taken
            if store is not None:
                found[i] = store
        missing = [i for i in range(len(places)) if i not in found]
        if missing:
            _make(task, model, [checked[i] for i in missing], examples, lengths, [places[i] for i in missing],
                  [facts[i] for i in missing], budget_bytes, budget_tokens, say, on_row, keep, check_stop)  # fmt: skip
        return [found[i] if i in found else Store(places[i]) for i in range(len(places))]


def _is_what_the_model_gives(
    task: Task, model: nn.Module, checked: Checked, examples: Sequence[Example], lengths: np.ndarray, store: Store
) -> bool:
    """Whether two short rows of a store are what enters the boundary now.

    The key names all that we know the values to depend on. What we do not know (a task of the user's own that has come
    to normalise otherwise) shows here.
    """
    chosen = [int(i) for i in np.argsort(lengths, kind="stable")[:2]]
    kept = kept_lengths(checked.boundary, lengths)
    model.eval()
    now = _recorded_alone(task, model, checked.boundary, [examples[i] for i in chosen]).float().cpu().numpy()
    now = now.reshape(len(chosen), -1, store.width)
    before = store.padded(chosen, now.shape[1])
    largest = max(float(np.abs(now).max()), float(np.abs(before).max()))
    allowed = _TOLERANCE_OF_STORED[checked.dtype] * largest
    return all(np.abs(now[k, : kept[i]] - before[k, : kept[i]]).max() <= allowed for k, i in enumerate(chosen))


def _make(
    task: Task,
    model: nn.Module,
    checked: Sequence[Checked],
    examples: Sequence[Example],
    lengths: np.ndarray,
    places: Sequence[Path],
    facts: Sequence[dict[str, Any]],
    budget_bytes: int,
    budget_tokens: int,
    say: Callable[[str], None],
    on_row: Callable[[int], None],
    keep: Collection[str],
    check_stop: Callable[[], None],
) -> None:
    kept = [kept_lengths(c.boundary, lengths) for c in checked]
    wanted = sum(stored_bytes(k, c.boundary.width, c.dtype) for k, c in zip(kept, checked, strict=True))
    if wanted > budget_bytes:
        raise over_budget(wanted, budget_bytes)

    def fill(position: int, stagings: list[Path], room: ExitStack) -> None:
        """Open one staging folder inside the next, so that all are published or none is half-written."""
        if position < len(places):
            durable.publish(places[position], lambda staging: fill(position + 1, [*stagings, staging], room))
            return
        writers = [
            Writer(staging, k, c.boundary.width, c.dtype) for staging, k, c in zip(stagings, kept, checked, strict=True)
        ]
        room.close()  # the disk is taken: others may look for theirs
        _pass(task, model, checked, examples, lengths, writers, budget_tokens, on_row)
        for writer, fact in zip(writers, facts, strict=True):
            writer.close(fact)

    with ExitStack() as room:
        room.enter_context(only_reserving(places[0].parent, check_stop))
        gone, fits = make_room(places[0].parent, wanted, budget_bytes, keep)
        for key in gone:
            say(f"the recorded activations {key[:8]} of an earlier run made room")
        if not fits:
            raise OverBudget(
                f"{wanted / 1e6:,.0f} MB are needed, and what this run and others have used within ten minutes "
                f"leaves less of the budget, {budget_bytes / 1e6:,.0f} MB"
            )
        fill(0, [], room)


def _pass(
    task: Task,
    model: nn.Module,
    checked: Sequence[Checked],
    examples: Sequence[Example],
    lengths: np.ndarray,
    writers: Sequence[Writer],
    budget_tokens: int,
    on_row: Callable[[int], None],
) -> None:
    device = device_of(model)
    model.eval()
    done = 0

    def forward(rows: np.ndarray) -> None:
        run_to_boundary(model, task.collate([examples[i] for i in rows]).to(device).inputs)

    with capturing(model, [c.boundary for c in checked]) as found:
        for part in length_batches(lengths, budget_tokens):
            for rows, _ in in_smaller_parts(part, forward):
                for c, writer in zip(checked, writers, strict=True):
                    kept = _kept_positions(found[c.boundary], c.boundary, lengths[rows])
                    with np.errstate(over="ignore"):  # what does not fit is told below
                        values = kept.cpu().numpy().astype(writer.values.dtype)
                    if not np.isfinite(values).all():
                        raise Overflow(c.boundary.group, c.dtype)
                    for row, i in enumerate(rows):
                        one = values[row, : lengths[i]] if c.boundary.reads == "all" else values[row].reshape(1, -1)
                        writer.put(int(i), one)
            done += len(part)
            on_row(done)


def kept_lengths(boundary: Boundary, lengths: np.ndarray) -> np.ndarray:
    """Of rows of these lengths in tokens, how many positions are kept at a boundary, (rows,)."""
    return lengths if boundary.reads == "all" else np.ones_like(lengths)


def _kept_positions(hidden: torch.Tensor, boundary: Boundary, lengths: np.ndarray) -> torch.Tensor:
    """(batch, length, width), (batch, 1, width) or (batch, *shape): what is read above the boundary."""
    if boundary.reads == "last":
        return hidden[torch.arange(len(lengths)), torch.as_tensor(lengths) - 1].unsqueeze(1)
    if boundary.reads == "first":
        return hidden[:, :1]
    return hidden


def shortened(task: Task, example: Example, boundary: Boundary) -> Example:
    """The example with one token, the one that is read or any other: the model then pools a row of length 1.

    Of what is not text the content is left out. What the model looks at above the boundary, too, stays as it is.
    """
    if boundary.reads == "all" or boundary.keeps_inputs:
        return example
    if "input_ids" not in example.inputs:
        return task.without_content(example)
    place = example.length - 1 if boundary.reads == "last" else 0
    inputs = {k: v[place : place + 1] for k, v in example.inputs.items()}
    # Once a row and epoch: `replace` takes three times as long.
    return Example(inputs, example.target, example.row, 1, example.part, example.is_cut, parts=example.parts)


def inputs_like(
    task: Task, model: nn.Module, examples: Sequence[Example]
) -> Callable[[int, int], dict[str, torch.Tensor]]:
    """Valid model inputs of any size, made from a real row; of what is not text only the number of rows varies."""
    if not _is_text(examples):
        return lambda rows, tokens: task.collate([examples[0]] * rows).to(device_of(model)).inputs
    ids = max(examples, key=lambda e: e.length).inputs["input_ids"]

    def make(rows: int, tokens: int) -> dict[str, torch.Tensor]:
        repeated = np.resize(ids, tokens).astype(np.int32)
        repeated[-1] = ids[-1]  # BART and T5 look for the end token
        example = Example({"input_ids": repeated}, examples[0].target, examples[0].row, tokens)
        return task.collate([task.beginning(example, tokens)] * rows).to(device_of(model)).inputs

    return make


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference, relative to the largest output; infinite where a value is not finite."""
    a, b = a.float(), b.float()
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return float("inf")
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))
