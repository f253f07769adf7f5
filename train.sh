#!/usr/bin/env bash
# Train a workflow policy with GSsPO: the reference recipe where there are GPUs, the embedded world elsewhere.
# Arguments are Hydra overrides of the configuration in verl/trainer/config, for example: bash train.sh seed=2
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started as 'sh train.sh'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source requirements/bootstrap.sh
exec "$PYTHON" -m workflow_r1.cli train "$@"
