"""Signals: what is ignored stays so, the first asks for a checkpoint, the second does not wait for one."""

from __future__ import annotations

import os
import signal

import pytest

from unfreeze.training.interruption import STOPPING_AFTER_THE_STEP, second_signal_ends_the_process, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_arrives_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(number)
            assert not stop
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit statuses with which the process would have been left."""
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    return found


def test_a_terminal_that_closes_says_so_twice_and_means_it_once(left: list[int]) -> None:
    with stop_on_signals() as stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        assert stop.signal_name == "SIGHUP"
    assert left == []


def test_in_a_program_a_second_signal_raises_and_a_third_leaves_at_once(left: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert (left, signal.getsignal(signal.SIGTERM)) == ([], before)
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.signal_name == "SIGTERM"
    assert left == [128 + signal.SIGINT]


def test_a_process_that_does_nothing_else_ends_at_the_second_signal(left: list[int]) -> None:
    with second_signal_ends_the_process(), stop_on_signals():
        signal.raise_signal(signal.SIGTERM)
        assert left == []
        signal.raise_signal(signal.SIGTERM)
    assert left == [128 + signal.SIGTERM]


def test_the_first_signal_is_answered_and_the_second_is_not() -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), stop_on_signals(said.append) as stop:
        stop.answer = STOPPING_AFTER_THE_STEP
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert said == ["SIGTERM: stopping after this step, with a checkpoint; once more: at once"]
