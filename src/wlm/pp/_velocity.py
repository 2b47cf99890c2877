"""Velocities of genes as speeds in principal components, written to the object."""

from __future__ import annotations

import anndata as ad

from wlm._adata.columns import layer_names
from wlm._adata.components import find_rep
from wlm._adata.velocity import note_components, project_layer
from wlm._logging import logger


def project_velocity(
    adata: ad.AnnData,
    *,
    vkey: str = "velocity",
    use_rep: str | None = None,
    smooth: bool = True,
    key_added: str | None = None,
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Project velocities of genes on the principal components, as a speed.

    RNA velocity is the rate of (normalised) spliced molecules s, while principal components are mostly
    computed on :math:`x = \log(1 + cs)`, where c brings each cell to the same total. By the chain rule

    .. math:: \dot x = \frac{c\,(\dot s - s\,\textstyle\sum\dot s / \sum s)}{1 + cs},

    which the loadings then project. c is the ratio of the cell's totals in the matrix x that PCA was computed on (the
    layer, or ``X``, that explains the components) and in the abundances (``layers["Ms"]``, ``"M_s"`` or ``"spliced"``).
    Logarithms to another base are divided by its natural logarithm (``uns["log1p"]["base"]``). Where x was scaled after
    the logarithm, centred or not, its rate is divided by ``var["std"]`` too. Where x is not logarithmic, velocities are
    projected as they are.

    If neither ``X`` nor a layer explains the components, the function tries the usual steps on the side: it normalises
    and logs counts, scales logarithms, or unscales scaled values. If that also fails, the loadings belong to another
    PCA, and the call is refused. If nothing can be compared (no ``X``, or genes removed after the PCA), the log states
    the assumption.

    scVelo's ``velocity_pca`` is different: a direction for plotting, smoothed over transition probabilities, centred
    and rescaled.

    Parameters
    ----------
    adata
        With ``layers[vkey]`` and the loadings in ``varm["PCs"]`` (scanpy 2: ``varm["pca"]``; dynamo:
        ``uns["PCs"]``). Genes without a velocity (NaN, or not marked in ``var["velocity_genes"]`` or
        ``var["use_for_dynamics"]``, where these exist; a missing mark is False) do not move.
    vkey
        Layer with velocities, shape (n_obs, n_vars).
    use_rep
        Components that the loadings belong to: by default ``"X_pca"``, else ``"pca"`` (scanpy 2).
    smooth
        Average over the neighbours in ``obsp["connectivities"]``, if there are any: velocities of single cells are
        noisy. Neighbours at other times take part.
    key_added
        Key of ``obsm`` for the result; by default ``f"{vkey}_projected"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    None, or the copy if ``copy=True``. Written to ``adata``:

    ``obsm[key_added]`` : float32, (n_obs, k)
        Velocity in units of ``use_rep`` per unit of the layer's time; NaN for cells without any.
    ``uns[key_added]`` : dict
        ``vkey``, ``use_rep``, ``n_genes`` with a velocity, ``share`` of the loadings' sum of squares on them (of
        all genes of the PCA, those taken out since included), ``space`` of the expression (``"log"``, ``"scaled"``
        or ``"linear"``), ``smooth``, and ``components``: rows of ``obsm[use_rep]`` and of the loadings, by which a
        fit sees that the PCA was run again since.

    Raises
    ------
    KeyError, ValueError
        If the layer or the loadings are missing, the loadings do not explain the components, a mask holds anything but
        True and False, or no gene has a velocity.
    """
    if not isinstance(adata, ad.AnnData):
        raise TypeError(f"adata must be an AnnData object, found {type(adata).__name__}")
    if vkey not in adata.layers:
        raise KeyError(
            f"layers[{vkey!r}] is missing; layers has {layer_names(adata)}; run wlm.pp.velocity(adata) first"
        )
    name = f"{vkey}_projected" if key_added is None else key_added
    use_rep = find_rep(adata, use_rep)
    result = project_layer(adata, vkey, use_rep, smooth=smooth)
    components = note_components(adata, vkey, use_rep)
    target = adata.copy() if copy else adata
    target.obsm[name] = result.velocity
    target.uns[name] = {
        "vkey": vkey,
        "use_rep": use_rep,
        "n_genes": result.n_genes,
        "share": result.share,
        "space": result.space,
        "smooth": smooth,
        "components": components,
    }
    logger.info(
        "projected layers[%r] of %d genes (%.0f %% of the loadings) on %s in %s space; added obsm[%r]",
        vkey,
        result.n_genes,
        100 * result.share,
        use_rep,
        result.space,
        name,
    )
    return target if copy else None
