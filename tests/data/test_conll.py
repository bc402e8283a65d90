"""Column files: a word and its tags a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from unfreeze.data.conll import is_column_file
from unfreeze.data.sources import read
from unfreeze.errors import DataError

SENTENCES = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER


Rain NN B-NP O
"""


def written(path: Path, text: str = SENTENCES) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_sentence_is_a_row_with_its_first_line_as_place(tmp_path: Path) -> None:
    table = read(written(tmp_path / "news.conll")).train
    assert table.columns == ["tokens", "column_2", "column_3", "tags"]
    assert table.row(0).values["tokens"] == ["EU", "rejects", "German", "call"]
    assert table.row(0).values["tags"] == ["B-ORG", "O", "B-MISC", "O"]
    assert table.row(1).values["column_3"] == ["B-NP", "I-NP"]
    assert [table.place(i) for i in range(3)] == ["news.conll:3", "news.conll:8", "news.conll:12"]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_tabs_line_ends_and_a_byte_order_mark_make_no_difference(tmp_path: Path, ends: str) -> None:
    text = "\ufeff" + SENTENCES.replace(" ", "\t").replace("\n", ends)
    (tmp_path / "news.conll").write_bytes(text.encode())
    assert read(tmp_path / "news.conll").train.row(2).values["tags"] == ["O"]


def test_comments_before_the_words_of_a_sentence_are_no_words(tmp_path: Path) -> None:
    text = "# newdoc\n# text = It rains\nIt O\nrains O\n\n# sent_id = 2\n# O\ntags O\n\n# the end\n"
    splits = read(written(tmp_path / "rain.conll", text))
    assert splits.train.column("tokens") == [["It", "rains"], ["#", "tags"]]
    assert [splits.train.place(i) for i in range(2)] == ["rain.conll:3", "rain.conll:7"]
    assert "rain.conll: 4 lines of comments before the words of a sentence were skipped." in splits.notes
    four = "# id 5239d808 domain=en\nOslo _ _ B-LOC\nsleeps _ _ O\n\n"
    assert read(written(tmp_path / "names.conll", four)).train.column("tokens") == [["Oslo", "sleeps"]]
    assert is_column_file(written(tmp_path / "train.txt", four * 4))
    tabs = "# part 1\nOslo\tNNP\tB-LOC\n\n"
    assert read(written(tmp_path / "tabs.conll", tabs)).train.column("tokens") == [["Oslo"]]
    with pytest.raises(DataError, match="4 columns, 2 in the lines before") as caught:
        read(written(tmp_path / "odd.conll", "It O\n# in a sentence\nrains O\n"))
    assert caught.value.where == "odd.conll:2"


def test_a_folder_of_txt_splits_is_recognised(tmp_path: Path) -> None:
    for name in ("train.txt", "valid.txt", "test.txt"):
        written(tmp_path / name)
    splits = read(tmp_path)
    assert {name: len(table) for name, table in splits.tables().items()} == {"train": 3, "validation": 3, "test": 3}


def test_letters_and_numbers_of_other_languages_divide_no_line(tmp_path: Path) -> None:
    text = "là-bas O\n10\u00a0000 B-NUM\nÅse B-PER\nà O\nla O\nmer O\n. O\n"
    table = read(written(tmp_path / "train.txt", text)).train
    assert table.row(0).values["tokens"] == ["là-bas", "10\u00a0000", "Åse", "à", "la", "mer", "."]


def test_a_link_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "news.conll").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="a link to a file that is not there"):
        read(tmp_path / "news.conll")


def test_prose_is_no_column_file(tmp_path: Path) -> None:
    prose = "It rained.\nThe train to the coast was late again, as ever.\n" * 20
    assert not is_column_file(written(tmp_path / "notes.txt", prose))
    assert not is_column_file(written(tmp_path / "short.txt", "a b\nc d\n"))
    assert not is_column_file(tmp_path)
    assert not is_column_file(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        (SENTENCES.replace("Blackburn NNP I-NP I-PER", "Blackburn I-PER"), "2 columns, 4 in the lines before", 9),
        ("EU\nrejects\n", "a word without a tag", 1),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, said: str, line: int) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read(written(tmp_path / "news.conll", text))
    assert caught.value.where == f"news.conll:{line}"


def test_a_file_of_document_marks_alone_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        read(written(tmp_path / "news.conll", "-DOCSTART- O\n\n"))
