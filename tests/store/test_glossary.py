"""Each verdict comes with a sentence for each of its words."""

import re

import pandas as pd
import pytest

import wlm
from wlm._store.glossary import WORDS, explain, in_lines

SHORT = {"n_steps": 2, "batch_size": 32, "width": 8, "hidden": 8, "n_inducing": 2, "initial_velocity": "zero"}


def test_sentences_are_short_and_plain():
    for verb, words in WORDS.items():
        for word, meaning in words.items():
            assert 20 < len(meaning) < 121 and meaning[0].islower() and not meaning.endswith("."), (verb, word)


def test_words_are_found_whole_and_longer_ones_before_their_parts():
    said = explain("evaluate", "growth NOT SUPPORTED: w1 1, BETTER THAN ot_midpoint (-3 %), coverage of 95 %: 90 %")
    assert [line.partition(":")[0] for line in said] == [
        "BETTER THAN",
        "w1",
        "coverage of 95 %",
        "ot_midpoint",
        "growth NOT SUPPORTED",
    ]
    assert explain("evaluate", "nextdoor w11 splines") == []
    assert in_lines("plan", "evenly spaced is as good") == (
        f"evenly spaced is as good\n  evenly spaced: {WORDS['plan']['evenly spaced']}"
    )


def test_an_evaluation_explains_its_verdict(cells, caplog, monkeypatch):
    monkeypatch.setattr(wlm._logging.logger, "propagate", True)
    table = wlm.tl.evaluate(cells, "day", holdout=2, metrics="w1", n_boot=20, **SHORT)
    glossary, verdict = table.attrs["glossary"], table.attrs["verdict"]
    terms = {line.partition(": ")[0] for line in glossary}
    result = re.match("BETTER THAN|WORSE THAN|NO DIFFERENCE FROM", verdict)[0]
    baseline = re.match(rf"{result} (\w+)", verdict)[1]
    assert {result, baseline, "floor", "floors at equal numbers of cells", "w1", "interpolation", "95 %"} <= terms
    assert f"{verdict}\n  {glossary[0]}" in caplog.text
    assert wlm.tl.evaluate(cells, "day", holdout=2, baselines=False, **SHORT).attrs["glossary"] == []


@pytest.mark.parametrize("name", ["previous", "next", "pooled", "ot_midpoint", "spline", "relaxed_midpoint", "floor"])
def test_every_naive_answer_has_a_sentence(name):
    assert len(explain("evaluate", f"BETTER THAN {name} (-1 %)")) == 2


def test_other_verdicts_are_explained(fitted):
    found = wlm.tl.diagnose(fitted)
    assert any(line.startswith("friction: ") for line in found.attrs["glossary"])
    plan = wlm.tl.plan(fitted, n_courses=12)
    assert any(line.startswith("evenly spaced: ") for line in plan.attrs["glossary"])
    assert isinstance(plan, pd.DataFrame)
