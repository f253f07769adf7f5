#!/usr/bin/env bash
# verl's own tool agent, trained with GSsPO. Arguments are Hydra overrides: bash run.sh trainer.total_training_steps=50
set -euo pipefail
AGENT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
AGENT_DATA=$PWD/outputs/my_verl_agent/questions.parquet
export AGENT_DIR AGENT_DATA
python "$AGENT_DIR/make_data.py" "$AGENT_DATA"
exec python -m verl.trainer.main_ppo --config-dir "$AGENT_DIR" --config-name agent "$@"
