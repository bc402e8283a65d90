"""Files, folders and objects to rows: exactly as they stand, or an error with file and row."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.data import Splits, read
from unfreeze.data.columns import guess_roles
from unfreeze.data.sources import keep, kept
from unfreeze.errors import DataError

ROWS = [{"text": "a fine film", "label": "pos"}, {"text": "a dull film", "label": "neg"}]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(data: object, code: str, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        read(data, **options)  # type: ignore[arg-type]
    assert caught.value.code == code, caught.value
    return caught.value


def values(splits: Splits) -> list[dict[str, object]]:
    return [dict(row.values) for row in splits.train]


# CSV


def test_a_csv_is_read_exactly_as_it_stands(tmp_path: Path) -> None:
    odd = ["NA", "null", "None", "nan", "007", " spaces ", "", "1.0", "true", "x\ny", 'say "hi"', "a,b", "\u200bzero"]
    with open(tmp_path / "odd.csv", "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["text", "label"], *([text, "a"] for text in odd)])
    assert read(tmp_path / "odd.csv").train.column("text") == odd


def test_every_row_knows_the_line_it_starts_on(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", 'text,label\n"two\nlines",a\nplain,b\n"three\n\nlines",c\nlast,d\n')
    table = read(path).train
    assert [row.place for row in table] == ["r.csv:2", "r.csv:4", "r.csv:5", "r.csv:8"]
    assert [table.row(i).place for i in range(4)] == [row.place for row in table]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_is_fine_and_a_byte_order_mark_is_dropped(tmp_path: Path, end: str) -> None:
    path = write(tmp_path / "r.csv", "\ufeff" + end.join(["text,label", "a fine film,pos", "a dull film,neg", ""]))
    assert values(read(path)) == ROWS


@pytest.mark.parametrize(
    ("content", "code", "row", "words"),
    [
        ("text,label\nfine,pos\na, b,neg\n", "DATA-ROW", ":3", "3 fields instead of 2"),
        ("text,label\nfine\n", "DATA-ROW", ":2", "1 fields instead of 2"),
        ('text,label\nfine,pos\n"never closed,neg\nmore,pos\n', "DATA-ROW", ":3", "never closed"),
        ('text,label\n"closed" badly,neg\n', "DATA-ROW", ":2", "not closed properly"),
        ("text,label\nfine,pos\na\0b,neg\n", "DATA-ROW", ":3", "NUL"),
        ("text,text\nfine,pos\n", "DATA-DUPLICATE-COLUMN", ":1", "'text'"),
        ("", "DATA-EMPTY", "", "empty"),
        ("\n\n", "DATA-EMPTY", "", "no rows"),
        ("text,label\n", "DATA-EMPTY", ":1", "header (text, label)"),
    ],
)
def test_a_broken_csv_is_refused_with_its_row(tmp_path: Path, content: str, code: str, row: str, words: str) -> None:
    error = refused(write(tmp_path / "broken.csv", content), code)
    assert words in error.what
    assert (error.where or "").endswith(f"broken.csv{row}")


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolon"), ("\t", "tab"), ("|", "bar")])
def test_another_delimiter_is_found_and_told(tmp_path: Path, delimiter: str, word: str) -> None:
    lines = [f"text{delimiter}label", f"a fine film{delimiter}pos", f"a dull film{delimiter}neg"]
    splits = read(write(tmp_path / "r.csv", "\n".join(lines)))
    assert values(splits) == ROWS
    assert word in splits.notes[0]


def test_the_delimiter_line_that_excel_writes_is_not_a_row(tmp_path: Path) -> None:
    splits = read(write(tmp_path / "r.csv", "sep=;\r\ntext;label\r\na fine film;pos\r\na dull film;neg\r\n"))
    assert values(splits) == ROWS
    assert splits.train.place(0) == "r.csv:3"
    assert any("Excel" in note for note in splits.notes)


def test_blank_lines_between_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    splits = read(write(tmp_path / "r.csv", "text,label\na fine film,pos\n\n\na dull film,neg\n\n"))
    assert values(splits) == ROWS
    assert any("2 blank lines" in note for note in splits.notes)


def test_a_megabyte_of_text_is_one_field(tmp_path: Path) -> None:
    assert read(write(tmp_path / "r.csv", f"text,label\n{'x' * 1_000_000},a\n")).train.row(0).values["text"][-1] == "x"


@pytest.mark.parametrize(
    ("first", "has_header"),
    [
        ("text,label", True),
        ("Comment,Klasse", True),
        ("0,1", True),
        ("I loved it,27", False),
        ("a film,positive", False),
        (f"{'long ' * 20},x", False),
        ("one two three four five six seven,x", False),
        ("My text,4", False),
    ],
)
def test_the_first_row_is_a_header_by_rule(tmp_path: Path, first: str, has_header: bool) -> None:
    splits = read(write(tmp_path / "r.csv", f"{first}\nanother film,positive\nthird film,negative\n"))
    assert len(splits.train) == (2 if has_header else 3)
    assert (splits.train.columns == ["column_1", "column_2"]) is not has_header
    assert any("no header" in note for note in splits.notes) is not has_header


@given(
    rows=st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)] * 2),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "r.csv"
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    table = read(path).train
    assert list(zip(table.column("text"), table.column("label"), strict=True)) == rows


# TSV


def test_quotes_in_a_tsv_are_text_unless_the_fields_are_properly_quoted(tmp_path: Path) -> None:
    plain = read(write(tmp_path / "p.tsv", 'text\tlabel\n"Great" he said\ta\n"Whole in quotes"\tb\n"open\tc\n'))
    assert plain.train.column("text") == ['"Great" he said', '"Whole in quotes"', '"open']
    mixed = read(write(tmp_path / "m.tsv", 'text\tlabel\n"a ""b" c"\ta\n"d ""e"""\tb\n'))
    assert mixed.train.column("text") == ['"a ""b" c"', '"d ""e"""']
    quoted = read(write(tmp_path / "q.tsv", 'text\tlabel\n"say ""hi"""\ta\nplain\tb\n'))
    assert quoted.train.column("text") == ['say "hi"', "plain"]
    assert any("quoted" in note for note in quoted.notes)
    inner = read(write(tmp_path / "i.tsv", 'text\tlabel\n"a\ttab"\ta\n"a\nbreak"\tb\n'))
    assert inner.train.column("text") == ["a\ttab", "a\nbreak"]
    all_quoted = read(write(tmp_path / "a.tsv", '"text"\t"label"\n"one"\t"a"\n"two"\t"b"\n'))
    assert all_quoted.train.columns == ["text", "label"]


