"""Rates of growth that the doctor finds."""

import pytest

import wlm
from wlm.pp._growth_columns import check_growth


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["proliferation", "apoptosis"], "'proliferation', 'apoptosis'"),
        (["S_score", "G2M_score", "phase"], "'S_score', 'G2M_score'"),
        (["cell_growth_rate"], "'cell_growth_rate'"),
    ],
)
def test_scores_of_other_tools_are_named_with_the_call_that_uses_them(columns, found):
    finding = check_growth(columns, "day")
    assert finding.level == "note" and found in finding.found
    assert "wlm.pp.growth_prior(adata, time_key='day')" in finding.advice
    assert "growth_key='wlm_growth_prior'" in finding.advice


def test_what_growth_prior_made_is_to_be_used_and_nothing_is_nothing():
    finding = check_growth(["wlm_growth_prior", "S_score"], None)
    assert "holds net rates" in finding.found and "wlm.pp.growth_prior(" not in finding.advice
    assert check_growth(["day"], "day").level == "ok"


def test_the_proposed_calls_run():
    adata = wlm.datasets.branching_growth(40, n_founders=200)
    adata.obs["proliferation"], adata.obs["apoptosis"] = adata.obs["true_growth"], 0.0
    row = wlm.pp.doctor(adata, use_rep="X_position").set_index("check").loc["growth"]
    assert row["level"] == "note"
    wlm.pp.growth_prior(adata, time_key="day", use_rep="X_position")
    row = wlm.pp.doctor(adata, use_rep="X_position").set_index("check").loc["growth"]
    assert "'wlm_growth_prior'" in row["found"]
