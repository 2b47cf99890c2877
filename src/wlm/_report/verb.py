"""The verb: read, fill the sections, render, and write in one go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from wlm._logging import logger, quiet
from wlm._random import RNG, as_seed
from wlm._report.blocks import LeftOut, Section
from wlm._report.html import render
from wlm._report.sections import SECTIONS
from wlm._report.subject import Subject, read_object, read_subject
from wlm._report.tables import read_table
from wlm._store.group import fit_key
from wlm._store.words import at, meets, several
from wlm._version import __version__
from wlm.tl._progress import is_shown

#: Columns that say that a table is that of a verb.
COLUMNS = {
    "evaluate": {"time", "model", "seed", "n_observed", "n_predicted"},
    "compare": {"condition", "reference", "statistic", "name", "time", "effect", "low", "high", "p_adj"},
    "drivers": {"effect", "low", "high", "q", "role"},
}


def report(
    adata_or_path: Any,
    path: str | os.PathLike[str] = "report.html",
    *,
    key: str = "wlm",
    condition: str | None = None,
    label_key: str | None = None,
    basis: str | None = None,
    genes: str | Sequence[str] | None = None,
    evaluation: pd.DataFrame | str | os.PathLike[str] | None = None,
    comparison: pd.DataFrame | str | os.PathLike[str] | None = None,
    drivers: pd.DataFrame | str | os.PathLike[str] | None = None,
    title: str | None = None,
    mod: str | None = None,
    rng: RNG = 0,
    show_progress: bool | None = None,
) -> Path:
    """Write one HTML file that says what was given, what was fitted, whether it fits, and what follows from it.

    For those who were not there: the file needs no network, no notebook and no wlm. It has each figure with the numbers
    behind it as a table to download, the limits in plain words, and a paragraph for the Methods of a paper. It is
    readable without scripts, on a phone, in the dark and on paper, and has 10 MB at most: tables of single cells are
    left out beyond that, and it says so.

    What verbs have stored of the fit is shown as it is; predictions, the composition, and fates where none are stored
    are computed for the report, with the defaults of :func:`wlm.tl.predict`, :func:`wlm.tl.composition`,
    :func:`wlm.tl.terminal_states` and :func:`wlm.tl.fates`. A section that the object holds nothing for is left out,
    with the reason and the call that would fill it. The object is never changed. Nothing is kept of a report that was
    interrupted: it takes a minute or two, and is made anew.

    Parameters
    ----------
    adata_or_path
        An AnnData or MuData with a fit, or a file with one: ``.h5ad``, ``.h5mu`` or ``.zarr``.
    path
        Where to write, ``.html``. A file that is there is replaced when the new one is complete.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    label_key
        Column of ``obs`` with labels, such as cell types; by default one that is named like it (``cell_type``,
        ``cluster``, ``leiden``, ...), if there is one.
    basis
        Embedding made for drawing, such as ``"umap"``; by default the first of UMAP, PHATE, t-SNE and force-directed
        ones that is there. Landscape and distances are always those of the fitted representation.
    genes
        Genes to follow over time; by default the first of ``drivers``, or those whose decoded mean changes most.
    evaluation, comparison, drivers
        What :func:`wlm.tl.evaluate`, :func:`wlm.tl.compare` and :func:`wlm.tl.drivers` returned, or a file that the
        command line wrote it to (``.json``, ``.csv`` or ``.tsv``; a ``.json`` has the verdict too). These verbs keep
        nothing in the object.
    title
        Title of the page.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.
    rng
        Seed, numpy Generator or SeedSequence of what is computed. The same seed gives the same report.
    show_progress
        Show a progress bar; by default if ``wlm.settings.verbosity`` is 2 or more.

    Returns
    -------
    The path of the file.

    Raises
    ------
    KeyError
        If there is no fit: the error says what to run; or a column, an embedding or a gene is missing.
    ValueError, TypeError
        If the fit is damaged or of other cells than the object holds now, ``path`` cannot be written, or a table is not
        that of its verb.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import wlm
    >>> adata = wlm.datasets.gradient_flow_sde(n_cells=50, n_times=4)
    >>> wlm.tl.fit(adata, "time", use_rep="X_position", n_steps=5, show_progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = wlm.report(adata, pathlib.Path(folder, "report.html"), show_progress=False)
    ...     file.read_text().startswith("<!DOCTYPE html>")
    True
    """
    out = _check_path(path)
    made = compose(
        adata_or_path,
        key=key,
        condition=condition,
        label_key=label_key,
        basis=basis,
        genes=genes,
        evaluation=evaluation,
        comparison=comparison,
        drivers=drivers,
        title=title,
        mod=mod,
        rng=rng,
        show_progress=show_progress,
    )
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_text(made.page, encoding="utf-8")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    logger.info("wrote %s: %s", out, made.words)
    return out


@dataclass(frozen=True)
class Made:
    """A report: its ``page``, what is in its ``sections``, and the tables that were ``dropped`` for its size."""

    page: str
    sections: Sequence[Section]
    dropped: Sequence[str]

    @property
    def megabytes(self) -> float:
        """Its size."""
        return len(self.page.encode()) / 1e6

    @property
    def words(self) -> str:
        """What there is of it, in words."""
        absent = [section.title for section in self.sections if section.left_out]
        text = f"{self.megabytes:.1f} MB, {len(self.sections) - len(absent)} sections"
        text += f"; left out: {several(absent, 20)}" if absent else ""
        return text + (f"; without the tables {several(self.dropped)}, for its size" if self.dropped else "")


def compose(
    adata_or_path: Any,
    *,
    key: str,
    condition: str | None,
    label_key: str | None,
    basis: str | None,
    genes: str | Sequence[str] | None,
    evaluation: Any,
    comparison: Any,
    drivers: Any,
    title: str | None,
    mod: str | None,
    rng: RNG,
    show_progress: bool | None,
) -> Made:
    """The report of :func:`report`, not written."""
    given = {"evaluate": evaluation, "compare": comparison, "drivers": drivers}
    tables = {verb: _read(verb, table) for verb, table in given.items() if table is not None}
    adata = read_object(adata_or_path) if isinstance(adata_or_path, (str, os.PathLike)) else adata_or_path
    subject = read_subject(
        adata,
        fit_key(adata, key, condition, mod),
        mod,
        label_key=label_key,
        basis=basis,
        genes=genes,
        tables=tables,
        seed=as_seed(rng),
    )
    sections = []
    shown = is_shown(show_progress)  # before wlm is quiet
    with quiet(), tqdm(total=len(SECTIONS), desc="wlm.report", disable=not shown, unit="section") as bar:
        for name, heading, fill in SECTIONS:
            bar.set_postfix_str(heading)
            sections.append(_section(subject, name, heading, fill))
            bar.update()
    fit, n = subject.fit, int(np.isfinite(subject.times).sum())
    page, dropped = render(
        sections,
        title=title or f"How {n:,} cells move over {len(fit.observed)} times",
        subtitle=f"A report on the fit uns[{fit.key!r}], method {fit.dynamics.method.name!r}, by wlm {__version__}",
        summary=_summary(subject, sections),
        version=__version__,
        date=date.today().isoformat(),
    )
    return Made(page, sections, dropped)


def _section(subject: Subject, name: str, heading: str, fill: Any) -> Section:
    """A section, or the reason why it is left out: nothing to show, or what a verb refused."""
    try:
        return Section(name, heading, blocks=fill(subject))
    except LeftOut as error:
        return Section(name, heading, left_out=error.reason.rstrip("."), run=error.run)
    except (KeyError, ValueError, TypeError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        return Section(name, heading, left_out=" ".join(str(text).split()).rstrip("."))


def _summary(s: Subject, sections: Sequence[Section]) -> list[tuple[str, str, str]]:
    """Label, sentence and tone of what matters most."""
    fit = s.fit
    tone, text = meets(fit)
    found = [("Training data", text, tone)]
    verdict = str(s.tables["evaluate"].attrs.get("verdict", "")) if "evaluate" in s.tables else ""
    if verdict:
        first = verdict.splitlines()[0]
        tone = "good" if "BETTER THAN" in first else "bad" if "WORSE THAN" in first else "note"
        found.append(("Held-out times", f"{first}.", tone))
    elif "evaluate" not in s.tables:
        held = [block for section in sections if section.name == "missing" for block in section.blocks]
        said = next((block for block in held if getattr(block, "tone", "") in ("good", "bad")), None)
        if said is not None:
            found.append(("Held-out times", said.text, said.tone))
        else:
            found.append(("Held-out times", "Not tested: no time was held out and no scores were given.", "note"))
    note = fit.uns.get("forecast")
    if note is not None:
        naive = float(note["share"]) == 0
        words = str(note["words"])
        found.append(
            (
                f"Forecasts after {at(fit, fit.training[-1])}",
                f"{words[:1].upper()}{words[1:]}.",
                "bad" if naive else "good",
            )
        )
    absent = [section.title for section in sections if section.left_out]
    if absent:
        found.append(("Left out", f"{several(absent, 20)}; each section says why.", "note"))
    return found


def _check_path(path: str | os.PathLike[str]) -> Path:
    out = Path(path)
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path must end in .html, found {str(out)!r}")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder {str(out.absolute().parent)!r} of path does not exist")
    if out.is_dir():
        raise ValueError(f"{str(out)!r} is a folder")
    return out


def _read(verb: str, given: Any) -> pd.DataFrame:
    """The table of a verb, checked."""
    table = given if isinstance(given, pd.DataFrame) else read_table(given)
    if verb == "drivers" and "gene" in table and "gene" not in COLUMNS[verb]:
        attrs: Mapping[str, Any] = table.attrs
        table = table.set_index("gene")
        table.attrs = dict(attrs)
    absent = COLUMNS[verb] - set(table.columns)
    if absent:
        raise ValueError(
            f"this is no table of wlm.tl.{verb}: it lacks the columns {sorted(absent)}; pass what wlm.tl.{verb} "
            "returned"
        )
    return table