# encodings


@pytest.mark.parametrize(
    ("encoding", "proposal"),
    [("cp1252", "cp1252"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be")],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_another_encoding_is_named_with_its_row_and_read_when_asked_for(
    tmp_path: Path, encoding: str, proposal: str, suffix: str
) -> None:
    rows = [{"text": "plain", "label": "a"}, {"text": "caf\u00e9 \u2013 \u201cgut\u201d", "label": "b"}]
    lines = ["text,label", *(f"{r['text']},{r['label']}" for r in rows)]
    if suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path = write(tmp_path / f"r{suffix}", "\n".join(lines).encode(encoding))
    error = refused(path, "DATA-ENCODING")
    assert error.remedy == f"--set data.encoding={proposal}"
    if encoding == "cp1252":
        row = len(lines)
        assert error.where == f"r{suffix}:{row}"
        assert f"byte 0xe9 in row {row}" in error.what
    assert values(read(path, encoding=proposal)) == rows


def test_one_wrong_row_in_a_utf8_file_is_to_be_corrected_not_decoded_otherwise(tmp_path: Path) -> None:
    content = "text,label\nna\u00efve \u2013 film,a\ncaf\u00e9,b\n".encode() + "caf\u00e9,c\n".encode("latin-1")
    error = refused(write(tmp_path / "r.csv", content), "DATA-ENCODING")
    assert error.where == "r.csv:4"
    assert "mixed" in (error.remedy or "")


def test_an_encoding_that_applies_to_nothing_or_does_not_exist_is_an_error(tmp_path: Path) -> None:
    refused(ROWS, "DATA-ENCODING", encoding="cp1252")
    refused(write(tmp_path / "r.csv", "text,label\na,b\n"), "DATA-ENCODING", encoding="no-such")
    refused(write(tmp_path / "s.csv", "text,label\n\u00e9,b\n"), "DATA-ENCODING", encoding="ascii")


# what is not what it says


def test_a_file_that_is_something_else_is_refused_by_its_content(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "r.parquet")
    with zipfile.ZipFile(tmp_path / "book.zip", "w") as archive:
        archive.writestr("x", "y")
    contents = {
        "a Parquet file": (tmp_path / "r.parquet").read_bytes(),
        "zip archive": (tmp_path / "book.zip").read_bytes(),
        "gzip": gzip.compress(b"text,label\n"),
        "web page": b"\n<!DOCTYPE html><html></html>",
        "git-lfs": b"version https://git-lfs.github.com/spec/v1\n",
        "JSON objects": b'{"text": "a", "label": "b"}\n',
        "not a text file": bytes(range(256)) * 8,
    }
    for words, content in contents.items():
        assert words in refused(write(tmp_path / "r.csv", content), "DATA-FORMAT").what
    assert "not a Parquet" in refused(write(tmp_path / "t.parquet", "text,label\na,b\n"), "DATA-FORMAT").what
    refused(write(tmp_path / "r.xlsx", b"PK\x03\x04"), "DATA-FORMAT")


def test_what_is_not_a_plain_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    refused(tmp_path / "pipe.csv", "DATA-FORMAT")
    (tmp_path / "classes/pos").mkdir(parents=True)
    os.mkfifo(tmp_path / "classes/pos/pipe.txt")
    refused(tmp_path / "classes", "DATA-FORMAT")


def test_a_missing_file_is_told_with_a_near_name(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", "text,label\na,b\n")
    assert "reviews.csv" in (refused(tmp_path / "revews.csv", "DATA-MISSING").remedy or "")
    refused("", "DATA-MISSING")
    assert len(refused("a whole review given as a path " * 40, "DATA-MISSING").block()) < 300
    refused(tmp_path / "no" / "such.csv", "DATA-MISSING")


def test_a_hub_id_without_hub_says_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def unreachable(path: str, name: str | None) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.chdir(tmp_path)
    error = refused("org/reviews", "DATA-MISSING")
    assert "no file or folder" in error.what
    assert "Hub could not be reached" in error.what


def test_a_configuration_of_a_hub_set_is_named_or_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["cola", "sst2"]

    def load(path: str, name: str | None) -> Any:
        # As `datasets` 4 and 5 say it.
        if name is None:
            raise ValueError(
                f"Config name is missing.\nPlease pick one among the available configs: {names}\nExample ..."
            )
        if name not in names:
            raise ValueError(f"BuilderConfig '{name}' not found. Available: {names}")
        return datasets.DatasetDict(train=datasets.Dataset.from_list([{"text": name, "label": "x"}]))

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    error = refused("nyu-mll/glue", "DATA-MISSING")
    assert "cola, sst2" in error.what
    assert "--set data.config_name=cola" in str(error.remedy)
    with pytest.raises(DataError, match="no configuration 'sst'") as caught:
        read("nyu-mll/glue", config_name="sst")
    assert "'sst2'" in str(caught.value.remedy)
    found = read("nyu-mll/glue", config_name="sst2")
    assert found.train.row(0).values["text"] == "sst2"
    assert "nyu-mll/glue, configuration sst2, was loaded from the Hugging Face Hub." in found.notes
    write(tmp_path / "reviews.csv", "text,label\na,b\n")
    with pytest.raises(DataError, match="applies to nothing"):
        read("reviews.csv", config_name="sst2")


# JSON


def test_json_values_keep_their_kind_and_missing_keys_are_none(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"text": "a", "n": 1, "f": 0.5, "b": True, "l": ["x", "y"]},
        {"text": "b", "extra": "z"},
    ]
    expected = [{**rows[0], "extra": None}, {"text": "b", "n": None, "f": None, "b": None, "l": None, "extra": "z"}]
    lines = "\n".join(map(json.dumps, rows))
    assert values(read(write(tmp_path / "r.jsonl", lines))) == expected
    assert values(read(write(tmp_path / "r.json", json.dumps(rows)))) == expected
    assert values(read(write(tmp_path / "lines.json", lines))) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "a", ', "not JSON"),
        ('["a", "b"]', "must be a JSON object"),
        ('{"text": "a", "text": "b"}', "'text' is there twice"),
        ('{"text": NaN}', "NaN is not JSON"),
        ('{"text": 1e999}', "too large"),
        ('{"text": "\\ud83d"}', "surrogate"),
        ('{"text": 17}', "holds text in row 1, but a number here"),
        ('{"text": {"a": 1}}', "an object here"),
        ("[" * 100_000, "nested too deeply"),
        ('{"text": "a", "more": ' + "[" * 900 + "]" * 900 + "}", "nested too deeply"),
        ("{}", "without any value"),
    ],
)
def test_a_broken_json_row_is_refused_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    error = refused(write(tmp_path / "r.jsonl", f'{{"text": "fine"}}\n\n{line}\n{{"text": "b"}}\n'), "DATA-ROW")
    assert words in error.what
    assert error.where == "r.jsonl:3"
    assert len(error.what) < 300


