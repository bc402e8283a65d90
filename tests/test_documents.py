"""Every command and snippet of the documents is run, in a folder with the files they speak of; every link is followed.

A block that cannot run has the reason above it: ``<!-- not run: reason -->``.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import planted
import pytest

import unfreeze

ROOT = Path(__file__).parents[1]
generate = SimpleNamespace(**run_path(str(ROOT / "docs" / "generate.py")))

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("pretraining/*.md")])
BLOCK = re.compile(
    r"(?:<!-- (?:not run: (?P<reason>[^\n]+)|file: (?P<file>[^\n]+)) -->\n+)?"
    r"^```(?P<kind>bash|python)\n(?P<text>.*?)^```",
    re.S | re.M,
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def commands(text):
    """The command lines of a block, without comments, continuation lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch, tmp_path_factory.mktemp("planted"))
        yield


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_and_snippet_runs(document, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planted.files(".")
    shutil.copytree(ROOT / "recipes", "recipes")
    for number, block in enumerate(BLOCK.finditer(document.read_text(encoding="utf-8"))):
        if block["reason"]:
            continue
        if block["file"]:
            Path(block["file"]).write_text(block["text"], encoding="utf-8")
            monkeypatch.syspath_prepend(str(tmp_path))
            continue
        if block["kind"] == "python":
            snippet = tmp_path / f"snippet_{number}.py"
            snippet.write_text(block["text"], encoding="utf-8")
            run_path(str(snippet))
            continue
        for words in commands(block["text"]):
            assert words[0] == "unfreeze", f"{shlex.join(words)} is neither run nor marked"
            said = planted.unfreeze(*words[1:])
            assert said.status == 0, f"{shlex.join(words)}\n{said.err}"


def test_the_blocks_are_found_at_all():
    blocks = {name_of(d): [b["kind"] for b in BLOCK.finditer(d.read_text(encoding="utf-8"))] for d in DOCUMENTS}
    assert blocks["README.md"].count("python") >= 1
    assert blocks["README.md"].count("bash") >= 3
    assert blocks["docs/continue-from-a-run.md"] == ["bash", "bash", "python", "python"]
    assert commands("unfreeze plan a.csv \\\n  --seed 1   # why\n\n") == [["unfreeze", "plan", "a.csv", "--seed", "1"]]


@pytest.mark.parametrize("path", generate.pages(), ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(path):
    current = next(text for page, text in generate.pages().items() if page.name == path.name)
    assert path.read_text(encoding="utf-8") == current, "run: python docs/generate.py"


def test_cf_10_every_error_code_has_a_page_with_a_message():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for code in unfreeze.errors.CODES:
        section = page.partition(f"## E-{code}\n")[2].partition("\n## ")[0]
        assert re.search(r"^- .+", section, re.M), f"{code} has no message in docs/errors.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document):
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    # The table of measurements is there once anything was measured.
    pending = {"benchmarks/RESULTS.md"} if not (ROOT / "benchmarks" / "results").exists() else set()
    assert not [link for link in links if link not in pending and not (document.parent / link).exists()]


def test_the_tree_in_the_readme_is_the_tree_there_is():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Where things live")[2]
    inside = tree.partition("src/unfreeze/\n")[2].partition("\npretraining/")[0]
    named = set(re.findall(r"^    ([a-z_]+(?:\.py|/)) ", inside, re.M))
    package = Path(unfreeze.__file__).parent
    there = {p.name for p in package.glob("[a-z]*.py")} | {f"{p.name}/" for p in package.glob("[a-z]*") if p.is_dir()}
    assert named == there
    for folder in re.findall(r"^([a-z]+)/", tree.partition("\npretraining/")[2], re.M):
        assert (ROOT / folder).is_dir()


def test_documents_are_written_in_lines_that_can_be_read():
    for document in DOCUMENTS:
        for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
            is_table = line.startswith("|")
            assert len(line) <= 130 or is_table, f"{name_of(document)}:{number}"
