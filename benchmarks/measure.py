"""The instruments: seconds, memory, tokens, floating point operations, and what this machine is. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_SAMPLED_EVERY_SECONDS = 0.01
# (rows, inner, columns) of matrix products: square ones, and those of a small encoder's layers.
_PEAK_SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (2048, 384, 1536), (2048, 1536, 384), (4096, 768, 768))
_PACKAGES = ("unfreeze", "torch", "transformers", "accelerate", "datasets", "tokenizers")


class Unfinished(Exception):
    """The time of a cell is up; its run goes on where it stopped when the cell is called again."""


class Meter:
    """Seconds, peak memory and tokens of the block it is used around.

    Attributes:
        seconds: Wall time of the block.
        memory_bytes: Highest anonymous memory inside the block above the level at its start.
        computed_tokens: Tokens that went through the watched model inside the block, padding included.

    Trap: memory that the C library keeps for reuse counts as used. It is given back before the level is taken;
    otherwise a system that has measured or loaded something before would seem to need less.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.memory_bytes = 0
        self.computed_tokens = 0
        self._is_inside = False

    def watch(self, model: Any) -> None:
        """Count the tokens of every forward of a model that reads texts."""

        def count(module: Any, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> None:
            if self._is_inside and "input_ids" in inputs:
                self.computed_tokens += int(inputs["input_ids"].numel())

        model.register_forward_pre_hook(count, with_kwargs=True)

    def __enter__(self) -> Self:
        give_back_free_memory()
        self._level = self._highest = anonymous_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._started = time.perf_counter()
        self._is_inside = True
        return self

    def so_far(self) -> float:
        """Seconds since the block began."""
        return time.perf_counter() - self._started

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds, self._is_inside = self.so_far(), False
        self._over.set()
        self._thread.join()
        self.memory_bytes = max(self._highest, anonymous_bytes()) - self._level

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLED_EVERY_SECONDS):
            self._highest = max(self._highest, anonymous_bytes())


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert match is not None, "this kernel does not say how much anonymous memory a process has"
    return int(match[1]) * 1024


def give_back_free_memory() -> None:
    """Let glibc return what it holds free to the system; other C libraries do so themselves."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def process_seconds() -> float:
    """Wall time since this process was started, the interpreter's own start included."""
    import psutil

    return time.time() - psutil.Process().create_time()


def matmul_peak(seconds_per_shape: float = 0.3) -> tuple[float, float]:
    """The machine's best float32 matrix product with torch's threads.

    Returns:
        Floating point operations a second, best of several shapes and repetitions; seconds spent on finding out.
    """
    import torch

    started, best = time.perf_counter(), 0.0
    for rows, inner, columns in _PEAK_SHAPES:
        left, right, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
        until = time.perf_counter() + seconds_per_shape
        while time.perf_counter() < until:
            before = time.perf_counter()
            torch.mm(left, right, out=out)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - before))
    return best, time.perf_counter() - started


def training_flops(config: dict[str, Any], lengths: Sequence[int], n_labels: int, epochs: int) -> float:
    """Operations that training an encoder takes on rows without padding: a floor, whatever a system really computes.

    A forward is 2 x (weights in matrix products) x tokens, and 4 x width x length^2 a layer for attention's two
    products; training is three forwards (the gradients of inputs and of weights cost one each).

    Args:
        config: The model's config.json, of an architecture like BERT.
        lengths: Tokens of each row, special ones included, (rows,).
        n_labels: Width of the head.
        epochs: Passes over the rows.
    """
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    layer_weights = 4 * width * width + 2 * width * config["intermediate_size"]
    head_weights = width * width + width * n_labels
    products = 2 * (layers * layer_weights * sum(lengths) + head_weights * len(lengths))
    attention = 4 * layers * width * sum(n * n for n in lengths)
    return 3.0 * epochs * (products + attention)


def token_lengths(model: Path, texts: Sequence[str], max_length: int = 512) -> list[int]:
    """Tokens of each text, cut at `max_length`, without padding."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return [len(ids) for ids in tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]]


def model_config(model: Path) -> dict[str, Any]:
    """A model's config.json."""
    found: dict[str, Any] = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return found


# where it was measured -------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Processor, cores, memory, threads, versions and commit of a record; nothing that tells whose machine it is."""
    import psutil
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "commit": _commit(),
    }


def busy_share(seconds: float = 0.5) -> float:
    """Share of the processor that other processes take now."""
    import psutil

    return psutil.cpu_percent(interval=seconds) / 100


def _processor() -> str:
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    return match[1].strip() if match else platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package != "unfreeze":
            return "missing"
        from unfreeze import __version__

        return __version__


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
