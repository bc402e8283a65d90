"""Only the words that the training rows contain are trained.

The gradient of a word's vector is zero where no training row has the word, and Adam leaves a vector alone that never
had a gradient: a step over the whole table passes through memory for nothing. Of BERT's 30,522 words 2,000 short
reviews contain a fifth, and the table is half of a small model. Here the vectors of these words are gathered into a
parameter of their own, which takes the table's place in forward, backward and optimizer; the others stay as they were
pretrained, weight decay included, which would only shrink them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from unfreeze.activations.record import pieces
from unfreeze.models.layers import modes_kept
from unfreeze.tasks.base import Task
from unfreeze.types import Example

# Where nearly every word occurs, looking up twice costs more than it saves.
_LARGEST_SHARE = 0.75


class SeenWords:
    """The vectors of the words that occur, trained in place of their table.

    ``parameter`` holds them between `enter` and `leave`. The table lags behind until `write_back`: call it before
    anything reads the model's weights.

    Args:
        name: Of the table, as in ``model.named_parameters()``.
        table: The word embedding.
        ids: Of the words that occur, ascending, each once.
    """

    def __init__(self, name: str, table: nn.Embedding, ids: np.ndarray) -> None:
        self.name, self.table = name, table
        self.ids = torch.from_numpy(ids.astype(np.int64))
        self.places = torch.full((table.num_embeddings,), -1, dtype=torch.int64)
        self.places[self.ids] = torch.arange(len(ids))
        padding = table.padding_idx
        self._padding = int(self.places[padding]) if padding is not None and self.places[padding] >= 0 else None
        self.parameter: nn.Parameter | None = None

    @classmethod
    def find(
        cls, task: Task, model: nn.Module, trained: Collection[str], examples: Sequence[Example]
    ) -> SeenWords | None:
        """The table of a model's words, if nothing but looking up input ids uses it; else None.

        That is tried with a forward and backward of a few short rows, not taken from the model's name: BART, say,
        looks up ids that no row has.

        Args:
            task: Bound; with random augmentation any word may come.
            model: On the CPU; modes and ``requires_grad`` are left as they are.
            trained: Names of all weights that will be trained at some time.
            examples: All that it will be trained on.
        """
        if not all("input_ids" in e.inputs for e in examples):
            return None
        table = getattr(model, "get_input_embeddings", lambda: None)()
        if task.augments or type(table) is not nn.Embedding or table.sparse or table.max_norm is not None:
            return None
        names = [n for n, p in model.named_parameters(remove_duplicate=False) if p is table.weight]
        if len(names) != 1 or names[0] not in trained:
            return None  # tied to an output layer, whose gradient reaches every word; or frozen throughout
        ids = occurring(task, examples, table.num_embeddings)
        if len(ids) > _LARGEST_SHARE * table.num_embeddings or not _only_looks_up(task, model, table, examples):
            return None
        return cls(names[0], table, ids)

    def enter(self) -> nn.Parameter:
        """Gather the vectors as the table has them; the table itself gets no gradient from here on."""
        weight = self.table.weight
        self.ids, self.places = self.ids.to(weight.device), self.places.to(weight.device)
        weight.requires_grad_(False)
        self.parameter = nn.Parameter(weight.detach()[self.ids])
        return self.parameter

    def leave(self) -> None:
        """From here on the table is looked up again, and is the trained parameter."""
        if self.parameter is not None:
            self.write_back()
            self.table.weight.requires_grad_(True)
            self.parameter = None

    def write_back(self) -> None:
        """Let the table hold what was trained."""
        if self.parameter is not None:
            with torch.no_grad():
                self.table.weight[self.ids] = self.parameter

    def read_again(self) -> None:
        """The table has got other weights: gather them."""
        if self.parameter is not None:
            with torch.no_grad():
                self.parameter.copy_(self.table.weight[self.ids])

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside the block a forward in training mode looks up the gathered vectors."""
        self.table.forward = self._look_up  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.table.forward
            self.leave()

    def _look_up(self, input: torch.Tensor) -> torch.Tensor:
        if self.parameter is None or not self.table.training:
            return nn.Embedding.forward(self.table, input)
        places = self.places[input]
        if bool((places < 0).any()):
            strange = sorted(set(input[places < 0].tolist()))[:5]
            raise RuntimeError(f"ids {strange} are looked up, which no training row contains")
        return F.embedding(places, self.parameter, self._padding)


def occurring(task: Task, examples: Sequence[Example], known: int) -> np.ndarray:
    """Ids of all words in `examples`, of `known` ones, and what fills short rows of a batch; ascending."""
    shortest, longest = min(examples, key=lambda e: e.length), max(examples, key=lambda e: e.length)
    occurs = np.zeros(known, dtype=bool)
    occurs[task.collate([shortest, longest]).inputs["input_ids"].numpy()] = True
    for example in examples:
        occurs[example.inputs["input_ids"]] = True
    return np.flatnonzero(occurs)


def _only_looks_up(task: Task, model: nn.Module, table: nn.Embedding, examples: Sequence[Example]) -> bool:
    batch = task.collate(pieces(task, model, examples))
    needed_gradient = table.weight.requires_grad
    table.weight.requires_grad_(True)
    try:
        with modes_kept(model):
            model.eval()
            loss = torch.stack([term.sum for term in task.loss(model, batch).terms.values()]).sum()
            (gradient,) = torch.autograd.grad(loss, table.weight)
    except Exception:
        return False  # a model that wants whole rows, or does not look up this table at all; nothing is lost
    finally:
        table.weight.requires_grad_(needed_gradient)
    reached = torch.nonzero(gradient.abs().amax(1)).ravel()
    return bool(torch.isin(reached, batch.inputs["input_ids"]).all())
