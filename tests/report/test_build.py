import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import made_up
import pytest

from unfreeze.report import build, judge
from unfreeze.run import Run, Status

CANARY = (
    "</style><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}{% include 'x' %}\"'><b onclick=\"x\">"
    "]]>--><!-- \x1b[31m\u202e\u2066 $\\frac{ javascript:alert(3) \x00\x07\u2028 日本語 &lt;i&gt;"
)
# Values that the program chose among its own words; foreign text never stands there.
OWN_WORDS = {"format", "split", "metric", "state", "severity", "code", "kind", "time", "source", "unit"}


class Page(HTMLParser):
    """Tags with their attributes, and text by section."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.comments = [], "", []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.text += " " if tag in ("td", "th", "p", "li") else ""
        self.tags.append((tag, tuple((k, "image" if str(v).startswith("data:image/png") else v) for k, v in attrs)))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.comments.append(data)

    @property
    def sections(self):
        return [dict(attrs).get("id") for tag, attrs in self.tags if tag == "section"]

    @property
    def images(self):
        return sum(tag == "img" for tag, _ in self.tags)

    def __contains__(self, words):
        return words in " ".join(self.text.split())


def page_of(run):
    run.write_findings(judge(run))
    return Page(build(run))


def poisoned(value, key=""):
    if isinstance(value, dict):
        return {k: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, key) for v in value]
    return value + CANARY if isinstance(value, str) and value and key not in OWN_WORDS else value


def poison(run):
    """Put the canary into every string of every record."""
    for path in run.folder.glob("*.json"):
        path.write_text(json.dumps(poisoned(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    events = run.folder / "events.jsonl"
    lines = [json.dumps(poisoned(json.loads(line))) for line in events.read_text(encoding="utf-8").splitlines()]
    events.write_text("\n".join(lines) + "\n", encoding="utf-8")


SECTIONS = ["findings", "baselines", "curves", "figures", "classes", "calibration", "mistakes", "data", "plan", "run"]


@pytest.mark.parametrize(
    ("kind", "missing", "images"),
    [
        ("binary", set(), 4),
        ("six", set(), 4),
        ("many", set(), 3),
        ("multi", {"calibration"}, 2),
        ("regression", {"classes", "calibration"}, 2),
        ("language", {"findings", "baselines", "classes", "calibration", "mistakes"}, 1),
    ],
)
def test_every_kind_of_run_has_its_sections(tmp_path, kind, missing, images):
    page = page_of(made_up.write_run(tmp_path / "run", kind))
    assert page.sections == [s for s in SECTIONS if s not in missing]
    assert page.images == images


def test_the_page_leads_with_what_was_trained_the_figure_and_whether_it_was_worth_it(tmp_path):
    page = page_of(made_up.write_run(tmp_path / "run"))
    assert "builtin:text for text-classification, fine-tuned on reviews, 4,000 training rows." in page
    assert "accuracy 88.9 % (95 % interval 87.0 to 90.8 %) on 1,000 test rows" in page
    assert "Fine-tuning beats TF-IDF by 1.5 points of accuracy (95 % interval +0.5 to +2.5)." in page
    assert "selected on the same rows" not in page


def test_a_figure_from_the_rows_of_the_selection_is_said_to_be_one(tmp_path):
    page = page_of(made_up.write_run(tmp_path / "run", split="eval"))
    assert "The weights were selected on the same rows; expect a little less on new ones." in page


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    path = build(made_up.write_run(tmp_path / "run"))
    page, text = Page(path), path.read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("meta", (("http-equiv", "Content-Security-Policy"), ("content", policy))) in page.tags
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    sources = [dict(attrs)["src"] for tag, attrs in page.tags if tag == "img"]
    assert sources == ["image"] * len(sources)
    assert all(dict(attrs)["href"].startswith("#") for tag, attrs in page.tags if tag == "a")
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text


@pytest.mark.parametrize("kind", ["six", "many", "multi", "regression"])
def test_no_tag_or_attribute_comes_from_the_records(tmp_path, kind):
    run = made_up.write_run(tmp_path / "run", kind)
    run.set_status(Status("failed", "it broke", 150, "unfreeze resume run", 1))
    clean = page_of(run)
    poison(run)
    path = build(run)
    page = Page(path)
    assert page.tags == clean.tags
    assert page.comments == []
    raw = path.read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", raw)


def test_foreign_text_is_on_the_page_as_it_is_with_its_controls_visible(tmp_path):
    run = made_up.write_run(tmp_path / "run", "six")
    build(run)
    poison(run)
    page = Page(build(run))
    assert page.text.count("{{7*7}}") > 50
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}{% include 'x' %}" in page
    assert r"\x1b[31m\u202e\u2066 $\frac{ javascript:alert(3) \x00\x07\u2028 日本語 &lt;i&gt;" in page


def test_the_name_of_the_run_is_inert_too(tmp_path):
    run = made_up.write_run(tmp_path / "a<b onclick=x>{{7*7}}\u202e")
    page = page_of(run)
    assert r"report of the run a<b onclick=x>{{7*7}}\u202e" in page
    assert "b" not in {tag for tag, _ in page.tags}


def test_many_classes_are_listed_worst_first_with_the_pairs_that_are_confused(tmp_path):
    run = made_up.write_run(tmp_path / "run", "many")
    details = json.loads((run.folder / "test_results.json").read_text(encoding="utf-8"))["test_details"]
    worst = min(details["per_class"], key=lambda c: c["f1"])["label"]
    page = page_of(run)
    assert page.text.index(worst) < page.text.index("intent_00")
    assert "77 classes, the worst first" in page
    assert "The pairs that are confused most often" in page


def test_long_texts_are_shortened(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    made_up.change_json(run, "mistakes.json", lambda m: m[0].update(text="begin " + "x" * 5000 + " end"))
    page = page_of(run)
    assert "begin xxx" in page
    assert "x" * 401 not in page.text
    assert " end" not in page.text[page.text.index("begin") :][:5000]


def test_numbers_have_no_column_of_probabilities(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    assert "Predicted Probability Surprise" in page_of(run).text
    made_up.change_json(run, "mistakes.json", lambda m: [{**row, "probability": None} for row in m])
    assert "Predicted Surprise" in page_of(run).text


def test_expected_stands_beside_happened_and_no_folder_is_named(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    made_up.change_json(run, "plan.json", lambda p: p["choices"].append(
        {"key": "data.test", "value": "/srv/annabel/secret/test.csv", "source": "--set", "reason": ""}))  # fmt: skip
    page = page_of(run)
    assert "Training time 1 min 0 s 1 min 16 s" in page
    assert "Peak memory 900 MB 1.10 GB" in page
    assert "data.test .../test.csv --set" in page
    assert "annabel" not in page
    assert str(tmp_path) not in page


def test_the_memory_of_a_gpu_is_told_where_there_was_one(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    assert "GPU" not in page_of(run)
    made_up.change_json(run, "train_results.json", lambda r: r.update(train_peak_device_memory_bytes=2_000_000_000))
    assert "Peak memory of the GPU 2.00 GB" in page_of(run)


def test_rates_are_listed_from_the_head_down(tmp_path):
    assert "head 0.0005, group 2 0.0001, group 1 8.5e-05, stem 7e-05" in page_of(made_up.write_run(tmp_path / "run"))


def test_what_was_recorded_stands_beside_what_was_planned(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    reason = "recorded at group 2, 310 MB: saves about 4 min of repeated forwards"
    made_up.change_json(run, "plan.json", lambda p: p["phases"][1].update(source_reason=reason))
    text = page_of(run)
    assert reason in text
    assert "recorded at head: 5 MB of float16; checked, outputs differ by at most 0.0002 of the largest" in text
    assert "the rows, through the whole model" in text


def test_a_phase_that_ended_early_says_so(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    made_up.change_json(run, "plan.json", lambda p: p["phases"][2].update(steps=80))
    made_up.change_json(run, "train_results.json", lambda r: r.update(train_stopped_phases=["all"]))
    assert "50 of 80 steps, stopped early" in page_of(run)


# runs that did not end well


def test_a_run_that_failed_half_way_has_a_page_with_what_there_is(tmp_path):
    run = Run.create(
        tmp_path / "run", recipe_yaml="seed: 0\n", plan=made_up.plan("six", made_up.LABELS["six"], 100, "test")
    )
    made_up.write_events(run)
    run.log("not_finite", 150, loss="nan", gradient_norm="inf", rows=[1, 2])
    cause = "E-NOT-FINITE: the loss is nan in step 151\n  where: /srv/ann/runs/x, step 151"
    run.set_status(Status("failed", cause, 150, "unfreeze train DATA --set train.learning_rate=1e-5", 5))
    page = page_of(run)
    assert page.sections == ["curves", "data", "plan", "run"]
    assert "There is no result yet. Best so far, on the validation rows after step 150: loss 0.3493" in page
    assert "The run failed after step 150." in page
    assert "E-NOT-FINITE: the loss is nan in step 151 where: .../x, step 151" in page
    assert "What to do next: unfreeze train DATA --set train.learning_rate=1e-5" in page
    assert "loss nan, gradient norm inf: no update was made" in page


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    page = page_of(Run.create(tmp_path / "run", recipe_yaml="seed: 0\n", plan={}))
    assert page.sections == ["data", "plan", "run"]
    assert "had not ended when this page was written" in page


def test_a_run_without_validation_rows_says_which_weights_were_kept(tmp_path):
    run = Run.create(
        tmp_path / "run", recipe_yaml="seed: 0\n", plan=made_up.plan("six", made_up.LABELS["six"], 100, "test")
    )
    made_up.write_step(run, 1, "head", 1, 0.7)
    run.set_status(Status("done", step=1, exit_status=0))
    page = page_of(run)
    assert "There were no validation rows, so the last weights were kept." in page
    assert page.images == 1


def test_a_damaged_record_is_named_on_the_page(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    run.write_findings(judge(run))
    (run.folder / "mistakes.json").write_text("[", encoding="utf-8")
    page = Page(build(run))
    assert "These records of the run are damaged and not shown: mistakes.json." in page
    assert "mistakes" not in page.sections


def test_importing_the_report_loads_no_torch_and_no_plots():
    script = "import sys, unfreeze.report; sys.exit(bool({'torch', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
