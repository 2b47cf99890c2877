"""The picture of the landing page and of the README: a sample of real cells that the model never saw.

    .venv-test/bin/python scripts/landing.py    # writes docs/_static/embryoid.png; a minute or two

Human embryoid bodies (Moon et al. 2019, Mendeley Data v6n743h5ng; principal components of Tong et al. 2020),
from the cache folder (WLM_DATA_DIR) or downloaded on first use.
"""

from pathlib import Path

import wlm

HELD = 2

adata = wlm.datasets.embryoid_body()
wlm.tl.fit(adata, "time", holdout=HELD, device="cpu")
spans = list(adata.obs["days"].cat.categories)
titles = [f"days {span}" + (", never seen" if k == HELD else "") for k, span in enumerate(spans)]
panels = [*titles, "paths from the first sample"]
figure = wlm.pl.rollout(adata, title=panels, return_fig=True)
out = Path(__file__).parents[1] / "docs" / "_static" / "embryoid.png"
figure.savefig(out, dpi=110)
print(f"wrote {out}, {out.stat().st_size / 1e3:.0f} kB")
