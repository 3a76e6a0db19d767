#!/usr/bin/env bash
# STORAGE=/shared/outputs sbatch infra/slurm/many_nodes.sh search_spaces/inductive.py [options of sweep.run]
#SBATCH --job-name=memory-sweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source infra/slurm/env.sh
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not take it from sbatch by itself

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address)
head_ip=${head_ip%% *}
address=$head_ip:6379
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT

srun --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="$head_ip" --port=6379 --num-cpus="$SLURM_CPUS_PER_TASK" \
  --temp-dir="$RAY_TEMP" --block &
python infra/wait_for_nodes.py "$address" 1 # a node that joins before there is a head hangs

others=$((${#nodes[@]} - 1))
if ((others > 0)); then
  srun --nodes="$others" --ntasks="$others" --exclude="$head" \
    ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
  python infra/wait_for_nodes.py "$address" "${#nodes[@]}"
fi

python -m sweep.run "$@" --address "$address" --storage "$STORAGE"
