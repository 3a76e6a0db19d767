#!/usr/bin/env bash
# STORAGE=/shared/outputs sbatch infra/slurm/one_node.sh search_spaces/inductive.py [options of sweep.run]
#SBATCH --job-name=memory-sweep
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
# --exclusive: symmetric-run refuses to start beside another Ray, and ends with `ray stop`, which ends them all.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source infra/slurm/env.sh
address=127.0.0.1:6379

ray symmetric-run --address "$address" --temp-dir "$RAY_TEMP" -- \
  python -m sweep.run "$@" --address "$address" --storage "$STORAGE"
