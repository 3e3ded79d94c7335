#!/usr/bin/env bash
# peft 0.21.2: saving any LoRA with `lora_bias=True` warns that the adapter is incomplete; the file is whole.
#
# `save_pretrained` looks for tensors of lora_A and lora_B that have fewer than two dimensions, the mark of shards that
# were not gathered under ZeRO-3 or FSDP. A trained bias of lora_B has one dimension by nature, so that each such adapter
# sets the alarm off, in one process without any sharding, and tells to wrap the save in classes of libraries that are not
# in use. Loaded again, the adapter gives the same outputs.
#
# Expected: no warning. Seen, on one linear layer:
#   warned of lora_B.bias; loaded again: equal
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 peft==0.21.2 numpy

cat > "$work/bias.py" <<'PY'
import copy
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

torch.manual_seed(0)
base = nn.Sequential(nn.Linear(4, 4))
model = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules=["0"], lora_bias=True))
for name, parameter in model.named_parameters():
    if "lora_B" in name:
        nn.init.normal_(parameter)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model.save_pretrained("adapter")
warned = any("lora_B.bias" in str(warning.message) and "incomplete" in str(warning.message) for warning in caught)
again = PeftModel.from_pretrained(copy.deepcopy(base), "adapter")
images = torch.randn(3, 4)
equal = torch.equal(model.eval()(images), again.eval()(images))
print(f"{'warned of lora_B.bias' if warned else 'no warning'}; loaded again: {'equal' if equal else 'different'}")
PY
seen=$(cd "$work" && "$work/venv/bin/python" bias.py)
echo "$seen"
[ "$seen" = "warned of lora_B.bias; loaded again: equal" ]
