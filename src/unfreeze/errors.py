"""What can go wrong, as one tree, and how it is told to the person.

::

    UnfreezeError                 exit 1   something failed that has no better name
    ├── RequestError              exit 2   the request was wrong
    │   ├── RecipeError                    a key, a value or a combination of settings
    │   ├── DataError                      a file, a column, a row
    │   └── TaskError                      the task does not fit the data or the model
    ├── ModelError                exit 4   a model, tokenizer or weight file
    ├── NumericsError             exit 5   a loss or gradient is not finite
    ├── ResourceError             exit 6   memory, disk, file handles
    └── Interrupted               exit 75  stopped by a signal; the run can be resumed

Every message has the same three parts: *what* is wrong, *where* (file and row, column, layer, run and step) and the
*remedy*, the next thing to type. Every foreseen failure has a code that is declared once, in `CODES`.

Example:
    >>> error = DataError("DATA-COLUMN", "there is no column 'txt'", where="reviews.csv", remedy="--set data.text=text")
    >>> print(error.block())
    E-DATA-COLUMN: there is no column 'txt'
      where: reviews.csv
      do:    --set data.text=text
"""

from __future__ import annotations

import difflib
import shlex
import unicodedata
from collections.abc import Iterable

# One line a foreseen failure; the key is the code without its leading "E-". Sorted by family.
CODES: dict[str, str] = {
    "INTERNAL": "an error of the program itself",
    # the request
    "DISTRIBUTED": "several processes were started",
    "RECIPE-CONFLICT": "two settings contradict each other",
    "RECIPE-FILE": "a recipe file cannot be read",
    "RECIPE-KEY": "a key that the recipe does not know",
    "RECIPE-SECRET": "a password or access token in a recipe",
    "RECIPE-VALUE": "a value of the wrong kind or out of range",
    "RUN-EXISTS": "the output folder holds something already",
    "RUN-MISSING": "a folder is not a run",
    "RUN-STATE": "the run is not in a state that allows this",
    "RUN-CHANGED": "data, labels, weights, tokenizer or recipe.yaml differ from those the run was started with",
    "SCHEDULE": "a schedule or a phase is not valid",
    "SCHEDULE-MATCH": "a layer pattern or span matches nothing",
    "TASK": "the task does not fit the data or the model",
    "TASK-UNKNOWN": "there is no task of that name",
    "USAGE": "a command line that cannot be understood",
    # data
    "DATA-COLUMN": "a column is not there, or none fits the role",
    "DATA-DUPLICATE-COLUMN": "two columns have the same name",
    "DATA-EMPTY": "a file or folder without rows",
    "DATA-ENCODING": "text that is not UTF-8",
    "DATA-FORMAT": "a file is not what its name says, or of an unknown kind",
    "DATA-LABEL": "a label that is missing or cannot be used",
    "DATA-LABEL-UNSEEN": "a label that the training rows do not have",
    "DATA-LINK": "a link that leads out of the data folder",
    "DATA-MISSING": "a file or folder is not there",
    "DATA-ONE-CLASS": "all rows have the same label",
    "DATA-CHANGED": "a file was changed while a run reads it",
    "DATA-MASK": "a mask that cannot be read, or of another size than its picture",
    "DATA-PICTURE": "a picture that cannot be read",
    "DATA-ROW": "a row is broken",
    "DATA-SOUND": "a recording that cannot be read",
    "DATA-SPLIT": "the rows cannot be divided as asked",
    "DATA-TEXT": "a text column without text",
    "DATA-UNREADABLE": "a file or folder that cannot be opened",
    # models
    "MODEL-BROKEN": "a weight or configuration file is damaged or incomplete",
    "MODEL-FAMILY": "an architecture whose layers cannot be told apart",
    "MODEL-MODALITY": "a model of another modality",
    "MODEL-PICKLE": "weights that are only there as pickle files",
    "MODEL-REMOTE-CODE": "a model that needs code from its repository",
    "MODEL-UNKNOWN": "a model that is not there",
    "PROCESSOR": "an image processor that is missing or does not fit",
    "TOKENIZER": "a tokenizer that is missing or does not fit the model",
    # while running
    "CHECKPOINT": "no checkpoint can be used",
    "DISK": "a file cannot be written",
    "DIVERGED": "the loss rose far above its start and stayed there",
    "INTERRUPTED": "stopped by a signal",
    "MEMORY": "there is not enough memory",
    "NOT-FINITE": "a loss, gradient or weight is not finite",
}

