# shellcheck shell=bash
# Sourced by the job scripts, in the repository's root. Settings that srun hands on to every node of the job.
: "${STORAGE:?a folder that all nodes mount, or s3://..., for the results}"
PATH=$PWD/.venv/bin:$PATH
# A token of this job's own: other users of the network can reach the ports of a Ray without one.
RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
RAY_TEMP=/tmp/ray-${SLURM_JOB_ID:?start this with sbatch}
MEMORY_SWEEP_CACHE=${MEMORY_SWEEP_CACHE:-/tmp/memory-sweep-${USER:-$(id -un)}} # on the node's own disk
export PATH RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_TEMP MEMORY_SWEEP_CACHE
