"""Plain text: a row a paragraph, and what is no plain text refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from unfreeze.data.sources import read
from unfreeze.errors import DataError


def written(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(path: Path, code: str) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.code == code
    return caught.value


def test_what_stands_between_empty_lines_is_a_row_with_its_line_ends(tmp_path: Path) -> None:
    path = written(tmp_path / "play.txt", "\n\nAda:\r\n Speak.\r\n\r\n \t\nGrace:\nI do.\n\nEnd.")
    splits = read(path)
    assert splits.train.columns == ["text"]
    assert splits.train.column("text") == ["Ada:\r\n Speak.", "Grace:\nI do.", "End."]
    assert [row.place for row in splits.train] == ["play.txt:3", "play.txt:7", "play.txt:10"]
    assert (splits.name, splits.notes) == ("play", ["play.txt is plain text, a row a paragraph."])


def test_without_empty_lines_between_others_a_line_is_a_row(tmp_path: Path) -> None:
    splits = read(written(tmp_path / "lines.txt", "\none two three\nfour\nfive six seven eight\n\n"))
    assert splits.train.column("text") == ["one two three", "four", "five six seven eight"]
    assert [row.place for row in splits.train] == ["lines.txt:2", "lines.txt:3", "lines.txt:4"]
    assert splits.notes == ["lines.txt is plain text, a row a line."]


def test_a_stray_empty_line_among_many_lines_divides_nothing(tmp_path: Path) -> None:
    lines = [f"sentence number {i}" for i in range(300)]
    path = written(tmp_path / "lines.txt", "\n".join([*lines[:150], "", *lines[150:]]) + "\n")
    splits = read(path)
    assert splits.train.column("text") == lines
    assert splits.train.place(150) == "lines.txt:152"
    assert splits.notes == ["lines.txt is plain text, a row a line."]


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("ptb.train", "ptb.valid", "ptb.test")])
def test_files_of_plain_text_named_as_splits_are_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        written(tmp_path / "unpacked" / f"{name}.txt", f"{name} says.\n\nAnd more.\n")
    for folder in (tmp_path, tmp_path / "unpacked"):  # as an archive unpacks, and inside
        found = {name: table.column("text")[0] for name, table in read(folder).tables().items()}
        assert found == dict(zip(("train", "validation", "test"), (f"{name} says." for name in names), strict=True))
    (tmp_path / "unpacked" / f"{names[0]}.txt").unlink()
    error = refused(tmp_path / "unpacked", "DATA-MISSING")
    assert "no train rows" in error.what
    assert f"name a file itself: {tmp_path / 'unpacked' / names[1]}.txt --set data.test=" in str(error.remedy)


def test_titles_of_books_are_no_splits(tmp_path: Path) -> None:
    for name in ("train-to-pakistan", "test-of-time", "emma"):
        written(tmp_path / f"{name}.txt", f"{name} says.\n\nAnd more.\n")
    splits = read(tmp_path)
    assert (len(splits.train), splits.test) == (6, None)
    assert splits.notes == ["3 files of plain text are read: 3 a row a paragraph."]


def test_a_folder_that_holds_runs_hides_no_text(tmp_path: Path) -> None:
    written(tmp_path / "novel.txt", "It rained.\n\nShe went.\n")
    written(tmp_path / "runs" / "novel" / "plan.json", "{}")
    assert len(read(tmp_path).train) == 2


@pytest.mark.parametrize(
    "text",
    [
        "John Smith\nJane Doe\nAda Byron\nGrace Hopper\nMarie Curie\nEmmy Noether\n",
        "an old pond\na small frog\nthe water sounds\nthen silence again\nsummer rain fell\nit was before\n",
    ],
)
def test_lines_of_equally_many_words_are_no_columns_of_tags(text: str, tmp_path: Path) -> None:
    assert len(read(written(tmp_path / "names.txt", text)).train) == 6


def test_all_plain_text_of_a_folder_is_read_but_for_what_lies_beside_data(tmp_path: Path) -> None:
    for name in ("b.txt", "a.TXT", "README.txt", "labels.txt"):
        written(tmp_path / name, f"{name} says.\n\nAnd more.\n")
    splits = read(tmp_path)
    assert [row.place for row in splits.train] == ["a.TXT:1", "a.TXT:3", "b.txt:1", "b.txt:3"]
    assert "Beside the rows, not used: README.txt, labels.txt." in splits.notes
    assert "2 files of plain text are read: 2 a row a paragraph." in splits.notes


@pytest.mark.parametrize("beside", ["pos/1.txt", "table.csv", "one.png two.png"])
def test_beside_class_folders_tables_or_pictures_a_text_file_is_no_data(tmp_path: Path, beside: str) -> None:
    written(tmp_path / "train.txt", "pos/1\n\nneg/2\n")
    for name in beside.split():
        written(tmp_path / name, "text,label\na film,good\n")
    notes = read(tmp_path).notes
    assert any("train.txt" in note and "not used" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("a good film\tpos\na bad film\tneg\n", "2 columns with a tab", ".tsv"),
        ('{"text": "a"}\n\n{"text": "b"}\n', "JSON object", ".jsonl"),
        ('{"text": "a", "label": "x"}\n' * 8, "JSON object", ".jsonl"),
        ('[\n  {"text": "a"},\n  {"text": "b"}\n]\n', "it is JSON", ".json"),
        ("text,label\na good film,pos\n", "names columns: text,label", ".csv"),
        ('"sentence";"label"\nso so;pos\n', "names columns", ".csv"),
    ],
)
def test_a_table_that_is_called_txt_is_refused(tmp_path: Path, text: str, what: str, remedy: str) -> None:
    error = refused(written(tmp_path / "rows.txt", text), "DATA-FORMAT")
    assert what in error.what
    assert remedy in str(error.remedy)


def test_indented_paragraphs_and_lists_are_prose(tmp_path: Path) -> None:
    assert len(read(written(tmp_path / "a.txt", "\tIt was dark.\n\n\tIt rained.\n")).train) == 2
    assert len(read(written(tmp_path / "b.txt", "Text, label and all of it.\n\nMore, and more.\n")).train) == 2


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "DATA-EMPTY"),
        (b" \n\n\t\n", "DATA-EMPTY"),
        (b"fine\n\nno\x00 text\n", "DATA-ROW"),
        (b"fine\n\ncaf\xe9\n", "DATA-ENCODING"),
        (b"%PDF-1.7 and so on", "DATA-FORMAT"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, code: str) -> None:
    assert "text.txt" in str(refused(written(tmp_path / "text.txt", content), code))


def test_a_text_file_that_is_not_there_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "poems.txt", "a\n\nb\n")
    assert "poems.txt" in str(refused(Path("poem.txt"), "DATA-MISSING").remedy)
