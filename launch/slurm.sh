#!/usr/bin/env bash
# Trains on the GPUs of several nodes under Slurm. Adapt the #SBATCH lines to your cluster, then run in the repository:
#
#     sbatch launch/slurm.sh --config configs/lite.py:all --workdir /shared/runs/lite \
#         --config.data.source=/shared/photos --config.frozen.weights=/shared/weights
#
# The arguments are those of `cod train`, as on one machine. Under Slurm, JAX finds the other processes by itself. It
# uses one process per GPU, so --ntasks-per-node must equal --gpus-per-node. The run folder and the data must be on
# storage that all nodes share. /shared/weights holds the published file of DINOv2. /shared/photos is a folder of
# photographs, or shards as large as the crops of stages 2 and 3, which this makes:
#
#     cod prepare --source PHOTOS --output /shared/photos --size 512
#
# Some time before Slurm stops a job, it sends SIGTERM (--signal): every process saves and leaves. Submitted again, the
# same command goes on where the run stopped; after a preemption --requeue does that by itself.
#
# Make the environment beforehand, with Python 3.11 or newer:
#
#     python3.12 -m venv .venv && .venv/bin/pip install -e '.[train,cuda]'
#
# Compiled programs are kept in ~/.cache/cod_jax, as by every command. If nodes do not share home folders, set
# JAX_COMPILATION_CACHE_DIR to a folder that they share before you submit.

#SBATCH --job-name=cod_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

if [[ $# -eq 0 || -z "${SLURM_JOB_ID:-}" ]]; then
    echo "usage: sbatch launch/slurm.sh --config FILE --workdir DIR [arguments of cod train]" >&2
    exit 2
fi

cd "${SLURM_SUBMIT_DIR}"
# Since Slurm 22.05 srun does not inherit --cpus-per-task from the job.
if [[ -n "${SLURM_CPUS_PER_TASK:-}" ]]; then
    export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK}"
fi

# Without --kill-on-bad-exit, one failed process would leave the others waiting for it.
srun --kill-on-bad-exit=1 --label .venv/bin/python -m cod_jax.train --distributed "$@"
