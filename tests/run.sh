#!/usr/bin/env bash
# Run the tests, installing what they need first. Arguments go to pytest, for example: bash tests/run.sh -m "not slow"
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started as 'sh tests/run.sh'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source requirements/bootstrap.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# Two files at a time: much of a training run's start is one process waiting for the next. Two runs fit into 16 GiB.
exec "$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
