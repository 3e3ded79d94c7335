#!/usr/bin/env bash
# jsonargparse 4.53.0: a link whose source is a property is passed over, without a word, when that property fails with an
# AttributeError; the linked argument keeps its default.
#
# LightningCLI links what data know to what models need in this way (`num_classes`). A link that is applied on
# instantiation asks the source object with `hasattr`, for which an AttributeError raised *inside* the property and an
# absent attribute are the same; it is noted at debug level and the model is built with whatever its signature says. Any
# other exception of the property is raised as one would think.
#
# Expected: "the property's own error, whatever it is, or one that says that the link cannot be applied". Seen:
#   ok: 5
#   KeyError: KeyError
#   AttributeError: 2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'jsonargparse[signatures]==4.53.0'

cat > "$work/linked.py" <<'PY'
from jsonargparse import ArgumentParser


class Data:
    def __init__(self, state: str = "ok") -> None:
        self.state = state

    @property
    def num_classes(self) -> int:
        if self.state == "KeyError":
            return {}["labels"]
        if self.state == "AttributeError":
            return object().labels
        return 5


class Model:
    def __init__(self, num_classes: int = 2) -> None:
        self.num_classes = num_classes


for state in ("ok", "KeyError", "AttributeError"):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Data, "data")
    parser.add_subclass_arguments(Model, "model")
    parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
    config = parser.parse_args([f"--data={__name__}.Data", f"--data.state={state}", f"--model={__name__}.Model"])
    try:
        print(f"{state}:", parser.instantiate(config).model.num_classes)
    except Exception as error:
        print(f"{state}:", type(error).__name__)
PY
"$work/venv/bin/python" "$work/linked.py" | tee "$work/seen"

diff "$work/seen" - <<'SEEN'
ok: 5
KeyError: KeyError
AttributeError: 2
SEEN