def test_lists_of_mixed_values_are_refused_with_the_row_where_they_start(tmp_path: Path) -> None:
    lines = ['{"l": ["a"]}'] * 5000 + ['{"l": [1]}', '{"l": ["b"]}']
    error = refused(write(tmp_path / "r.jsonl", "\n".join(lines)), "DATA-ROW")
    assert error.where in ("r.jsonl:5001", "r.jsonl:5002")


def test_a_json_object_around_the_rows_is_not_a_table(tmp_path: Path) -> None:
    refused(write(tmp_path / "r.json", '{"version": "1", "data": [{"text": "a"}]}'), "DATA-FORMAT")
    refused(write(tmp_path / "s.json", '{\n "data": [{"text": "a"}]\n}'), "DATA-FORMAT")
    refused(write(tmp_path / "t.json", '{"version": "1",\n "data": [{"text": "a"}]}\n'), "DATA-FORMAT")
    assert refused(write(tmp_path / "u.json", '{"text": "a"\n{"text": "b"}\n'), "DATA-ROW").where == "u.json:1"


# Parquet


def test_parquet_columns_come_as_plain_values_whatever_their_storage(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", "b"], pa.large_string()),
            "label": pa.array(["x", "y"]).dictionary_encode(),
            "price": pa.array([Decimal("1.50"), Decimal("2.00")]),
            "meta": pa.array([{"k": 1}, {"k": 2}]),
            "none": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet", compression="snappy")
    splits = read(tmp_path / "r.parquet")
    assert splits.train.row(1).values == {"text": "b", "label": "y", "price": 2.0, "meta": {"k": 2}, "none": None}
    assert splits.train.place(1) == "r.parquet:2"
    pq.write_table(table, tmp_path / "s.parquet", compression="zstd", row_group_size=1)
    assert read(tmp_path / "s.parquet").train.fingerprint == splits.train.fingerprint
    pq.write_table(table.slice(0, 1), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").train.fingerprint != splits.train.fingerprint


def test_a_truncated_or_empty_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 1000}), tmp_path / "r.parquet")
    content = (tmp_path / "r.parquet").read_bytes()
    assert "truncated" in refused(write(tmp_path / "cut.parquet", content[:-20]), "DATA-FORMAT").what
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "zero.parquet")
    refused(tmp_path / "zero.parquet", "DATA-EMPTY")


