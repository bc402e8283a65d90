"""Small files and tiny models under well-known names, so that a whole command runs in a second."""

import csv
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from huggingface_hub import constants

from unfreeze import cli
from unfreeze.models import loading
from unfreeze.testing import tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
QUICK = ["--set", "train.epochs=1", "--set", "baselines=false", "--schedule", "head"]


@dataclass
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


def unfreeze(*arguments):
    """Run the command in this process, as the console script would."""
    before, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["unfreeze", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        return Said(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("the command did not end with an exit status")


def plant(monkeypatch, folder):
    """Make ``builtin:text`` and the Hub's ``bert-base-uncased`` a tiny random model, without a network."""
    builtin, cache = Path(folder) / "builtin", Path(folder) / "hub"
    if not builtin.is_dir():
        tiny_model(builtin / "text", texts=texts())
        repository = cache / "models--bert-base-uncased"
        tiny_model(repository / "snapshots" / COMMIT, texts=texts(), seed=1)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(loading, "_builtin_folder", lambda: builtin)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("UNFREEZE_CACHE", str(Path(folder) / "cache"))
    monkeypatch.setenv("COLUMNS", "100")


def texts(rows=40):
    """Texts of the packaged reviews."""
    return [text for text, _ in _samples()[1 : rows + 1]]


def reviews(path, rows=24):
    """The first of the packaged reviews, as a file of the user's own."""
    with open(path, "w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows(_samples()[: rows + 1])
    return Path(path)


def _samples():
    source = resources.files("unfreeze") / "samples" / "reviews.csv"
    with source.open(encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))
