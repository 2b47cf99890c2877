"""The documentation site: ``make docs`` writes it to docs/_build/html."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import wlm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

# The tutorials live beside the package; Sphinx reads what is under this folder.
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", ignore=shutil.ignore_patterns(".*"))
# Real cells of a checkout that has them beside it are used without a download.
beside = HERE.parents[1] / "shared" / "data"
if beside.exists():
    os.environ.setdefault("WLM_DATA_DIR", str(beside))
nb_execution_excludepatterns = []
if not beside.exists() and not os.environ.get("WLM_DOCS_ONLINE"):
    # Their cells would have to be downloaded.
    real = ("embryoid_bodies", "growth", "tour", "two_conditions_real", "what_if_real")
    nb_execution_excludepatterns = [f"tutorials/{name}.ipynb" for name in real]
    nb_execution_excludepatterns.append("gallery.md")
# CellRank has an environment of its own, in which its tutorial runs; without that it is shown as it is.
nb_execution_excludepatterns.append("tutorials/cellrank.ipynb")
execute = HERE.parent / ".venv-cellrank" / "bin" / "jupyter-execute"
if execute.exists():
    subprocess.run([execute, "--inplace", HERE / "tutorials" / "cellrank.ipynb"], check=True)
os.environ.pop("MPLBACKEND", None)  # or notebooks would draw nothing
# Notebooks run one thread each way round: numba, in scanpy, would change the number of threads of torch.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

project = "wlm"
author = "wlm developers"
copyright = "wlm developers, BSD-3-Clause"
version = release = wlm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
nitpicky = True

# Links into other projects need their inventories, and with them a network: for published builds.
intersphinx_mapping = {}
if os.environ.get("WLM_DOCS_ONLINE"):
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
        "python": ("https://docs.python.org/3/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
# Names of other packages resolve in published builds only; all others have to.
OTHERS = "anndata|collections|distributed|joblib|matplotlib|mudata|numpy|os|pandas|pathlib|scipy|torch|typing"
nitpick_ignore_regex = [("py:.*", rf"({OTHERS})\..*")]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say it in words, with shapes
autodoc_member_order = "bysource"
napoleon_google_docstring = False
# "Returns" is prose and a list of what is written where, not the type of one value.
napoleon_custom_sections = ["Returns"]

html_theme = "sphinx_book_theme"
html_title = "wlm"
html_static_path = ["_static"]
html_extra_path = ["llms.txt"]  # the site in a page, for language models
html_css_files = ["wlm.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search field is in the sidebar
}


def shorten(app, name, source):
    """Trainings of the tutorials and the gallery in so many steps as WLM_DOCS_STEPS says, at most."""
    if name == "gallery" or name.startswith("tutorials/"):
        most = int(os.environ["WLM_DOCS_STEPS"])
        source[0] = re.sub(
            r'(n_steps(?:=|\\?": ))(\d+)', lambda found: found[1] + str(min(int(found[2]), most)), source[0]
        )


def setup(app):
    import method_options

    # After napoleon, which would take the lines for numpy's.
    app.connect("autodoc-process-docstring", method_options.add, priority=900)
    # Where pages are checked and not read. A site that is published is built without.
    if os.environ.get("WLM_DOCS_STEPS"):
        app.connect("source-read", shorten)
