"""A model loads completely or not at all, never from a pickle, never with code nobody allowed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub import errors as hub_errors
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

from unfreeze.errors import ModelError
from unfreeze.models import loading
from unfreeze.models.identity import as_started, identity_of
from unfreeze.models.loading import LoadedModel, load_config, load_model, load_processor, resolve

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "good", "bad", "very"]
PEPPERED = "bert.encoder.layer.1.output.dense.weight"


def write_tokenizer(folder: Path, words: list[str] = WORDS) -> None:
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20)
    BertForMaskedLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny-bert"))


def classifier(folder: Path, *, head_is_new: bool = True) -> LoadedModel:
    source = resolve(str(folder))
    return load_model(AutoModelForSequenceClassification, source, load_config(source), head_is_new=head_is_new)


def change_tensors(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(call: Any, code: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert caught.value.exit_status == 4
    assert caught.value.remedy
    return caught.value


# where a model is ------------------------------------------------------------------------------------------------


def test_a_folder_with_a_configuration_is_a_model(folder: Path) -> None:
    assert (resolve(str(folder)).kind, resolve(str(folder)).location) == ("folder", str(folder))


def test_a_finished_run_means_its_model_folder(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run / "model")
    (run / "status.json").write_text("{}")
    assert (resolve(str(run)).kind, resolve(str(run)).location) == ("run", str(run / "model"))


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    assert "unfreeze resume" in str(refusal(lambda: resolve(str(tmp_path)), "MODEL-UNKNOWN").remedy)


def test_a_builtin_model_is_a_folder_of_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, folder.parent / "text")
    monkeypatch.setattr(loading, "_builtin_folder", lambda: folder.parent)
    source = resolve("builtin:text")
    assert (source.kind, source.location) == ("builtin", str(folder.parent / "text"))


def test_an_unknown_builtin_model_is_suggested_another() -> None:
    assert "builtin:text" in str(refusal(lambda: resolve("builtin:txt"), "MODEL-UNKNOWN").remedy)


@pytest.mark.parametrize("name", ["./tiny-brt", "a/b/tiny", "../x", "~/nothing-here", "tiny/"])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_model(name: str) -> None:
    refusal(lambda: resolve(name), "MODEL-UNKNOWN")


def test_a_mistyped_path_is_suggested_the_folder_beside_it(folder: Path) -> None:
    error = refusal(lambda: resolve(str(folder.parent / "tiny-brt")), "MODEL-UNKNOWN")
    assert "tiny-bert" in str(error.remedy)


@pytest.mark.parametrize("name", ["", "a b", "org/na me", "--x", "x" * 200])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    refusal(lambda: resolve(name), "MODEL-UNKNOWN")


def test_a_file_and_a_folder_without_configuration_are_no_models(folder: Path, tmp_path: Path) -> None:
    refusal(lambda: resolve(str(folder / "config.json")), "MODEL-UNKNOWN")
    (tmp_path / "empty").mkdir()
    refusal(lambda: resolve(str(tmp_path / "empty")), "MODEL-UNKNOWN")


def test_a_hub_name_may_carry_a_revision() -> None:
    source = resolve("org/name@abc")
    assert (source.kind, source.location, source.revision) == ("hub", "org/name", "abc")
    assert resolve("bert-base-uncased").revision is None


# the Hub ---------------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def plant(folder: Path, cache: Path, name: str = "org/tiny") -> None:
    """Put a model into a Hugging Face cache as if it had been downloaded."""
    home = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, home / "snapshots" / COMMIT)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_cached_model_loads_by_its_id_without_a_network(folder: Path, cache: Path) -> None:
    plant(folder, cache)
    source = resolve("org/tiny")
    loaded = load_model(AutoModelForMaskedLM, source, load_config(source), head_is_new=False)
    assert loaded.revision == COMMIT
    assert load_processor(source)("good film")["input_ids"] == [2, 7, 6, 3]
    tensors = load_file(folder / "model.safetensors")
    assert torch.equal(loaded.model.state_dict()[PEPPERED], tensors[PEPPERED])


def test_a_hub_model_is_told_by_its_commit_and_found_again_when_its_branch_has_moved(folder: Path, cache: Path) -> None:
    plant(folder, cache)
    started = identity_of(resolve("org/tiny"))
    assert started == {"weights": f"org/tiny@{COMMIT}", "processor": ""}
    later = "f" * 40
    home = cache / "models--org--tiny"
    shutil.copytree(folder, home / "snapshots" / later)
    (home / "refs" / "main").write_text(later)
    assert identity_of(resolve("org/tiny")) != started
    for asked in ("org/tiny", "org/tiny@main"):
        name = as_started(asked, started["weights"])
        assert name == f"org/tiny@{COMMIT}"
        assert identity_of(resolve(name)) == started


def test_a_folder_is_told_by_weights_and_tokenizer_and_not_by_its_card(folder: Path) -> None:
    source = resolve(str(folder))
    before = identity_of(source)
    assert as_started(str(folder), before["weights"]) == str(folder)
    (folder / "README.md").write_text("read me")
    (folder / "training_args.json").write_text("{}")
    assert identity_of(source) == before
    change_json(folder / "tokenizer_config.json", model_max_length=7)
    assert identity_of(source) == {**before, "processor": identity_of(source)["processor"]} != before
    change_json(folder / "config.json", layer_norm_eps=1e-3)
    assert identity_of(source)["weights"] != before["weights"]


def test_a_process_that_was_started_offline_loads_a_cached_model_and_prints_nothing(
    folder: Path, tmp_path: Path
) -> None:
    plant(folder, tmp_path / "hub")
    code = """
        from transformers import AutoModelForSequenceClassification
        from unfreeze.models.loading import load_config, load_model, load_processor, resolve
        source = resolve("org/tiny")
        load_processor(source)
        loaded = load_model(AutoModelForSequenceClassification, source, load_config(source), head_is_new=True)
        print(len(loaded.new_parameters))
    """
    settings = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("4\n", "")


def test_a_model_that_is_not_cached_says_that_the_hub_is_off(cache: Path) -> None:
    error = refusal(lambda: load_config(resolve("org/nothing")), "MODEL-UNKNOWN")
    assert "HF_HUB_OFFLINE" in error.what
    assert "builtin:text" in str(error.remedy)


def test_a_mistyped_hub_name_is_suggested_a_known_model(cache: Path) -> None:
    error = refusal(lambda: load_config(resolve("distillbert-base-uncased")), "MODEL-UNKNOWN")
    assert "'distilbert-base-uncased'" in str(error.remedy)


def test_a_cached_pickle_is_refused(folder: Path, cache: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    plant(folder, cache)
    source = resolve("org/tiny")
    config = load_config(source)
    refusal(lambda: load_model(AutoModelForMaskedLM, source, config, head_is_new=False), "MODEL-PICKLE")


class Hub:
    """Stands for HfApi: answers with files, or raises."""

    answer: Any = None

    def model_info(self, name: str, *, revision: str | None, timeout: float) -> Any:
        assert timeout == loading.HUB_TIMEOUT_S, "a call without a time limit can hang for ever"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    return Hub


def hub_error(kind: Any) -> Exception:
    error: Exception = kind.__new__(kind)
    error.args = ("no",)
    return error


def test_a_model_that_the_hub_does_not_have_says_so(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "answer", hub_error(hub_errors.RepositoryNotFoundError))
    assert "not on the Hub" in refusal(lambda: load_config(resolve("org/nothing")), "MODEL-UNKNOWN").what


def test_a_withdrawn_model_loads_from_the_cache(
    folder: Path, cache: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "answer", hub_error(hub_errors.RepositoryNotFoundError))
    plant(folder, cache)
    assert load_config(resolve("org/tiny")).hidden_size == 16


@pytest.mark.parametrize("failure", [TimeoutError("slow"), ConnectionError("down"), OSError("unreachable")])
def test_a_hub_that_cannot_be_reached_is_said(
    failure: Exception, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "answer", failure)
    assert "cannot be reached" in refusal(lambda: load_config(resolve("org/nothing")), "MODEL-UNKNOWN").what


def test_a_gated_model_says_where_to_ask(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "answer", hub_error(hub_errors.GatedRepoError))
    error = refusal(lambda: load_config(resolve("org/nothing")), "MODEL-UNKNOWN")
    assert "hf auth login" in str(error.remedy)


def test_a_pickle_on_the_hub_is_refused_before_it_is_downloaded(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Info:
        siblings = [type("File", (), {"rfilename": name}) for name in ("config.json", "pytorch_model.bin")]  # noqa: RUF012

    monkeypatch.setattr(hub, "answer", Info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_a, **_k: pytest.fail("it was downloaded"))
    refusal(lambda: loading.fetch(resolve("org/name"), weights=True), "MODEL-PICKLE")


# configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"model_type": "nosuch"}', '{"model_type": "bert", "hidden_size": "x"}', "[" * 99999]
)
def test_an_unusable_configuration_is_broken(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refusal(lambda: load_config(resolve(str(folder))), "MODEL-BROKEN")


@pytest.mark.parametrize(
    "setting",
    [
        {"auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}},
        {"trust_remote_code": True},
        {"_attn_implementation_internal": "someone/kernel"},
        {"attn_implementation": {"": "someone/kernel"}},
    ],
)
def test_code_of_a_model_is_refused_and_not_run(folder: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    canary = tmp_path / "canary"
    (folder / "code.py").write_text(f"open({str(canary)!r}, 'w')")
    config = load_config(resolve(str(folder)))
    change_json(folder / "config.json", **setting)
    source = resolve(str(folder))
    refusal(lambda: load_config(source), "MODEL-REMOTE-CODE")
    refusal(lambda: load_model(AutoModelForMaskedLM, source, config, head_is_new=False), "MODEL-REMOTE-CODE")
    assert not canary.exists()


def test_code_of_a_tokenizer_is_refused(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tokenizer", None]})
    refusal(lambda: load_processor(resolve(str(folder))), "MODEL-REMOTE-CODE")


def test_allowed_code_of_a_folder_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = "from transformers import BertConfig\nclass Config(BertConfig):\n    model_type = 'mine'\n"
    (folder / "code.py").write_text(code)
    change_json(folder / "config.json", auto_map={"AutoConfig": "code.Config"}, model_type="mine")
    assert type(load_config(resolve(str(folder)), allow_remote_code=True)).__name__ == "Config"


def test_code_of_the_hub_needs_a_fixed_commit(folder: Path, cache: Path) -> None:
    change_json(folder / "config.json", auto_map={"AutoConfig": "code.Config"})
    plant(folder, cache)
    error = refusal(lambda: load_config(resolve("org/tiny"), allow_remote_code=True), "MODEL-REMOTE-CODE")
    assert f"org/tiny@{COMMIT}" in str(error.remedy)


def test_an_image_model_is_refused_for_text(tmp_path: Path) -> None:
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    error = refusal(lambda: classifier(tmp_path / "vit"), "MODEL-MODALITY")
    assert "images" in error.what


# tokenizer -------------------------------------------------------------------------------------------------------


def test_a_missing_tokenizer_is_not_replaced_by_an_empty_one(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    refusal(lambda: load_processor(resolve(str(folder))), "TOKENIZER")


def test_a_damaged_tokenizer_is_an_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    refusal(lambda: load_processor(resolve(str(folder))), "TOKENIZER")


def test_a_tokenizer_with_more_tokens_than_embeddings_belongs_to_another_model(folder: Path) -> None:
    write_tokenizer(folder, [*WORDS, "more", "words", "than", "rows"])
    error = refusal(lambda: load_processor(resolve(str(folder))), "TOKENIZER")
    assert "14 tokens" in error.what
    assert "12" in error.what


def write_decoder(folder: Path, *, eos: str | None) -> None:
    inner = Tokenizer(models.WordLevel({"<end>": 0, "a": 1, "film": 2, "<unk>": 3}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=eos, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=4, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def test_a_decoder_without_padding_pads_with_its_end_of_text_token(tmp_path: Path) -> None:
    write_decoder(tmp_path / "gpt", eos="<end>")
    source = resolve(str(tmp_path / "gpt"))
    assert load_processor(source).pad_token == "<end>"
    assert load_config(source).pad_token_id == 0


def test_a_tokenizer_that_cannot_pad_is_an_error(tmp_path: Path) -> None:
    write_decoder(tmp_path / "gpt", eos=None)
    refusal(lambda: load_processor(resolve(str(tmp_path / "gpt"))), "TOKENIZER")


# weights ---------------------------------------------------------------------------------------------------------


def test_a_new_head_is_all_that_may_be_new(folder: Path) -> None:
    loaded = classifier(folder)
    pooler, head = ["bert.pooler.dense.bias", "bert.pooler.dense.weight"], ["classifier.bias", "classifier.weight"]
    assert loaded.new_parameters == pooler + head
    assert any("cls.predictions" in note for note in loaded.notes)
    assert not loaded.model.training


def test_a_new_head_that_is_not_declared_is_an_error(folder: Path) -> None:
    error = refusal(lambda: classifier(folder, head_is_new=False), "MODEL-BROKEN")
    assert "has no head for BertForSequenceClassification" in error.what
    assert "classifier.weight" in error.what


def test_weights_saved_without_a_head_load_under_one(folder: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "bare")
    loaded = classifier(tmp_path / "bare")
    assert torch.equal(loaded.model.state_dict()[PEPPERED], load_file(folder / "model.safetensors")[PEPPERED])


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop(PEPPERED))
    assert PEPPERED in refusal(lambda: classifier(folder), "MODEL-BROKEN").what


def test_a_renamed_tensor_is_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({"bert.typo.weight": tensors.pop(PEPPERED)}))
    assert PEPPERED in refusal(lambda: classifier(folder), "MODEL-BROKEN").what


def test_a_tensor_that_no_other_head_explains_is_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({"bert.extra.weight": torch.zeros(3)}))
    assert "bert.extra.weight" in refusal(lambda: classifier(folder), "MODEL-BROKEN").what


def test_layers_beyond_the_configuration_are_not_dropped_in_silence(folder: Path) -> None:
    change_json(folder / "config.json", num_hidden_layers=1)
    assert "bert.encoder.layer.1" in refusal(lambda: classifier(folder), "MODEL-BROKEN").what


def test_layers_of_a_decoder_beyond_the_configuration_are_not_taken_for_another_head(tmp_path: Path) -> None:
    halves = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "max_position_embeddings": 16}
    halves |= {"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "d_model": 16}
    BartForConditionalGeneration(BartConfig(vocab_size=12, **halves)).save_pretrained(tmp_path / "bart")
    change_json(tmp_path / "bart" / "config.json", decoder_layers=1)
    source = resolve(str(tmp_path / "bart"))
    config = load_config(source)
    error = refusal(lambda: load_model(AutoModelForSeq2SeqLM, source, config, head_is_new=False), "MODEL-BROKEN")
    assert "model.decoder.layers.1" in error.what


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({PEPPERED: torch.zeros(16, 7)}))
    assert f"{PEPPERED} is [16, 7] instead of [16, 20]" in refusal(lambda: classifier(folder), "MODEL-BROKEN").what


def test_another_hidden_size_is_an_error(folder: Path) -> None:
    change_json(folder / "config.json", hidden_size=32)
    refusal(lambda: classifier(folder), "MODEL-BROKEN")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named_and_counted(folder: Path, value: float) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[PEPPERED][0, :3] = value

    change_tensors(folder, spoil)
    assert f"{PEPPERED} (3 of 320)" in refusal(lambda: classifier(folder), "MODEL-BROKEN").what


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_refused_and_not_opened(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    error = refusal(lambda: classifier(folder), "MODEL-PICKLE")
    assert name in error.what
    assert not (tmp_path / "canary").exists()


def test_no_weights_at_all_is_not_called_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"")
    refusal(lambda: classifier(folder), "MODEL-BROKEN")


def test_a_pickle_beside_safetensors_is_not_touched(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    classifier(folder)
    assert not (tmp_path / "canary").exists()


def damaged(whole: bytes, how: str, canary: Path) -> bytes:
    header = struct.unpack("<Q", whole[:8])[0]
    return {
        "empty": b"",
        "cut in the header": whole[: header // 2],
        "cut in the data": whole[:-100],
        "trailing bytes": whole + b"xx",
        "header of 1 TiB": struct.pack("<Q", 2**40) + whole[8:],
        "header that is no JSON": whole[:8] + b"\xff" * header + whole[8 + header :],
        "a pickle": pickle.dumps(Canary(canary)),
        "a zip archive": b"PK\x03\x04" + whole[4:],
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "cut in the header",
        "cut in the data",
        "trailing bytes",
        "header of 1 TiB",
        "header that is no JSON",
        "a pickle",
        "a zip archive",
    ],
)
def test_a_damaged_weight_file_is_broken(folder: Path, tmp_path: Path, how: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(damaged(path.read_bytes(), how, tmp_path / "canary"))
    refusal(lambda: classifier(folder), "MODEL-BROKEN")
    assert not (tmp_path / "canary").exists()


def shard(folder: Path) -> None:
    BertForMaskedLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="5KB")
    (folder / "model.safetensors").unlink(missing_ok=True)


def test_weights_in_several_files_load(folder: Path) -> None:
    expected = load_file(folder / "model.safetensors")[PEPPERED]
    shard(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert torch.equal(classifier(folder).model.state_dict()[PEPPERED], expected)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder)
    (folder / "model-00001-of-00002.safetensors").unlink(missing_ok=True)
    first = sorted(folder.glob("model-*.safetensors"))[0]
    first.unlink()
    assert "the index names" in refusal(lambda: classifier(folder), "MODEL-BROKEN").what


def test_an_index_may_not_point_outside_the_folder(folder: Path) -> None:
    shard(folder)
    outside = folder.parent / "outside.safetensors"
    save_file({"a": torch.zeros(1)}, outside)
    change_json(folder / "model.safetensors.index.json", weight_map={"a": "../outside.safetensors"})
    refusal(lambda: classifier(folder), "MODEL-BROKEN")


def test_tied_weights_survive_saving_and_loading(tmp_path: Path) -> None:
    write_decoder(tmp_path / "gpt", eos="<end>")
    source = resolve(str(tmp_path / "gpt"))
    ids = torch.tensor([[1, 2, 3, 1]])
    first = load_model(AutoModelForCausalLM, source, load_config(source), head_is_new=False).model
    with torch.no_grad():
        first.transformer.wte.weight.add_(0.5)
    first.save_pretrained(tmp_path / "again")
    write = resolve(str(tmp_path / "again"))
    second = load_model(AutoModelForCausalLM, write, load_config(source), head_is_new=False).model
    assert torch.equal(first(ids).logits, second(ids).logits)
    assert second.lm_head.weight is second.transformer.wte.weight


@pytest.mark.parametrize("padding", range(0, 64, 8))
def test_weights_lie_aligned_in_memory_wherever_they_lie_in_the_file(folder: Path, padding: int) -> None:
    """The same weights then give the same numbers to the last bit, from whichever file they were read."""
    path = folder / "model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "note": "x" * padding})
    addresses = {p.data_ptr() % 64 for p in classifier(folder).model.parameters()}
    assert addresses == {0}
