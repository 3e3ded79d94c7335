"""The file of an offline W&B run: records of any length, those of a run that was killed, and what is no such file."""

from __future__ import annotations

import pytest

from tests.pages.tiny_results import log_of
from vimlight.errors import ConfigError
from vimlight.files.wandb_log import wandb_records

proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")


def record(text):
    made = proto.Record()
    made.output_raw.line = text
    return made


# One block has 32,768 bytes; with these lengths a record ends 7, 6 and 0 bytes in front of its end, or fills several.
@pytest.mark.parametrize("lengths", [[0, 5], [32730], *([32738 + n, 9] for n in range(12)), [100_000, 3, 70_000]])
def test_records_are_read_whole(lengths, tmp_path):
    file, texts = tmp_path / "run.wandb", ["x" * length for length in lengths]
    file.write_bytes(log_of([record(text).SerializeToString() for text in texts]))
    assert [each.output_raw.line for each in wandb_records(file)] == texts


@pytest.mark.parametrize("lost", [1, 7, 12])
def test_a_run_that_was_killed_has_what_it_wrote(lost, tmp_path):
    file = tmp_path / "run.wandb"
    data = log_of([record(text).SerializeToString() for text in ("first", "second")])
    file.write_bytes(data[:-lost])
    assert [each.output_raw.line for each in wandb_records(file)] == ["first"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", r"run\.wandb is no file of a W&B run; it does not begin with ':W&B'$"),
     (log_of([b"\xff\xff\xff"]), r"run\.wandb is damaged \(.+\)$"), (None, r"run\.wandb cannot be read: No such file")],
    ids=["empty", "no record", "missing"],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(content, said, tmp_path):
    file = tmp_path / "run.wandb"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        wandb_records(file)
