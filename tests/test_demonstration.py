"""unfreeze demo: both ways, with tiny models in place of the builtin ones."""

from __future__ import annotations

from pathlib import Path

import planted
import pytest
from PIL import Image

from unfreeze import demonstration


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    planted.plant(monkeypatch, tmp_path / "planted")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "_DIGITS", 60)
    return tmp_path


def test_digits_lie_in_one_folder_a_class_and_new_ones_are_answered(folder: Path) -> None:
    said = planted.unfreeze("demo", "image", "--output", "mine")
    assert said.status == 0, said.err
    pictures = sorted((folder / "mine-digits" / "train").rglob("*.png"))
    assert len(pictures) == 60
    assert {p.parent.name for p in pictures} == set("0123456789")
    new = sorted((folder / "mine-digits" / "new").iterdir())
    assert len(new) == 3
    for picture in new:
        assert picture.name in said.out
        with Image.open(picture) as found:
            assert found.size == (32, 32)
    assert "unfreeze predict mine PICTURE.png" in said.out
    assert (folder / "mine" / "report.html").is_file()


def test_a_demo_there_is_not_is_suggested_one_there_is(folder: Path) -> None:
    said = planted.unfreeze("demo", "images")
    assert said.status == 2
    assert "did you mean 'image'" in said.err
    assert not list(folder.glob("runs/*"))
