"""Texts that were written: ROUGE beside the reference implementation, other alphabets, merging, two systems."""

from __future__ import annotations

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from unfreeze.metrics import PairedState, TextState
from unfreeze.metrics.texts import ROUGE, are_same, rouge

TRUE = (
    ("The trains to the coast leave every hour.",),
    ("She opened the windows, because the kitchen smelled.", "The window was opened."),
    ("It's raining again; nobody is waiting at the harbour!",),
    ("Running quickly, they were happily surprised 3 times.",),
)
SAID = (
    "A train to the coast leaves hourly.",
    "The window was opened by her.",
    "Nobody waits.",
    "They ran quickly and were surprised.",
)


def test_in_ascii_it_is_the_reference_implementation_with_stems() -> None:
    reference = RougeScorer(list(ROUGE), use_stemmer=True)
    for said, true in zip(SAID, TRUE, strict=True):
        wanted = reference.score_multi(true, said)
        assert rouge(said, true) == pytest.approx([wanted[name].fmeasure for name in ROUGE], abs=1e-12)


def test_known_values() -> None:
    assert rouge("a b c d", ["a b x d"]) == pytest.approx((0.75, 1 / 3, 0.75))
    assert rouge("", ["a b"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("text", ["Поезд идёт к морю", "电车每小时一班", "Ο καιρός είναι καλός", "ça été naïve"])
def test_texts_in_other_alphabets_are_scored(text: str) -> None:
    """The reference implementation gives 0 to a perfect answer there."""
    assert rouge(text, [text]) == (1.0, 1.0, 1.0)
    assert rouge("something else", [text])[0] == 0.0


def test_the_true_text_that_suits_best_counts() -> None:
    one, both = rouge(SAID[1], TRUE[1][:1]), rouge(SAID[1], TRUE[1])
    assert both[0] > one[0]
    assert are_same("The  window was\nopened.", TRUE[1])
    assert not are_same("the window was opened.", TRUE[1])


def test_states_merge_to_the_state_of_all_rows() -> None:
    whole, parts = TextState(), [TextState(), TextState()]
    whole.update(SAID, TRUE, np.arange(4))
    parts[0].update(SAID[:1], TRUE[:1], np.arange(1))
    parts[1].update(SAID[1:], TRUE[1:], np.arange(1, 4))
    parts[0].merge(parts[1])
    assert parts[0].compute() == pytest.approx(whole.compute())
    for name, interval in whole.intervals().items():
        assert parts[0].intervals()[name] == pytest.approx(interval)
    assert TextState.load(whole.state_dict()).compute() == whole.compute()
    found = whole.compute()["rouge1"]
    assert found == pytest.approx(np.mean([rouge(s, t)[0] for s, t in zip(SAID, TRUE, strict=True)]))


def test_no_rows_are_no_figures() -> None:
    state = TextState()
    assert set(state.compute().values()) == {None}
    assert state.intervals() == {}


def test_two_systems_are_compared_row_by_row() -> None:
    paired, parts = PairedState("text"), [PairedState("text"), PairedState("text")]
    worse = ["nothing of it"] * 4
    paired.update(TRUE, SAID, worse)
    parts[0].update(TRUE[:2], SAID[:2], worse[:2])
    parts[1].update(TRUE[2:], SAID[2:], worse[2:])
    parts[0].merge(parts[1])
    difference = paired.difference()
    assert difference.metric == "rougeL"
    assert difference.value == pytest.approx(paired.value("a") - paired.value("b"))
    assert difference.low < difference.value < difference.high
    assert difference.value > 0
    assert parts[0].difference("rouge2") == paired.difference("rouge2")
    assert PairedState.load(paired.state_dict()).difference() == difference


def test_vowel_signs_and_accents_that_are_written_apart_belong_to_their_words() -> None:
    assert rouge("हिंदी भाषा", ["हिंदी बोली"])[0] == pytest.approx(0.5)
    assert rouge("किताब", ["कीताब"])[0] == 0.0, "single consonants are no words"
    assert rouge("cafe\u0301 noir", ["café noir"]) == (1.0, 1.0, 1.0)
    assert rouge("ne_w day", ["ne w day"]) == (1.0, 1.0, 1.0)
