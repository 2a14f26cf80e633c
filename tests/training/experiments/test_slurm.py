"""Job scripts: SLURM resources, torchrun arguments and valid shell syntax."""

import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.errors import UserError
from actionprep.training.experiments.slurm import SlurmJob, job_script


def test_a_job_on_two_machines_of_four_gpus_is_written_word_for_word():
    job = SlurmJob(
        "big", nodes=2, gpus=4, cpus=8, time="12:00:00", memory="200G", partition="gpu", account="lab",
        setup=("source venv/bin/activate",), options=("--constraint=a100",),
    )  # fmt: skip
    assert (
        job_script(job, ["--recipe", "timesformer", "--set", "batch=32", "input.frames=8"])
        == """\
#!/bin/bash
#SBATCH --job-name=big
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --mem=200G
#SBATCH --time=12:00:00
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --output=big-%j.log
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --constraint=a100

set -euo pipefail
source venv/bin/activate
export OMP_NUM_THREADS=8
# Since version 22.05, srun does not inherit --cpus-per-task of the job.
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
# All processes meet at the first node of the job.
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun \\
  --nnodes=2 \\
  --nproc-per-node=4 \\
  --rdzv-id="$SLURM_JOB_ID" \\
  --rdzv-backend=c10d \\
  --rdzv-endpoint="$head_node:29400" \\
  --no-python actiontrain fit --recipe timesformer --set batch=32 input.frames=8 --run big --resume --device cuda --devices 4 --nodes 2
"""
    )


def test_one_process_needs_no_torchrun():
    text = job_script(SlurmJob("small", gpus=1, cpus=2), [])
    assert text.endswith("srun actiontrain fit --run small --resume --device cuda --devices 1 --nodes 1\n")
    assert "torchrun" not in text
    assert "--gpus-per-node=1\n" in text


def test_without_gpus_it_trains_on_the_processors():
    text = job_script(SlurmJob("cpu", gpus=0, nodes=2, cpus=16), [])
    assert "gpus-per-node" not in text
    assert "--nproc-per-node=1 " in text
    assert "--device cpu --devices 1 --nodes 2\n" in text


def test_words_with_blanks_and_quotes_stay_one_word():
    text = job_script(SlurmJob("run"), ["--train-groups", "subject one", "it's"])
    assert """--train-groups 'subject one' 'it'"'"'s' --run run""" in text


def test_the_shell_reads_the_script():
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    for job in (SlurmJob("a"), SlurmJob("b", nodes=3, gpus=2, setup=("module load cuda",))):
        done = subprocess.run(["bash", "-n"], input=job_script(job, ["--epochs", "3"]), text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("job", "words", "expected"),
    [
        (SlurmJob("my run"), [], "letters, digits"),
        (SlurmJob("run", nodes=0), [], "--nodes must be at least 1, got 0"),
        (SlurmJob("run", gpus=-1), [], "--gpus must be at least 0, got -1"),
        (SlurmJob("run", time="1h"), [], "12:00:00, 2-00:00:00.*'1h'"),
        (SlurmJob("run", memory="64 GB"), [], "a number followed by K, M, G or T"),
        (SlurmJob("run", options=("constraint=a100",)), [], "for example --option=--constraint=a100"),
        (SlurmJob("run"), ["--run", "x"], "The job script sets --run itself. Remove it after --"),
        (SlurmJob("run"), ["--devices=2"], "The job script sets --devices=2 itself"),
    ],
)
def test_what_slurm_would_not_take_is_refused(job, words, expected):
    with pytest.raises(UserError, match=expected):
        job_script(job, words)


@pytest.mark.parametrize("time", ["90", "12:30", "12:00:00", "2-00", "2-00:00:00"])
def test_times_in_any_of_slurms_forms_are_taken(time):
    assert f"#SBATCH --time={time}\n" in job_script(SlurmJob("run", time=time), [])


def test_the_command_writes_the_script(tmp_path):
    words = ["slurm", "--run", "big", "--nodes", "2", "--gpus", "4", "--out", str(tmp_path / "job.sh"), "--"]
    done = CliRunner().invoke(app, [*words, "--recipe", "i3d", "--set", "epochs=3", "batch=8"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "job.sh").read_text()
    assert "actiontrain fit --recipe i3d --set epochs=3 batch=8 --run big --resume" in text
    assert "sbatch" in done.output
    printed = CliRunner().invoke(app, ["slurm", "--run", "one"])
    assert printed.stdout == job_script(SlurmJob("one"), [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--bogus", "1"], "fit has no option --bogus."),
        (["--epochs", "many"], "Wrong value for --epochs"),
        (["--set", "epochs"], "--set expects name=value"),
        (["--recipe", "nope"], "No recipe 'nope'."),
        (["--recipe", "i3d", "--set", "epohcs=3"], "Did you mean 'epochs'?"),
        (["store", "another"], "got also: another"),
    ],
)
def test_what_fit_would_refuse_is_refused_before_the_queue(tmp_path, words, expected):
    done = CliRunner().invoke(app, ["slurm", "--out", str(tmp_path / "job.sh"), "--", *words])
    assert done.exit_code == 2
    assert expected in " ".join(done.stderr.split())
    assert not (tmp_path / "job.sh").exists()


def test_a_recipe_in_a_file_is_looked_for_on_the_cluster():
    done = CliRunner().invoke(app, ["slurm", "--", "--recipe", "there/mine.toml", "--train-subjects", "1", "2"])
    assert done.exit_code == 0, done.output
    assert "--recipe there/mine.toml --train-subjects 1 2 --run" in done.stdout
