"""Nothing secret and no row of data leaves by what a run writes; no code is read from files; nobody is called."""

from __future__ import annotations

import ast
import base64
import os
import socket
import stat
import tomllib
import urllib.parse
from pathlib import Path

import planted
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import unfreeze

PACKAGE = Path(unfreeze.__file__).parent
TOKEN = "hf_CanaryCanaryCanaryCanary0123456789"
ROW = "Canaries sing zyxwvut at dawn."


@pytest.fixture(autouse=True)
def somewhere(monkeypatch, tmp_path, tmp_path_factory):
    planted.plant(monkeypatch, tmp_path_factory.getbasetemp())
    monkeypatch.chdir(tmp_path)


def everything_in(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def spellings(text):
    plain = text.encode()
    return [plain, base64.b64encode(plain).rstrip(b"="), urllib.parse.quote(text).encode(), text.encode("utf-16-le")]


def holding(folder, text):
    """Files that hold a text in any of its spellings."""
    return [p.name for p in everything_in(folder) if any(s in p.read_bytes() for s in spellings(text))]


def trained(*more):
    data = planted.reviews("reviews.csv", rows=24)
    with open(data, "a", encoding="utf-8") as file:
        file.write(f'"{ROW}",positive\n')
    said = planted.unfreeze("train", "reviews.csv", "--output", "run", *planted.QUICK, *more)
    assert said.status == 0, said.err
    return said


def test_sc_01_tokens_of_the_environment_are_in_nothing_that_is_written_or_said(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, TOKEN)
    monkeypatch.setenv("HTTPS_PROXY", f"http://somebody:{TOKEN}@localhost:1")
    said = trained()
    shown = planted.unfreeze("env")
    assert TOKEN not in said.out + said.err + shown.out + shown.err
    assert holding(tmp_path, TOKEN) == []
    assert holding(os.environ["UNFREEZE_CACHE"], TOKEN) == []


def test_sc_02_a_failure_that_nobody_foresaw_shows_no_values(monkeypatch):
    from unfreeze import api

    def fails(*_, **__):
        token = TOKEN
        raise ZeroDivisionError(f"by {len(token)}")

    monkeypatch.setattr(api, "_carry_out", fails)
    planted.reviews("reviews.csv")
    said = planted.unfreeze("train", "reviews.csv", "--output", "run", *planted.QUICK)
    assert said.status == 1
    assert "ZeroDivisionError" in said.err
    assert TOKEN not in said.err + said.out


def test_sc_05_no_row_of_the_data_is_in_what_travels(tmp_path):
    trained()
    assert holding("run/model", ROW) == [], "the model folder is what people push"
    assert holding(os.environ["UNFREEZE_CACHE"], ROW) == []


def test_sc_04_what_others_may_read_is_as_the_person_has_set_it(tmp_path):
    before = os.umask(0o077)
    try:
        trained()
    finally:
        os.umask(before)
    open_to_others = [p.name for p in everything_in("run") if stat.S_IMODE(p.stat().st_mode) & 0o077]
    assert open_to_others == []


def test_sc_06_nobody_is_called(monkeypatch):
    called = []

    def refuse(self, address):
        called.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    trained()
    assert planted.unfreeze("predict", "run", "Works as promised.").status == 0
    assert called == []


def test_sc_09_a_run_and_what_it_recorded_can_be_removed():
    trained("--set", "train.epochs=20")
    said = planted.unfreeze("cache", "--clear")
    assert said.status == 0
    left = [p for p in everything_in(Path(os.environ["UNFREEZE_CACHE"]) / "activations") if not p.name.startswith(".")]
    assert left == []


FORBIDDEN = {
    "pickle.load", "pickle.loads", "dill.load", "joblib.load", "torch.load", "marshal.loads", "shelve.open",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system", "os.popen", "tarfile.open",
    "zipfile.ZipFile.extractall", "shutil.unpack_archive", "subprocess.Popen", "subprocess.run",
}  # fmt: skip


def test_sc_08_dependencies_have_floors_and_pins_and_nothing_in_the_package_is_run_by_being_there():
    root = Path(__file__).parents[2]
    asked = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    floors = {canonicalize_name(Requirement(text).name): Requirement(text).specifier for text in asked}
    pinned = [line for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    pins = {
        canonicalize_name(name.strip()): Version(version)
        for name, _, version in (line.partition("==") for line in pinned)
    }
    for name, least in {"torch": "2.10", "transformers": "5.3", "pillow": "11"}.items():
        assert Version("0") not in floors[name]
        assert floors[name].contains(least), f"{name} {least} is allowed"
        assert not floors[name].contains("2.9" if name == "torch" else "5.2" if name == "transformers" else "10.4")
    for name, floor in floors.items():
        assert name in pins, f"{name} is not pinned in constraints.txt"
        assert floor.contains(pins[name]), f"{name} {pins[name]} is below its floor"
    unwanted = {".pth", ".pt", ".bin", ".pkl", ".pickle"}
    assert [path for path in PACKAGE.rglob("*") if path.suffix in unwanted] == []


def test_sc_07_no_call_that_could_run_what_a_file_says():
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                asks_for_code = any(
                    k.arg in ("trust_remote_code", "shell") and getattr(k.value, "value", None) is True
                    for k in node.keywords
                )
                if name in FORBIDDEN or name.endswith(".extractall") or asks_for_code:
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {name}")
    assert found == []
