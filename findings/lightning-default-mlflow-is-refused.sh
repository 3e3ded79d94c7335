#!/usr/bin/env bash
# Lightning 2.6.6 with mlflow-skinny 3.17.2: `MLFlowLogger()` as its documentation shows it raises before anything is logged,
# and so does the address that the message recommends.
#
# Lightning's default store is `file:./mlruns`, which MLflow 3 refuses unless MLFLOW_ALLOW_FILE_STORE is set. Its message
# tells to use a database such as `sqlite:///mlflow.db`. The client alone, which is all that a training needs and which
# satisfies Lightning's check, then speaks of the model registry, although a tracking store was asked for and what is
# missing is sqlalchemy. So with the small package no local store works by default.
#
# Expected: a logger both times. Seen:
#   default: MlflowException (filesystem); sqlite: UnsupportedModelRegistryStoreURIException; file store allowed: logs
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 lightning==2.6.6 mlflow-skinny==3.17.2 numpy

cat > "$work/stores.py" <<'PY'
import os

from lightning.pytorch.loggers import MLFlowLogger


def logs(**options):
    try:
        MLFlowLogger(**options).log_metrics({"loss": 1.0})
    except Exception as error:
        return type(error).__name__ + (" (filesystem)" if "filesystem" in str(error) else "")
    return "logs"


default, database = logs(), logs(tracking_uri="sqlite:///mlflow.db")
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
print(f"default: {default}; sqlite: {database}; file store allowed: {logs()}")
PY
seen=$(cd "$work" && "$work/venv/bin/python" stores.py 2>/dev/null)
echo "$seen"
[ "$seen" = "default: MlflowException (filesystem); sqlite: UnsupportedModelRegistryStoreURIException; file store allowed: logs" ]
