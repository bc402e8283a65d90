"""image-segmentation: the class of every pixel of a picture (semantic segmentation)."""

from __future__ import annotations

import base64
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from unfreeze.baselines import Baseline
from unfreeze.data import contents, masks
from unfreeze.data.columns import Roles, file_column, file_columns, mask_column, named_of_files, point_out_group
from unfreeze.data.pictures import decode, thumbnail
from unfreeze.errors import DataError, RecipeError, TaskError, did_you_mean
from unfreeze.metrics import PairedState, SegmentationState
from unfreeze.metrics.segmentation import confusion
from unfreeze.tasks import _image
from unfreeze.tasks._files import FileSource, ReadsFiles, in_threads, recorded_as
from unfreeze.tasks.base import Material
from unfreeze.types import Batch, Example, LossOutput, LossTerm, Prediction, Row, is_number, is_whole

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe

# Of the longer side, unless the recipe asks for another size; sides are multiples of what networks halve five times.
# Smaller pictures are enlarged: what a network was pretrained on is larger than what small pictures show, and poles and
# signs are lost to its coarse grid. On camvid, 240 x 180, a recorded head came to a mean IoU of .378 instead of .314.
MOST_PIXELS, PIXEL_STEP, MOST_ENLARGED = 512, 32, 2.0
# As usual since Chen et al. 2018 (arXiv 1802.02611, section 4); 8 costs about four times as much.
USUAL_STRIDE = 16
USUAL_DROPOUT = 0.1
# Where configurations keep the dropout before the last layer: MobileNet, MobileViT, Segformer; DPT.
_DROPOUTS = ("classifier_dropout_prob", "semantic_classifier_dropout")
# Networks of patches that have no table of places: they take any size, as convolutions do.
_WITHOUT_PLACES = ("mobilevit", "mobilevitv2")
# What interpolated edges look like over all masks of 0 and 255: some shades, from a quarter of the way or less to three
# quarters or more, in few pixels. No usual numbering of classes goes so far up.
FEWEST_SHADES, LOW_SHADE, HIGH_SHADE, MOST_SHADED = 3, 64, 191, 0.1
# Classes of these names are no classes, but what nobody has looked at.
UNLABELLED_NAMES = frozenset(("unlabelled", "unlabeled", "void", "ignore", "ignored", "unknown"))
_OVERLAY_PIXELS, _OVERLAY_SHARE = 240, 0.55


@dataclass(frozen=True)
class MaskSpace:
    """What the training masks say.

    Attributes:
        labels: Names of the classes, in the order of the model's outputs.
        numbers: The number that each has in the masks.
        pixels: Of each in the training masks.
        height, width: To which pictures are brought.
        rows: Training rows.
        left_out: Names or numbers in the masks that are no classes.
    """

    labels: tuple[str, ...]
    numbers: tuple[int, ...]
    pixels: tuple[int, ...]
    height: int = 0
    width: int = 0
    rows: int = 0
    left_out: tuple[str, ...] = ()
    numbers_left_out: tuple[int, ...] = ()

    problem_type: ClassVar[str] = "semantic_segmentation"

    @property
    def reason(self) -> str:
        left = f"; no class: {', '.join(self.left_out)}" if self.left_out else ""
        return f"the masks hold {len(self.labels)} different numbers{left}"

    def classes(self, numbers: np.ndarray, place: str) -> np.ndarray:
        """The class of each number in a mask, 255 for those that are none, uint8.

        Raises:
            DataError: E-DATA-LABEL-UNSEEN, a number that no training mask has.
        """
        table = np.full(256, masks.NOT_A_CLASS, dtype=np.uint8)
        table[list(self.numbers)] = np.arange(len(self.numbers))
        known = {*self.numbers, *self.numbers_left_out, masks.NOT_A_CLASS}
        strange = sorted(set(map(int, np.unique(numbers))) - known)
        if strange:
            shown = ", ".join(map(str, self.numbers))
            what = f"the mask holds the number {strange[0]}, which no training mask has; they have {shown}"
            raise DataError(
                "DATA-LABEL-UNSEEN", what, where=place, remedy="write masks as those of the training rows are"
            )
        return table[numbers]

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: list(getattr(self, name)) for name in ("labels", "numbers", "pixels")},
            **{name: list(getattr(self, name)) for name in ("left_out", "numbers_left_out")},
            **{name: getattr(self, name) for name in ("height", "width", "rows")},
        }


