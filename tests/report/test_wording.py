import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.report import wording


@given(st.text(alphabet=st.characters()) | st.text(alphabet=st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_visible_text_has_no_character_that_acts_and_can_be_written(text):
    shown = wording.visible(text)
    shown.encode("utf-8")
    kept = set("\u200c\u200d")
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in kept]


@pytest.mark.parametrize(
    "text", ["plain", "größer", "日本語", "सहर्ष", "\U0001f469\u200d\U0001f4bb", "שלום", "a <b> {{c}}"]
)
def test_text_of_any_script_stays_as_it_is(text):
    assert wording.visible(text) == text


def test_control_and_direction_characters_become_escapes():
    assert wording.visible("a\x1b[31mb\u202ec\nd\ud800") == r"a\x1b[31mb\u202ec\nd\ud800"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot read /srv/ann/work/rows.csv, row 3", "cannot read .../rows.csv, row 3"),
        (r"C:\Users\ann\rows.csv", r"...\rows.csv".replace("\\", "/")),
        ("see https://host.example/path/page", "see https://host.example/path/page"),
        ("data/train.csv and 3/4 of it", "data/train.csv and 3/4 of it"),
        ("answerdotai/ModernBERT-base", "answerdotai/ModernBERT-base"),
    ],
)
def test_folders_of_absolute_paths_are_left_out_and_nothing_else(text, shown):
    assert wording.without_paths(text) == shown


def test_the_home_folder_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert str(tmp_path) not in wording.without_paths(f"under {tmp_path} there is nothing")


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("accuracy", 0.9123, "91.2 %"),
        ("mae", 0.91234, "0.9123"),
        ("perplexity", 8.0, "8"),
        ("f1", None, "n/a"),
        ("f1", float("nan"), "n/a"),
    ],
)
def test_shares_are_percentages_other_figures_have_four_digits(metric, value, shown):
    assert wording.figure(metric, value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(3.21, "3.2 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7260, "2 h 1 min")]
)
def test_durations_read_as_a_person_says_them(seconds, shown):
    assert wording.duration(seconds) == shown


def test_a_value_of_the_plan_reads_as_in_a_recipe():
    assert wording.shown_value({"value": 1.5, "unit": "epochs"}) == "1.5 epochs"
    assert wording.shown_value([1e-4, None, True]) == "0.0001, not set, yes"