# folders


def test_a_folder_with_split_files_is_read_with_its_label_names(tmp_path: Path) -> None:
    for name in ("training.csv", "dev.csv", "test.csv"):
        write(tmp_path / name, f"text,label\n{name},0\n")
    write(tmp_path / "labels.txt", "neg\npos\n")
    write(tmp_path / "README.md", "# about")
    write(tmp_path / ".hidden", "x")
    splits = read(tmp_path)
    assert [t.row(0).values["text"] for t in splits.tables().values()] == ["training.csv", "dev.csv", "test.csv"]
    assert splits.label_names == ["neg", "pos"]
    assert any("README.md" in note for note in splits.notes)
    assert not any("hidden" in note for note in splits.notes)
    assert splits.name == tmp_path.name


def test_named_test_rows_take_the_place_of_those_found(tmp_path: Path) -> None:
    write(tmp_path / "d/train.csv", "text,label\na,b\n")
    write(tmp_path / "d/test.csv", "text,label\nfound,b\n")
    other = write(tmp_path / "other.csv", "text,label\nnamed,b\n")
    splits = read(tmp_path / "d", test=other)
    assert splits.test is not None
    assert splits.test.column("text") == ["named"]
    assert splits.validation is None
    assert any("test rows found" in note for note in splits.notes)


