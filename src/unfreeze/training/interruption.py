"""Signals: the first asks for a checkpoint at the next step boundary, the second ends the work at once."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from unfreeze.errors import Interrupted, command

# SIGUSR1 is what `sbatch --signal=USR1@60` sends before a job's time is up.
_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, n)]
# What a person is told of the first signal.
STOPPING, STOPPING_AFTER_THE_STEP = "stopping", "stopping after this step, with a checkpoint"

_second_ends_the_process = False


class StopFlag:
    """Set by a signal; the engine looks at it between steps. The handler does nothing else.

    Attributes:
        signal_name: Of the first signal; None before it.
        answer: What is said of it.
        is_urgent: Whether a second one has come.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self.answer = STOPPING
        self.is_urgent = False

    def __bool__(self) -> bool:
        return self.signal_name is not None

    def check(self, run_folder: str | None = None) -> None:
        """End here if a signal has come.

        Raises:
            Interrupted: E-INTERRUPTED.
        """
        if self.signal_name is not None:
            remedy = command("resume", run_folder) if run_folder else "start again"
            raise Interrupted("INTERRUPTED", f"stopped by {self.signal_name}", remedy=remedy)


@contextlib.contextmanager
def second_signal_ends_the_process() -> Iterator[None]:
    """For a process that does nothing else: the command line says so of itself.

    A notebook or a program of the user's lives on, and there a second signal raises KeyboardInterrupt.
    """
    global _second_ends_the_process
    before, _second_ends_the_process = _second_ends_the_process, True
    try:
        yield
    finally:
        _second_ends_the_process = before


@contextlib.contextmanager
def stop_on_signals(say: Callable[[str], None] | None = None) -> Iterator[StopFlag]:
    """Watch for signals inside the block; outside the main thread none arrive, and the flag stays unset.

    Those that the process was told to ignore, by ``nohup`` or by a shell that runs it in the background, stay ignored.

    Args:
        say: Told of the first signal what comes of it.

    Raises:
        KeyboardInterrupt: At a second signal; see `second_signal_ends_the_process`. A third ends the process.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    with _said_from_a_thread(say) as texts:

        def handle(number: int, frame: FrameType | None) -> None:
            if not flag:
                flag.signal_name = signal.Signals(number).name
                texts.put(f"{flag.signal_name}: {flag.answer}; once more: at once")
            elif number == signal.SIGHUP:
                pass  # a terminal that closes sends it twice: its shell does, and the kernel
            elif _second_ends_the_process or flag.is_urgent:
                # Trap: no clean-up here. Every file is published by rename, so leaving at once loses nothing.
                os._exit(128 + number)
            else:
                flag.is_urgent = True
                raise KeyboardInterrupt

        watched = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in watched}
        try:
            yield flag
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _said_from_a_thread(say: Callable[[str], None] | None) -> Iterator[queue.SimpleQueue[str | None]]:
    """What is put into the queue is said.

    Trap: a handler runs between any two instructions of the main thread, which may hold the lock of the progress bar or
    of the terminal; it must not wait for one. Putting into this kind of queue is all that a handler may do.
    """
    texts: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    if say is None:
        yield texts
        return

    def listen() -> None:
        for text in iter(texts.get, None):
            with contextlib.suppress(OSError):  # nobody reads it
                say(text)

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield texts
    finally:
        texts.put(None)
        thread.join()
