"""What is open over time, and which time to sample next."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd

from wlm.pl._arguments import Legends, styled
from wlm.pl._colors import OBSERVED, PATH, PREDICTED
from wlm.pl._legend import legend
from wlm.pl._style import Style


@styled(Legends)
def plan(table: pd.DataFrame, **style: Unpack[Legends]) -> Any:
    """Draw what :func:`wlm.tl.plan` returned: the disagreement over time, the picks, and evenly spaced times.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    The axes, the figure with ``return_fig``, or None if it was shown. The line is the disagreement of the courses with
    its 95 % interval, the dashed line what the picks would leave. Grey ticks are the observed times, filled triangles
    the picks with their cells, hollow ones evenly spaced times. The title says whether the picks are better.

    Raises
    ------
    ValueError
        If it is not such a table.
    """
    wanted = {"open", "observed", "advantage", "even"}
    if not isinstance(table, pd.DataFrame) or not wanted <= set(table.attrs) or not {"time", "n_cells"} <= set(table):
        raise ValueError("table must be what wlm.tl.plan returns; run table = wlm.tl.plan(adata) after wlm.tl.fit")
    look = Style(**style)
    ax = look.one((5.8, 3.9))
    found = {name: np.asarray(values, dtype=float) for name, values in table.attrs["open"].items()}
    t, observed = found["time"], table.attrs["observed"]
    ax.fill_between(t, found["low"], found["high"], color=PREDICTED, alpha=0.18, lw=0, label="95 % over courses")
    ax.plot(t, found["disagreement"], color=PREDICTED, lw=1.8, label="now")
    ax.plot(t, found["left"], color=PREDICTED, lw=1.4, ls="--", label="after the picks")
    top = float(found["high"].max()) or 1.0
    ax.vlines(observed, -0.05 * top, 0, color=OBSERVED, lw=2.5, label="observed", clip_on=False)
    picks = table["time"].to_numpy()
    heights = np.interp(picks, t, found["disagreement"])
    ax.vlines(picks, 0, heights, color=PATH, lw=1)
    ax.scatter(picks, np.zeros(len(picks)), marker="^", s=60, color=PATH, label="picks", zorder=4)
    even = np.asarray(table.attrs["even"], dtype=float)
    ax.scatter(
        even,
        np.zeros(len(even)),
        marker="^",
        s=130,
        facecolor="none",
        edgecolor="black",
        label="evenly spaced",
        zorder=3,
    )
    for k, (time, height, n) in enumerate(zip(picks, heights, table["n_cells"], strict=True)):
        text = f"{f'{k + 1}: ' if len(picks) > 1 else ''}{time:.3g}\n{n:,} cells"
        right = time > (t[0] + t[-1]) / 2
        ax.annotate(
            text,
            (time, height),
            xytext=(-5 if right else 5, 6),
            textcoords="offset points",
            fontsize="small",
            color=PATH,
            ha="right" if right else "left",
        )
    ax.set_ylim(-0.05 * top, 1.3 * top)
    ax.set_xlabel(table.attrs.get("time", "time"))
    ax.set_ylabel("disagreement of the courses\n(sliced W2, units of the embedding)")
    better = table.attrs["advantage"]["low"] > 0
    ax.set_title("picks gain more than evenly spaced" if better else "evenly spaced is as good", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    legend(look, [ax], ax.get_legend_handles_labels()[0], below=3)
    return look.finish([ax], ax)
