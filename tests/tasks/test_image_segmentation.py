"""A class for every pixel: layouts of folders, numbers of masks, figures, service by transformers."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForSemanticSegmentation,
    BeitConfig,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MobileViTConfig,
    MobileViTV2Config,
    SegformerConfig,
    pipeline,
)

import unfreeze
from unfreeze.data import masks
from unfreeze.data.columns import recognised_files
from unfreeze.data.sources import read
from unfreeze.errors import DataError, RecipeError, TaskError
from unfreeze.evaluation import evaluate_rows
from unfreeze.metrics import PairedState, SegmentationState
from unfreeze.metrics.segmentation import confusion
from unfreeze.preparation import prepare
from unfreeze.recipe import Recipe
from unfreeze.tasks import _image
from unfreeze.tasks.image_segmentation import ImageSegmentation, _overlay
from unfreeze.testing import check_task, tiny_image_model

SIDE = 64
QUICK = [
    *("train.epochs=8", "train.learning_rate=3e-3", "train.head_learning_rate=1e-2", "data.validation=0.2"),
    "options.size=[64, 96]",
]


def scene(i: int, *, numbers: tuple[int, int, int] = (0, 1, 11)) -> tuple[Image.Image, Image.Image]:
    """A dark ground with a bright box somewhere, and an edge that nobody looked at."""
    pixels = np.full((SIDE, SIDE + 16, 3), 40, dtype=np.uint8)
    mask = np.full(pixels.shape[:2], numbers[0], dtype=np.uint8)
    top, left = 4 + 5 * (i % 4), 4 + 7 * (i % 5)
    pixels[top : top + 30, left : left + 34] = (230, 60 + i % 30, 60)
    mask[top : top + 30, left : left + 34] = numbers[1]
    mask[-4:] = numbers[2]
    return Image.fromarray(pixels), Image.fromarray(mask)


def save(folder: Path, below: Path, count: int, first: int = 0, **options: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    below.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        picture, mask = scene(i, **options)
        picture.save(folder / f"{i:03}.jpg", quality=95)
        mask.save(below / f"{i:03}.png")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As CamVid lies: splits, and beside each its masks; names of the classes, the last of which is none."""
    folder = tmp_path_factory.mktemp("street") / "street"
    for name, count, first in (("train", 24, 0), ("val", 6, 24), ("test", 6, 30)):
        save(folder / name, folder / f"{name}annot", count, first)
    names = ["ground", "box", *(f"spare {n}" for n in range(2, 11)), "Unlabelled"]
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = MobileNetV2Config(depth_multiplier=0.25, image_size=64)
    network = MobileNetV2ForImageClassification(config)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    network.half().save_pretrained(folder / "mobilenet")
    segformer = tiny_image_model(folder / "segformer", "segformer", pixels=SIDE)
    settings = (segformer / "preprocessor_config.json").read_bytes()
    (folder / "mobilenet" / "preprocessor_config.json").write_bytes(settings)
    return {"segformer": segformer, "mobilenet": folder / "mobilenet"}


@pytest.mark.parametrize("name", ["segformer", "mobilenet"])
def test_the_contract_is_kept(name: str, models: dict[str, Path]) -> None:
    assert "save and load predict the same" in check_task(ImageSegmentation, model=models[name])


def trained(street: Path, model: Path, output: Path, *settings: str, **options: Any) -> Any:
    return unfreeze.train(
        street, model=str(model), output=output, settings=[*QUICK, f"cache.folder={output}-cache", *settings], **options
    )


def test_trained_it_finds_the_boxes_and_transformers_agrees(
    street: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    run = trained(street, models["segformer"], tmp_path / "run")
    assert run.plan["task"] == "image-segmentation", "recognised by its folders"
    assert run.metrics["test_mean_iou"] > 0.8
    picture = street / "test" / "030.jpg"
    [answer] = run.predict([str(picture)])
    assert set(answer.label) == {"ground", "box"}
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.extra["mask"].partition(",")[2]))))
    assert drawn.shape == (SIDE, SIDE + 16)
    assert set(np.unique(drawn)) == {0, 1}, "numbers as in the training masks"
    pipe = pipeline("image-segmentation", model=str(run.model_folder))
    [box] = [found for found in pipe(str(picture)) if found["label"] == "box"]
    assert np.array_equal(np.asarray(box["mask"]) > 0, drawn == 1)
    baselines = json.loads((run.folder / "baselines.json").read_text())
    assert [b["name"] for b in baselines] == ["majority"]
    assert baselines[0]["metric"] == "pixel_accuracy"
    assert baselines[0]["difference"]["low"] > 0
    page = run.report().read_text()
    assert "mean IoU" in page
    assert "data:image/jpeg;base64," in page, "pictures under their masks"
    legend = re.findall(r'fill="(#[0-9a-f]{6})"/></svg> <bdi>(\w+)</bdi>', page)
    assert [name for _, name in legend] == ["ground", "box"]
    assert legend[0][0] != legend[1][0]
    again = run.evaluate(street)
    assert again["eval_mean_iou"] == pytest.approx(run.metrics["test_mean_iou"])
    assert AutoModelForSemanticSegmentation.from_pretrained(run.model_folder).config.id2label == {0: "ground", 1: "box"}


