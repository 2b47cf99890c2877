"""Genes that the dynamics turn towards a fate: ranked, and along the path."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from wlm._adata.checks import check_integer
from wlm.pl._arguments import Legends, styled
from wlm.pl._colors import OBSERVED, PREDICTED
from wlm.pl._legend import legend
from wlm.pl._style import Style
from wlm.tl._drivers import Q

#: Bars of markers.
_PALE = "#9ecae1"
#: What the colours of the bars mean, by role.
_ROLES = {
    "driver": (PREDICTED, f"driver (q ≤ {Q:g})"),
    "marker": (_PALE, "marker (at the end only)"),
    "": (OBSERVED, "not called"),
}


@styled(Legends, ax="Axes to draw the bars on; the heatmap is then left out.")
def drivers(
    table: pd.DataFrame,
    *,
    n_genes: int = 20,
    **style: Unpack[Legends],
) -> Any:
    """Draw what :func:`wlm.tl.drivers` returned: the first genes with their effects, and these along the path.

    On the left a bar for each gene, the first ``n_genes`` of the table: its effect, with the 95 % interval over cells.
    On the right the effect at each time, the last included, in the same unit. Transcription factors are marked by a
    star, where the table has any.

    Parameters
    ----------
    table
        The table, or some of its rows: ``table[table["role"] == "driver"]``, or ``table.loc[["GATA1", "SPI1"]]``.
    n_genes
        Most genes to draw.

    Returns
    -------
    The axes, the figure with ``return_fig``, or None if it was shown.

    Raises
    ------
    ValueError
        If it is not such a table, or it has no rows.
    """
    needed = {"effect", "low", "high", "q", "role"}
    if not isinstance(table, pd.DataFrame) or not needed <= set(table.columns):
        raise ValueError("table must be what wlm.tl.drivers returns; run table = wlm.tl.drivers(adata, fate) first")
    check_integer("n_genes", n_genes)
    if len(table) == 0:
        raise ValueError("the table has no rows; choose some genes of what wlm.tl.drivers returns")
    look, shown = Style(**style), table.iloc[:n_genes]
    path = [c for c in shown.columns if c.startswith("at ")]
    if look.ax is not None or not path:
        axes = [look.one((5.3, max(2.8, 0.23 * len(shown) + 1.5)))]
    else:
        size = (2.65 + 0.225 * len(path), max(2.8, 0.23 * len(shown) + 1.5))
        _, axes = look.axes(2, size, ncols=2, sharey=True, width_ratios=(4, 0.9 + 0.45 * len(path)))
        _draw_path(axes[1], shown, path)
    _draw_bars(axes[0], shown)
    legend(look, axes, _handles(shown), below=2)
    return look.finish(axes, axes if len(axes) > 1 else axes[0])


def _draw_bars(ax: Axes, shown: pd.DataFrame) -> None:
    """A bar for each gene, the first on top, with its interval."""
    y = np.arange(len(shown))
    colors = [_ROLES[role][0] for role in shown["role"]]
    ax.barh(y, shown["effect"], color=colors, height=0.75)
    low, high = shown["low"], shown["high"]
    # An interval over cells may leave out an estimate that sampling pulls towards zero.
    reach = np.stack([shown["effect"] - low, high - shown["effect"]]).clip(0)
    if np.isfinite(reach).all():
        ax.errorbar(shown["effect"], y, xerr=reach, fmt="none", ecolor="black", elinewidth=0.9, capsize=1.5)
    ax.axvline(0, color="black", linewidth=0.8)
    stars = shown["tf"] if "tf" in shown else np.zeros(len(shown), dtype=bool)
    names = [f"{gene} *" if star else str(gene) for gene, star in zip(shown.index, stars, strict=True)]
    ax.set_yticks(y, names, fontsize="small")
    ax.set(ylim=(len(shown) - 0.4, -0.6), xlabel=f"effect ({shown.attrs.get('unit', 'SD')})", title=_title(shown))
    ax.spines[["top", "right"]].set_visible(False)


def _draw_path(ax: Axes, shown: pd.DataFrame, path: list[str]) -> None:
    """Effects by gene and time."""
    values = shown[path].to_numpy(dtype=float)
    most = float(np.abs(values).max()) or 1.0
    image = ax.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    ax.set_xticks(np.arange(len(path)), [c.removeprefix("at ") for c in path], fontsize="small")
    ax.tick_params(axis="y", left=False, labelleft=False)
    ax.set(xlabel=shown.attrs.get("time", "time"), title="along the path")
    ax.get_figure().colorbar(image, ax=ax, label=shown.attrs.get("unit", "SD"), shrink=0.8)  # type: ignore[union-attr]


def _title(shown: pd.DataFrame) -> str:
    fate = shown.attrs.get("fate")
    return "drivers of the flow" if fate is None else f"drivers of {fate}"


def _handles(shown: pd.DataFrame) -> list[Any]:
    """The meaning of the colours that are there."""
    present = [role for role in _ROLES if role in set(shown["role"])]
    handles: list[Any] = [Patch(color=_ROLES[role][0], label=_ROLES[role][1]) for role in present]
    if "tf" in shown and shown["tf"].any():
        handles.append(Patch(alpha=0, label="* transcription factor"))
    return handles
