"""What the doctor says of rates of growth that an object holds already."""

from __future__ import annotations

from collections.abc import Collection

from wlm.pp._checks import Finding

#: Columns of ``obs`` that :func:`wlm.pp.growth_prior` makes rates of, those of one tool together, and its own.
SOURCES = (("cell_growth_rate",), ("proliferation", "apoptosis"), ("S_score", "G2M_score"))
OWN = "wlm_growth_prior"


def check_growth(columns: Collection[str], time_key: str | None) -> Finding:
    """Name the columns with rates of growth, or scores to make them of, and how to use them."""
    use = f"fit with growth=True, growth_key={OWN!r}, if cells divide or die at different rates"
    if OWN in columns:
        return Finding("note", f"obs[{OWN!r}] holds net rates", f"to use them, {use}")
    found = [name for source in SOURCES for name in source if name in columns]
    if not found:
        return Finding("ok", "no rates in obs; a fit conserves cells unless growth=True")
    at = "" if time_key is None else f", time_key={time_key!r}"
    advice = f"wlm.pp.growth_prior(adata{at}) makes net rates of them; to use these, {use}"
    return Finding("note", f"obs has {', '.join(map(repr, found))}", advice)
