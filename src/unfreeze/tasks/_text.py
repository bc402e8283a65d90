"""What all text tasks share: tokenizing rows, padding, limits."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unfreeze.errors import DataError, RecipeError
from unfreeze.types import Example, Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table

# Where a loss asks for nothing.
NOT_A_TARGET = -100
# Which length of the training rows is told where nothing is cut.
SHOWN_QUANTILE = 0.995
SHOWN_TOKENS = 24
# A tokenizer without a limit says so with a number like 1e30.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class Written:
    """What a model answers: the texts it wrote, and where the true ones are known its logits for their tokens."""

    texts: list[str]
    logits: torch.Tensor | None = None


def longest_input_tokens(config: Any, tokenizer: Any) -> int:
    """The most tokens a model takes, special tokens included."""
    config = getattr(config, "text_config", config)
    stated_by_config = ("max_position_embeddings", "n_positions", "max_sequence_length")
    found = (getattr(config, name, None) for name in stated_by_config)
    limits: list[int] = [limit for limit in found if isinstance(limit, int) and limit > 0]
    if limits and getattr(config, "model_type", "") in _OFFSET_POSITIONS:
        limits = [limit - 1 - (config.pad_token_id or 0) for limit in limits]
    stated = getattr(tokenizer, "model_max_length", None)
    if isinstance(stated, int) and 0 < stated < _NO_LIMIT:
        limits.append(stated)
    return min(limits) if limits else 512


# These count positions from the padding id on, so that the table has pad_token_id + 1 rows that no token can use.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "xlm-roberta-xl", "data2vec-text"}


def tokenize(row: Row, columns: Sequence[str], tokenizer: Any, max_length: int) -> tuple[dict[str, np.ndarray], bool]:
    """Token ids of a row's text, or pair of texts; further columns are joined to the second by a line break.

    Returns:
        The model inputs, each (length,), and whether the text was cut at `max_length` tokens.

    Raises:
        DataError: E-DATA-ROW for a missing text or one with characters that no encoding has.
    """
    texts = [text_of(row, column) for column in columns]
    pair = "\n".join(texts[1:]) if len(texts) > 1 else None
    try:
        encoded = tokenizer(
            texts[0], pair, truncation=True, max_length=max_length, return_attention_mask=False, verbose=False
        )
    except (TypeError, UnicodeError) as error:
        raise DataError("DATA-ROW", f"the text cannot be tokenized: {error}", where=row.place) from None
    ids = np.asarray(encoded["input_ids"], dtype=np.int32)
    if not len(ids):
        # An empty text with a tokenizer that adds no special tokens: one end or padding token stands for it.
        ids = np.asarray([_filler(tokenizer)], dtype=np.int32)
    inputs = {"input_ids": ids}
    types = encoded.get("token_type_ids")
    if types is not None and any(types):
        inputs["token_type_ids"] = np.asarray(types, dtype=np.int32)
    return inputs, _is_cut(encoded, texts[0], pair, tokenizer, max_length)


def frame_of(tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The special tokens a tokenizer puts before and after a text, each (n,) int32."""
    encoded = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    ids, special = np.asarray(encoded["input_ids"], dtype=np.int32), np.asarray(encoded["special_tokens_mask"])
    inside = np.flatnonzero(special == 0)
    return ids[: inside[0]], ids[inside[-1] + 1 :]


def windows(row: Row, column: str, tokenizer: Any, max_length: int) -> list[dict[str, np.ndarray]]:
    """Model inputs of a row's text, each (length,); of a long one in as few windows as hold all of it.

    They are of one length and start at equal distances, so that each counts alike and none is a mere rest. Neighbours
    share at least an eighth of a window.
    """
    inputs, is_cut = tokenize(row, (column,), tokenizer, max_length)
    if not is_cut:
        return [inputs]
    before, after = frame_of(tokenizer)
    room = max_length - len(before) - len(after)
    encoded = tokenizer(text_of(row, column), add_special_tokens=False, return_attention_mask=False, verbose=False)
    ids = np.asarray(encoded["input_ids"], dtype=np.int32)
    shared = room // 8
    count = 1 + math.ceil((len(ids) - room) / (room - shared))
    starts = np.linspace(0, len(ids) - room, count).round().astype(int)
    whole = [np.concatenate([before, ids[start : start + room], after]) for start in starts]
    types = inputs.get("token_type_ids")  # of a text that fills a window, too: XLNet's last token has one of its own
    return [{"input_ids": found} if types is None else {"input_ids": found, "token_type_ids": types} for found in whole]


def _filler(tokenizer: Any) -> int:
    found = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id
    return int(found or 0)


def _is_cut(encoded: Any, text: str, pair: str | None, tokenizer: Any, max_length: int) -> bool:
    encodings = getattr(encoded, "encodings", None)
    if encodings:
        return bool(encodings[0].overflowing)
    if len(encoded["input_ids"]) < max_length:
        return False
    # A tokenizer that is not of the quick kind does not say what it left out.
    return len(tokenizer(text, pair, return_attention_mask=False, verbose=False)["input_ids"]) > max_length


