#!/usr/bin/env bash
# Lightning 2.6.6: the mean of thirteen ones, logged with sync_dist=True on two processes, is 1.0833.
#
# Of a value that is logged for an epoch, each process keeps the sum weighted by batch_size. With sync_dist=True the sums
# and the weights are then reduced in different ways: the value by a mean over processes, multiplied again by this
# process's own weight. As long as all processes see equally many samples, which the sampler that Lightning puts in makes
# sure of by repeating some, it cancels out. Without repeated samples (7 and 6 of 13), the mean of a constant is no longer
# that constant, in the figure that is shown and that checkpoints are chosen by.
#
# Expected: "1.0: weights are passed in, so the weighted mean comes out". Seen, two processes on CPU:
#   mean of 13 ones: 1.0833
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 lightning==2.6.6 'numpy<2.4'

cat > "$work/uneven.py" <<'PY'
import logging
import warnings

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, DistributedSampler

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Dealt(DistributedSampler):
    """Deals samples out and repeats none."""

    def __iter__(self):
        return iter(range(self.rank, len(self.dataset), self.num_replicas))

    def __len__(self):
        return len(range(self.rank, len(self.dataset), self.num_replicas))


class Ones(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def test_step(self, batch, index):
        self.log("one", batch.mean(), batch_size=len(batch), on_epoch=True, sync_dist=True)

    def test_dataloader(self):
        ones = torch.ones(13)
        return DataLoader(ones, 5, sampler=Dealt(ones, self.trainer.world_size, self.trainer.global_rank))


if __name__ == "__main__":
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )
    (result,) = trainer.test(Ones(), verbose=False)
    print(f"mean of 13 ones: {result['one']:.4f}")
PY
"$work/venv/bin/python" "$work/uneven.py" 2>/dev/null | sort -u | tee "$work/seen"

diff "$work/seen" - <<'SEEN'
mean of 13 ones: 1.0833
SEEN