def test_shards_are_one_split_and_two_files_for_one_split_are_an_error(tmp_path: Path) -> None:
    for i in range(2):
        pq.write_table(pa.table({"text": [f"{i}"]}), tmp_path / f"train-0000{i}-of-00002.parquet")
    table = read(tmp_path).train
    assert table.column("text") == ["0", "1"]
    assert table.place(1) == "train-00001-of-00002.parquet:1"
    write(tmp_path / "train.csv", "text,label\na,b\n")
    refused(tmp_path, "DATA-FORMAT")


def test_a_folder_without_training_rows_is_read_only_where_test_rows_are_wanted(tmp_path: Path) -> None:
    write(tmp_path / "test.csv", "text,label\na,b\n")
    refused(tmp_path, "DATA-MISSING")
    assert read(tmp_path, wanted="test").train.column("text") == ["a"]
    write(tmp_path / "dev.csv", "text,label\nc,d\n")
    remedy = str(refused(tmp_path, "DATA-MISSING").remedy)
    assert f"name a file itself: {tmp_path / 'dev.csv'} --set data.test={tmp_path / 'test.csv'}" in remedy


def test_class_folders_give_text_label_and_place_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("train/pos/2.txt", "train/pos/10.txt", "train/neg/deep/er/1.txt", "test/pos/7.txt"):
        write(tmp_path / name, f"text of {name}\n")
    write(tmp_path / "train/pos/notes.md", "x")
    write(tmp_path / "train/.cache/0.txt", "x")
    splits = read(tmp_path)
    assert [row.place for row in splits.train] == ["train/neg/deep/er/1.txt", "train/pos/10.txt", "train/pos/2.txt"]
    assert splits.train.column("label") == ["neg", "pos", "pos"]
    assert splits.train.row(1).values["text"] == "text of train/pos/10.txt\n"
    assert splits.test is not None
    assert any("1 .md" in note for note in splits.notes)


def test_the_order_of_the_file_system_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2.txt", "a/1.txt", "a/3.txt"):
        write(tmp_path / name, name)
    forward = read(tmp_path).train.column("text")
    original = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(original(path), reverse=True))
    assert read(tmp_path).train.column("text") == forward == ["a/1.txt", "a/3.txt", "b/2.txt"]


def test_odd_file_names_do_not_break_a_message(tmp_path: Path) -> None:
    write(tmp_path / "pos" / "a\nb\u202e.txt", "text")
    assert read(tmp_path).train.place(0) == "pos/a\\nb\\u202e.txt"


