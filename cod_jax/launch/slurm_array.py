"""The runs of a sweep as a Slurm job array."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from cod_jax import files
from cod_jax.launch import plan

SCRIPT_FILE = "array.sh"
ARGUMENTS_FILE = "arguments.txt"

_SCRIPT = """\
#!/usr/bin/env bash
# Trains every point of a sweep; `cod sweep` wrote it. Adapt the #SBATCH lines to your cluster, then submit it from the
# folder in which you ran that command, so that the paths are right:
#
#     sbatch {script}
#
# Task N of the array trains with the arguments in line N of the file named below. Some time before Slurm stops a task,
# it sends SIGTERM (--signal): the run saves and leaves. Submitted again, the task goes on there; after a preemption
# --requeue does that by itself. A task whose run is complete ends at once.

#SBATCH --job-name={job}
#SBATCH --array=1-{count}{limit}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={output}

set -euo pipefail

if [[ -z "${{SLURM_ARRAY_TASK_ID:-}}" ]]; then
    echo "this is a job array: submit it with sbatch" >&2
    exit 2
fi

cd "${{SLURM_SUBMIT_DIR}}"
# Since Slurm 22.05 srun does not inherit --cpus-per-task from the job.
if [[ -n "${{SLURM_CPUS_PER_TASK:-}}" ]]; then
    export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK}}"
fi

points={arguments}
line="$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" "${{points}}")"
if [[ -z "${{line}}" ]]; then
    echo "${{points}} has no line ${{SLURM_ARRAY_TASK_ID}}" >&2
    exit 2
fi
# The line is quoted for the shell.
eval "arguments=(${{line}})"
srun --kill-on-bad-exit=1 {trainer} "${{arguments[@]}}"
"""


def write(folder: Path, runs: Sequence[plan.Run], job: str, parallel: int | None, gpus_per_point: int | None) -> Path:
    """Write the script and the file with one line of arguments per run.

    Args:
        folder: Folder for both files; made if it is missing.
        runs: The points.
        job: Name of the job.
        parallel: How many run at a time; None leaves that to Slurm.
        gpus_per_point: GPUs of each run; None means 1.

    Returns:
        Path of the script.

    Raises:
        UserError: Something other than a file has the name of one of the files.
        OSError: The folder cannot be written.
    """
    script, arguments = folder / SCRIPT_FILE, folder / ARGUMENTS_FILE
    files.write_bytes(arguments, "".join(f"{shlex.join(run.trainer_arguments)}\n" for run in runs).encode())
    text = _SCRIPT.format(
        script=shlex.quote(str(script)),
        arguments=shlex.quote(str(arguments)),
        job=re.sub(r"[^A-Za-z0-9._-]+", "_", job) or "sweep",
        count=len(runs),
        limit=f"%{parallel}" if parallel else "",
        gpus=gpus_per_point or 1,
        output=shlex.quote(f"{str(folder).replace('%', '%%')}/%x-%A_%a.log"),
        trainer=shlex.join(plan.TRAINER),
    )
    files.write_bytes(script, text.encode())
    script.chmod(0o755)
    return script
