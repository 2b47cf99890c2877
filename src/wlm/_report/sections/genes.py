"""Genes over time, and those that the dynamics turn towards a fate."""

from __future__ import annotations

from typing import Any

import numpy as np

from wlm._adata.components import LOADINGS
from wlm._report.blocks import LeftOut, Table, Words
from wlm._report.figures import picture
from wlm._report.subject import Subject
from wlm._report.words import glossary, most, objects
from wlm._store.words import several
from wlm.pl import drivers as draw_drivers
from wlm.pl import genes as draw_genes
from wlm.tl import gene_trends

#: Genes that are drawn, and the share of a gene's variance that has to be decoded for it to be chosen.
N_GENES, DECODED = 6, 0.3
#: Predicted cells of a trend, at most.
N_CELLS = 1000


def genes(s: Subject) -> list[Any]:
    """Observed and predicted expression of some genes over time."""
    names, how = (list(s.genes), "as asked for") if s.genes is not None else _choose(s)
    table = gene_trends(s.adata, names, **s.common, n_cells=most(s, N_CELLS), rng=s.seed)
    return [
        Words(
            f"{several(names)}: {how}. Predicted expression is decoded linearly from the {s.fit.n_dims} components "
            "that were fitted; R² says which share of a gene's variance these hold. Of a poorly decoded gene the trend "
            "says little."
        ),
        picture(
            *(draw_genes, s.adata, names),
            **s.common,
            n_cells=most(s, N_CELLS),
            rng=s.seed,
            alt=f"Expression of {several(names)} over time: observed points, predicted lines with bands.",
            caption="Points: observed cells with their medians. Lines: predicted medians, with bands over cells.",
        ),
        Table(table, "gene_trends", "Expression over time, observed and predicted"),
    ]


def _choose(s: Subject) -> tuple[list[str], str]:
    """The genes whose decoded mean changes most between the training times, and that in words."""
    note, use_rep = s.fit.uns["representation"], s.fit.use_rep
    if s.cells.n_vars == 0:
        raise LeftOut("the object holds no genes")
    if use_rep not in LOADINGS:
        raise LeftOut(
            f"obsm['{use_rep}'] cannot be decoded to genes without a decoder",
            f"wlm.tl.predict({objects(s)}, times, genes=function)",
        )
    if "r2" not in note or LOADINGS[use_rep] not in s.cells.varm:
        raise LeftOut(
            f"no matrix of the object explains obsm['{use_rep}'], so that cells cannot be decoded to genes",
            f"sc.pp.pca({objects(s)}); wlm.tl.fit({objects(s)}, {s.fit.time_key!r})",
        )
    found = s.tables.get("drivers")
    known = {str(g): float(r) for g, r in zip(note["genes"], np.asarray(note["r2"], dtype=float), strict=True)}
    r2 = np.array([known.get(str(g), np.nan) for g in s.cells.var_names])
    if found is not None:
        first = [str(g) for g in found.index if np.isfinite(known.get(str(g), np.nan))][:N_GENES]
        if first:
            return first, "the first of the drivers"
    decoded = np.isfinite(r2) & (r2 >= DECODED)
    if not decoded.any():
        decoded = np.isfinite(r2)
    if not decoded.any():
        raise LeftOut("no gene can be decoded: all are constant or without loadings")
    means = np.stack([s.x[s.at(t)].mean(axis=0) for t in s.fit.training])  # (T, d)
    loadings = np.asarray(s.cells.varm[LOADINGS[use_rep]], dtype=float)[:, : s.fit.n_dims]
    change = np.where(decoded, np.ptp(means @ loadings.T, axis=0), -np.inf)
    order = np.argsort(-change, kind="stable")[: min(N_GENES, int(decoded.sum()))]
    names = [str(g) for g in s.cells.var_names[order]]
    return (
        names,
        f"those whose decoded mean changes most between the training times (of genes with an R² of {DECODED:g} at "
        "least)",
    )


def drivers(s: Subject) -> list[Any]:
    """The table of ``wlm.tl.drivers``."""
    table = s.tables.get("drivers")
    if table is None:
        raise LeftOut(
            "no table of drivers was given",
            f"table = wlm.tl.drivers({objects(s)}, fate{s.call}); wlm.report(..., drivers=table)",
        )
    called = table.index[table["role"] == "driver"].astype(str)
    verdict = str(table.attrs.get("verdict", "")) or f"{len(called)} of {len(table)} genes are called drivers."
    return [
        Words(verdict[:1].upper() + verdict[1:]),
        *glossary("drivers", [verdict]),
        Words(
            "Effects rest on a linear decoder, and on the dynamics of the model: a driver is a gene that the model "
            "turns before cells get there. No gene was perturbed.",
            "note",
        ),
        picture(
            *(draw_drivers, table),
            n_genes=min(20, len(table)),
            alt="Effect of each of the first genes with its interval, and the effects along the path.",
            caption="The first genes of the table: effects with 95 % intervals over cells, and along the path.",
        ),
        Table(table.reset_index(names="gene"), "drivers", "Genes by effect"),
    ]
