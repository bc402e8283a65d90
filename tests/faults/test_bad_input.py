"""What a person may give by mistake: each is one block with its place, exit status 2 (4 for models), nothing written.

Names start with the id of the fault where it has one: DA data, CF recipes, MF model files, KR runs.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import planted
import pytest
import transformers

TEXTS = [text for text in planted.texts(60) if text.isascii()][:20]
ROWS = [(text, "positive" if i % 2 else "negative") for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """builtin:text and bert-base-uncased, tiny, planted once."""
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch, folder)
        yield folder


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def csv_text(rows=ROWS, head="text,label"):
    return "\n".join([head, *(",".join(f'"{value}"' for value in row) for row in rows)]) + "\n"


def put(name, content):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def refused(*arguments, status=2, verb="train"):
    """The error block of a command that must fail; nothing may be left of it."""
    before = sorted(Path.cwd().rglob("*"))
    output = [] if verb != "train" else ["--output", "out"]
    said = planted.unfreeze(verb, *arguments, *output)
    assert said.status == status, said.err
    assert "Traceback" not in said.err
    assert verb == "inspect" or said.out == ""
    assert sorted(Path.cwd().rglob("*")) == before
    return said.err[said.err.index("E-") :]


def accepted(*arguments):
    """The plan of a command that must work, as JSON."""
    said = planted.unfreeze("plan", *arguments, "--json")
    assert said.status == 0, said.err
    return json.loads(said.out)


# files


def test_a_file_that_is_missing_suggests_its_neighbour():
    put("reviews.csv", csv_text())
    error = refused("rewiews.csv")
    assert error.startswith("E-DATA-MISSING")
    assert "did you mean 'reviews.csv'" in error
    assert "there is no folder" in refused("nowhere/reviews.csv")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.json", "x.parquet"])
def test_da_01_an_empty_file(name):
    error = refused(put(name, ""))
    assert error.startswith("E-DATA-EMPTY")
    assert name in error


@pytest.mark.parametrize(("name", "content"), [("x.csv", "text,label\n"), ("x.tsv", "text\tlabel\n"), ("x.json", "[]")])
def test_da_01_a_file_without_rows(name, content):
    assert refused(put(name, content)).startswith("E-DATA-EMPTY")


def test_da_01_a_folder_without_data():
    Path("folder").mkdir()
    assert refused("folder").startswith("E-DATA-EMPTY")
    put("folder/.hidden.csv", csv_text())
    assert refused("folder").startswith("E-DATA-EMPTY")


def workbook():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (workbook(), "zip archive or an Excel workbook"),
        (gzip.compress(b"text,label\n", mtime=0), "gzip"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PAR1....", "Parquet"),
        (b'{"text": "a", "label": "b"}\n', "JSON"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(content, what):
    error = refused(put("x.csv", content))
    assert error.startswith("E-DATA-FORMAT")
    assert what in error
    assert "do:" in error


def test_a_kind_of_file_that_is_not_read():
    error = refused(put("x.xlsx", workbook()))
    assert error.startswith("E-DATA-FORMAT")
    assert ".csv" in error


def test_da_06_a_parquet_file_that_is_cut_off():
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, labels = zip(*ROWS, strict=True)
    pq.write_table(pa.table({"text": texts, "label": labels}), "x.parquet")
    assert accepted("x.parquet")["data"]["rows"]["train"] == 18
    put("x.parquet", Path("x.parquet").read_bytes()[:-20])
    assert "damaged or truncated" in refused("x.parquet")


# rows and encodings


def test_da_02_a_byte_order_mark_is_no_part_of_the_column():
    put("x.csv", b"\xef\xbb\xbf" + csv_text().encode())
    assert accepted("x.csv")["data"]["roles"]["text"] == ["text"]


@pytest.mark.parametrize(
    ("encoding", "proposed"),
    [("cp1252", "cp1252"), ("latin-1", "cp1252"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le")],
)
def test_da_03_another_encoding_is_proposed_and_then_works(encoding, proposed):
    rows = [*ROWS[:3], ("café crème, naïve", "positive"), *ROWS[3:]]
    put("x.csv", csv_text(rows).encode(encoding))
    error = refused("x.csv")
    assert error.startswith("E-DATA-ENCODING")
    assert f"--set data.encoding={proposed}" in error
    assert "x.csv:5" in error or proposed.startswith("utf-16")
    assert accepted("x.csv", "--set", f"data.encoding={proposed}")["data"]["rows"]["train"] == 19


def test_da_03_one_wrong_byte_in_a_utf_8_file_names_its_row():
    content = csv_text([("naïve café", "positive"), ("crème brûlée", "negative")]).encode() + b'"caf\xe9","positive"\n'
    error = refused(put("x.csv", content))
    assert "x.csv:4" in error
    assert "correct row 4" in error


def test_da_03_an_encoding_that_does_not_exist():
    assert "no text encoding 'utf-99'" in refused(put("x.csv", csv_text()), "--set", "data.encoding=utf-99")


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("x.csv", 'text,label\na,b\n"never closed,c\n', "x.csv:3"),
        ("x.csv", "text,label\na,b\na,b,c\n", "x.csv:3"),
        ("x.csv", "text,label\na,b\na\n", "x.csv:3"),
        ("x.csv", "text,label\na,b\nx\0y,c\n", "x.csv:3"),
        ("x.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "x.jsonl:2"),
        ("x.jsonl", '{"text": "a", "label": "b"}\n["a", "b"]\n', "x.jsonl:2"),
        ("x.jsonl", '{"text": "a", "label": "b"}\n{"text": 3, "label": "b"}\n', "x.jsonl:2"),
        ("x.jsonl", '{"text": "a", "label": "b"}\n{"text": "\\ud83d", "label": "b"}\n', "x.jsonl:2"),
        ("x.jsonl", '{"text": "a", "label": "b"}\n{"text": ' + "[" * 100_000 + "\n", "x.jsonl:2"),
    ],
)
def test_da_04_da_05_a_broken_row_is_named(name, content, where):
    error = refused(put(name, content))
    assert error.startswith("E-DATA-ROW")
    assert f"where: {where}" in error


def test_da_04_two_columns_of_one_name():
    assert refused(put("x.csv", "text,label,text\na,b,c\n")).startswith("E-DATA-DUPLICATE-COLUMN")


def test_da_07_words_that_programs_take_for_nothing_are_texts_and_labels():
    rows = [("NA", "null"), ("null", "NA"), ("None", "null"), ("nan", "NA"), ("007", "null"), ("#N/A", "NA")] * 3
    plan = accepted(put("x.csv", csv_text(rows)), "--set", "data.validation=0")
    assert plan["data"]["rows"] == {"train": 18}
    assert plan["identity"]["labels"] == ["NA", "null"]


# columns and labels


def test_da_08_a_column_that_is_not_there_suggests_the_nearest():
    put("x.csv", csv_text())
    for role, asked, near in [("text", "txt", "text"), ("label", "lable", "label"), ("group", "labels", "label")]:
        error = refused("x.csv", "--set", f"data.{role}={asked}")
        assert error.startswith("E-DATA-COLUMN")
        assert f"did you mean '{near}'" in error


def test_da_08_no_column_that_could_be_the_text_or_the_label():
    assert "data.label" in refused(put("x.csv", csv_text([(t,) for t, _ in ROWS], head="text")))
    error = refused(put("y.csv", "a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(20))))
    assert error.startswith("E-DATA-COLUMN")
    assert "(columns: a, b)" in error


def test_da_08_columns_that_were_swapped():
    error = refused(put("x.csv", csv_text()), "--set", "data.text=label", "--set", "data.label=text")
    assert error.startswith("E-DATA-COLUMN")
    assert "--set data.text=text" in error


def test_a_text_column_full_of_numbers():
    put("x.csv", csv_text([(str(i), label) for i, (_, label) in enumerate(ROWS)]))
    error = refused("x.csv")
    assert error.startswith("E-DATA-TEXT")
    assert "'text'" in error


def test_da_09_rows_without_a_label_are_named_and_can_be_left_out():
    rows = [*ROWS[:4], ("no label here", ""), *ROWS[4:], ("nor here", "")]
    error = refused(put("x.csv", csv_text(rows)))
    assert error.startswith("E-DATA-LABEL")
    assert "2 of 22" in error
    assert "x.csv:6, x.csv:23" in error
    assert "--set data.drop_unlabelled=true" in error
    kept = accepted("x.csv", "--set", "data.drop_unlabelled=true")["data"]
    assert sum(kept["rows"].values()) == 20
    assert any("2 rows of train without a label were left out" in note for note in kept["notes"])


@pytest.mark.parametrize("has_column", [True, False])
def test_da_09_test_rows_whose_labels_were_kept_back_are_left_out_and_said(has_column):
    """As competitions have them: `predict` answers them."""
    put("data/train.csv", csv_text(ROWS))
    put("data/test.csv", csv_text([(text, "") for text, _ in ROWS]) if has_column else "text\nwhat is this\nand this\n")
    found = accepted("data")["data"]
    assert "test" not in found["rows"]
    assert any("test rows has a label: they are left out" in note for note in found["notes"])
    error = refused("data/train.csv", "--test", "data/test.csv")
    assert error.startswith(("E-DATA-LABEL", "E-DATA-COLUMN")), "rows that were named for it are not passed over"
    put("data/test.csv", csv_text(ROWS).replace("label", "Label", 1))
    assert refused("data").startswith("E-DATA-COLUMN"), "the label is there, under another name"
    put("data/test.csv", csv_text([*((text, "") for text, _ in ROWS[1:]), ROWS[0]]))
    assert "19 of 20 test rows have no label" in refused("data")


def test_da_37_more_than_half_of_the_rows_are_not_left_out():
    rows = [*ROWS, *((text, "") for text, _ in [*ROWS, *ROWS[:1]])]
    error = refused(put("x.csv", csv_text(rows)), "--set", "data.drop_unlabelled=true")
    assert error.startswith("E-DATA-LABEL")
    assert "21 of 41 train rows have no label: too many to leave out" in error


def test_da_09_no_row_has_a_label():
    assert refused(put("x.csv", csv_text([(t, "") for t, _ in ROWS]))).startswith(("E-DATA-LABEL", "E-DATA-COLUMN"))


def test_da_12_one_class_only():
    error = refused(put("x.csv", csv_text([(t, "positive") for t, _ in ROWS])))
    assert error.startswith(("E-DATA-ONE-CLASS", "E-DATA-LABEL"))
    assert "'positive'" in error


@pytest.mark.parametrize("split", ["validation", "test"])
def test_da_11_labels_that_only_held_out_rows_have(split):
    put("data/train.csv", csv_text())
    put(f"data/{split}.csv", csv_text([*ROWS[:4], ("a new one", "neutrl"), ("and more", "neutrl")]))
    error = refused("data")
    assert error.startswith("E-DATA-LABEL-UNSEEN")
    assert "'neutrl' (2 rows" in error
    assert f"{split}.csv:6" in error


def test_test_rows_without_the_columns_of_the_training_rows():
    put("x.csv", csv_text())
    put("y.csv", csv_text(head="text,labels"))
    error = refused("x.csv", "--test", "y.csv")
    assert error.startswith("E-DATA-COLUMN")
    assert "y.csv" in error
    assert "did you mean 'labels'" in error


def test_da_12_rows_that_are_too_few_to_hold_some_out_are_all_trained_on_and_it_is_said():
    plan = accepted(put("x.csv", csv_text(ROWS[:2])))
    assert plan["data"]["rows"] == {"train": 2}
    assert any("too few rows for validation" in note for note in plan["data"]["notes"])
    assert any("a single training row: 'negative', 'positive'" in warning for warning in plan["warnings"])


# settings


def test_kr_19_an_output_folder_that_holds_something():
    put("x.csv", csv_text())
    put("out/notes.txt", "mine")
    error = refused("x.csv")
    assert error.startswith("E-RUN-EXISTS")
    assert "--output out-2" in error
    put("file", "mine")
    assert planted.unfreeze("train", "x.csv", "--output", "file").err.startswith("E-RUN-EXISTS")
    os.mkfifo("pipe")  # as /dev/null: neither file nor folder, and root may rename over it
    assert planted.unfreeze("train", "x.csv", "--output", "pipe").err.startswith("E-RUN-EXISTS")
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


def test_cf_01_a_mistyped_setting():
    error = refused(put("x.csv", csv_text()), "--set", "train.epoch=3")
    assert error.startswith("E-RECIPE-KEY")
    assert "did you mean 'train.epochs'" in error


def test_cf_02_a_value_that_cannot_be():
    error = refused(put("x.csv", csv_text()), "--set", "train.learning_rate=-1")
    assert error.startswith("E-RECIPE-VALUE")
    assert "train.learning_rate" in error


@pytest.mark.parametrize("verb", ["train", "plan", "inspect"])
def test_an_unknown_task(verb):
    error = refused(put("x.csv", csv_text()), "--task", "text-clasification", verb=verb)
    assert error.startswith("E-TASK-UNKNOWN")
    assert "did you mean 'text-classification'" in error


def test_an_option_the_task_does_not_have():
    error = refused(put("x.csv", csv_text()), "--set", "options.problem_typ=regression")
    assert error.startswith("E-RECIPE-KEY")
    assert "did you mean 'problem_type'" in error


def test_a_problem_type_that_does_not_exist():
    error = refused(put("x.csv", csv_text()), "--set", "options.problem_type=regresion")
    assert error.startswith("E-TASK")
    assert "did you mean 'regression'" in error


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("last(9)", "layer groups"),
        ("graduel", "did you mean 'gradual'"),
        ("[{span: ['*.layer.77.*']}]", "*.layer.77.*"),
        ("[{span: hed}]", "did you mean 'head'"),
    ],
)
def test_a_schedule_that_does_not_fit_the_model(schedule, said):
    error = refused(put("x.csv", csv_text()), "--set", f"schedule={schedule}")
    assert error.startswith("E-SCHEDULE")
    assert said in error


def test_da_16_texts_longer_than_the_model_takes_are_not_asked_for():
    error = refused(put("x.csv", csv_text()), "--set", "train.max_length=100000")
    assert error.startswith("E-RECIPE-VALUE")
    assert "--set train.max_length=" in error


def test_a_weight_for_a_class_that_does_not_exist():
    error = refused(put("x.csv", csv_text()), "--set", "train.class_weights={positve: 2}")
    assert error.startswith("E-RECIPE-VALUE")
    assert "did you mean 'positive'" in error


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.validation=0", "train.early_stopping=2"], "early stopping needs validation rows"),
        (["schedule=[{span: head, epochs: 1}]", "train.epochs=3"], "train.epochs"),
        (["train.precision=fp16"], "fp16 needs a GPU"),
    ],
)
def test_cf_04_settings_that_contradict_each_other(settings, said, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    flags = [word for setting in settings for word in ("--set", setting)]
    error = refused(put("x.csv", csv_text()), *flags)
    assert error.startswith("E-RECIPE-CONFLICT")
    assert said in error


# models


def test_an_unknown_model_suggests_a_known_one():
    put("x.csv", csv_text())
    assert "did you mean 'distilbert-base-uncased'" in refused("x.csv", "--model", "distillbert", status=4)
    assert "builtin:text" in refused("x.csv", "--model", "builtin:txt", status=4)
    assert "does not exist" in refused("x.csv", "--model", "./no/such/folder", status=4)


def test_a_folder_that_is_no_model():
    put("x.csv", csv_text())
    Path("folder").mkdir()
    assert refused("x.csv", "--model", "folder", status=4).startswith("E-MODEL-UNKNOWN")


def test_mf_01_weights_that_are_only_there_as_a_pickle(models):
    put("x.csv", csv_text())
    shutil.copytree(models / "builtin" / "text", "pickled")
    Path("pickled/model.safetensors").unlink()
    put("pickled/pytorch_model.bin", b"\x80\x04cposix\nsystem\n(S'touch canary'\ntR.")
    said = planted.unfreeze("train", "x.csv", "--model", "pickled", "--output", "out")
    assert said.status == 4, said.err
    assert "E-MODEL-PICKLE" in said.err
    assert "Traceback" not in said.err
    assert not Path("canary").exists()
    assert not Path("out").exists()


def test_mf_05_a_model_that_needs_code_from_its_repository(models):
    put("x.csv", csv_text())
    shutil.copytree(models / "builtin" / "text", "coded")
    config = json.loads(Path("coded/config.json").read_text())
    put("coded/config.json", json.dumps({**config, "auto_map": {"AutoConfig": "code.Config"}}))
    put("coded/code.py", "open('canary', 'w')")
    error = refused("x.csv", "--model", "coded", status=4)
    assert error.startswith("E-MODEL-REMOTE-CODE")
    assert "--allow-remote-code" in error
    assert not Path("canary").exists()


def test_mf_09_weights_that_are_cut_off(models):
    put("x.csv", csv_text())
    shutil.copytree(models / "builtin" / "text", "cut")
    weights = Path("cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    said = planted.unfreeze("train", "x.csv", "--model", "cut", "--output", "out")
    assert (said.status, Path("out").exists()) == (4, False), said.err
    assert "E-MODEL-BROKEN" in said.err


def test_mf_12_a_model_of_another_modality(models):
    put("x.csv", csv_text())
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
    )
    transformers.ViTModel(config).save_pretrained("vit")
    error = refused("x.csv", "--model", "vit", status=4)
    assert error.startswith("E-MODEL-MODALITY")
    assert "images" in error


# evaluating and predicting


def test_a_file_to_predict_without_the_text_column(models):
    put("x.csv", csv_text())
    run = planted.unfreeze("train", "x.csv", *planted.QUICK, "--output", "run")
    assert run.status == 0, run.err
    put("y.csv", "number\n1\n2\n")
    error = refused("run", "y.csv", verb="predict")
    assert error.startswith("E-DATA-COLUMN")
    put("z.csv", csv_text([("a new text", "neutral")]))
    error = refused("run", "z.csv", verb="evaluate")
    assert error.startswith("E-DATA-LABEL-UNSEEN")
    assert "z.csv:2" in error
    error = refused("run", put("w.csv", csv_text(head="words,label")), verb="evaluate")
    assert error.startswith("E-DATA-COLUMN")
    assert "the run reads 'text' and 'label', as in training: name the file's columns so" in error
    assert "--set" not in error
    latin = put("latin.csv", csv_text([("caf\u00e9", "positive")]).encode("cp1252"))
    for verb in ("evaluate", "predict"):
        assert "do:    --encoding cp1252" in refused("run", latin, verb=verb)
    assert refused("run", put("empty.csv", ""), verb="predict").startswith("E-DATA-EMPTY")
    Path("run/model/model.safetensors").write_bytes(b"")
    error = refused("run", "a text", verb="predict", status=4)
    assert error.startswith("E-MODEL-BROKEN")
