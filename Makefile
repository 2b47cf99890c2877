# The two commands of the README, each with its own environment, and a few for developers.
PYTHON ?= python3
# What is imported is compiled then: all of what is installed would take pip longer than to install it.
PIP = bin/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test test-next cellrank package package-demo fast coverage lint mutants unchanged docs site stress sbom clean

demo: .venv-demo/ready
	.venv-demo/bin/python scripts/demo.py

test: .venv-test/ready
	.venv-test/bin/python -m pytest $(PYTEST_ARGS)

# The same with today's stack (constraints-next.txt), without scVelo: make test-next PYTHON=python3.12
test-next: .venv-next/ready
	.venv-next/bin/python -m pytest $(PYTEST_ARGS)

# CellRank itself, with what wlm hands over: it wants other versions of what the site is built with.
cellrank: .venv-cellrank/ready
	.venv-cellrank/bin/python -m pytest -m cellrank tests/tl/test_transitions.py

# The sdist and the wheel, in dist/: their metadata, and what is in the wheel.
package: .venv-test/ready
	rm -rf dist
	.venv-test/bin/python -m build
	.venv-test/bin/python -m twine check --strict dist/*
	.venv-test/bin/python scripts/check_package.py

# The wheel in an empty environment, and the demo with it.
package-demo: package
	.venv-test/bin/python scripts/check_package.py --demo

# The quick tests alone.
fast: .venv-test/ready
	.venv-test/bin/python -m pytest -m "not slow" --numprocesses 2 $(PYTEST_ARGS)

# Are the numbers of the reference fits those of another commit, to the bit? make unchanged REF=HEAD~1
REF ?= HEAD
unchanged: .venv-test/ready
	.venv-test/bin/python scripts/unchanged.py $(REF)

# Which lines and branches of the package the tests run. With it they take a fifth longer, and nothing fails by it.
coverage: .venv-test/ready
	.venv-test/bin/python -m pytest --numprocesses 2 --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

# Wrong signs, factors and weights in the core, one at a time: the tests have to notice each.
mutants: .venv-test/ready
	.venv-test/bin/python scripts/mutants.py $(MUTANTS)

lint: .venv-test/ready
	.venv-test/bin/ruff check .
	.venv-test/bin/nbstripout --verify tutorials/*.ipynb
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy
	.venv-test/bin/lint-imports

# The documentation site, with the tutorials and the gallery executed.
docs: .venv-test/ready .venv-cellrank/ready
	.venv-test/bin/sphinx-build -W --keep-going -b html docs docs/_build/html

# The same in a browser (Chromium has to be there): broken links, pictures and formulas, at two widths.
site: docs
	.venv-test/bin/python scripts/check_site.py

# The full counts of what the tests do in small: malformed objects, damaged fits, kills, coverage, memory (about an hour).
stress: .venv-test/ready
	WLM_EXAMPLES=2000 .venv-test/bin/python -m pytest tests/test_malformed.py tests/store/test_persistence.py
	.venv-test/bin/python benchmarks/reliability.py all

sbom: .venv-test/ready
	.venv-test/bin/python -m pip install --quiet cyclonedx-bom
	.venv-test/bin/cyclonedx-py environment .venv-test --output-file sbom.json

.venv-demo/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wlm needs Python 3.11 or newer; found " + sys.version)'
	$(PYTHON) -m venv .venv-demo
	@echo "Installing wlm into .venv-demo (some minutes the first time)"
	.venv-demo/$(PIP) --editable .
	touch $@

.venv-test/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wlm needs Python 3.11 or newer; found " + sys.version)'
	$(PYTHON) -m venv .venv-test
	@echo "Installing wlm with its development tools into .venv-test (some minutes the first time)"
	.venv-test/$(PIP) --editable '.[dev]'
	touch $@

.venv-next/ready: pyproject.toml constraints-next.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12) and "constraints-next.txt needs Python 3.12 or newer; found " + sys.version)'
	$(PYTHON) -m venv .venv-next
	@echo "Installing wlm with its tests into .venv-next (torch's CUDA build, unless one is on this machine)"
	.venv-next/bin/pip install --quiet --disable-pip-version-check --constraint constraints-next.txt --editable '.[test]'
	touch $@

.venv-cellrank/ready: pyproject.toml constraints-cellrank.txt
	$(PYTHON) -m venv .venv-cellrank
	@echo "Installing wlm with CellRank into .venv-cellrank"
	.venv-cellrank/bin/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints-cellrank.txt \
	  --editable '.[cellrank]' hypothesis ipykernel nbclient pytest pytest-mpl
	touch $@

clean:
	rm -rf .venv-demo .venv-test .venv-next .venv-cellrank demo_output docs/_build docs/generated docs/tutorials build dist .pytest_cache .mypy_cache .ruff_cache
