"""Bars of progress: one for a whole call, in training steps, which ends full and says what is done."""

import re

import joblib
import pytest

import wlm
from wlm.tl import _progress

SHORT = {"n_steps": 4, "batch_size": 32, "width": 8, "hidden": 8, "n_inducing": 2, "initial_velocity": "zero"}
SCORES = {"metrics": "w1", "n_boot": 0}


@pytest.fixture
def said(monkeypatch):
    """Each bar of a call: what it said, its total, and how far it was after each update."""
    bars = []

    class Bar(_progress.tqdm):
        def __init__(self, *args, **kwargs):
            bars.append({"total": kwargs["total"], "words": [], "n": [], "shown": not kwargs["disable"]})
            self.own = bars[-1]
            super().__init__(*args, **{**kwargs, "disable": False}, file=open("/dev/null", "w"), leave=False)

        def set_description(self, desc=None, refresh=True):
            self.own["words"].append(desc)

        def update(self, n=1):
            super().update(n)
            self.own["n"].append(self.n)

    monkeypatch.setattr(_progress, "tqdm", Bar)
    return bars


def test_one_bar_counts_the_steps_of_all_models_and_of_the_back_test(cells, said):
    wlm.tl.fit(cells, "day", n_models=2, **SHORT)
    assert len(said) == 1
    bar = said[0]
    assert bar["total"] == 2 * 4 + 2, "the back-test has half of the steps"
    assert bar["n"][-1] == bar["total"]
    assert sorted(bar["n"]) == bar["n"], "it never goes back"
    assert set(range(1, 9)) <= set(bar["n"]), "it moves with every step"
    assert [words.partition(": ")[2] for words in bar["words"]] == ["model 1 of 2", "model 2 of 2", "back-test"]


def test_the_bar_has_friction_in_the_unit_of_the_log(cells, monkeypatch):
    told = []
    monkeypatch.setattr(_progress.Progress, "tell", lambda self, n, scalars: told.append(scalars["friction"]))
    found = {}
    for unit in (1.0, 10.0):
        cells.obs["time"] = unit * cells.obs["day"]
        wlm.tl.fit(cells, "time", backtest=False, friction_lr=0, **SHORT)
        found[unit] = wlm.tl.diagnose(cells).loc["friction", "value"]
        assert told[-1] == pytest.approx(found[unit], rel=1e-5)
    assert found[1.0] == pytest.approx(10 * found[10.0], rel=1e-5)


def test_conditions_share_a_bar(cells, said):
    cells.obs["arm"] = ["drug", "none"] * (cells.n_obs // 2)
    wlm.tl.fit(cells, "day", condition_key="arm", backtest=False, **SHORT)
    assert len(said) == 1
    assert said[0]["total"] == said[0]["n"][-1] == 8
    assert [words.partition(": ")[2] for words in said[0]["words"]] == ["drug", "none"]


def test_an_evaluation_says_which_fit_it_makes(cells, said):
    wlm.tl.evaluate(cells, "day", holdout=4, seeds=2, **SCORES, **SHORT)
    assert len(said) == 1
    bar = said[0]
    assert bar["total"] == bar["n"][-1] == 2 * (4 + 2), "a forecast has a back-test"
    assert set(range(1, 13)) <= set(bar["n"])
    assert "wlm.tl.evaluate: without time 4, wlm, seed 2 of 2" in bar["words"]
    assert bar["words"][-1] == "wlm.tl.evaluate: scores and intervals"


def test_fits_side_by_side_have_one_bar(cells, said):
    with joblib.parallel_config("threading", n_jobs=2):
        wlm.tl.evaluate(cells, "day", holdout=[1, 2], **SCORES, **SHORT)
    assert len(said) == 1
    assert said[0]["n"] == [4, 8], "it moves when a fit ends"
    assert [words.partition(": ")[2] for words in said[0]["words"][:3]] == ["0 of 2 done", "1 of 2 done", "2 of 2 done"]


def test_fits_of_the_cache_count_as_made(cells, said, tmp_path):
    for _ in range(2):
        wlm.tl.evaluate(cells, "day", holdout=2, cache=tmp_path, **SCORES, **SHORT)
    assert [bar["n"][-1] for bar in said] == [4, 4]
    assert len(said[1]["n"]) == 1, "nothing was trained"


def test_donors_left_out_have_a_bar(cells, said):
    cells.obs["donor"] = ["a", "b"] * (cells.n_obs // 2)
    wlm.tl.evaluate(cells, "day", holdout=2, group_key="donor", **SCORES, **SHORT)
    assert [bar["total"] for bar in said] == [8]
    assert said[0]["n"][-1] == 8
    assert "wlm.tl.evaluate: without b, wlm" in said[0]["words"]


def test_a_diagnosis_and_a_comparison_show_their_fits(cells, fitted, said):
    wlm.tl.diagnose(fitted, seeds=2)
    assert [bar["total"] for bar in said] == [15]
    assert said[0]["n"][-1] == 15
    assert "wlm.tl.diagnose: fit 1 of 1" in said[0]["words"]
    cells.obs["arm"] = ["drug", "none"] * (cells.n_obs // 2)
    wlm.tl.compare(cells, "day", "arm", method="wlm", n_perm=19, n_jobs=1, **SHORT)
    assert said[1]["n"][-1] == said[1]["total"] > 0
    assert all(re.fullmatch("wlm.tl.compare: fit of .+", words) for words in said[1]["words"])


@pytest.mark.parametrize(
    ("verbosity", "asked", "shown"), [(2, None, True), (1, None, False), (1, True, True), (2, False, False)]
)
def test_bars_are_shown_by_verbosity_unless_asked(said, verbosity, asked, shown):
    before = wlm.settings.verbosity
    wlm.settings.verbosity = verbosity
    try:
        with _progress.Progress("wlm.tl.evaluate", 1, asked):
            pass
    finally:
        wlm.settings.verbosity = before
    assert said[0]["shown"] == shown


def test_an_evaluation_shows_its_bar_if_asked(cells, capsys):
    for asked in (True, False):
        wlm.tl.evaluate(cells, "day", holdout=2, show_progress=asked, **SCORES, **{**SHORT, "n_steps": 1})
        assert ("wlm.tl.evaluate: without time 2" in capsys.readouterr().err) == asked


def test_a_backend_that_gives_results_at_the_end_will_do(monkeypatch):
    class Old(joblib.Parallel):
        def __init__(self, n_jobs=None, return_as="list"):
            if return_as != "list":
                raise ValueError("no generators")
            super().__init__(n_jobs=n_jobs, backend="threading")

    monkeypatch.setattr(_progress, "Parallel", Old)
    jobs = [_progress.Job(pow, (2, k), "", 1) for k in range(3)]
    with _progress.Progress("p", 3, asked=False) as progress:
        assert list(_progress.run(jobs, progress, 2)) == [1, 2, 4]