def test_links_are_followed_inside_the_folder_and_refused_outside(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root / "pos/1.txt", "inside")
    (root / "neg").mkdir()
    (root / "neg/2.txt").symlink_to(root / "pos/1.txt")
    assert read(root).train.column("label") == ["neg", "pos"]
    secret = write(tmp_path / "secret.txt", "outside")
    (root / "neg/3.txt").symlink_to(secret)
    refused(root, "DATA-LINK")
    (root / "neg/3.txt").unlink()
    (root / "neg/loop").symlink_to(root / "neg/loop")
    refused(root, "DATA-LINK")
    (root / "neg/loop").unlink()
    (root / "other").symlink_to(tmp_path)
    refused(root, "DATA-LINK")


def test_a_class_file_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    write(tmp_path / "pos/1.txt", "fine")
    write(tmp_path / "pos/2.txt", b"first\ncaf\xe9")
    assert refused(tmp_path, "DATA-ENCODING").where == "pos/2.txt:2"


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "image"), (".wav", "audio")])
def test_folders_of_pictures_or_sound_are_told_apart(tmp_path: Path, suffix: str, kind: str) -> None:
    write(tmp_path / f"cat/1{suffix}", b"\xff\xd8")
    table = read(tmp_path).train
    assert table.row(0).values == {kind: f"cat/1{suffix}", "label": "cat"}
    with pytest.raises(DataError, match="there is no text"):
        guess_roles(table)


def test_empty_folders_and_folders_of_unnamed_tables_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "DATA-EMPTY")
    write(tmp_path / ".hidden.csv", "text,label\na,b\n")
    refused(tmp_path, "DATA-EMPTY")
    write(tmp_path / "one.csv", "text,label\na,b\n")
    assert len(read(tmp_path).train) == 1
    write(tmp_path / "two.csv", "text,label\na,b\n")
    refused(tmp_path, "DATA-MISSING")


# Python objects


def test_python_objects_of_every_kind_give_the_same_rows() -> None:
    datasets = pytest.importorskip("datasets")
    columns = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    given = [ROWS, columns, pd.DataFrame(ROWS), datasets.Dataset.from_list(ROWS)]
    given.append(datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}))
    assert [values(read(data)) for data in given] == [ROWS] * 5
    assert len({read(data).train.fingerprint for data in given}) == 1


def test_a_dataset_brings_the_names_of_its_classes() -> None:
    datasets = pytest.importorskip("datasets")
    labels = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "label": labels})
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    splits = read(datasets.DatasetDict({"train": data.select([1, 0]), "test": data, "unsupervised": data}))
    assert splits.names_of("label") == ["neg", "pos"]
    assert splits.train.column("label") == [0, 1]
    assert splits.test is not None
    assert splits.test.column("label") == [1, 0, None]
    assert any("unsupervised" in note for note in splits.notes)
    assert any("-1" in note for note in splits.notes)


def test_a_dataset_with_two_columns_of_class_ids_gives_their_names() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"coarse": datasets.ClassLabel(names=["x", "y"]), "fine": datasets.ClassLabel(names=["x1", "y1", "y2"])}
    )
    splits = read(datasets.Dataset.from_dict({"coarse": [0, 1], "fine": [0, 2]}, features=features))
    assert values(splits) == [{"coarse": "x", "fine": "x1"}, {"coarse": "y", "fine": "y2"}]
    assert splits.names_of("fine") is None


def test_names_of_classes_are_those_of_their_column_and_are_kept_with_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.Value("int64"),
            "domain": datasets.ClassLabel(names=["books", "films"]),
        }
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0], "domain": [0, 1]}, features=features)
    splits = read(data)
    keep(splits, tmp_path)
    for found in (splits, kept(tmp_path)):
        assert found is not None
        assert found.names_of("label") is None, "the names of another column are none of the label's"
        assert found.names_of("domain") == found.names_of(("text", "domain")) == ["books", "films"]
        assert found.train.column("domain") == [0, 1]


