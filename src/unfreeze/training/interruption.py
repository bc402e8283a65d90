"""Signals: the first asks for a checkpoint at the next step boundary, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from unfreeze.errors import Interrupted

# SIGUSR1 is what `sbatch --signal=USR1@60` sends before a job's time is up.
_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, n)]


class StopFlag:
    """Set by a signal; the engine looks at it between steps. The handler does nothing else."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __bool__(self) -> bool:
        return self.signal_name is not None

    def check(self, run_folder: str | None = None) -> None:
        """End here if a signal has come.

        Raises:
            Interrupted: E-INTERRUPTED.
        """
        if self.signal_name is not None:
            remedy = f"unfreeze resume {run_folder}" if run_folder else "start again"
            raise Interrupted("INTERRUPTED", f"stopped by {self.signal_name}", remedy=remedy)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Watch for signals inside the block; outside the main thread none arrive, and the flag stays unset.

    Those that the process was told to ignore, by ``nohup`` or by a shell that runs it in the background, stay ignored.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if not flag:
            flag.signal_name = signal.Signals(number).name
        elif number != signal.SIGHUP:  # a terminal that closes sends it twice: its shell does, and the kernel
            # Trap: no clean-up here. Every file is published by rename, so leaving at once loses nothing.
            os._exit(128 + number)

    watched = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in watched}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
