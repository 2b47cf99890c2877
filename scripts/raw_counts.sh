#!/usr/bin/env bash
# From raw spliced and unspliced counts to predicted cells on the command line, as scripts/raw_counts.py does in Python:
# bash scripts/raw_counts.sh counts.h5ad folder
set -euo pipefail
counts=$1 out=$2
if [ -x .venv-test/bin/wlm ]; then PATH="$PWD/.venv-test/bin:$PATH"; fi
mkdir -p "$out"
wlm velocity "$counts" -o "$out/cells.h5ad" --n-neighbors 16 --bins 3 --force
wlm doctor "$out/cells.h5ad" --time-key velocity_pseudotime_bin --velocity-key auto
wlm fit "$out/cells.h5ad" --time-key velocity_pseudotime_bin --velocity-key auto --n-dims 10 --option n_steps=200 \
  -o "$out/fitted.h5ad" --force
wlm predict "$out/fitted.h5ad" 0.6 0.8 1.0 --genes -o "$out/predicted.h5ad" --force
