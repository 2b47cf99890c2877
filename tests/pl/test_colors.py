"""Colours of labels: those that are stored, those of every colour vision for few, scanpy's for many."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scanpy.plotting import palettes

from wlm.pl._colors import COLORS, label_colors


@pytest.mark.parametrize(
    ("n", "palette"),
    [(3, COLORS), (8, COLORS), (9, palettes.default_20), (25, palettes.default_28), (60, palettes.default_102)],
)
def test_labels_get_a_colour_each(n, palette):
    names = [f"type {i:03d}" for i in range(n)]
    adata = ad.AnnData(obs=pd.DataFrame({"type": pd.Categorical(names)}, index=[f"c{i}" for i in range(n)]))
    assert label_colors(adata, "type", adata) == dict(zip(names, palette, strict=False))
    adata.uns["type_colors"] = np.array(["#123456"] * n, dtype=object)
    assert set(label_colors(adata, "type", adata).values()) == {"#123456"}


def test_more_labels_than_anybody_tells_apart_are_grey():
    names = [f"{i:03d}" for i in range(150)]
    adata = ad.AnnData(obs=pd.DataFrame({"type": pd.Categorical(names)}, index=names))
    assert set(label_colors(adata, "type", adata).values()) == {"grey"}