def test_recorded_phases_read_masks_alone(
    street: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    decode = _image.decode
    monkeypatch.setattr(_image, "decode", lambda data, place: read.append(place) or decode(data, place))

    def pictures_read(epochs: int) -> int:
        read.clear()
        settings = (f"train.epochs={epochs}", "baselines=false")
        trained(street, models["mobilenet"], tmp_path / str(epochs), *settings, schedule="head")
        return len(read)

    assert pictures_read(3) == pictures_read(6)


def test_a_head_of_branches_is_entered_as_a_whole_and_recorded(
    street: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    """DeepLab's head pools its input in one branch and convolves it in another."""
    settings = ("baselines=false", "options.output_stride=8")
    run = trained(street, models["mobilenet"], tmp_path / "run", *settings, schedule="head")
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    [recorded] = [event for event in events if event["kind"] == "recorded"]
    assert recorded["boundary"] == "head"
    # Pictures are brought to 64 x 96, of which the head gets an eighth.
    config = run.predictor.model.config
    assert config.output_stride == 8
    width = run.predictor.model.segmentation_head.conv_aspp.convolution.in_channels
    assert recorded["bytes"] >= 24 * width * 8 * 12 * 2
    assert not [event for event in events if "not recorded" in str(event.get("text", ""))]


@pytest.mark.parametrize(
    ("pictures", "wanted"),
    [((240, 180), (352, 480)), ((96, 64), (128, 192)), ((640, 480), (384, 512)), ((1000, 100), (64, 512))],
)
def test_small_pictures_are_enlarged_and_large_ones_brought_to_512(
    pictures: tuple[int, int], wanted: tuple[int, int], models: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(6):
        Image.new("RGB", pictures, (40 * i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
        mask = np.zeros(pictures[::-1], dtype=np.uint8)
        mask[: 10 + i] = 1
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    recipe = Recipe.build({"model": str(models["mobilenet"]), "data": {"validation": 0}})
    prepared = prepare(recipe, str(tmp_path))
    assert (prepared.task.targets.height, prepared.task.targets.width) == wanted


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (MobileViTConfig(image_size=96), (128, 160)),
        (MobileViTV2Config(image_size=96), (128, 160)),
        (BeitConfig(image_size=96), (96, 96)),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_pictures_are_squashed_only_for_models_with_a_table_of_places(
    config: Any, wanted: tuple[int, int], street: Path, models: dict[str, Path]
) -> None:
    recipe = Recipe.build({"data.source": str(street), "model": str(models["mobilenet"])})
    found = prepare(recipe)
    found.task.longest_input(None, found.train, config)
    assert (found.task.targets.height, found.task.targets.width) == wanted


def test_how_finely_a_model_draws_is_asked_or_its_own() -> None:
    fresh, drawn = MobileNetV2Config(), MobileNetV2Config(output_stride=8)
    asked = ImageSegmentation(output_stride=8)
    assert ImageSegmentation().adapted(fresh).output_stride == 16
    assert asked.adapted(fresh).output_stride == 8
    assert ImageSegmentation().adapted(drawn).output_stride == 8, "as it was fine-tuned"
    assert ImageSegmentation(output_stride=16).adapted(drawn).output_stride == 16
    assert fresh.output_stride == 32, "what was given stays as it is"
    with pytest.raises(TaskError, match="segformer draws at a stride of its own"):
        asked.adapted(SegformerConfig())


def test_resumed_it_is_the_same_to_the_bit(street: Path, models: dict[str, Path], tmp_path: Path) -> None:
    def stop(event: Any) -> bool:
        return event.kind == "step" and event.step == 5

    settings = ("baselines=false", "train.epochs=3", "options.augmentation=always")
    whole = trained(street, models["segformer"], tmp_path / "whole", *settings)
    with pytest.raises(unfreeze.errors.Interrupted):
        trained(street, models["segformer"], tmp_path / "cut", *settings, observers=[stop])
    resumed = unfreeze.resume(tmp_path / "cut")
    for name, tensor in whole.predictor.model.state_dict().items():
        assert torch.equal(tensor, resumed.predictor.model.state_dict()[name]), name


class TestFolders:
    @pytest.mark.parametrize(
        ("pictures", "below"), [("images", "masks"), ("images", "annotations"), ("JPEGImages", "SegmentationClass")]
    )
    def test_pictures_beside_masks(self, pictures: str, below: str, tmp_path: Path) -> None:
        save(tmp_path / "data" / pictures, tmp_path / "data" / below, 4)
        splits = read(str(tmp_path / "data"))
        assert splits.train.columns == ["image", "mask"]
        assert splits.train.row(2).values == {"image": f"{pictures}/002.jpg", "mask": f"{below}/002.png"}
        assert (splits.validation, splits.test) == (None, None)

    def test_with_splits_inside(self, tmp_path: Path) -> None:
        for name, count in (("training", 4), ("validation", 2)):
            save(tmp_path / "data" / "images" / name, tmp_path / "data" / "annotations" / name, count)
        splits = read(str(tmp_path / "data"))
        assert (len(splits.train), len(splits.validation or ()), splits.test) == (4, 2, None)

    def test_with_splits_outside(self, tmp_path: Path) -> None:
        for name, count in (("train", 4), ("val", 2)):
            save(tmp_path / "data" / name / "images", tmp_path / "data" / name / "masks", count)
        splits = read(str(tmp_path / "data"))
        assert (len(splits.train), len(splits.validation or ()), splits.test) == (4, 2, None)
        assert splits.train.row(0).values == {"image": "train/images/000.jpg", "mask": "train/masks/000.png"}

    def test_in_folders_below_they_are_paired_from_there_on(self, tmp_path: Path) -> None:
        for site, count in (("north", 3), ("south", 2)):
            save(tmp_path / "data" / "images" / site, tmp_path / "data" / "masks" / site, count)
        table = read(str(tmp_path / "data")).train
        assert (table.columns, len(table)) == (["image", "mask"], 5)
        assert table.row(3).values == {"image": "images/south/000.jpg", "mask": "masks/south/000.png"}

    def test_voc_has_boxes_beside_its_masks(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "JPEGImages", tmp_path / "data" / "SegmentationClass", 3)
        (tmp_path / "data" / "Annotations").mkdir()
        (tmp_path / "data" / "Annotations" / "000.xml").write_text("<annotation/>")
        assert read(str(tmp_path / "data")).train.row(0).values["mask"] == "SegmentationClass/000.png"

    def test_of_the_pictures_of_voc_those_with_a_mask_are_the_rows(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "JPEGImages", tmp_path / "data" / "SegmentationClass", 6)
        for i in (0, 2):
            (tmp_path / "data" / "SegmentationClass" / f"{i:03}.png").unlink()
        splits = read(str(tmp_path / "data"))
        assert splits.train.column("mask") == [f"SegmentationClass/{i:03}.png" for i in (1, 3, 4, 5)]
        assert "Pictures without a mask in SegmentationClass are not used: 2 of 6." in splits.notes
        assert len(read(str(tmp_path / "data"), wanted="test", to_predict=True).train) == 6, "each can be answered"

    def test_voc_names_the_pictures_of_its_splits(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "JPEGImages", tmp_path / "data" / "SegmentationClass", 6)
        (tmp_path / "data" / "SegmentationClass" / "005.png").unlink()
        lists = tmp_path / "data" / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        for name, listed in (("train", "003 000 009"), ("val", "001 005"), ("trainval", "000 001 003")):
            (lists / f"{name}.txt").write_text(listed.replace(" ", "\n") + "\n")
        splits = read(str(tmp_path / "data"))
        found = {name: table.column("mask") for name, table in splits.tables().items()}
        assert found == {
            "train": ["SegmentationClass/003.png", "SegmentationClass/000.png"],
            "validation": ["SegmentationClass/001.png"],
        }
        said = "Names in ImageSets/Segmentation/{} of pictures that are not there or have no mask: 1 of {}."
        assert {said.format("train.txt", 3), said.format("val.txt", 2)} <= set(splits.notes)
        assert "Pictures that no file in ImageSets/Segmentation names are not used: 2." in splits.notes
        assert not any("ImageSets/" in note and "Beside" in note for note in splits.notes)
        assert len(read(str(tmp_path / "data"), wanted="test", to_predict=True).train) == 6, "none is for the test"
        (lists / "train.txt").write_text("009\n")
        with pytest.raises(DataError, match=r"no picture with a mask is named in .*train\.txt"):
            read(str(tmp_path / "data"))

    def test_where_most_pictures_have_no_mask_the_others_are_the_rows(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 6)
        for i in range(4):
            (tmp_path / "data" / "masks" / f"{i:03}.png").unlink()
        splits = read(str(tmp_path / "data"))
        assert splits.train.column("mask") == ["masks/004.png", "masks/005.png"]
        assert "Pictures without a mask in masks are not used: 4 of 6." in splits.notes
        save(tmp_path / "elsewhere", tmp_path / "data" / "masks", 1, first=9)
        assert read(str(tmp_path / "data")).train.column("mask").count(None) == 4, "names may be wrong: it is told"

    def test_a_folder_of_test_rows_alone(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "test", tmp_path / "data" / "testannot", 3)
        table = read(str(tmp_path / "data"), wanted="test").train
        assert (table.columns, len(table)) == (["image", "mask"], 3)

    def test_pictures_of_a_split_without_masks_are_said(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images" / "train", tmp_path / "data" / "masks" / "train", 3)
        save(tmp_path / "data" / "images" / "test", tmp_path / "elsewhere", 2)
        splits = read(str(tmp_path / "data"))
        assert splits.test is None
        assert "The pictures in images/test are not read: masks/test has no masks for them." in splits.notes

    def test_no_masks_beside_pictures_is_no_class(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "elsewhere", 3)
        (tmp_path / "data" / "masks").mkdir()
        with pytest.raises(DataError, match="beside pictures, holds no masks"):
            read(str(tmp_path / "data"))

    def test_a_line_without_a_name_would_shift_the_classes(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 3)
        (tmp_path / "data" / "classes.txt").write_text("sky\n\nroad\n")
        with pytest.raises(DataError, match="a line without a name") as caught:
            read(str(tmp_path / "data"))
        assert caught.value.where == "classes.txt:2"

    def test_names_may_end_in_what_they_are(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 3)
        for path in (tmp_path / "data" / "masks").iterdir():
            path.rename(path.with_name(f"{path.stem}_mask.png"))
        assert read(str(tmp_path / "data")).train.row(0).values["mask"] == "masks/000_mask.png"

    def test_what_has_no_partner_is_said(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 4)
        (tmp_path / "data" / "images" / "001.jpg").unlink()
        (tmp_path / "data" / "masks" / "002.png").unlink()
        splits = read(str(tmp_path / "data"))
        assert splits.train.column("mask") == ["masks/000.png", None, "masks/003.png"]
        assert any("without a picture are not used: 1" in note for note in splits.notes)

    def test_no_names_alike_is_an_error(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 2)
        for path in (tmp_path / "data" / "masks").iterdir():
            path.rename(path.with_name(f"other{path.name}"))
        with pytest.raises(DataError, match="no mask in masks has the name of a picture"):
            read(str(tmp_path / "data"))

    def test_folders_of_classes_stay_what_they_are(self, tmp_path: Path) -> None:
        for name in ("images", "drawings"):
            save(tmp_path / "data" / name, tmp_path / "elsewhere", 3)
        table = read(str(tmp_path / "data")).train
        assert table.columns == ["image", "label"]
        assert ImageSegmentation.recognises(table) is None
        assert recognised_files(table, "image") == "image"

    def test_columns_of_a_table_and_of_the_hub(self, tmp_path: Path) -> None:
        rows = ImageSegmentation().sample_rows()
        assert ImageSegmentation.recognises(read(rows).train) is not None
        assert recognised_files(read(rows).train, "image") is None, "no classes of pictures"
        save(tmp_path / "a", tmp_path / "b", 3)
        listed = "".join(f"a/{i:03}.jpg,b/{i:03}.png\n" for i in range(3))
        (tmp_path / "list.csv").write_text("image,segmentation\n" + listed)
        roles = ImageSegmentation().find_roles(read(str(tmp_path / "list.csv")).train, None, needs_label=True)
        assert (roles.text, roles.label) == (("image",), "segmentation")


def png_of_few_bits(numbers: np.ndarray, bits: int) -> bytes:
    """A grey PNG as other programs write it; Pillow itself writes eight bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = numbers.shape
    rows = []
    for row in numbers:
        whole = "".join(f"{n:0{bits}b}" for n in row).ljust(-(-width * bits // 8) * 8, "0")
        rows.append(b"\0" + int(whole, 2).to_bytes(len(whole) // 8, "big"))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


class TestMasks:
    def test_one_that_says_how_it_is_turned_is_turned(self) -> None:
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = 6  # a quarter to the right
        Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).save(file, "PNG", exif=exif)
        assert masks.decode(file.getvalue(), "a").tolist() == [[0], [1], [2]]

    def test_numbers_are_read_as_they_are(self) -> None:
        numbers = np.array([[0, 1], [7, 255]], dtype=np.uint8)
        palette = Image.fromarray(numbers, mode=None).convert("P")
        palette.putdata(list(numbers.ravel()))
        palette.putpalette([255 - n // 3 for n in range(768)])
        for picture in (Image.fromarray(numbers), palette, Image.fromarray(numbers.astype(np.uint16))):
            file = io.BytesIO()
            picture.save(file, "PNG")
            assert np.array_equal(masks.decode(file.getvalue(), "a.png"), numbers), picture.mode
        file = io.BytesIO()
        Image.fromarray(numbers > 0).save(file, "PNG")
        assert masks.decode(file.getvalue(), "a.png").tolist() == [[0, 1], [1, 1]]

    @pytest.mark.parametrize(
        ("mode", "kind", "what"),
        [("RGB", "PNG", "in colours"), ("L", "JPEG", "does not keep numbers"), ("I;16", "PNG", "the number 300")],
    )
    def test_what_holds_no_class_numbers_is_refused(self, mode: str, kind: str, what: str) -> None:
        picture = Image.new(mode, (4, 4), 300 if mode == "I;16" else 0)
        file = io.BytesIO()
        picture.save(file, kind)
        with pytest.raises(DataError, match=what) as caught:
            masks.decode(file.getvalue(), "a.png")
        assert (caught.value.code, caught.value.where) == ("DATA-MASK", "a.png")

    @pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
    def test_damaged_ones_are_refused(self, data: bytes) -> None:
        with pytest.raises(DataError, match="the mask cannot be read"):
            masks.decode(data, "a.png")

    def test_what_is_no_picture_is_named_as_it_is_of_pictures(self) -> None:
        with pytest.raises(DataError, match="the mask cannot be read: it holds a web page") as caught:
            masks.decode(b"<!DOCTYPE html><html></html>", "masks/7.png")
        assert (caught.value.code, caught.value.where) == ("DATA-MASK", "masks/7.png")

    def test_only_0_and_255_are_ground_and_thing(self, models: dict[str, Path], tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 4, numbers=(0, 255, 0))
        task = ImageSegmentation()
        table = read(str(tmp_path / "data")).train
        space = task.learn(table, task.find_roles(table, None, needs_label=True), None)
        assert (space.labels, space.numbers) == (("ground", "thing"), (0, 255))
        space = task.learn(table, task.find_roles(table, None, needs_label=True), ["wall", "crack"])
        assert (space.labels, space.numbers) == (("wall", "crack"), (0, 255))

    def test_255_is_none_beside_others_and_classes_can_be_left_out(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 4, numbers=(3, 1, 255))
        table = read(str(tmp_path / "data")).train
        roles = ImageSegmentation().find_roles(table, None, needs_label=True)
        space = ImageSegmentation().learn(table, roles, None)
        assert (space.labels, space.numbers, space.left_out) == (("class 1", "class 3"), (1, 3), ("class 255",))
        with pytest.raises(DataError, match="nothing can be told apart"):
            ImageSegmentation(ignore=[3]).learn(table, roles, None)
        with pytest.raises(RecipeError, match="no class 'car'"):
            ImageSegmentation(ignore=["car"]).learn(table, roles, None)

    @pytest.mark.parametrize("way", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
    @pytest.mark.parametrize("names", [None, ["ground", "crack"]])
    def test_masks_of_0_and_255_with_blurred_edges_are_refused(
        self, way: Image.Resampling, names: list[str] | None, tmp_path: Path
    ) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 4, numbers=(0, 255, 0))
        for i in (1, 3):
            file = tmp_path / "data" / "masks" / f"{i:03}.png"
            small = Image.open(file).resize((53, 43), way)
            small.resize((SIDE + 16, SIDE), Image.Resampling.NEAREST).save(file)
        table = read(str(tmp_path / "data")).train
        roles = ImageSegmentation().find_roles(table, None, needs_label=True)
        with pytest.raises(DataError, match="the edges of 2 masks are blurred: beside 0 and 255") as caught:
            ImageSegmentation().learn(table, roles, names)
        assert (caught.value.code, caught.value.where) == ("DATA-MASK", "masks/001.png")
        if names is None:
            assert len(ImageSegmentation(ignore=[255]).learn(table, roles, None).labels) > 2, "it is known to be none"

    @pytest.mark.parametrize("count", [1, 20, 150, 182])
    def test_numbers_of_rare_classes_are_no_blurred_edges(self, count: int, tmp_path: Path) -> None:
        """Ground, small things, and thin borders that are no class: as in VOC, ADE20K and COCO."""
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 4, numbers=(0, 0, 255))
        for file in (tmp_path / "data" / "masks").iterdir():
            numbers = np.array(Image.open(file))
            numbers[10, :60], numbers[20, :60], numbers[30, :62] = np.split(1 + np.arange(182) % count, (60, 120))
            Image.fromarray(numbers).save(file)
        table = read(str(tmp_path / "data")).train
        roles = ImageSegmentation().find_roles(table, None, needs_label=True)
        space = ImageSegmentation().learn(table, roles, None)
        assert (len(space.labels), space.numbers_left_out) == (count + 1, (255,))

    def test_the_same_thing_written_in_two_ways_is_refused(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 4, numbers=(0, 1, 0))
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 2, first=4, numbers=(0, 255, 0))
        table = read(str(tmp_path / "data")).train
        roles = ImageSegmentation().find_roles(table, None, needs_label=True)
        with pytest.raises(DataError, match="4 masks hold 0 and 1, and 2 others 0 and 255") as caught:
            ImageSegmentation().learn(table, roles, None)
        assert caught.value.where == "masks/004.png"
        assert ImageSegmentation(ignore=[255]).learn(table, roles, None).numbers == (0, 1), "it is known to be none"

    def test_another_split_that_writes_the_thing_otherwise(self, models: dict[str, Path], tmp_path: Path) -> None:
        for name, thing in (("train", 1), ("val", 255)):
            save(tmp_path / "data" / name, tmp_path / "data" / f"{name}annot", 4, numbers=(0, thing, 0))
        with pytest.raises(DataError, match="the validation masks hold 0 and 255, those of training 0 and 1") as caught:
            unfreeze.plan(tmp_path / "data", model=str(models["segformer"]))
        assert "valannot" in str(caught.value.where)

    def test_masks_are_not_looked_at_where_pictures_are_answered(
        self, street: Path, models: dict[str, Path], tmp_path: Path
    ) -> None:
        run = trained(street, models["segformer"], tmp_path / "run", "baselines=false", "train.epochs=1")
        save(tmp_path / "other" / "images", tmp_path / "other" / "masks", 2)
        (tmp_path / "other" / "masks" / "000.png").write_bytes(b"damaged")
        assert len(list(unfreeze.predict(run.folder, str(tmp_path / "other")))) == 2
        with pytest.raises(DataError, match="1 of 2 given rows cannot be read"):
            run.evaluate(tmp_path / "other")

    @pytest.mark.parametrize("bits", [2, 4])
    def test_numbers_of_few_bits_are_not_shades(self, bits: int) -> None:
        """Pillow makes 0 to 255 of them."""
        numbers = np.arange(4, dtype=np.uint8).reshape(2, 2)
        assert np.array_equal(masks.decode(png_of_few_bits(numbers, bits), "a.png"), numbers)

    def test_numbers_that_no_training_mask_has_are_refused_with_their_row(
        self, street: Path, models: dict[str, Path], tmp_path: Path
    ) -> None:
        for name in ("train", "val"):
            save(tmp_path / "data" / name, tmp_path / "data" / f"{name}annot", 6)
        save(tmp_path / "data" / "val", tmp_path / "data" / "valannot", 1, first=9, numbers=(0, 7, 11))
        (tmp_path / "data" / "classes.txt").write_bytes((street / "classes.txt").read_bytes())
        with pytest.raises(DataError, match="the mask holds the number 7") as caught:
            trained(tmp_path / "data", models["segformer"], tmp_path / "run")
        assert caught.value.where == "val/009.jpg"
        save(tmp_path / "other" / "images", tmp_path / "other" / "masks", 2, numbers=(0, 1, 255))
        run = trained(street, models["segformer"], tmp_path / "run", "baselines=false", "train.epochs=1")
        found = run.evaluate(tmp_path / "other")
        assert found["eval_mean_iou"] is not None
        save(tmp_path / "none" / "images", tmp_path / "none" / "masks", 2, numbers=(255, 255, 255))
        with pytest.raises(DataError, match="no pixel of the given masks has a class"):
            run.evaluate(tmp_path / "none")

    def test_a_number_beyond_the_named_classes_is_an_error_with_its_file(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 3)
        table = read(str(tmp_path / "data")).train
        roles = ImageSegmentation().find_roles(table, None, needs_label=True)
        with pytest.raises(DataError, match="holds the number 11, and 2 classes are named") as caught:
            ImageSegmentation().learn(table, roles, ["ground", "box"])
        assert caught.value.where == "images/000.jpg"

    def test_another_size_and_damage_are_all_named_before_training(
        self, street: Path, models: dict[str, Path], tmp_path: Path
    ) -> None:
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 8)
        Image.new("L", (9, 9)).save(tmp_path / "data" / "masks" / "003.png")
        (tmp_path / "data" / "masks" / "005.png").write_bytes(b"nothing")
        with pytest.raises(DataError, match="2 of 8 train rows cannot be read") as caught:
            trained(tmp_path / "data", models["segformer"], tmp_path / "run")
        assert "9 x 9 pixels, the picture 80 x 64" in caught.value.what
        run = trained(
            tmp_path / "data", models["segformer"], tmp_path / "run", "data.drop_broken=true", "baselines=false"
        )
        assert run.plan["data"]["rows"]["train"] + run.plan["data"]["rows"]["validation"] == 6


class TestVariation:
    def test_picture_and_mask_are_cut_and_mirrored_alike(self, street: Path, models: dict[str, Path]) -> None:
        """The box is the only bright thing: wherever it is cut to, its pixels are bright."""
        from unfreeze.preparation import prepare
        from unfreeze.recipe import Recipe

        prepared = prepare(Recipe.build({"data.source": str(street), "model": str(models["segformer"])}))
        task, seen = prepared.task, set()
        for i, example in enumerate(prepared.train_examples):
            drawn = task.augment(example, np.random.default_rng(i))
            seen.add(drawn.origin.picture.is_mirrored)
            batch = task.collate([drawn])
            red = batch.inputs["pixel_values"][0, 0]
            classes = batch.targets.classes[0]
            middle = (red[classes == 1].median(), red[classes == 0].median())
            if (classes == 1).sum() > 200 and (classes == 0).sum() > 200:
                assert middle[0] > middle[1] + 0.5
                assert ((red > (middle[0] + middle[1]) / 2) == (classes == 1))[classes != 255].float().mean() > 0.95
        assert seen == {True, False}


class TestFigures:
    def test_iou_by_hand(self) -> None:
        true = np.array([[0, 0, 1, 255], [0, 1, 1, 255]])
        said = np.array([[0, 1, 1, 0], [0, 1, 0, 1]])
        counts = confusion(true, said, 2)
        assert counts.tolist() == [[2, 1], [1, 2]]
        state = SegmentationState(["a", "b"])
        state.update(counts[None])
        found = state.compute()
        assert found["mean_iou"] == pytest.approx(0.5)
        assert found["pixel_accuracy"] == pytest.approx(4 / 6)
        assert found["mean_accuracy"] == pytest.approx(2 / 3)
        assert [c["iou"] for c in state.details()["per_class"]] == [0.5, 0.5]

    def test_it_is_over_all_pixels_and_not_the_mean_over_pictures(self) -> None:
        random = np.random.default_rng(0)
        true, said = random.integers(0, 3, (2, 6, 20, 20))
        whole, parts = SegmentationState("abc"), [SegmentationState("abc"), SegmentationState("abc")]
        counts = np.stack([confusion(t, s, 3) for t, s in zip(true, said, strict=True)])
        whole.update(counts, np.arange(6))
        parts[0].update(counts[:2], np.arange(2))
        parts[1].update(counts[2:], np.arange(2, 6))
        parts[0].merge(parts[1])
        assert parts[0].compute() == whole.compute()
        assert SegmentationState.load(whole.state_dict()).compute() == whole.compute()
        wanted = [((true == c) & (said == c)).sum() / ((true == c) | (said == c)).sum() for c in range(3)]
        assert whole.compute()["mean_iou"] == pytest.approx(np.mean(wanted))
        low, high = whole.intervals()["mean_iou"]
        assert low < np.mean(wanted) < high

    def test_a_class_that_nowhere_occurs_does_not_count(self) -> None:
        state = SegmentationState(["a", "b", "c"])
        state.update(confusion(np.zeros((2, 2), int), np.zeros((2, 2), int), 3)[None])
        assert state.compute()["mean_iou"] == 1.0
        empty = SegmentationState(["a", "b"])
        empty.update(np.zeros((1, 2, 2), dtype=np.int64))
        assert empty.compute() == {"mean_iou": None, "pixel_accuracy": None, "mean_accuracy": None}
        assert empty.reasons["mean_iou"] == "no pixel has a class"

    def test_pictures_are_measured_at_their_own_size(self, street: Path, models: dict[str, Path]) -> None:
        from unfreeze.preparation import prepare
        from unfreeze.recipe import Recipe

        recipe = {"data.source": str(street), "model": str(models["segformer"]), "options.size": [32, 32]}
        prepared = prepare(Recipe.build(recipe))
        model = prepared.task.build(prepared.source, prepared.config).model
        found = evaluate_rows(prepared.task, model, prepared.train)
        counted = sum(c["support"] for c in found.details["per_class"])
        assert counted == 24 * (SIDE - 4) * (SIDE + 16)

    def test_the_class_of_a_pixel_is_the_largest_of_all(self, street: Path, models: dict[str, Path]) -> None:
        task = ImageSegmentation()
        logits = torch.randn(2, 7, 5, 6, generator=torch.Generator().manual_seed(0))
        batch = SimpleNamespace(targets=SimpleNamespace(sizes=[(40, 31), (9, 50)]))
        for one, found in zip(logits, task.said(logits, batch), strict=True):
            whole = torch.nn.functional.interpolate(one[None], size=found.shape, mode="bilinear", align_corners=False)
            assert np.array_equal(found, whole[0].argmax(0).numpy())

    def test_nu_07_a_batch_without_any_class_adds_nothing(self, street: Path, models: dict[str, Path]) -> None:
        from unfreeze.preparation import prepare
        from unfreeze.recipe import Recipe

        prepared = prepare(Recipe.build({"data.source": str(street), "model": str(models["segformer"])}))
        model = prepared.task.build(prepared.source, prepared.config).model
        batch = prepared.task.collate(prepared.train_examples[:2])
        batch.targets.classes[:] = masks.NOT_A_CLASS
        term = prepared.task.loss(model, batch).terms["loss"]
        term.sum.backward()
        assert float(term.sum.detach()) == 0.0
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())

    def test_nu_07_rows_whose_masks_hold_no_class_are_trained_past(
        self, models: dict[str, Path], tmp_path: Path
    ) -> None:
        """Half of the rows, one in each step: the trial step and the steps themselves divide by no pixel."""
        save(tmp_path / "data" / "images", tmp_path / "data" / "masks", 8)
        for i in range(0, 8, 2):
            path = tmp_path / "data" / "masks" / f"{i:03}.png"
            Image.fromarray(np.full_like(np.asarray(Image.open(path)), masks.NOT_A_CLASS)).save(path)
        settings = ("train.batch_size=1", "data.validation=0", "train.epochs=1", "baselines=false")
        run = trained(tmp_path / "data", models["segformer"], tmp_path / "run", *settings, schedule="full")
        losses = [event.values["loss"] for event in run.events("step")]
        assert losses.count(0.0) == 4
        assert all(np.isfinite(losses))

    def test_two_systems(self) -> None:
        paired = PairedState("pixels")
        paired.update(None, np.array([0.9, 0.8, 0.7]), np.array([0.5, 0.5, 0.6]))
        assert paired.difference().value == pytest.approx(0.8 - 1.6 / 3)
        assert paired.difference().metric == "pixel_accuracy"

    def test_pixels_without_a_class_are_not_coloured(self) -> None:
        picture = Image.new("RGB", (2, 1), (10, 20, 30))
        drawn = np.asarray(_overlay(picture, np.array([[0, 255]], dtype=np.uint8)))
        assert drawn[0, 1].tolist() == [10, 20, 30]
        assert drawn[0, 0].tolist() != [10, 20, 30]


@pytest.mark.parametrize(
    "options",
    [
        {"size": [10, 10]},
        {"size": 64},
        {"mirror": 1},
        {"augmentation": "some"},
        {"ignore": "sky"},
        {"size": [64, True]},
        {"output_stride": 32},
        {"output_stride": True},
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=next(iter(options))):
        ImageSegmentation(**options)
