"""Folders and tables of pictures: rows, classes, names that lead elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unfreeze.data import contents
from unfreeze.data.sources import read
from unfreeze.errors import DataError
from unfreeze.preparation import _recognised
from unfreeze.recipe import Recipe
from unfreeze.types import Files


def picture(path: Path, shade: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (shade, shade, shade)).save(path)
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for i, name in enumerate(("hat/1.png", "hat/2.jpg", "shoe/deeper/1.png", "shoe/2.png")):
        picture(tmp_path / "shop" / name, 20 * i)
    return tmp_path / "shop"


def values(table: Any, column: str) -> list[Any]:
    return [row.values[column] for row in table]


def test_class_folders_are_classes_whatever_lies_below_them(shop: Path) -> None:
    table = read(shop).train
    assert values(table, "image") == ["hat/1.png", "hat/2.jpg", "shoe/2.png", "shoe/deeper/1.png"]
    assert values(table, "label") == ["hat", "hat", "shoe", "shoe"]
    assert table.place(3) == "shoe/deeper/1.png"
    assert table.row(0).files == Files(shop, ("image",))


def test_a_folder_inside_a_folder_is_unwrapped(shop: Path, tmp_path: Path) -> None:
    outer = tmp_path / "unpacked"
    outer.mkdir()
    shop.rename(outer / "shop")
    splits = read(outer)
    assert len(splits.train) == 4
    assert any("holds the folder shop alone" in note for note in splits.notes)


def test_splits_of_class_folders(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        picture(tmp_path / split / "hat" / "1.png")
        picture(tmp_path / split / "shoe" / "1.png", 7)
    splits = read(tmp_path)
    assert [len(table) for table in splits.tables().values()] == [2, 2, 2]
    assert splits.train.row(0).values["image"] == "train/hat/1.png"


def test_metadata_names_the_files_and_says_more(shop: Path) -> None:
    (shop / "metadata.csv").write_text("file_name,price,label\nhat/2.jpg,12,hats\nshoe/2.png,80,shoes\n")
    splits = read(shop)
    assert values(splits.train, "label") == ["hats", "shoes"]
    assert values(splits.train, "price") == ["12", "80"]
    assert any("does not name are not used: 2" in note for note in splits.notes)
    (shop / "metadata.csv").write_text("file_name,price\nhat/2.jpg,12\nshoe/2.png,80\n")
    assert values(read(shop).train, "folder") == ["hat", "shoe"], "the folder, beside what the table says"


def test_a_file_beside_the_class_folders_has_no_class_and_is_not_lost(shop: Path) -> None:
    picture(shop / "new\u202f1.png")
    table = read(shop).train
    assert dict(zip(values(table, "image"), values(table, "label"), strict=True))["new\u202f1.png"] is None
    assert len(set(table.contents("image"))) == 5


def test_pictures_beside_texts_with_labels_are_not_the_task(shop: Path) -> None:
    from unfreeze.tasks.image_classification import ImageClassification

    table = shop.parent / "reviews.csv"
    rows = [f"A long sentence about the thing number {i},{'ab'[i % 2]},shop/hat/1.png" for i in range(20)]
    table.write_text("text,label,photo\n" + "\n".join(rows) + "\n")
    assert ImageClassification.recognises(read(table).train) is None
    task, notes = _recognised(Recipe(), read(table).train)
    assert task.name == "text-classification"
    assert notes[0].startswith("the pictures of column 'photo' are not read")
    assert notes[0].endswith("--task image-classification")


def test_pictures_given_as_objects_stand_upright_whatever_their_colours() -> None:
    turned = Image.new("RGB", (20, 40))
    turned.getexif()[0x0112] = 6
    rows = [{"image": turned, "label": "a"}, {"image": Image.new("CMYK", (3, 3)), "label": "b"}]
    from unfreeze.data.pictures import decode

    table = read(rows).train
    assert [decode(row.values["image"]["bytes"], "a").size for row in table] == [(40, 20), (3, 3)]


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "file:///a.png", "http://x/a.png", "C:\\a.png", "a\\b.png", "C:a.png"]
)
def test_names_that_lead_elsewhere_are_refused(shop: Path, name: str) -> None:
    (shop / "metadata.csv").write_text(f"file_name,label\n{name},x\n")
    with pytest.raises(DataError) as caught:
        read(shop)
    assert caught.value.code == "DATA-LINK"
    assert caught.value.where == "metadata.csv:2"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("file_name;price;label\nhat/2.jpg;12;hats\nshoe/2.png;80;shoes\n", ["hats", "shoes"]),
        ("file_name,label\rhat/2.jpg,hats\rshoe/2.png,shoes\r", ["hats", "shoes"]),
        ("\ufefffile_name,label\r\nhat/2.jpg,hats\r\n", ["hats"]),
        (f'file_name,label,note\nhat/2.jpg,hats,"{"x" * 200_000}"\n', ["hats"]),
    ],
    ids=["semicolons", "old line ends", "byte order mark", "a huge cell"],
)
def test_metadata_is_read_like_any_table(shop: Path, content: str, expected: list[str]) -> None:
    (shop / "metadata.csv").write_bytes(content.encode())
    assert values(read(shop).train, "label") == expected


def problems(data: Path) -> list[str]:
    from unfreeze.tasks.image_classification import ImageClassification

    task, table = ImageClassification(), read(data).train
    found = task.unreadable(table, task.find_roles(table, None, needs_label=True))
    return [f"{error.where}: {error.code}" for error in found.values()]


def test_files_that_a_table_names_and_that_are_not_there_are_named_where_they_are_read(shop: Path) -> None:
    (shop / "metadata.csv").write_text("file_name,label\nhat/1.png,x\nhat/none.png,y\n,y\n")
    assert problems(shop) == ["metadata.csv:3: DATA-MISSING", "metadata.csv:4: DATA-ROW"]
    table = shop.parent / "prices.csv"
    lines = ["shop/hat/1.png,x", "shop/gone.png,y", "https://example.org/a.png,x", "/etc/a.png,y", ",x"]
    table.write_text("\n".join(["photo,label", *lines]) + "\n")
    codes = ["DATA-MISSING", "DATA-LINK", "DATA-LINK", "DATA-ROW"]
    assert problems(table) == [f"prices.csv:{line}: {code}" for line, code in enumerate(codes, 3)]


def test_files_of_a_column_that_is_not_read_are_not_looked_for(shop: Path) -> None:
    table = shop.parent / "reviews.csv"
    table.write_text("text,label,photo\nGood hat.,a,gone.png\nBad hat.,b,http://x/y.png\n")
    found = read(table).train
    assert found.files is not None
    assert found.reading(("text",)).fingerprint


def test_a_stray_table_beside_class_folders_is_not_the_data(shop: Path) -> None:
    (shop / "notes.csv").write_text("who,what\nme,hats are nice\n")
    splits = read(shop)
    assert len(splits.train) == 4
    assert any("not used: notes.csv" in note for note in splits.notes)
    (shop / "labels.csv").write_text("image,label\nhat/1.png,x\nshoe/2.png,y\n")
    splits = read(shop)
    assert values(splits.train, "label") == ["x", "y"], "a table that names the pictures is"
    assert "Files that labels.csv does not name are not used: 2." in splits.notes
    (shop / "beside").symlink_to("/")
    assert len(read(shop).train) == 2, "what is not read is not judged"
    (shop / "beside").unlink()
    assert not any("hat/" in note for note in splits.notes), "the folders are used"


def test_metadata_that_is_read_is_not_said_to_be_unused(shop: Path) -> None:
    (shop / "metadata.csv").write_text("file_name,label\nhat/2.jpg,hats\nshoe/2.png,shoes\n")
    assert not any("metadata.csv" in note and "Beside" in note for note in read(shop).notes)


def test_names_of_files_in_python_objects_are_those_of_the_program(shop: Path) -> None:
    rows = [{"image": shop / "hat" / "1.png", "label": "x"}, {"image": str(shop / "shoe" / "2.png"), "label": "y"}]
    table = read(rows).train
    assert len(set(table.contents("image"))) == 2
    assert read({"image": [str(shop / "hat" / "1.png")], "label": ["x"]}).train.files is not None


def test_a_row_of_a_file_names_no_file_outside_its_folder(shop: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    secret = picture(tmp_path / "elsewhere" / "a.png")
    rows = [{"bytes": None, "path": "hat/1.png"}, {"bytes": None, "path": str(secret)}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind), "label": ["x", "y"]}), shop / "rows.parquet")
    assert problems(shop / "rows.parquet") == ["rows.parquet:2: DATA-LINK"]


def test_a_link_that_leads_out_is_not_followed_though_a_table_names_it(shop: Path, tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "a.png")
    (shop / "hat" / "out.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (shop / "beyond").symlink_to(tmp_path / "elsewhere")
    (shop / "hat" / "in.png").symlink_to(shop / "hat" / "1.png")
    (shop / "rows.csv").write_text("image,label\nhat/in.png,x\nhat/out.png,y\nbeyond/a.png,y\n")
    assert problems(shop / "rows.csv") == ["rows.csv:3: DATA-LINK", "rows.csv:4: DATA-LINK"]
    table = tmp_path / "linked"
    table.symlink_to(shop)
    assert problems(table / "rows.csv") == ["rows.csv:3: DATA-LINK", "rows.csv:4: DATA-LINK"], (
        "the folder itself may be"
    )


def test_a_fifo_is_no_picture_and_nobody_waits_for_it(shop: Path) -> None:
    import os

    os.mkfifo(shop / "pipe.png")
    with pytest.raises(DataError, match="no plain file"):
        contents.read(shop / "pipe.png", "pipe.png")


def test_a_file_that_changes_is_noticed(shop: Path) -> None:
    table = read(shop).train
    list(table.contents("image"))
    picture(shop / "hat" / "1.png", 99)
    with pytest.raises(DataError) as caught:
        contents.content_of(table.row(0), "image")
    assert caught.value.code == "DATA-CHANGED"


def test_a_table_that_names_pictures(shop: Path) -> None:
    table = shop.parent / "prices.csv"
    table.write_text("photo,label\nshop/hat/1.png,x\nshop/shoe/2.png,y\n")
    found = read(table).train
    assert found.files is not None
    assert found.files.columns == ("photo",)
    assert found.files.folder == shop.parent
    table.write_text("text,label\nsee a.png,x\nsee b.png,y\n")
    assert read(table).train.files is None, "a sentence about files"


def test_a_table_beside_the_folder_of_its_files(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "3.png"):
        picture(tmp_path / "data" / "images" / name)
    (tmp_path / "data" / "empty").mkdir()
    (tmp_path / "data" / "labels.csv").write_text("photo,label\n1.png,a\n2.png,b\n")
    for given in (tmp_path / "data", tmp_path / "data" / "labels.csv"):
        splits = read(given)
        assert values(splits.train, "photo") == ["images/1.png", "images/2.png"]
        assert "labels.csv: the files that 'photo' names lie in images/ and are read there." in splits.notes
        assert problems(given) == []
    assert "Files that labels.csv does not name are not used: 1." in read(tmp_path / "data").notes
    (tmp_path / "data" / "labels.csv").rename(tmp_path / "data" / "metadata.csv")
    (tmp_path / "data" / "metadata.csv").write_text("file_name,label\n1.png,a\n2.png,b\n")
    assert values(read(tmp_path / "data").train, "image") == ["images/1.png", "images/2.png"]


def test_of_a_table_that_names_files_which_are_nowhere_the_others_are_told(tmp_path: Path) -> None:
    from unfreeze.tasks.image_classification import ImageClassification

    picture(tmp_path / "images" / "1.png")
    (tmp_path / "labels.csv").write_text("photo,label\n1.png,a\ngone.png,b\n")
    task, table = ImageClassification(), read(tmp_path).train
    assert values(table, "photo") == ["1.png", "gone.png"]
    found = task.unreadable(table, task.find_roles(table, None, needs_label=True))
    assert found[0].remedy == "there is one in the folder 'images': name it images/1.png"
    assert found[1].remedy is None


def test_a_table_of_recordings_beside_their_folder_as_common_voice_has_them(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name, clips in (("train", "ab"), ("dev", "c"), ("test", "d"), ("other", "e")):
        for clip in clips:
            (tmp_path / "clips" / f"{clip}.mp3").write_bytes(b"sound")
        lines = [f"x\t{clip}.mp3\tHello from {clip}." for clip in clips]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["client_id\tpath\tsentence", *lines]) + "\n")
    splits = read(tmp_path)
    found = {name: values(table, "path") for name, table in splits.tables().items()}
    assert found == {"train": ["clips/a.mp3", "clips/b.mp3"], "validation": ["clips/c.mp3"], "test": ["clips/d.mp3"]}
    assert "Beside the rows, not used: other.tsv." in splits.notes


@pytest.mark.parametrize("table", ["train.csv", "train_labels.csv"])
def test_a_table_beside_the_folder_of_its_split_as_kaggle_has_them(tmp_path: Path, table: str) -> None:
    for name in ("train/1.png", "train/2.png", "test/1.png", "test/2.png"):
        picture(tmp_path / name)
    (tmp_path / table).write_text("file,label\n1.png,a\n2.png,b\n")
    (tmp_path / "sample_submission.csv").write_text("file,label\n1.png,a\n")
    splits = read(tmp_path)
    assert values(splits.train, "file") == ["train/1.png", "train/2.png"]
    assert splits.test is not None
    assert [row.values for row in splits.test] == [{"file": "test/1.png"}, {"file": "test/2.png"}]
    assert splits.test.files == Files(tmp_path, ("file",))
    assert "Beside the rows, not used: sample_submission.csv." in splits.notes
    (tmp_path / table).write_text("file,label\ntrain/1.png,a\ntrain/2.png,b\n")
    assert values(read(tmp_path).train, "file") == ["train/1.png", "train/2.png"]


def test_a_link_out_of_the_folder_is_refused(shop: Path, tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside.png")
    (shop / "hat" / "link.png").symlink_to(outside)
    with pytest.raises(DataError) as caught:
        read(shop)
    assert caught.value.code == "DATA-LINK"


@pytest.mark.parametrize(
    ("folder", "side_file", "layout"),
    [
        ("JPEGImages", "Annotations/1.xml", "VOC"),
        ("images", "coco/instances_train.json", "COCO"),
        ("train2017", "annotations/instances_train2017.json", "COCO"),
        ("train2017", "Annotations/instances_train2017.json", "COCO"),
        ("train", "instances_train.json", "COCO"),
        ("train", "train/_annotations.coco.json", "COCO"),
    ],
)
def test_boxes_are_no_classes(tmp_path: Path, folder: str, side_file: str, layout: str) -> None:
    picture(tmp_path / folder / "1.png")
    (tmp_path / side_file).parent.mkdir(exist_ok=True)
    (tmp_path / side_file).write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=f"{layout}'s .* object detection"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("pictures", "texts"),
    [
        ("images", "labels"),
        ("images/train", "labels/train"),
        ("train/images", "train/labels"),
        ("obj_train_data", "obj_train_data"),
    ],
)
def test_boxes_as_yolo_writes_them_are_no_texts(tmp_path: Path, pictures: str, texts: str) -> None:
    data = tmp_path / "data"
    (data / texts).mkdir(parents=True)
    for name, text in (("1", "0 0.5 0.5 0.25 0.1\n17 0.1 0.25 .5 1e-2\n"), ("2", "")):
        picture(data / pictures / f"{name}.png")
        (data / texts / f"{name}.txt").write_text(text)
    with pytest.raises(DataError, match=r"YOLO's .* object detection"):
        read(data)
    (data / texts / "1.txt").write_text("")
    (data / "data.yaml").write_text("names: [cat]\n")
    with pytest.raises(DataError, match=r"YOLO's .* object detection"):
        read(data)
    (data / texts / "1.txt").write_text("There are 2 cats.")
    assert read(data).train.columns == ["text", "label"], "texts that happen to be called as pictures are"


def test_a_table_that_names_pictures_is_read_whatever_lies_beside_them(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for name in "12":
        picture(tmp_path / "images" / f"{name}.png")
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.1\n")
    (tmp_path / "rows.csv").write_text("image,label\nimages/1.png,a\nimages/2.png,b\n")
    assert read(tmp_path).train.column("label") == ["a", "b"]
    (tmp_path / "rows.csv").rename(tmp_path / "results.csv")
    (tmp_path / "results.csv").write_text("epoch,loss\n1,0.5\n2,0.4\n")
    with pytest.raises(DataError, match="YOLO's"):
        read(tmp_path)


def test_pictures_as_phones_write_them_are_named(tmp_path: Path) -> None:
    for name in ("hat/1.HEIC", "shoe/2.heic"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"not read: \.heic") as caught:
        read(tmp_path)
    assert "JPEG" in str(caught.value.remedy)


def test_the_fingerprint_is_of_the_content(shop: Path) -> None:
    before = read(shop).train.fingerprint
    moved = shop.rename(shop.parent / "elsewhere")
    assert read(moved).train.fingerprint == before
    picture(moved / "hat" / "1.png", 99)
    assert read(moved).train.fingerprint != before


def test_pictures_as_python_objects() -> None:
    rows = [{"image": Image.new("RGB", (4, 4), (i, i, i)), "label": "ab"[i % 2]} for i in range(4)]
    table = read(rows).train
    assert set(table.row(0).values["image"]) == {"bytes", "path"}
    assert len(set(table.contents("image"))) == 4
    again = read([{"image": np.asarray(row["image"]).tobytes(), "label": "a"} for row in rows]).train
    assert len(set(again.contents("image"))) == 4
