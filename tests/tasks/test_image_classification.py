"""Pictures to classes: the contract, what is recorded, what is varied, damaged files, and what a person gets."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import unfreeze
from unfreeze import answers
from unfreeze.activations.rows import Rows, Views
from unfreeze.api import TrainedRun
from unfreeze.data.sources import read
from unfreeze.errors import DataError, ModelError, RequestError, TaskError
from unfreeze.preparation import prepare
from unfreeze.randomness import generator
from unfreeze.recipe import Recipe
from unfreeze.tasks import _image
from unfreeze.tasks.image_classification import ImageClassification
from unfreeze.testing import ImageArchitecture, check_task, tiny_image_model, tiny_model
from unfreeze.training.sources import Sources

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
PER_CLASS = 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny_image_model(folder / name, name) for name in get_args(ImageArchitecture)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of noisy pictures in one colour each, of several sizes and formats."""
    root = tmp_path_factory.mktemp("data") / "shop"
    draw = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        (root / label).mkdir(parents=True)
        for i in range(PER_CLASS):
            size = (int(draw.integers(20, 60)), int(draw.integers(20, 60)), 3)
            pixels = np.clip(np.asarray(colour) + draw.normal(0, 30, size), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.{('png', 'jpg', 'webp')[i % 3]}")
    return root


def trained(shop: Path, model: Path, folder: Path, *settings: str, schedule: Any = "head") -> TrainedRun:
    return unfreeze.train(
        shop, model=str(model), output=folder / "run", schedule=schedule,
        settings=["train.epochs=8", f"cache.folder={folder / 'cache'}", *settings],
    )  # fmt: skip


@pytest.mark.parametrize("name", get_args(ImageArchitecture))
def test_the_contract_is_kept(models: dict[str, Path], name: str) -> None:
    assert "gold predictions score perfectly" in check_task(ImageClassification, model=models[name])


@pytest.mark.parametrize("name", get_args(ImageArchitecture))
def test_class_folders_are_recognised_and_learned(
    shop: Path, models: dict[str, Path], name: str, tmp_path: Path
) -> None:
    run = trained(shop, models[name], tmp_path, "train.learning_rate=0.02")
    assert run.plan["task"] == "image-classification"
    assert run.metrics["eval_accuracy"] > 0.6
    [recorded] = run.events("recorded")
    assert recorded.values["boundary"] == "head"
    planned = sum(p["recorded_bytes"] for p in run.plan["phases"])
    assert recorded.values["bytes"] == pytest.approx(planned, rel=0.05), "disk as the plan said"
    compared = {b["name"] for b in json.loads((run.folder / "baselines.json").read_text(encoding="utf-8"))}
    assert compared == {"majority", "frozen features"}
    assert "red" in (run.folder / "report.html").read_text(encoding="utf-8")
    card = (run.model_folder / "README.md").read_text(encoding="utf-8")
    assert "image-classification" in card
    assert str(shop) not in card


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_recorded_phases_read_no_picture(
    shop: Path, models: dict[str, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    decode = _image.decode
    monkeypatch.setattr(_image, "decode", lambda data, place: read.append(place) or decode(data, place))

    def pictures_read(epochs: int) -> int:
        read.clear()
        trained(shop, models[name], tmp_path / str(epochs), f"train.epochs={epochs}", "baselines=false")
        return len(read)

    assert pictures_read(3) == pictures_read(8), "more epochs read no more pictures"


class TestMixing:
    @pytest.mark.parametrize("way", ["mixup", "cutmix"])
    def test_pictures_and_targets_are_mixed_alike(self, shop: Path, models: dict[str, Path], way: str) -> None:
        case = prepare(Recipe.build({"data.source": str(shop), "model": str(models["vit"]), "options.mix": way}))
        first, second = case.train_examples[0], next(e for e in case.train_examples if e.target != 0)
        draws = generator(0, "mixing")
        mixed = [case.task.mixed(first, second, draws) for _ in range(40)]
        shares = np.asarray([e.target.share for e in mixed])
        assert ((shares >= 0) & (shares <= 1)).all()
        assert len(np.unique(shares)) > 20
        a, b = (case.task.collate([e]).inputs["pixel_values"][0] for e in (first, second))
        batch = case.task.collate([*mixed, first])
        for i, example in enumerate(mixed):
            given, share = batch.inputs["pixel_values"][i], example.target.share
            if way == "mixup":
                assert torch.allclose(given, share * a + (1 - share) * b, atol=1e-5)
            else:
                of_first = (given == a).all(0)
                assert (of_first | (given == b).all(0)).all(), "every pixel is of one of the two"
                assert float(of_first.float().mean()) == pytest.approx(share, abs=0.1)
            wanted = torch.zeros(3)
            wanted[first.target] += share
            wanted[second.target] += 1 - share
            assert torch.allclose(batch.targets[i], wanted.float(), atol=1e-6)
        assert batch.targets[-1].tolist() == np.eye(3)[first.target].tolist()

    def test_the_loss_is_the_mixture_of_both(self, shop: Path, models: dict[str, Path]) -> None:
        asked = {"options.mix": "mixup", "train.class_weights": {"red": 3.0}}
        case = prepare(Recipe.build({"data.source": str(shop), "model": str(models["vit"]), **asked}))
        torch.manual_seed(0)
        network = case.task.build(case.source, case.config).model.eval()
        first, second = case.train_examples[0], next(e for e in case.train_examples if e.target != 0)
        mixed = case.task.mixed(first, second, generator(0, "mixing"))
        batch, share = case.task.collate([mixed]), mixed.target.share
        logits = network(**batch.inputs).logits.detach()
        weights = torch.tensor(case.task.weights_of_classes(), dtype=torch.float32)
        parts = [torch.nn.functional.cross_entropy(logits, torch.tensor([e.target]), weights, reduction="sum")
                 for e in (first, second)]  # fmt: skip
        found = case.task.loss(network, batch).terms["loss"].sum.item()
        assert found == pytest.approx(float(share * parts[0] + (1 - share) * parts[1]), rel=1e-5)
        of_each = share * weights[first.target] + (1 - share) * weights[second.target]
        assert batch.weights["rows"] == pytest.approx(float(of_each), rel=1e-6)

    def test_it_trains_and_the_plan_names_it(self, shop: Path, models: dict[str, Path], tmp_path: Path) -> None:
        run = trained(
            shop, models["resnet"], tmp_path, "options.mix=cutmix", "train.learning_rate=0.01", schedule="full"
        )
        [choice] = [c for c in run.plan["choices"] if c["key"] == "options.mix"]
        assert choice["value"] == "cutmix"
        assert run.metrics["eval_accuracy"] > 0.6

    def test_where_it_would_change_nothing_it_is_refused(
        self, shop: Path, models: dict[str, Path], tmp_path: Path
    ) -> None:
        with pytest.raises(RequestError, match="recorded as they are"):
            trained(shop, models["vit"], tmp_path, "options.mix=mixup")
        with pytest.raises(RequestError, match="no phase is recorded"):
            trained(shop, models["vit"], tmp_path, "options.views=2", schedule="full")
        with pytest.raises(TaskError, match="mix"):
            ImageClassification(mix="blend")  # type: ignore[arg-type]
        with pytest.raises(TaskError, match="augmentation is 'none'"):
            ImageClassification(mix="mixup", augmentation="none")
        numbers = [
            {"image": str(shop / "red" / f"{i}.{('png', 'jpg', 'webp')[i % 3]}"), "label": 0.5 * i} for i in range(12)
        ]
        with pytest.raises(TaskError, match="labels are numbers"):
            prepare(Recipe.build({"model": str(models["vit"]), "options.mix": "mixup"}), numbers)


class TestViews:
    def test_each_epoch_takes_the_next_variant(
        self, shop: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is trained does not depend on whether the variants could be recorded."""
        asked = ("train.epochs=5", "options.views=3", "baselines=false")
        run = trained(shop, models["vit"], tmp_path / "recorded", *asked)
        [recorded] = run.events("recorded")
        [phase] = run.plan["phases"]
        assert (phase["views"], phase["varies_rows"]) == (3, False)
        assert "each row in 3 variants" in phase["source_reason"]
        assert recorded.values["bytes"] == pytest.approx(phase["recorded_bytes"], rel=0.05), "disk as the plan said"
        monkeypatch.setattr(Sources, "_recorded", lambda *_, **__: (_ for _ in ()).throw(OSError("the disk is full")))
        other = trained(shop, models["vit"], tmp_path / "refused", *asked)
        assert not list(other.events("recorded"))
        losses = [[e.values["loss"] for e in r.events("step")] for r in (run, other)]
        assert losses[0] == pytest.approx(losses[1], rel=2e-3)
        plain = trained(shop, models["vit"], tmp_path / "plain", "train.epochs=5", "baselines=false")
        before = [e.values["loss"] for e in plain.events("step")]
        per_epoch = len(before) // 5
        first = pytest.approx(losses[0][:per_epoch], rel=1e-4)
        assert before[:per_epoch] == first, "the first variant is the row as it is"
        assert abs(before[per_epoch] - losses[0][per_epoch]) > 1e-3

    def test_variants_are_the_same_in_every_run(self, shop: Path, models: dict[str, Path]) -> None:
        case = prepare(Recipe.build({"data.source": str(shop), "model": str(models["vit"]), "options.views": 3}))
        rows = Rows(case.task, case.train_examples)
        views, n = Views(rows, 3), len(case.train_examples)
        assert len(views) == 3 * n
        assert views[0] is case.train_examples[0]
        assert views[n + 1].origin == case.task.view(case.train_examples[1], 1).origin
        assert views[n + 1].origin != views[2 * n + 1].origin
        contents = {bytes(e.inputs["content"]) for e in (views[1], views[n + 1], views[2 * n + 1])}
        assert len(contents) == 3, "what is recorded depends on the variant"
        assert str(shop) not in repr(views[1].origin)
        with pytest.raises(IndexError):
            views[3 * n]

    def test_a_second_run_takes_what_was_recorded(self, shop: Path, models: dict[str, Path], tmp_path: Path) -> None:
        trained(shop, models["vit"], tmp_path, "options.views=2", "baselines=false")
        (tmp_path / "run").rename(tmp_path / "first")
        again = trained(shop, models["vit"], tmp_path, "options.views=2", "baselines=false", "train.learning_rate=0.01")
        assert again.plan["phases"][0]["is_recorded"]
        told = " ".join(str(e.values.get("text")) for e in again.events("notice"))
        assert "recording" not in told

    @pytest.mark.parametrize(
        "options",
        [{"views": 0}, {"views": True}, {"views": 100}, {"views": 2, "augmentation": "none"},
         {"views": 2, "augmentation": "always"}],
    )  # fmt: skip
    def test_options_that_mean_nothing(self, options: dict[str, Any]) -> None:
        with pytest.raises(TaskError, match="views"):
            ImageClassification(**options)


def test_answers_for_files_bytes_and_pictures(shop: Path, models: dict[str, Path], tmp_path: Path) -> None:
    run = trained(shop, models["vit"], tmp_path, "train.epochs=2")
    file = shop / "red" / "0.png"
    rows = [{"image": given} for given in (str(file), file, file.read_bytes(), Image.open(file))]
    said_of = run.predict([str(file), file, file.read_bytes(), Image.open(file), *rows])
    assert len({(a.label, round(a.probability or 0, 5)) for a in said_of}) == 1
    with pytest.raises(DataError, match=r"no file '.*none\.png'"):
        run.predict([str(shop / "none.png")])
    with pytest.raises(DataError, match="not int"):
        run.predict([7])
    assert unfreeze.evaluate(run.folder, shop)["eval_samples"] == 3 * PER_CLASS
    flat = tmp_path / "new"
    flat.mkdir()
    for i in range(3):
        (flat / f"{i}.png").write_bytes((shop / "green" / "0.png").read_bytes())
    command = [sys.executable, "-m", "unfreeze", "predict", str(run.folder)]
    subprocess.run([*command, str(flat), "--output", str(tmp_path / "out.csv")], check=True, capture_output=True)
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "image,label,probability"
    assert [line.split(",")[0] for line in lines[1:]] == ["0.png", "1.png", "2.png"]
    said = subprocess.run([*command, str(file), str(file)], check=True, capture_output=True, text=True).stdout
    assert len(said.splitlines()) == 2
    assert said.startswith(said_of[0].label)
    arguments = [*command, str(file), str(file), "--output", str(tmp_path / "two.csv")]
    subprocess.run(arguments, check=True, capture_output=True)
    assert (tmp_path / "two.csv").read_text(encoding="utf-8").splitlines()[1].startswith(f"{file},{said_of[0].label},")
    answers.write(tmp_path / "three.csv", run, [{"image": Image.open(file), "note": "a"}])
    assert (tmp_path / "three.csv").read_text(encoding="utf-8").splitlines()[1].startswith(f",a,{said_of[0].label},")


def test_a_turned_picture_is_the_same_in_training_evaluation_and_service(
    shop: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    """As a camera writes it: pixels on their side, and a note that they are."""
    upright, turned = tmp_path / "upright", tmp_path / "turned"
    for file in sorted(shop.glob("*/*.png")):
        for folder in (upright, turned):
            (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        # Not alike when turned: a bright corner.
        picture = Image.open(file).convert("RGB").resize((40, 24))
        picture.paste((255, 255, 255), (0, 0, 10, 6))
        picture.save(upright / file.parent.name / file.name)
        exif = Image.Exif()
        exif[0x0112] = 6
        on_its_side = picture.transpose(Image.Transpose.ROTATE_90)
        on_its_side.save(turned / file.parent.name / file.name, exif=exif)
    runs = [trained(data, models["vit"], tmp_path / f"of-{data.name}", "train.epochs=1") for data in (upright, turned)]
    first, second = (dict(run.predictor.model.named_parameters()) for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    figures = [unfreeze.evaluate(runs[0].folder, data)["eval_loss"] for data in (upright, turned)]
    assert figures[0] == figures[1]
    said = [[a.probability for a in runs[0].predict(sorted(map(str, d.glob("*/*.png"))))] for d in (upright, turned)]
    assert said[0] == said[1]


def test_a_resumed_run_is_the_unbroken_one(shop: Path, models: dict[str, Path], tmp_path: Path) -> None:
    settings = ["train.checkpoint_steps=3"]
    whole = trained(shop, models["resnet"], tmp_path / "whole", *settings, schedule="gradual")

    def stop(event: Any) -> bool:
        return event.kind == "step" and event.step == 20

    with pytest.raises(unfreeze.Interrupted):
        unfreeze.train(
            shop, model=str(models["resnet"]), output=tmp_path / "run", schedule="gradual", observers=[stop],
            settings=["train.epochs=8", f"cache.folder={tmp_path / 'cache'}", *settings],
        )  # fmt: skip
    again = unfreeze.resume(tmp_path / "run")
    one, other = (r.model_folder / "model.safetensors" for r in (whole, again))
    assert one.read_bytes() == other.read_bytes()
    assert whole.metrics["eval_accuracy"] == again.metrics["eval_accuracy"]


class TestProcessors:
    def changed(self, model: Path, folder: Path, **settings: Any) -> Path:
        folder.mkdir()
        for file in model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
        return folder

    def test_one_that_leaves_pictures_of_different_sizes_is_refused(
        self, shop: Path, models: dict[str, Path], tmp_path: Path
    ) -> None:
        for number, settings in enumerate(({"do_resize": False}, {"size": {"shortest_edge": 32}})):
            model = self.changed(models["vit"], tmp_path / str(number), do_center_crop=False, **settings)
            with pytest.raises(ModelError, match="different sizes") as caught:
                prepare(Recipe.build({"model": str(model)}), str(shop))
            assert caught.value.code == "PROCESSOR"

    def test_the_middle_of_a_strip_is_taken_before_it_is_enlarged(
        self, models: dict[str, Path], tmp_path: Path
    ) -> None:
        from unfreeze.models.loading import resolve
        from unfreeze.tasks import _image

        size = {"shortest_edge": 32}
        model = self.changed(models["vit"], tmp_path / "crop", size=size, do_center_crop=True, crop_size=32)
        processor = ImageClassification().load_processor(resolve(str(model)))
        strip = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 1001, 3), dtype=np.uint8))
        shortened = _image._as_processed(strip, processor)
        assert shortened.size == (33, 4)
        whole, middle = (processor(images=[p], return_tensors="np")["pixel_values"] for p in (strip, shortened))
        np.testing.assert_allclose(whole, middle, atol=1e-5)


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"data.text": "image"}, r"reads data\.image, not data\.text"),
            ({"data.label": "image", "data.image": "image"}, "named twice"),
            ({"options.label_smoothing": "much"}, "label_smoothing is a share"),
            ({"options.label_smoothing": 1.5}, "label_smoothing is a share"),
            ({"train.max_length": 8}, "no length in tokens"),
        ],
    )
    def test_what_means_nothing_is_refused(
        self, shop: Path, models: dict[str, Path], settings: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(RequestError, match=said):
            prepare(Recipe.build({"model": str(models["vit"]), **settings}), str(shop))

    def test_smoothing_of_numbers_is_refused(self, shop: Path, models: dict[str, Path]) -> None:
        rows = [{"image": path, "label": 0.5 + i} for i, path in enumerate(sorted(shop.rglob("*.png")))]
        recipe = {"model": str(models["vit"]), "train.label_smoothing": 0.1}
        with pytest.raises(TaskError, match="label smoothing does not apply to regression"):
            prepare(Recipe.build(recipe), rows)

    def test_the_plan_says_how_rows_are_varied(self, shop: Path, models: dict[str, Path]) -> None:
        plan = unfreeze.plan(shop, model=str(models["vit"]), settings=["options.mirror=false"])
        [choice] = [c for c in plan.choices if c.key == "options.augmentation"]
        assert "54 rows: pictures are cut at random to 35% or more, in phases" in choice.reason
        plan = unfreeze.plan(shop, model=str(models["vit"]), settings=["options.augmentation=always"])
        [choice] = [c for c in plan.choices if c.key == "options.augmentation"]
        assert choice.source == "--set"
        assert "and mirrored, in every phase: none is recorded" in choice.reason


class TestVariation:
    def task(self, shop: Path, model: Path, **options: Any) -> tuple[ImageClassification, list[Any]]:
        recipe = Recipe.build({"model": str(model), **{f"options.{k}": v for k, v in options.items()}})
        prepared = prepare(recipe, str(shop))
        assert isinstance(prepared.task, ImageClassification)
        return prepared.task, prepared.train_examples

    def test_it_is_drawn_by_the_generator_alone(self, shop: Path, models: dict[str, Path]) -> None:
        task, examples = self.task(shop, models["vit"])
        one, same, other = (task.augment(examples[0], generator(0, "a", i)).origin for i in (1, 1, 2))
        assert one == same != other
        assert examples[0].origin.crop == (0.0, 0.0, 1.0, 1.0), "the example itself stays as it is"
        crops = [task.augment(examples[0], generator(0, "b", i)).origin for i in range(200)]
        areas = [(c.crop[2] - c.crop[0]) * (c.crop[3] - c.crop[1]) for c in crops]
        assert 0.25 < min(areas) < 0.5, "few rows are varied strongly"
        assert all(0 <= c.crop[0] < c.crop[2] <= 1.0001 and 0 <= c.crop[1] < c.crop[3] <= 1.0001 for c in crops)
        assert 60 < sum(c.is_mirrored for c in crops) < 140

    def test_letters_are_not_mirrored(self, shop: Path, models: dict[str, Path]) -> None:
        task, examples = self.task(shop, models["vit"], mirror=False)
        assert not any(task.augment(examples[0], generator(0, "c", i)).origin.is_mirrored for i in range(50))

    def test_recorded_phases_see_the_rows_as_they_are(self, shop: Path, models: dict[str, Path]) -> None:
        plan = unfreeze.plan(shop, model=str(models["resnet"]), settings=["train.epochs=20"])
        assert [p.varies_rows for p in plan.phases] == [p.boundary is None for p in plan.phases]
        assert plan.phases[0].boundary == "head"
        assert plan.phases[0].source_reason.endswith("as they are")
        always = unfreeze.plan(shop, model=str(models["resnet"]), settings=["options.augmentation=always"])
        assert all(p.boundary is None and p.varies_rows for p in always.phases)
        assert "varied at random" in always.phases[0].source_reason
        none = unfreeze.plan(shop, model=str(models["resnet"]), settings=["options.augmentation=none"])
        assert not any(p.varies_rows for p in none.phases)

    def test_unknown_ways_are_refused(self) -> None:
        with pytest.raises(TaskError, match="'auto', 'always' or 'none'"):
            ImageClassification(augmentation="strong")  # type: ignore[arg-type]
        with pytest.raises(TaskError, match="true or false"):
            ImageClassification(mirror=3)  # type: ignore[arg-type]


class TestRefusals:
    def test_damaged_files_are_all_named_before_training(
        self, shop: Path, models: dict[str, Path], tmp_path: Path
    ) -> None:
        root = tmp_path / "shop"
        for path in sorted(shop.rglob("*.*")):
            target = root / path.relative_to(shop)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        (root / "red" / "0.png").write_bytes(b"")
        (root / "blue" / "3.png").write_bytes((shop / "blue" / "3.png").read_bytes()[:200])
        with pytest.raises(DataError, match="2 of 60 train rows cannot be read") as caught:
            unfreeze.plan(root, model=str(models["vit"]))
        assert "red/0.png" in str(caught.value.where)
        assert "blue/3.png" in str(caught.value.where)
        plan = unfreeze.plan(root, model=str(models["vit"]), settings=["data.drop_broken=true"])
        assert any("2 train rows that cannot be read were left out" in note for note in plan.data["notes"])
        assert sum(plan.data["rows"].values()) == 58
        for path in (root / "blue").iterdir():
            path.write_bytes(b"")
        for path in (root / "red").iterdir():
            path.write_bytes(b"")
        with pytest.raises(DataError, match="too many to leave out"):
            unfreeze.plan(root, model=str(models["vit"]), settings=["data.drop_broken=true"])

    def test_a_processor_that_divides_by_zero(self, shop: Path, models: dict[str, Path], tmp_path: Path) -> None:
        model = shutil.copytree(models["vit"], tmp_path / "model")
        settings = json.loads((model / "preprocessor_config.json").read_text(encoding="utf-8"))
        settings |= {"do_normalize": True, "image_std": [0.5, 0.0, 0.5]}
        (model / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
        with pytest.raises(ModelError, match="divides by a standard deviation of 0"):
            unfreeze.plan(shop, model=str(model))

    def test_one_damaged_file_stops_no_answers_where_it_may_be_left_out(
        self, shop: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = trained(shop, models["vit"], tmp_path, "train.epochs=1", "baselines=false")
        new = tmp_path / "new"
        new.mkdir()
        for i in (0, 3, 6):
            (new / f"{i}.png").write_bytes((shop / "red" / f"{i}.png").read_bytes())
        (new / "4.png").write_bytes(b"no picture")
        target = tmp_path / "answers.csv"
        with pytest.raises(DataError, match="1 of 4 given rows cannot be read") as caught:
            answers.write(target, run, str(new))
        assert "4.png" in str(caught.value.where)
        assert "--drop-broken" in str(caught.value.remedy)
        assert not target.exists()
        said = Console(file=io.StringIO())
        assert answers.write(target, run, str(new), drop_broken=True, console=said) == 3
        assert len(target.read_text(encoding="utf-8").splitlines()) == 4
        assert "1 given rows that cannot be read were left out, as asked: 4.png" in said.file.getvalue()  # type: ignore[attr-defined]
        labelled = tmp_path / "labelled"
        for name in COLOURS:
            (labelled / name).mkdir(parents=True)
            (labelled / name / "0.png").write_bytes((shop / name / "0.png").read_bytes())
        (labelled / "red" / "1.png").write_bytes(b"")
        with pytest.raises(DataError, match="1 of 4 given rows cannot be read"):
            run.evaluate(labelled)
        assert unfreeze.evaluate(run.folder, labelled, drop_broken=True)["eval_samples"] == 3

    def test_a_file_that_changes_while_training_runs(self, shop: Path, models: dict[str, Path], tmp_path: Path) -> None:
        root = tmp_path / "shop"
        for label in COLOURS:
            (root / label).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (20, 20), COLOURS[label]).save(root / label / f"{i}.png")

        def spoil(event: Any) -> None:
            if event.kind == "step" and event.step == 2:
                for path in root.rglob("*.png"):
                    Image.new("RGB", (20, 20), (1, 2, 3)).save(path)

        with pytest.raises(DataError, match="has changed") as caught:
            unfreeze.train(
                root, model=str(models["vit"]), output=tmp_path / "run", schedule="full", observers=[spoil],
                settings=["data.validation=0", "train.epochs=4", "baselines=false"],
            )  # fmt: skip
        assert caught.value.code == "DATA-CHANGED"
        with pytest.raises(RequestError, match="not what this run was started with"):
            unfreeze.resume(tmp_path / "run")

    def test_a_model_of_texts_is_refused(self, shop: Path, tmp_path: Path) -> None:
        texts = tiny_model(tmp_path / "texts")
        with pytest.raises(ModelError, match="not for pictures"):
            unfreeze.plan(shop, model=str(texts))

    def test_without_a_model_the_small_one_of_the_package_is_trained(self, shop: Path) -> None:
        plan = unfreeze.plan(shop, settings=["train.epochs=1"])
        assert plan.model == "builtin:image"
        reason = next(c.reason for c in plan.choices if c.key == "model")
        assert "comes with unfreeze; a stronger one: --model microsoft/resnet-50" in reason

    def test_pictures_are_no_texts_and_have_no_length(self, shop: Path, models: dict[str, Path]) -> None:
        with pytest.raises(DataError, match="there is no text"):
            unfreeze.plan(shop, task="text-classification", model=str(models["vit"]))
        with pytest.raises(TaskError, match="no length in tokens"):
            unfreeze.plan(shop, model=str(models["vit"]), settings=["train.max_length=64"])


def test_equal_pictures_are_counted_and_stay_together(shop: Path, models: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "twice"
    for label in COLOURS:
        (root / label).mkdir(parents=True)
        for i in range(10):
            data = (shop / label / f"{i % 5}.{('png', 'jpg', 'webp')[i % 5 % 3]}").read_bytes()
            (root / label / f"{i}.png").write_bytes(data)
    plan = unfreeze.plan(root, model=str(models["vit"]))
    assert any("pictures that were there before" in warning for warning in plan.warnings)
    assert not any("too:" in warning for warning in plan.warnings), "none lies on both sides of the split"


@pytest.mark.parametrize(("largest", "told"), [(4095, "multiply their pixels by 16"), (5000, None), (None, None)])
def test_pictures_of_twelve_bits_in_files_of_sixteen_are_warned_of(
    models: dict[str, Path], largest: int | None, told: str | None, tmp_path: Path
) -> None:
    for label in ("ill", "well"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(4):
            # None: eight bits, as usual.
            pixels = np.full((40, 40), largest or 90, dtype=np.uint8 if largest is None else np.uint16)
            pixels[i:20] = 7
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{i}.png")
    plan = unfreeze.plan(tmp_path / "data", model=str(models["vit"]), settings=["data.validation=0"])
    found = [warning for warning in plan.warnings if "nearly black" in warning]
    assert [told in warning for warning in found] == [True] * (told is not None)


def test_bytes_in_a_table(shop: Path, models: dict[str, Path], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(shop.rglob("*.png"))
    images = [{"bytes": path.read_bytes(), "path": None} for path in files]
    table = pa.table({"image": images, "label": [COLOURS_ORDER.index(path.parent.name) for path in files]})
    pq.write_table(table, tmp_path / "pictures.parquet")
    found = read(tmp_path / "pictures.parquet").train
    assert ImageClassification.recognises(found) == "'image' holds pictures"
    plan = unfreeze.plan(tmp_path / "pictures.parquet", model=str(models["vit"]))
    assert plan.task == "image-classification"


COLOURS_ORDER = sorted(COLOURS)


def test_mistakes_are_shown_as_small_pictures(shop: Path, models: dict[str, Path], tmp_path: Path) -> None:
    run = trained(shop, models["vit"], tmp_path, "train.epochs=1", "train.learning_rate=1e-6")
    mistakes = json.loads((run.folder / "mistakes.json").read_text(encoding="utf-8"))
    assert mistakes
    assert all(m["picture"].startswith("data:image/jpeg;base64,") and m["true"] != m["predicted"] for m in mistakes)
    assert mistakes == sorted(mistakes, key=lambda m: -m["surprise"])
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert f'<img src="{mistakes[0]["picture"]}"' in page
    assert mistakes[0]["picture"] not in (run.model_folder / "README.md").read_text(encoding="utf-8")
