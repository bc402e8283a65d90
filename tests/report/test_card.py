import json
import re
from html.parser import HTMLParser

import made_up
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from unfreeze.report import judge, write_card
from unfreeze.report.card import inert
from unfreeze.run import Run

STRANGE = (
    "</td><script>x</script> [l](javascript:x) ![i](y) `c` **b** | a\n# h\n---\n: {{7*7}} www.x.de https://x.de "
    "<u@x.de> \x1b\u202e"
)


def card_of(run):
    write_card(run, run.folder)
    return (run.folder / "README.md").read_text(encoding="utf-8")


def split(card):
    _, header, body = card.split("---\n", 2)
    return yaml.safe_load(header), body


def tags(markdown):
    """Tags with attributes of the rendered Markdown, raw HTML allowed."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append((tag, tuple(attrs)))
    parser.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
    return found


def test_the_header_is_what_the_hub_reads(tmp_path):
    run = made_up.write_run(tmp_path / "my-run")
    made_up.change_json(run, "plan.json", lambda p: p.update(model="answerdotai/ModernBERT-base"))
    header, _ = split(card_of(run))
    assert header["library_name"] == "transformers"
    assert header["pipeline_tag"] == "text-classification"
    assert header["base_model"] == "answerdotai/ModernBERT-base"
    assert header["tags"] == ["unfreeze"]
    assert "license" not in header
    (model,) = header["model-index"]
    (result,) = model["results"]
    assert model["name"] == "my-run"
    assert result["dataset"] == {"name": "reviews", "type": "reviews", "split": "test"}
    assert result["metrics"][0] == {"type": "accuracy", "value": 0.889, "name": "accuracy"}


@pytest.mark.parametrize(
    ("task", "tag", "shown"),
    [
        ("intent-and-slots", "token-classification", "AutoModelForTokenClassification"),
        ("my-own-task", None, "Only `unfreeze.Predictor` knows this task"),
        ("fill-mask", "fill-mask", "predictor.task.processor.mask_token"),
        ("audio-classification", "audio-classification", 'pipeline("audio-classification"'),
    ],
)
def test_a_task_is_named_and_shown_as_the_hub_knows_it(tmp_path, task, tag, shown):
    run = made_up.write_run(tmp_path / "run")
    made_up.change_json(run, "plan.json", lambda plan: plan.update(task=task))
    header, body = split(card_of(run))
    assert header.get("pipeline_tag") == tag
    assert shown in body
    assert ("max length tokens" in body) is (task != "audio-classification")


def test_the_header_is_what_the_hubs_own_library_accepts(tmp_path):
    from huggingface_hub import ModelCard

    card = ModelCard(card_of(made_up.write_run(tmp_path / "run")))
    assert {r.metric_type: r.metric_value for r in card.data.eval_results}["accuracy"] == 0.889


@pytest.mark.parametrize(
    "model", ["builtin:text", "/srv/annabel/models/mine", "./models/mine", "C:\\Users\\annabel\\mine"]
)
def test_a_model_that_is_not_on_the_hub_is_no_base_model_of_the_header_and_its_folder_is_not_named(tmp_path, model):
    run = made_up.write_run(tmp_path / "run")
    made_up.change_json(run, "plan.json", lambda p: p.update(model=model))
    header, body = split(card_of(run))
    assert "base_model" not in header
    assert re.search(r"^(builtin:text|mine), fine-tuned for text-classification", body, re.MULTILINE)
    assert "annabel" not in body


def test_the_card_tells_results_baselines_data_phases_and_versions(tmp_path):
    _, body = split(card_of(made_up.write_run(tmp_path / "run", split="eval")))
    for line in (
        "| accuracy | 88.9 % | 87.0 to 90.8 % |",
        "| TF-IDF | 87.4 % | +1.5 (+0.5 to +2.5) | better |",
        "| negative | 2,000 |",
        "- train: 4,000 rows",
        "| upper half | last(1) | 1,000,000 | 50 | 1 | 0.0001 to 0.0005 |",
        "- torch 2.13.0",
        "- The weights were selected on the same rows; expect a little less on new ones.",
    ):
        assert line in body.splitlines()


def test_the_card_tells_the_steps_that_were_made(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    made_up.change_json(run, "plan.json", lambda plan: plan["phases"][2].update(steps=80, epochs=1.6))
    rates = "7e-05 to 0.0005"
    assert f"| all | all | 1,000,000 | 50 | 1 | {rates} |" in card_of(run).splitlines()
    (run.folder / "events.jsonl").unlink()  # a log that could not be written
    assert f"| all | all | 1,000,000 | 80 | 1.6 | {rates} |" in card_of(run).splitlines()


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("binary", 'pipe = pipeline("text-classification", model="path/to/this/folder")'),
        ("multi", ', top_k=None, function_to_apply="sigmoid")'),
        ("regression", ', function_to_apply="none")'),
        ("language", 'pipe = pipeline("fill-mask", model="path/to/this/folder")'),
    ],
)
def test_the_snippet_is_python_and_asks_for_what_the_model_gives(tmp_path, kind, call):
    _, body = split(card_of(made_up.write_run(tmp_path / "run", kind)))
    code = body.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert any(line.endswith(call) for line in code.splitlines())


def test_no_data_row_no_place_and_no_path_is_in_the_card(tmp_path):
    run = made_up.write_run(tmp_path / "run", "six", split="eval")
    made_up.change_json(
        run, "plan.json", lambda p: p["data"].update(name="/srv/annabel/rows.csv", notes=["/srv/annabel/x"])
    )
    made_up.change_json(run, "plan.json", lambda p: p["data"]["facts"].update(
        shared={"train and validation": {"count": 300, "places": ["test.csv:5 = train.csv:9"]}}))  # fmt: skip
    run.write_findings(judge(run))
    card = card_of(run)
    assert "300 of 1,000 validation rows" in card
    for secret in ("hoped for", "test.csv", "train.csv", "/srv", "annabel", str(tmp_path)):
        assert secret not in card


def test_strange_labels_and_names_add_nothing_to_the_rendered_card(tmp_path):
    clean = made_up.write_run(tmp_path / "a", labels=["x", "y"])
    strange = made_up.write_run(tmp_path / "b", labels=["x" + STRANGE, "y"])
    made_up.change_json(strange, "plan.json", lambda p: p["data"].update(name=STRANGE))
    made_up.change_json(strange, "plan.json", lambda p: p.update(model=STRANGE))
    made_up.change_json(strange, "plan.json", lambda p: p["phases"][0].update(name=STRANGE))
    header, body = split(card_of(strange))
    assert header["model-index"][0]["results"][0]["dataset"]["name"].startswith("</td><script>")
    assert tags(body) == tags(split(card_of(clean))[1])
    assert "\x1b" not in body
    assert "\u202e" not in body


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    text=st.text(alphabet=st.characters(), max_size=40) | st.text("<>[]()`*_|~#!&:/\\-{}@.\n\r\t\x1b w", max_size=40)
)
def test_any_text_is_inert_in_markdown(text):
    assert tags(f"a {inert(text)} z") == [("p", ())]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(label=st.text(alphabet=st.characters(), min_size=1, max_size=40))
def test_the_header_parses_whatever_data_and_labels_are_called(tmp_path, label):
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    plan = made_up.plan("binary", [label, "other"], 100, "test")
    plan["data"]["name"] = label
    run = Run.create(folder, recipe_yaml="seed: 0\n", plan=json.loads(json.dumps(plan)))
    run.write_results("test", {"accuracy": 0.5, "samples": 10})
    header, _ = split(card_of(run))
    assert header["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.5, "name": "accuracy"}]


def test_a_run_without_a_result_gets_a_card_without_figures(tmp_path):
    header, body = split(card_of(Run.create(tmp_path / "run", recipe_yaml="seed: 0\n", plan={})))
    assert header == {"library_name": "transformers", "tags": ["unfreeze"]}
    assert "The run had no result when this card was written." in body