def text_of(row: Row, column: str) -> str:
    """What a row says in a column.

    Raises:
        DataError: E-DATA-ROW.
    """
    value = row.values.get(column)
    if value is None:
        raise DataError("DATA-ROW", f"there is no text in column '{column}'", where=row.place)
    return value if isinstance(value, str) else str(value)


def pad(examples: Sequence[Example], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Model inputs padded on the right to the longest example, with their attention mask.

    Returns:
        ``input_ids``, ``attention_mask`` and, where the tokenizer has them, ``token_type_ids``: (batch, length), int64.
    """
    given = [e.inputs["input_ids"] for e in examples]
    lengths = np.asarray([len(ids) for ids in given])
    is_real = np.arange(lengths.max()) < lengths[:, None]  # (batch, length)
    ids = np.full(is_real.shape, int(tokenizer.pad_token_id or 0), dtype=np.int64)
    ids[is_real] = np.concatenate(given)
    padded = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(is_real.astype(np.int64))}
    if "token_type_ids" in tokenizer.model_input_names:
        types = np.zeros_like(ids)
        if any("token_type_ids" in e.inputs for e in examples):
            none = [e.inputs.get("token_type_ids", np.zeros_like(e.inputs["input_ids"])) for e in examples]
            types[is_real] = np.concatenate(none)
        padded["token_type_ids"] = torch.from_numpy(types)
    return padded


def teacher_forced(
    wanted: Sequence[Sequence[int]], prompt: Sequence[int], filler: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a decoder is given so that it says each next token of what is wanted, and those next tokens.

    Args:
        wanted: Tokens of each row, that of the end included.
        prompt: That every row begins with; it is given, and not asked for.
        filler: Token where a row has ended.

    Returns:
        Both (batch, length) int64; `NOT_A_TARGET` in the second where nothing is asked for.
    """
    begun = len(prompt) - 1
    length = begun + max(1, *(len(tokens) for tokens in wanted)) if wanted else begun + 1
    given = torch.full((len(wanted), length), filler, dtype=torch.int64)
    asked = torch.full((len(wanted), length), NOT_A_TARGET, dtype=torch.int64)
    given[:, : begun + 1] = torch.tensor(list(prompt))
    for i, tokens in enumerate(wanted):
        asked[i, begun : begun + len(tokens)] = torch.tensor(list(tokens), dtype=torch.int64)
        given[i, begun + 1 : begun + len(tokens)] = torch.tensor(list(tokens[:-1]), dtype=torch.int64)
    return given, asked


def generation_config(model: Any, **settings: Any) -> Any:
    """A checkpoint's own settings of writing (forced tokens, bad words), but for lengths and search, which a task sets.

    Settings of drawing, which a checkpoint may have, mean nothing here and would be warned of.
    """
    found = copy.deepcopy(model.generation_config)
    plain = {"max_length": None, "min_length": 0, "do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    found.update(**plain, **settings)
    return found


def longest_input(task: Any, asked: int | None, train: Table, config: Any, *, in_parts: bool) -> tuple[int, str]:
    """See `Task.longest_input`; whether longer texts are read in parts.

    Raises:
        RecipeError: E-RECIPE-VALUE.
    """
    limit = longest_input_tokens(config, task.processor)
    if asked is not None:
        if asked > limit:
            raise RecipeError(
                "RECIPE-VALUE",
                f"train.max_length is {asked}, but this model takes at most {limit} tokens",
                where="train.max_length",
                remedy=f"--set train.max_length={limit}",
            )
        return asked, "named in the recipe"
    cap = min(limit, task.most_tokens)
    if in_parts:
        return cap, "longer texts are cut into pieces of this length, none is lost"
    sample = np.linspace(0, len(train) - 1, min(len(train), 2000)).astype(int)
    task.max_length = cap
    lengths = np.asarray([task.encode(train.row(int(i)), train=False)[0].length for i in sample])
    needed = int(np.quantile(lengths, SHOWN_QUANTILE))
    if lengths.max() >= cap:
        return cap, f"the model's limit; {np.mean(lengths >= cap):.1%} of the texts are longer and are cut"
    # All lengths seen are kept: cutting a few long texts would save nothing, since batches are bucketed.
    return cap, f"the texts are short ({needed} tokens at the 99.5 % quantile), so nothing is cut"


def tokens_shown(tokenizer: Any, example: Example) -> str:
    """The first tokens of an example, for people."""
    ids = example.inputs["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids[:SHOWN_TOKENS].tolist())
    cut = ", cut at the limit" if example.is_cut else ""
    more = f" ... and {len(ids) - SHOWN_TOKENS} more" if len(ids) > SHOWN_TOKENS else ""
    return f"{example.length} tokens{cut}: {' '.join(tokens)}{more}"