@dataclass(frozen=True)
class _Scene:
    """Where an example's pixels come from, and those of its mask; None where there is none.

    Of one that is not read (see `Task.without_content`) the picture has the size of its mask.
    """

    picture: _image.Picture
    mask: FileSource | None
    is_read: bool = True


@dataclass
class _Targets:
    """Of a batch.

    Attributes:
        classes: Of each pixel that the model gets, (batch, height, width); 255: none. None without masks.
        whole: The same of the pictures as they are, each (height, width).
        sizes: Height and width of the pictures as they are.
    """

    classes: torch.Tensor | None
    whole: list[np.ndarray] | None
    sizes: list[tuple[int, int]]

    def to(self, device: torch.device) -> _Targets:
        return _Targets(None if self.classes is None else self.classes.to(device), self.whole, self.sizes)


@dataclass(frozen=True)
class _Seen:
    """An answer, small enough to be kept for every row: share of the pixels that are right, and a small mask."""

    accuracy: float
    small: Image.Image


@dataclass
class ImageSegmentation(ReadsFiles):
    """Roads, organs, defects, fields: which pixels belong to them.

    Options:
        size: Height and width in pixels that pictures are brought to. Default: those of the training pictures, the
            longer side brought to 512 but at most doubled, in steps of 32; or the size that the model was built for.
        ignore: Names or numbers in the masks that are no classes, beside 255 and names such as "unlabelled".
        mirror: Whether left and right may change places.
        output_stride: Pixels of the input, along a side, for one of what the model draws: 8 or 16, where a model draws
            as finely as asked (MobileNet, MobileViT). Default: 16, or what the model was fine-tuned with. Pictures of
            twice the size cost about as much with 16 as small ones with 8.
        dropout: Share of what enters the last layer that is dropped while training. Default: 0.1, where a model drops
            any. MobileNet's configuration has 0.8, for a head that nobody fine-tunes on few pictures.
        augmentation: See `ReadsFiles`.

    Pictures and masks are cut and mirrored alike. Figures are of the pictures at their own size.

    Loss: cross-entropy of each pixel, the logits enlarged to the size of the input; the mean over pixels with a class.
    """

    name: ClassVar[str] = "image-segmentation"
    modality: ClassVar[str] = "image"
    input_role: ClassVar[str] = "image"
    noun: ClassVar[str] = "picture"
    answer_axis: ClassVar[int] = 1
    primary_metric: ClassVar[str] = "mean_iou"
    compares_with: ClassVar[tuple[str, ...]] = ("majority",)

    size: list[int] | None = None
    ignore: list[str | int] = field(default_factory=list)
    mirror: bool = True
    output_stride: int | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_option("mirror", isinstance(self.mirror, bool), "true or false")
        is_share = self.dropout is None or (is_number(self.dropout) and 0 <= self.dropout < 1)
        self.check_option("dropout", is_share, "a share from 0 to below 1")
        self.check_option("output_stride", self.output_stride in (None, 8, 16), "8 or 16")
        sides = self.size
        is_right = sides is None or (
            isinstance(sides, list) and len(sides) == 2 and all(is_whole(side, 16, 4096) for side in sides)
        )
        rule = "a height and a width from 16 to 4096"
        self.check_option("size", is_right, rule, "--set 'options.size=[256, 320]'")
        rule = "a list of names or numbers"
        self.check_option("ignore", isinstance(self.ignore, list), rule, "--set 'options.ignore=[sky]'")

    @property
    def default_model(self) -> None:
        """builtin:image says what is on a picture and not where."""
        return None

    # what the rows hold ------------------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        column = mask_column(table)
        return f"'{column}' holds a mask for each picture" if column is not None else None

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        picture, mask, group = (asked.image, asked.label, asked.group) if asked else (None,) * 3
        named, mask = named_of_files(table, "image", "masks", column=picture, label=mask, group=group)
        known, reasons = file_columns(table, "image"), dict[str, str]()
        if mask is None and needs_label:
            mask = mask_column(table) or next((c for c in known if c not in named and len(known) == 2), None)
            if mask is None:
                what = "no column holds a mask for each picture"
                remedy = (
                    "put the masks into a folder 'masks' beside 'images', each called like its picture; "
                    "or name their column: --set data.label=COLUMN"
                )
                raise DataError("DATA-COLUMN", what, where=table.place(0) if len(table) else None, remedy=remedy)
            reasons["label"] = f"{mask!r} holds the masks"
        picture = file_column(table, "image", named, reasons, without=(mask, mask_column(table)))
        if mask is not None and mask not in known:
            what = f"column {mask!r} holds neither names of pictures nor their bytes"
            raise DataError("DATA-COLUMN", what, remedy="--set data.label=COLUMN")
        alike = point_out_group(table, known, group, reasons)
        return Roles(text=(picture,), label=mask, group=group, reasons=reasons, looks_like_group=alike)

    def files_read(self, roles: Roles) -> tuple[str, ...]:
        return (*roles.text, str(roles.label)) if roles.label is not None else roles.text

    def check_file(self, data: bytes, place: str) -> None:
        decode(data, place)

    def check_row(self, row: Row, roles: Roles) -> None:
        """A picture and its mask are of one size."""
        (column,) = roles.text
        data = contents.content_of(row, column)
        if data is None:
            raise self._nothing_in(row, column)
        picture = decode(data, row.place)
        held = contents.content_of(row, str(roles.label)) if roles.label is not None else None
        if held is None:
            return  # said where rows without a label are
        height, width = masks.decode(held, _place_of_mask(row, str(roles.label))).shape
        if (width, height) != picture.size:
            what = f"the mask is {width} x {height} pixels, the picture {picture.size[0]} x {picture.size[1]}"
            raise DataError("DATA-MASK", what, where=row.place, remedy="make the mask of the picture as it is shown")

    def is_unlabelled(self, value: Any) -> bool:
        empty = isinstance(value, dict) and not value.get("bytes") and not value.get("path")
        return super().is_unlabelled(value) or empty

    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> MaskSpace:
        column = str(roles.label)

        found = in_threads(lambda row: _pixels_by_number(row, column), train)
        self._refuse_two_ways_of_writing(np.stack(found) > 0, train, roles)
        names = list(label_names or ())
        if len(names) in (0, 2):
            self._refuse_blurred_edges(np.stack(found), train, roles)
        pixels = np.sum(found, axis=0)
        present = [int(n) for n in np.flatnonzero(pixels)]
        is_binary = present == [0, masks.NOT_A_CLASS] and len(names) in (0, 2)
        beyond = [n for n in present if names and n >= len(names) and n != masks.NOT_A_CLASS]
        if beyond:
            place = next(train.place(i) for i, counts in enumerate(found) if counts[beyond[0]])
            what = f"a mask holds the number {beyond[0]}, and {len(names)} classes are named, from 0 on"
            raise DataError("DATA-LABEL", what, where=place, remedy="name all classes, or correct the mask")
        if is_binary:
            ground, thing = names or ("ground", "thing")
            names = [ground, *["?"] * (masks.NOT_A_CLASS - 1), thing]
        called = {n: names[n] if n < len(names) else f"class {n}" for n in present}
        left_out = self._left_out(called, is_binary)
        kept = [n for n in present if n not in left_out]
        if len(kept) < 2:
            what = f"the training masks hold {len(kept)} class{'es' if not kept else ''}: nothing can be told apart"
            raise DataError(
                "DATA-ONE-CLASS", what, where=train.place(0), remedy="look at the masks, or at options.ignore"
            )
        return MaskSpace(
            tuple(called[n] for n in kept),
            tuple(kept),
            tuple(int(pixels[n]) for n in kept),
            rows=len(train),
            left_out=tuple(called[n] for n in sorted(left_out)),
            numbers_left_out=tuple(sorted(left_out)),
        )

    def _refuse_two_ways_of_writing(self, holds: np.ndarray, train: Table, roles: Roles) -> None:
        """Thing and ground as 1 and 0 in some masks, as 255 and 0 in others: the latter would be no class.

        Args:
            holds: Whether a mask has a number, (masks, 256).
        """
        if masks.NOT_A_CLASS in self.ignore:
            return  # it is known to be none
        if not (holds[:, 1].any() and not holds[:, 2 : masks.NOT_A_CLASS].any()):
            return
        one, other = holds[:, 1], holds[:, masks.NOT_A_CLASS]
        if other.any() and not (one & other).any():
            place = _place_of_mask(train.row(int(np.flatnonzero(other)[0])), str(roles.label))
            what = f"{int(one.sum()):,} masks hold 0 and 1, and {int(other.sum()):,} others 0 and 255"
            raise DataError("DATA-MASK", what, where=place, remedy="write the same thing as the same number in all")

    def _refuse_blurred_edges(self, found: np.ndarray, train: Table, roles: Roles) -> None:
        """Masks of 0 and 255 that were interpolated: every shade of an edge would be a class, and the thing none.

        Args:
            found: How many pixels of a mask hold each number, (masks, 256).
        """
        if masks.NOT_A_CLASS in self.ignore:
            return  # it is known to be none
        pixels, between = found.sum(axis=0), found[:, 1 : masks.NOT_A_CLASS]
        shades, share = 1 + np.flatnonzero(between.sum(axis=0)), float(between.sum() / max(1, pixels.sum()))
        if (
            pixels[0]
            and pixels[masks.NOT_A_CLASS]
            and len(shades) >= FEWEST_SHADES
            and shades[0] <= LOW_SHADE
            and shades[-1] >= HIGH_SHADE
            and share <= MOST_SHADED
        ):
            blurred = np.flatnonzero(between.sum(axis=1))
            raise DataError(
                "DATA-MASK",
                f"the edges of {len(blurred):,} masks are blurred: beside 0 and 255 there are {len(shades)} numbers "
                f"between, in {share:.1%} of the pixels",
                where=_place_of_mask(train.row(int(blurred[0])), str(roles.label)),
                remedy="write 0 and 255 only, or resize masks with NEAREST; where 255 is no class: "
                "--set 'options.ignore=[255]'",
            )

    def _refuse_another_way_of_writing(self, table: Table, split: str) -> None:
        """Masks of other splits write the thing as those of training do."""
        space: MaskSpace = self.targets
        if space.numbers != (0, 1) or masks.NOT_A_CLASS in self.ignore:
            return
        column = str(self.roles.label)
        holds = np.stack(in_threads(lambda row: _pixels_by_number(row, column), table)) > 0
        if holds[:, masks.NOT_A_CLASS].any() and not holds[:, 1].any():
            place = _place_of_mask(table.row(int(np.flatnonzero(holds[:, masks.NOT_A_CLASS])[0])), column)
            what = f"the {split} masks hold 0 and 255, those of training 0 and 1"
            raise DataError("DATA-MASK", what, where=place, remedy="write the same thing as the same number in all")

    def _left_out(self, called: dict[int, str], is_binary: bool) -> set[int]:
        """Numbers that are no classes: 255, names that say so, and what the recipe names."""
        wanted = {n for n, name in called.items() if name.casefold() in UNLABELLED_NAMES}
        if not is_binary and masks.NOT_A_CLASS in called:
            wanted.add(masks.NOT_A_CLASS)
        for given in self.ignore:
            found = {n for n, name in called.items() if given in (n, name) or str(given) == name}
            if not found:
                what = f"the training masks have no class {given!r}"
                remedy = did_you_mean(str(given), list(called.values()))
                raise RecipeError("RECIPE-VALUE", what, where="options.ignore", remedy=remedy)
            wanted |= found
        return wanted

    def restore_targets(self, stored: Any) -> MaskSpace:
        return MaskSpace(
            tuple(stored["labels"]),
            tuple(stored["numbers"]),
            tuple(stored["pixels"]),
            height=int(stored["height"]),
            width=int(stored["width"]),
            rows=int(stored["rows"]),
            left_out=tuple(stored["left_out"]),
            numbers_left_out=tuple(stored["numbers_left_out"]),
        )

    def check_labels(self, table: Table, split: str) -> None:
        """Numbers that training masks do not have can neither be learned nor scored; nor can rows without any class."""
        if not any(in_threads(lambda row: bool((self._true_of(row) != masks.NOT_A_CLASS).any()), table)):
            what = f"no pixel of the {split} masks has a class"
            raise DataError("DATA-LABEL", what, where=table.place(0), remedy="look at the masks, or at options.ignore")
        self._refuse_another_way_of_writing(table, split)

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Any:
        from transformers import AutoModelForSemanticSegmentation

        from unfreeze.models.loading import check_modality, load_config, load_image_processor

        config = load_config(source, allow_remote_code=self.allows_remote_code)
        check_modality(AutoModelForSemanticSegmentation, config, source.name)
        return load_image_processor(source, allow_remote_code=self.allows_remote_code)

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        """Settles the size, and with it what the processor does."""
        if asked is not None:
            raise TaskError("TASK", "pictures have no length in tokens: options.size", where="train.max_length")
        # Convolutional networks state a size, too, and take any; a table of places for patches is of one.
        has_places = hasattr(config, "patch_size") and config.model_type not in _WITHOUT_PLACES
        fixed = getattr(config, "image_size", None) if has_places else None
        if self.size is not None:
            (height, width), why = self.size, "named in the recipe"
        elif isinstance(fixed, int) and fixed > 0:
            height, width, why = fixed, fixed, "the size that the model was built for"
        else:
            height, width = self._usual_size(train)
            why = f"the shape of the training pictures, {MOST_PIXELS} at most, small ones enlarged"
        self.targets = replace(self.targets, height=height, width=width)
        self.processor = _for_whole_pictures(self.processor, height, width)
        return _image.tokens_of(self.processor), f"a picture is brought to {width} x {height} pixels: {why}"

    def _usual_size(self, train: Table) -> tuple[int, int]:
        measured = _image.some_of(train)
        sizes = np.asarray(in_threads(lambda row: decode(self.source_of(row).read(), row.place).size, measured))
        width, height = np.median(sizes, axis=0)
        scale = min(MOST_ENLARGED, MOST_PIXELS / max(width, height))
        steps = [max(2, round(side * scale / PIXEL_STEP)) for side in (height, width)]
        return steps[0] * PIXEL_STEP, steps[1] * PIXEL_STEP

    def adapted(self, config: Any) -> Any:
        """MobileNet's classifier halves a picture five times; to draw, it must not (Chen et al. 2018, DeepLabv3+).

        Raises:
            TaskError: E-TASK, the model draws at a stride of its own, or drops nothing, and another was asked for.
        """
        changed = copy.deepcopy(config)
        drops = [name for name in _DROPOUTS if hasattr(changed, name)]
        if not drops and self.dropout is not None:
            what = f"{config.model_type} drops nothing before its last layer"
            raise TaskError("TASK", what, where="options.dropout", remedy="leave options.dropout out")
        for name in drops:
            setattr(changed, name, self._share_dropped)
        own = getattr(config, "output_stride", None)
        if own is None and self.output_stride is not None:
            what = f"{config.model_type} draws at a stride of its own"
            raise TaskError("TASK", what, where="options.output_stride", remedy="leave options.output_stride out")
        if own == 32 or self.output_stride is not None:
            changed.output_stride = self.output_stride or USUAL_STRIDE
            changed.finegrained_output = True
        return changed

    def _head(self) -> dict[str, Any]:
        names = dict(enumerate(self.targets.labels))
        return {"n_labels": len(names), "problem_type": None, "id2label": names}

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        from transformers import AutoModelForSemanticSegmentation

        from unfreeze.models.heads import build_classifier

        return build_classifier(
            source,
            self.adapted(config),
            auto_class=AutoModelForSemanticSegmentation,
            allow_remote_code=self.allows_remote_code,
            **self._head(),
        )

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForSemanticSegmentation

        from unfreeze.models.heads import classifier_config

        wanted = classifier_config(self.adapted(config), **self._head())
        return AutoModelForSemanticSegmentation.from_config(wanted, dtype=torch.float32)

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        file, mask = self.source_of(row), None
        if train:
            column = str(self.roles.label)
            path, digest = contents.path_of(row, column), contents.digest_of(row, column)
            if digest is None:
                what = f"there is no mask in column {column!r}"
                raise DataError("DATA-LABEL", what, where=row.place, remedy="give it one, or leave the row out")
            held = contents.content_of(row, column) if path is None else None
            mask = FileSource(path, held, digest, _place_of_mask(row, column))
        content = recorded_as(file, self.processor.to_json_string())
        scene = _Scene(_image.Picture(file), mask)
        target = mask.digest if mask is not None else None
        return [Example({"content": content}, target, row.index, self.max_length, origin=scene)]

    def variation(self) -> str:
        least = _image.least_crop(self.targets.rows)
        return f"cut at random to {least:.0%} or more{' and mirrored' if self.mirror else ''}, masks alike"

    def warnings(self, train: Table) -> list[str]:
        return _image.too_dark(self, train)

    def planned(self) -> list[tuple[str, Any, str]]:
        why = "of what enters the last layer, where the model drops any"
        return [*super().planned(), ("options.dropout", self._share_dropped, why)]

    @property
    def _share_dropped(self) -> float:
        return USUAL_DROPOUT if self.dropout is None else self.dropout

    def without_content(self, example: Example) -> Example:
        return replace(example, origin=replace(example.origin, is_read=False))

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        scene: _Scene = example.origin
        drawn = _image.varied(replace(example, origin=scene.picture), self.targets.rows, generator, mirror=self.mirror)
        return replace(example, origin=replace(scene, picture=drawn.origin))

    def collate(self, examples: Sequence[Example]) -> Batch:
        scenes = [example.origin for example in examples]
        classes, whole, weight = None, None, 0.0
        if all(scene.mask is not None for scene in scenes):
            whole = in_threads(self._mask_of, scenes)
            size = (self.targets.width, self.targets.height)
            small = [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in whole]
            classes = torch.from_numpy(np.stack(small))
            weight = float((classes != masks.NOT_A_CLASS).sum())
        if whole is not None and not any(scene.is_read for scene in scenes):
            inputs = _image.unread(len(scenes), self.processor)
            sizes = [(mask.shape[0], mask.shape[1]) for mask in whole]
        else:
            pictures = in_threads(lambda scene: scene.picture.pixels(), scenes)
            inputs = dict(self.processor(images=pictures, return_tensors="pt").items())
            sizes = [(picture.size[1], picture.size[0]) for picture in pictures]
        rows = np.asarray([e.row for e in examples], dtype=np.int64)
        targets = _Targets(classes, whole, sizes)
        return Batch(inputs, targets, rows, {"pixels": weight}, sum(e.length for e in examples))

    def _mask_of(self, scene: _Scene) -> np.ndarray:
        """The class of each pixel, cut and mirrored as the picture is."""
        assert scene.mask is not None
        numbers = masks.decode(scene.mask.read(), scene.mask.place)
        left, upper, right, lower = scene.picture.cut(numbers.shape[1], numbers.shape[0])
        found = self.targets.classes(numbers, scene.mask.place)[upper:lower, left:right]
        return np.ascontiguousarray(found[:, ::-1] if scene.picture.is_mirrored else found)

    # the model's answers -----------------------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = self.predict(model, batch)  # (batch, classes, height, width), smaller than the input
        classes = batch.targets.classes.long()
        enlarged = F.interpolate(logits.float(), size=classes.shape[1:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(enlarged, classes, reduction="sum", ignore_index=masks.NOT_A_CLASS)
        return LossOutput({"loss": LossTerm(total, per="pixels")}, logits)

    def said(self, outputs: torch.Tensor, batch: Batch) -> list[np.ndarray]:
        """The class of each pixel of the pictures as they are, each (height, width) uint8.

        A class at a time: all of 150 classes of a photo of 12 million pixels would take 7 GB.
        """
        found = []
        for logits, size in zip(outputs.detach().float(), batch.targets.sizes, strict=True):
            best, classes = torch.full(size, -torch.inf, device=logits.device), torch.zeros(size, dtype=torch.uint8)
            classes = classes.to(logits.device)
            for number, plane in enumerate(logits):
                enlarged = F.interpolate(plane[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
                classes[enlarged > best] = number
                best = torch.maximum(best, enlarged)
            found.append(classes.cpu().numpy())
        return found

    def decode(self, outputs: torch.Tensor, batch: Batch) -> list[Prediction]:
        """Of each picture the share of each class; in `extra` the mask with the numbers of the training masks."""
        space: MaskSpace = self.targets
        found = []
        for row, classes in zip(batch.rows, self.said(outputs, batch), strict=True):
            counts = np.bincount(classes.ravel(), minlength=len(space.labels)) / classes.size
            shares = {space.labels[i]: float(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}
            numbers = np.asarray(space.numbers, dtype=np.uint8)[classes]
            data = base64.b64encode(masks.encoded(numbers)["bytes"] or b"").decode("ascii")
            shown = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:5])
            extra = {"mask": f"data:image/png;base64,{data}"}
            found.append(Prediction(int(row), list(shares), scores=shares, extra=extra, shown=shown))
        return found

    def metric(self) -> _MaskMetric:
        return _MaskMetric(self)

    @property
    def selection(self) -> tuple[str, bool]:
        return "mean_iou", True

    # beside baselines, and for people ----------------------------------------------------------------------------

    def answers(self, outputs: torch.Tensor, batch: Batch) -> list[_Seen]:
        found = []
        for said, true in zip(self.said(outputs, batch), batch.targets.whole, strict=True):
            small = Image.fromarray(said)
            small.thumbnail((_OVERLAY_PIXELS, _OVERLAY_PIXELS), Image.Resampling.NEAREST)
            found.append(_Seen(_accuracy(true, said), small))
        return found

    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        def usual() -> Baseline:
            started = time.perf_counter()
            most = int(np.argmax(self.targets.pixels))
            shares = [_accuracy(self._true_of(row), most) for row in material.test]
            name = self.targets.labels[most]
            return Baseline("majority", f"'{name}' for every pixel", np.asarray(shares), time.perf_counter() - started)

        return {"majority": usual}

    def comparison(self, table: Table, answers: Sequence[Any]) -> Callable[[Baseline], PairedState]:
        ours = np.asarray([seen.accuracy for seen in answers])

        def beside(baseline: Baseline) -> PairedState:
            paired = PairedState("pixels")
            paired.update(None, ours, np.asarray(baseline.predictions))
            return paired

        return beside

    def _true_of(self, row: Row) -> np.ndarray:
        column = str(self.roles.label)
        return self.targets.classes(masks.decode(contents.content_of(row, column) or b"", row.place), row.place)

    def mistake(self, row: Row, answer: _Seen) -> tuple[str, str] | None:
        if answer.accuracy == 1:
            return None
        counts = np.bincount(self._true_of(row).ravel(), minlength=256)[: len(self.targets.labels)]
        order = [i for i in np.argsort(-counts, kind="stable")[:3] if counts[i]]
        return ", ".join(self.targets.labels[i] for i in order), f"{answer.accuracy:.0%} of the pixels right"

    def thumbnail(self, row: Row, answer: _Seen | None = None) -> str:
        """The picture under the true mask, and beside it under the model's; see `legend`."""
        picture = decode(self.source_of(row).read(), row.place)
        if answer is None:
            return thumbnail(picture)
        small = picture.resize(answer.small.size)
        true = Image.fromarray(self._true_of(row)).resize(small.size, Image.Resampling.NEAREST)
        both = Image.new("RGB", (2 * small.width + 4, small.height), "white")
        both.paste(_overlay(small, np.asarray(true)), (0, 0))
        both.paste(_overlay(small, np.asarray(answer.small)), (small.width + 4, 0))
        return thumbnail(both, pixels=2 * _OVERLAY_PIXELS)

    @property
    def legend(self) -> list[tuple[str, str]]:
        colours = _colours()[: len(self.targets.labels)].tolist()
        return [
            (name, f"#{red:02x}{green:02x}{blue:02x}")
            for name, (red, green, blue) in zip(self.targets.labels, colours, strict=True)
        ]

    def surprise(self, outputs: torch.Tensor, batch: Batch) -> np.ndarray:
        """Mean negative log-probability of the true classes of a picture's pixels, in nats, (batch,)."""
        classes = batch.targets.classes.long()
        enlarged = F.interpolate(outputs.float(), size=classes.shape[1:], mode="bilinear", align_corners=False)
        losses = F.cross_entropy(enlarged, classes, reduction="none", ignore_index=masks.NOT_A_CLASS)
        counts = (classes != masks.NOT_A_CLASS).sum((1, 2)).clamp(min=1)
        return (losses.sum((1, 2)) / counts).cpu().numpy()

    def input_shown(self, example: Example) -> str:
        was = example.origin.picture.pixels().size
        return f"a picture of {was[0]} x {was[1]} pixels, brought to {self.targets.width} x {self.targets.height}"

    def target_shown(self, target: Any) -> str:
        return f"a mask of {len(self.targets.labels)} classes"

    def sample_rows(self) -> list[dict[str, Any]]:
        from unfreeze.data.pictures import encoded

        rows = []
        for i in range(4):
            pixels, mask = np.full((64, 64, 3), 40, dtype=np.uint8), np.zeros((64, 64), dtype=np.uint8)
            pixels[: 16 * (i + 1), :, 0], mask[: 16 * (i + 1)] = 220, 1
            mask[60:] = masks.NOT_A_CLASS
            rows.append({"image": encoded(pixels), "mask": masks.encoded(mask)})
        return rows


class _MaskMetric:
    """`SegmentationState` over pictures at their own size."""

    def __init__(self, task: ImageSegmentation) -> None:
        self.task = task
        self.state = SegmentationState(task.targets.labels)

    def update(self, outputs: torch.Tensor, batch: Batch) -> None:
        width = len(self.state.labels)
        pairs = zip(batch.targets.whole, self.task.said(outputs, batch), strict=True)
        self.state.update(np.stack([confusion(true, said, width) for true, said in pairs]), batch.rows)

    def merge(self, other: _MaskMetric) -> None:
        self.state.merge(other.state)

    def compute(self) -> dict[str, float | None]:
        return self.state.compute()

    def intervals(self) -> dict[str, tuple[float, float]]:
        return self.state.intervals()

    def details(self) -> dict[str, Any]:
        return self.state.details()


def _for_whole_pictures(processor: Any, height: int, width: int) -> Any:
    """One that brings whole pictures to a size: what lies outside a cut would have no answer."""
    settings = {**processor.to_dict(), "size": {"height": height, "width": width}, "do_resize": True}
    for name in ("do_center_crop", "do_pad", "do_thumbnail", "do_reduce_labels", "do_align_long_axis"):
        if name in settings:
            settings[name] = False
    return type(processor).from_dict(settings)


def _pixels_by_number(row: Row, column: str) -> np.ndarray:
    """How many pixels of a row's mask hold each number, (256,)."""
    return np.bincount(masks.decode(contents.content_of(row, column) or b"", row.place).ravel(), minlength=256)


def _place_of_mask(row: Row, column: str) -> str:
    value = row.values.get(column)
    return value if isinstance(value, str) else f"{row.place}, {column}"


def _accuracy(true: np.ndarray, said: np.ndarray | int) -> float:
    """Share of the pixels with a class that are right; 1 where none has one."""
    counted = true != masks.NOT_A_CLASS
    return float(((true == said) & counted).sum() / counted.sum()) if counted.any() else 1.0


def _colours() -> np.ndarray:
    """Of each class, (256, 3) uint8."""
    hues = (np.arange(256) * 0.381966) % 1.0  # the golden section: neighbours differ
    colours = np.stack([hues * 255, np.full(256, 200.0), np.full(256, 235.0)], axis=-1).astype(np.uint8)
    return np.asarray(Image.fromarray(colours[None], "HSV").convert("RGB"))[0]


def _overlay(picture: Image.Image, classes: np.ndarray) -> Image.Image:
    """A picture under the colours of its classes; pixels without one stay as they are."""
    table = _colours()
    pixels, is_class = np.asarray(picture, dtype=np.float32), (classes != masks.NOT_A_CLASS)[..., None]
    mixed = np.where(is_class, (1 - _OVERLAY_SHARE) * pixels + _OVERLAY_SHARE * table[classes], pixels)
    return Image.fromarray(mixed.astype(np.uint8))