# What is said of an error that nobody foresaw, below its traceback.
INTERNAL_MESSAGE = "this is an error of unfreeze itself; please report it with the lines above"


class UnfreezeError(Exception):
    """An error that is meant for the person at the keyboard.

    Args:
        code: A key of `CODES`, without the leading ``E-``.
        what: One sentence, without a full stop: what is wrong.
        where: File and row, column, layer or run and step; None where there is no place.
        remedy: The next thing to type or to change.
    """

    exit_status = 1

    def __init__(self, code: str, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        assert code in CODES, f"{code} is not declared in errors.CODES"
        super().__init__(code, what, where, remedy)
        self.code, self.what, self.where, self.remedy = code, what, where, remedy

    def block(self) -> str:
        """The message as one block of lines, as the command line prints it."""
        lines = [f"E-{self.code}: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append("  do:    " + self.remedy.replace("\n", "\n         "))
        return "\n".join(map(visible, "\n".join(lines).split("\n")))

    __str__ = block


# Words of Persian and Indic scripts, and many emoji, are wrong without them.
_JOINERS = "\u200c\u200d"
_UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(value: object) -> str:
    """Text in which everything can be seen: control, direction and half characters as escapes, on one line.

    Names of files may hold anything, and a terminal acts on some of it.

    >>> visible("a\\x1b[31m\\u202eb")
    'a\\\\x1b[31m\\\\u202eb'
    """
    return "".join(
        c if c in _JOINERS or unicodedata.category(c) not in _UNSHOWN else c.encode("unicode_escape").decode("ascii")
        for c in str(value)
    )


class RequestError(UnfreezeError):
    """The request was wrong: command line, recipe, data or task. Nothing has been started, but for E-DATA-CHANGED."""

    exit_status = 2


class RecipeError(RequestError):
    """A recipe key, value or combination."""


class DataError(RequestError):
    """A data file, column or row."""


class TaskError(RequestError):
    """The task is unknown or does not fit data or model."""


class ModelError(UnfreezeError):
    """A model, its tokenizer or its weight files."""

    exit_status = 4


class NumericsError(UnfreezeError):
    """A number that is not finite where one must be."""

    exit_status = 5


class ResourceError(UnfreezeError):
    """Memory or disk."""

    exit_status = 6


class Interrupted(UnfreezeError):
    """Stopped by a signal after a checkpoint; `unfreeze resume` goes on."""

    exit_status = 75


def command(*words: object) -> str:
    """A command as it is typed into a shell, for a remedy.

    >>> print(command("resume", "runs/my reviews"))
    unfreeze resume 'runs/my reviews'
    """
    return shlex.join(["unfreeze", *map(str, words)])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion for a mistyped name, or the list of names that would be right.

    >>> did_you_mean("lable", ["text", "label"])
    "did you mean 'label'?"
    >>> did_you_mean("zzz", ["text", "label"])
    'known are: label, text'
    """
    candidates = sorted({str(k) for k in known})
    folded = {k.casefold().replace("-", "_"): k for k in reversed(candidates)}
    near = difflib.get_close_matches(name.casefold().replace("-", "_"), list(folded), n=1, cutoff=0.6)
    if near:
        return f"did you mean {folded[near[0]]!r}?"
    shown = ", ".join(candidates[:20]) + (" ..." if len(candidates) > 20 else "")
    return f"known are: {shown}" if candidates else "none are known"
