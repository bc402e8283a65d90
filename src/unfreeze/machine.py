"""What this machine is and how torch is set up on it."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unfreeze.durable import MAKE_ROOM
from unfreeze.errors import RecipeError, ResourceError, UnfreezeError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

# What the system says of a disk.
FULL_OR_BROKEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
# glibc's mallopt parameters; see malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Machine:
    """The device that trains.

    Attributes:
        device: ``cpu``, ``cuda`` or ``mps``.
        name: Of the processor or the accelerator.
        threads: CPU threads that torch may use.
        memory_bytes: Free memory of the device now.
        supports_bf16: Whether bfloat16 is quick on it.
    """

    device: str
    name: str
    threads: int
    memory_bytes: int
    supports_bf16: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def most_threads() -> int:
    """More could never help, and thousands end the process."""
    return max(64, 4 * (os.cpu_count() or 1))


def find_machine(threads: int | None = None) -> Machine:
    """The machine as torch sees it; `threads` is what the recipe asks for.

    Raises:
        RecipeError: E-RECIPE-VALUE, for more than `most_threads`.
    """
    import torch

    most = most_threads()
    if threads is not None and threads > most:
        what = f"{threads} threads are more than this machine with {os.cpu_count()} cores can use"
        raise RecipeError(
            "RECIPE-VALUE", what, where="train.threads", remedy=f"at most {most}; leave it out for all cores"
        )
    count = threads or torch.get_num_threads()
    device = device_type()
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return Machine(device, torch.cuda.get_device_name(), count, free, _has_bfloat16())
    name = "Apple GPU" if device == "mps" else platform.processor() or platform.machine()
    return Machine(device, name, count, free_memory_bytes(), False)


def device_type() -> str:
    """The kind of device that is planned for, and trains: ``cuda``, ``mps`` or ``cpu``."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _has_bfloat16() -> bool:
    """Trap: torch says yes for older cards, too, which imitate it slowly."""
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def set_up(threads: int) -> None:
    """Fix the number of threads, and let large buffers be reused.

    Trap: glibc gives every buffer above 128 KiB back to the system when it is freed, and each new one costs page faults
    again; activations are such buffers. Keeping them makes full fine-tuning of MiniLM on two cores 6 % faster on long
    texts, no faster on short ones, for no more memory at the peak (benchmarks/RESULTS.md).
    """
    import torch

    torch.set_num_threads(threads)
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def free_memory_bytes() -> int:
    """Memory this process may still take: the system's, or its control group's where that is less."""
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        with (
            open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit,
            open("/sys/fs/cgroup/memory.current", encoding="ascii") as current,
        ):
            return min(available, int(limit.read()) - int(current.read()))
    except (OSError, ValueError):
        return available


# Without gradients nothing is kept for a backward, and layers whose hidden states stay in a CPU's cache are the
# quickest: MiniLM did 147 GFLOP/s at 1,024 tokens on two cores, 123 at 8,192, which take eight times the memory.
_FORWARD_TOKENS = {"cpu": 1024, "mps": 16384}
_FORWARD_TOKENS_ELSEWHERE = 32768


def forward_tokens(device: str, micro_batch_tokens: int | None = None) -> int:
    """Tokens, padding included, that go through the model at once where no gradient is wanted.

    Args:
        device: Its type: ``cpu``, ``cuda``.
        micro_batch_tokens: What training may use at once; without gradients twice as much.
    """
    most = _FORWARD_TOKENS.get(device, _FORWARD_TOKENS_ELSEWHERE)
    return most if micro_batch_tokens is None else min(most, 2 * micro_batch_tokens)


def free_disk_bytes(folder: os.PathLike[str] | str) -> int:
    """Free bytes where `folder` is, or will be."""
    import shutil

    return shutil.disk_usage(_existing(folder)).free


def share_a_disk(one: os.PathLike[str] | str, other: os.PathLike[str] | str) -> bool:
    """Whether two folders lie on one file system, or will."""
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev


def _existing(folder: os.PathLike[str] | str) -> Path:
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    return path


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory, of the device or of this computer, was not enough.

    Other failures of a device (an illegal address, a lost library) are not: trying again with less would hide them.
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def give_back_device_memory() -> None:
    """Let the device's allocator return what it holds free, so that smaller pieces fit."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_smaller_parts(rows: np.ndarray, work: Callable[[np.ndarray], T]) -> Iterator[tuple[np.ndarray, T]]:
    """``work`` on all rows at once, or on halves and halves of halves where memory is not enough.

    Yields:
        The rows of each part, in order, with what `work` gave.

    Raises:
        ResourceError: E-MEMORY, where a single row is too much.
    """
    waiting = [rows]
    while waiting:
        part = waiting.pop()
        try:
            found = work(part)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(part) < 2:
                raise not_enough_memory(str(error), remedy=ONE_ROW_IS_TOO_MUCH) from error
        else:
            yield part, found
            continue
        # Trap: inside the handler the traceback still holds the tensors that did not fit.
        give_back_device_memory()
        waiting += [part[len(part) // 2 :], part[: len(part) // 2]]


# What to do about it before there is a run, and where the rows go through the model one by one already.
LESS_MEMORY = (
    "less at once: --set train.micro_batch_tokens=512\nor shorter texts: --set train.max_length=128\n"
    "or a smaller model; on a CPU unfreeze plan shows what is needed"
)
ONE_ROW_IS_TOO_MUCH = "free some memory, shorten the longest row, or take a smaller model"


def not_enough_memory(cause: str = "", where: str | None = None, remedy: str = LESS_MEMORY) -> ResourceError:
    """What to tell a person whose memory does not suffice."""
    first_line = cause.splitlines()[0] if cause else ""
    return ResourceError(
        "MEMORY",
        f"there is not enough memory: {first_line}" if cause else "there is not enough memory",
        where=where,
        remedy=remedy,
    )


def foreseen(error: BaseException) -> UnfreezeError | None:
    """What is told of an error: itself, or what it says of memory or disk; None for what is nobody's fault but ours."""
    if isinstance(error, UnfreezeError):
        return error
    if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
        return not_enough_memory()
    if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL_OR_BROKEN):
        where = str(error.filename) if error.filename is not None else None
        remedy = MAKE_ROOM if error.errno in FULL_OR_BROKEN else None
        return ResourceError("DISK", f"{error.strerror or error}", where=where, remedy=remedy)
    return None


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_device_memory_bytes() -> int | None:
    """The most that tensors of this process have taken of the GPU so far; None without one that tells."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None


def resident_memory_bytes() -> int:
    """Resident size of this process now."""
    import psutil

    return int(psutil.Process().memory_info().rss)