def test_each_split_has_the_names_of_the_data_that_it_is_from(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def of(names: list[str]) -> Any:
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        return datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)

    write(tmp_path / "files/test.csv", "text,label\na,0\n")
    write(tmp_path / "files/labels.txt", "pos\nneg\n")
    both = datasets.DatasetDict(train=of(["neg", "pos"]), test=of(["pos", "neg"]))
    ways = [read(both), read(of(["neg", "pos"]), test=both), read(of(["neg", "pos"]), test=tmp_path / "files")]
    for i, splits in enumerate(ways):
        (tmp_path / str(i)).mkdir()
        keep(splits, tmp_path / str(i))
        for found in (splits, kept(tmp_path / str(i))):
            assert found is not None
            assert found.names_of("label") == ["neg", "pos"]
            assert found.names_of("label", "test") == ["pos", "neg"]


def test_missing_values_of_pandas_are_none_and_whole_numbers_stay_whole() -> None:
    frame = pd.DataFrame({"text": ["a", None, "c"], "label": [1, np.nan, 0]})
    splits = read(frame)
    assert splits.train.column("text") == ["a", None, "c"]
    assert splits.train.column("label") == [1, None, 0]
    assert all(type(v) is int for v in splits.train.column("label") if v is not None)
    assert values(read([{"text": "a", "label": float("nan")}, {"text": "b", "label": "x"}]))[0]["label"] is None


def test_objects_that_are_no_table_are_refused_with_the_row() -> None:
    refused(pd.DataFrame({"text": []}), "DATA-EMPTY")
    refused([], "DATA-EMPTY")
    refused(pd.DataFrame([["a", "b"]], columns=["x", "x"]), "DATA-DUPLICATE-COLUMN")
    assert refused(pd.DataFrame({"label": ["a", 1]}, dtype=object), "DATA-ROW").where == "data:2"
    assert refused([{"text": "a"}, "b"], "DATA-ROW").where == "data:2"
    assert "surrogate" in refused([{"text": "\ud83d"}], "DATA-ROW").what
    refused({"text": ["a", "b"], "label": ["x"]}, "DATA-FORMAT")
    refused(17, "DATA-FORMAT")


# Table


def test_selected_rows_keep_their_places_and_count_anew() -> None:
    table = read([{"text": str(i), "label": "x"} for i in range(10)]).train
    chosen = table.select(np.array([7, 2]))
    assert [(row.index, row.values["text"], row.place) for row in chosen] == [(0, "7", "data:8"), (1, "2", "data:3")]
    assert chosen.select([1]).row(0).place == "data:3"
    with pytest.raises(IndexError):
        table.row(10)
    with pytest.raises(DataError, match="did you mean 'text'"):
        table.column("txt")


def test_the_fingerprint_depends_on_names_values_order_and_kind_only(tmp_path: Path) -> None:
    prints = {
        read(data).train.fingerprint
        for data in (ROWS, ROWS[::-1], [{"text": r["text"], "y": r["label"]} for r in ROWS], [{"a": 1}], [{"a": "1"}])
    }
    assert len(prints) == 5
    write(tmp_path / "r.csv", "text,label\r\na fine film,pos\r\na dull film,neg\r\n")
    assert read(tmp_path / "r.csv").train.fingerprint == read(ROWS).train.fingerprint


def test_many_blocks_of_rows_are_one_table(tmp_path: Path) -> None:
    lines = ['{"n": 1}'] * 4096 + ['{"n": 0.5, "text": "late"}'] + ['{"text": "x"}'] * 4096
    table = read(write(tmp_path / "r.jsonl", "\n".join(lines))).train
    assert len(table) == 8193
    assert table.row(4096).values == {"n": 0.5, "text": "late"}
    assert table.row(0).values == {"n": 1.0, "text": None}
    assert [row.index for row in table] == list(range(8193))
    assert table.place(8192) == "r.jsonl:8193"
