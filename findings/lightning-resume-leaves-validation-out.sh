#!/usr/bin/env bash
# Lightning 2.6.6: a run that goes on from a checkpoint saved while it was validated leaves that epoch's validation out.
#
# A checkpoint that is saved within `validation_step` makes the resumed run validate the epoch from its beginning. One that
# is saved a moment later, from `on_validation_batch_end`, `on_validation_epoch_end` or `on_validation_end`, in the middle
# of the validation as well, marks it as done: no metric of that epoch is computed, nothing is logged, a checkpoint
# callback or early stopping that waits for the metric does not see the epoch, and no message says so. Callbacks that save
# on a timer or on a signal meet both kinds.
#
# Expected: epochs 0 and 1 in all four cases. Seen:
#   validation_step [0, 1]; on_validation_batch_end [1]; on_validation_epoch_end [1]; on_validation_end [1]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 lightning==2.6.6 numpy

cat > "$work/resume.py" <<'PY'
import logging
import warnings

import lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringModel

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class SavingIn(BoringModel):
    """Saves a checkpoint at the second of four validation batches, or at the end of them, from the hook that is named."""

    def __init__(self, hook=None):
        super().__init__()
        self.hook, self.validated = hook, []

    def here(self, hook):
        if hook == self.hook:
            self.trainer.save_checkpoint("saved.ckpt")

    def validation_step(self, batch, index):
        if index == 1:
            self.here("validation_step")
        return super().validation_step(batch, index)

    def on_validation_batch_end(self, outputs, batch, index):
        if index == 1:
            self.here("on_validation_batch_end")

    def on_validation_epoch_end(self):
        self.here("on_validation_epoch_end")
        self.validated.append(self.current_epoch)

    def on_validation_end(self):
        self.here("on_validation_end")


def fit(model, epochs, checkpoint=None):
    trainer = pl.Trainer(
        max_epochs=epochs, limit_train_batches=3, limit_val_batches=4, num_sanity_val_steps=0, accelerator="cpu",
        devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )
    trainer.fit(model, ckpt_path=checkpoint, weights_only=True)


seen = []
for hook in ("validation_step", "on_validation_batch_end", "on_validation_epoch_end", "on_validation_end"):
    fit(SavingIn(hook), 1)
    resumed = SavingIn()
    fit(resumed, 2, "saved.ckpt")
    seen.append(f"{hook} {resumed.validated}")
print("; ".join(seen))
PY
seen=$(cd "$work" && "$work/venv/bin/python" resume.py)
echo "$seen"
[ "$seen" = "validation_step [0, 1]; on_validation_batch_end [1]; on_validation_epoch_end [1]; on_validation_end [1]" ]
