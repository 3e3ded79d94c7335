#!/usr/bin/env bash
# Lightning 2.6.6: under Slurm, a job whose neighbour in the same directory was told to stop begins with that neighbour's
# weights and step count, though it is another job, with another model, and was given no checkpoint.
#
# On Slurm's signal the Trainer saves `hpc_ckpt_N.ckpt` and asks for the job to be queued again. The file lies in
# default_root_dir (the current directory unless it is set), and its name has no job number in it. Every later `fit` under
# Slurm there takes the highest N first, and it stays when the job is done. So two jobs of a sweep that share a directory
# mix; where shapes agree nothing is refused, and the only word is a line of the log at level INFO.
#
# Expected: "job 2 trained 5 of 5 steps": the checkpoint is job 1's. Seen (job 1 was told to stop at its fourth step):
#   job 2 trained 2 of 5 steps, beside hpc_ckpt_1.ckpt of job 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 lightning==2.6.6 numpy

cat > "$work/jobs.py" <<'PY'
import logging
import os
import signal
import warnings

import lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringModel

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
os.environ.update(SLURM_NTASKS="1", SLURM_JOB_NAME="train", SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0")


class ToldToStop(BoringModel):
    def on_train_batch_start(self, batch, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGUSR1)


class Counting(BoringModel):
    steps = 0

    def training_step(self, batch, index):
        self.steps += 1
        return super().training_step(batch, index)


def fit(model, job):
    os.environ["SLURM_JOB_ID"] = job
    trainer = pl.Trainer(
        max_steps=5, limit_val_batches=0, accelerator="cpu", devices=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )
    trainer.fit(model)


fit(ToldToStop(), "1")
second = Counting()
fit(second, "2")
left = [name for name in os.listdir() if name.startswith("hpc_ckpt")]
print(f"job 2 trained {second.steps} of 5 steps, beside {' '.join(left)} of job 1")
PY
# What Slurm would queue again is not here: a `scontrol` that agrees.
mkdir "$work/bin" && printf '#!/bin/sh\n' > "$work/bin/scontrol" && chmod +x "$work/bin/scontrol"
seen=$(cd "$work" && PATH="$work/bin:$PATH" "$work/venv/bin/python" jobs.py)
echo "$seen"
[ "$seen" = "job 2 trained 2 of 5 steps, beside hpc_ckpt_1.ckpt of job 1" ]
