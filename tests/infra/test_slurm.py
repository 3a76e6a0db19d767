"""The Slurm scripts, run with stand-ins for `srun`, `scontrol`, `ray` and `python`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = ("one_node.sh", "many_nodes.sh")
# sbatch options, as sbatch(1) spells them
SBATCH = {
    "job-name",
    "nodes",
    "ntasks-per-node",
    "exclusive",
    "gpus-per-node",
    "cpus-per-task",
    "time",
    "output",
}
STAND_INS = {
    "scontrol": "printf 'n1\\nn2\\nn3\\n'",
    "hostname": "echo 10.0.0.1 10.0.0.2",
    "srun": 'while [[ $1 == --* ]]; do opts="${opts:-} $1"; shift; done; export STEP="${opts:-}"; exec "$@"',
    "ray": 'echo "$STEP | ray $* | $RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> "$CALLS"\n'
    'if [[ $1 == symmetric-run ]]; then while [[ $1 != -- ]]; do shift; done; shift; exec "$@"; fi\n'
    "[[ $* == *--block* ]] && exec sleep 60",
    "python": 'if [[ $1 == -c ]]; then exec "$REAL_PYTHON" "$@"; fi\n'
    "if [[ $1 == infra/wait_for_nodes.py ]]; then sleep 0.3; fi\n"
    'echo "${STEP:-} | python $* | $RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> "$CALLS"\n'
    '[[ $1 != -m ]] || exit "${SWEEP_STATUS:-0}"',
}


def _run(infra: Path, folder: Path, script: str, **env: str) -> tuple[int, list[str]]:
    """Run a script in a folder that looks like the repository; return its status and the calls it made."""
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, body in STAND_INS.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (commands / name).chmod(0o755)
    (folder / "infra").symlink_to(infra)
    calls = folder / "calls"
    given = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "CALLS": str(calls),
        "REAL_PYTHON": sys.executable,
    }
    given |= {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]"}
    given |= {"SLURM_CPUS_PER_TASK": "32", "STORAGE": "/shared/out puts"} | env
    done = subprocess.run(
        ["bash", str(infra / "slurm" / script), "space.py", "--set", "model=a b"],
        env={name: value for name, value in given.items() if value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, calls.read_text().splitlines() if calls.exists() else [done.stderr]


@pytest.mark.parametrize("script", (*SCRIPTS, "env.sh"))
def test_bash_can_read_it(infra: Path, script: str) -> None:
    subprocess.run(["bash", "-n", str(infra / "slurm" / script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_job_script_is_well_formed(infra: Path, script: str) -> None:
    lines = (infra / "slurm" / script).read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash" and os.access(infra / "slurm" / script, os.X_OK)
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert lines[first_command] == "set -euo pipefail"
    directives = [
        (i, re.match(r"#SBATCH --([\w-]+)(=\S+)?$", line)) for i, line in enumerate(lines) if "#SBATCH" in line
    ]
    assert all(found and found[1] in SBATCH and i < first_command for i, found in directives)
    code = "\n".join(line.split(" # ")[0] for line in lines[first_command:])
    unquoted = re.sub(r'"[^"]*"|\$\(\(.*?\)\)|\(\(.*?\)\)', "", code)
    assert set(re.findall(r"\$[{\w@][\w@]*", unquoted)) <= {
        "$head_ip",
        "$SLURM_CPUS_PER_TASK",
        "${head_ip",
        "${nodes",
    }
    assert "`" not in code


def test_one_node_runs_the_sweep_inside_symmetric_run(infra: Path, tmp_path: Path) -> None:
    status, calls = _run(infra, tmp_path, "one_node.sh")
    assert status == 0
    start, sweep = calls
    assert "ray symmetric-run --address 127.0.0.1:6379 --temp-dir /tmp/ray-7 -- python -m sweep.run" in start
    assert "python -m sweep.run space.py --set model=a b --address 127.0.0.1:6379 --storage /shared/out puts" in sweep


def test_many_nodes_start_the_head_then_the_workers_then_the_sweep(infra: Path, tmp_path: Path) -> None:
    status, calls = _run(infra, tmp_path, "many_nodes.sh")
    assert status == 0
    head, wait_head, *middle, sweep = calls
    worker, wait_all = sorted(middle, key=lambda call: "python" in call)
    assert "--nodes=1 --ntasks=1 --nodelist=n1 | ray start --head --node-ip-address=10.0.0.1 --port=6379" in head
    assert "python infra/wait_for_nodes.py 10.0.0.1:6379 1 " in wait_head
    assert "--nodes=2 --ntasks=2 --exclude=n1 | ray start --address=10.0.0.1:6379 --num-cpus=32 --block" in worker
    assert "python infra/wait_for_nodes.py 10.0.0.1:6379 3 " in wait_all
    assert "python -m sweep.run space.py --set model=a b --address 10.0.0.1:6379 --storage /shared/out puts" in sweep
    secrets = {call.rpartition("| ")[2] for call in calls}
    assert len(secrets) == 1 and re.fullmatch(r"token [0-9a-f]{64}", secrets.pop())


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_job_ends_with_the_sweeps_status(infra: Path, tmp_path: Path, script: str) -> None:
    assert _run(infra, tmp_path, script, SWEEP_STATUS="3")[0] == 3


@pytest.mark.parametrize("missing", ["STORAGE", "SLURM_JOB_ID"])
def test_a_missing_setting_is_named(infra: Path, tmp_path: Path, missing: str) -> None:
    status, told = _run(infra, tmp_path, "one_node.sh", **{missing: ""})
    assert status != 0 and f"{missing}: " in told[0]
