import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from cod_jax.launch import slurm_array


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_job_array_runs_the_same_commands(sweep_folder, tmp_path):
    folder = tmp_path / "s l"
    runs = sweep_folder.runs("hyper.sweep('config.data.source', ['my photos', \"it's $HOME\", 'x'])")
    assert slurm_array.write(folder, runs, "my runs", 2, 4) == folder / "array.sh"
    assert not sweep_folder.workdir.exists()
    script = (folder / "array.sh").read_text()
    for line in ("--array=1-3%2", "--gpus-per-node=4", "--job-name=my_runs", f"--output='{folder}/%x-%A_%a.log'"):
        assert f"#SBATCH {line}\n" in script
    assert len((folder / "arguments.txt").read_text().splitlines()) == 3

    (tmp_path / "srun").write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"\n"
    )
    (tmp_path / "srun").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}
    task = ["bash", str(folder / "array.sh")]
    for number, run in enumerate(runs, 1):
        environment["SLURM_ARRAY_TASK_ID"] = str(number)
        done = subprocess.run(task, env=environment, check=True, capture_output=True, text=True)
        assert json.loads(done.stdout) == ["--kill-on-bad-exit=1", *run.command]
    environment["SLURM_ARRAY_TASK_ID"] = "4"
    failed = subprocess.run(task, env=environment, check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "has no line 4" in failed.stderr
