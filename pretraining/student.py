"""Make the untrained student of builtin:text from its teacher: vocabulary, embeddings, two of its layers.

    python pretraining/student.py --teacher TEACHER --corpus general.txt.xz --output build/student

ELECTRA's architecture (arXiv 2003.10555) is used because its embeddings may be narrower than its layers: 128 numbers
for a token instead of 384 leave room for a useful vocabulary in a 12 MB package. The embeddings start as the
best rank-128 approximation of the teacher's (singular value decomposition), the layers as copies of two of its six.
"""

from __future__ import annotations

import argparse
import collections
import json
import lzma
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer, ElectraConfig, ElectraForMaskedLM, PreTrainedTokenizerFast

EMBEDDING_WIDTH = 128
POSITIONS = 256


def most_used_pieces(tokenizer: PreTrainedTokenizerFast, corpus: Path, size: int) -> list[str]:
    """Special tokens, single characters the corpus uses, and the most frequent pieces, in the teacher's order."""
    counts: collections.Counter[int] = collections.Counter()
    with lzma.open(corpus, "rt", encoding="utf-8") as lines:
        batch: list[str] = []
        for line in lines:
            batch.append(line.strip())
            if len(batch) == 2000:
                counts.update(i for e in tokenizer(batch, add_special_tokens=False, verbose=False).input_ids for i in e)
                batch = []
        counts.update(i for e in tokenizer(batch, add_special_tokens=False, verbose=False).input_ids for i in e)
    pieces = {i: piece for piece, i in tokenizer.get_vocab().items()}
    keep = set(tokenizer.all_special_ids)
    # Letters and digits, alone and as continuations, so that a removed word can still be spelled.
    keep |= {i for i, p in pieces.items() if len(p.removeprefix("##")) == 1 and (p.isascii() or counts[i] > 3)}
    for i, _ in counts.most_common():
        if len(keep) >= size:
            break
        keep.add(i)
    return [pieces[i] for i in sorted(keep)]


def small_tokenizer(teacher: PreTrainedTokenizerFast, pieces: list[str]) -> PreTrainedTokenizerFast:
    """The teacher's tokenizer with a part of its vocabulary."""
    description = json.loads(teacher.backend_tokenizer.to_str())
    description["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces)}
    for token in description["added_tokens"]:
        token["id"] = pieces.index(token["content"])
    processor = description.get("post_processor") or {}
    for name, special in (processor.get("special_tokens") or {}).items():
        special["ids"] = [pieces.index(name)]
    for key in ("cls", "sep"):
        if key in processor:
            processor[key][1] = pieces.index(processor[key][0])
    description["truncation"] = description["padding"] = None
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        model_max_length=POSITIONS,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def student_model(teacher: Any, ids: list[int], layers: list[int]) -> ElectraForMaskedLM:
    """The student with its start from the teacher."""
    big = teacher.config
    config = ElectraConfig(
        vocab_size=len(ids),
        embedding_size=EMBEDDING_WIDTH,
        hidden_size=big.hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=big.num_attention_heads,
        intermediate_size=big.intermediate_size,
        max_position_embeddings=POSITIONS,
        layer_norm_eps=big.layer_norm_eps,
        pad_token_id=0,
        # The student underfits in an hour of training; `export.py` puts dropout back for fine-tuning.
        hidden_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    student = ElectraForMaskedLM(config)
    words = teacher.embeddings.word_embeddings.weight[ids].float()
    positions = teacher.embeddings.position_embeddings.weight[:POSITIONS].float()
    types = teacher.embeddings.token_type_embeddings.weight.float()
    # The teacher normalises the sum at full width; the low-rank sum is scaled so that its norm layer changes little.
    _, singular, directions = torch.linalg.svd(words - words.mean(0), full_matrices=False)
    down = directions[:EMBEDDING_WIDTH].T  # (384, 128)
    with torch.no_grad():
        embeddings = student.electra.embeddings
        embeddings.word_embeddings.weight.copy_((words - words.mean(0)) @ down)
        embeddings.position_embeddings.weight.copy_(positions @ down)
        embeddings.token_type_embeddings.weight.copy_(types @ down)
        sums = embeddings.word_embeddings.weight[:2000]
        full = teacher.embeddings.LayerNorm(words[:2000] + types[0]).std()
        student.electra.embeddings_project.weight.copy_(
            down * full / torch.nn.functional.layer_norm(sums @ down.T, (down.shape[0],)).std()
        )
        student.electra.embeddings_project.bias.copy_(teacher.embeddings.LayerNorm.bias)
        for mine, its in zip(student.electra.encoder.layer, layers, strict=True):
            mine.load_state_dict(teacher.encoder.layer[its].state_dict())
    kept = float((singular[:EMBEDDING_WIDTH] ** 2).sum() / (singular**2).sum())
    print(f"{sum(p.numel() for p in student.parameters()):,} parameters; embeddings keep {kept:.0%} of their variance")
    return student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=15000)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.teacher)
    teacher = AutoModel.from_pretrained(arguments.teacher, dtype=torch.float32, add_pooling_layer=False)
    pieces = most_used_pieces(tokenizer, arguments.corpus, arguments.vocabulary)
    ids = tokenizer.convert_tokens_to_ids(pieces)
    arguments.output.mkdir(parents=True, exist_ok=True)
    student_model(teacher, ids, arguments.layers).save_pretrained(arguments.output)
    small_tokenizer(tokenizer, pieces).save_pretrained(arguments.output)
    (arguments.output / "teacher_ids.json").write_text(json.dumps(ids))


if __name__ == "__main__":
    main()
