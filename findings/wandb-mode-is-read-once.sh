#!/usr/bin/env bash
# wandb 0.31.0: WANDB_MODE=offline, set after a `wandb.init` that failed, does not make the next `wandb.init` offline.
#
# A training that cannot reach its server would go on offline: catch the error, set the variable that decides the mode,
# begin again. The variables are read when the first `init` of the process begins, and are kept although it failed, so that
# the second one dials the same server and fails after the same wait. `wandb.teardown()` between the two makes the variable
# count; so does `wandb.init(mode="offline")` in place of it.
#
# Expected: "offline" at the second. Seen, with a server that refuses connections:
#   CommError; with WANDB_MODE=offline: CommError; after teardown: offline
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check wandb==0.31.0

cat > "$work/mode.py" <<'PY'
import os
import socket

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
os.environ.update(
    WANDB_API_KEY="a" * 40, WANDB_BASE_URL=f"http://127.0.0.1:{port}", WANDB_INIT_TIMEOUT="3", WANDB_SILENT="true"
)
os.environ.pop("WANDB_MODE", None)
import wandb


def start():
    try:
        run = wandb.init(project="mode")
    except wandb.errors.CommError as error:
        return type(error).__name__
    return "offline" if run.offline else "online"


first = start()
os.environ["WANDB_MODE"] = "offline"
second = start()
wandb.teardown()
print(f"{first}; with WANDB_MODE=offline: {second}; after teardown: {start()}")
PY
seen=$(cd "$work" && "$work/venv/bin/python" mode.py)
echo "$seen"
[ "$seen" = "CommError; with WANDB_MODE=offline: CommError; after teardown: offline" ]
