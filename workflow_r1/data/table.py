"""Examples as the rows that verl trains on."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from workflow_r1.data.examples import Example
from workflow_r1.policy_prompt import policy_messages

SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "agent_name": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.struct({"target": pa.list_(pa.string())})}),
        "extra_info": pa.struct(
            {"index": pa.int64(), "split": pa.string(), "id": pa.string(), "question": pa.string()}
        ),
    }
)
_BATCH = 4096


def write_examples(path: Path, examples: Sequence[Example], split: str, system_prompt: str) -> None:
    """Write a Parquet file in verl's columns; the same examples give the same bytes."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, len(examples), _BATCH):
            batch = enumerate(examples[start : start + _BATCH], start=start)
            writer.write_table(pa.Table.from_pylist(list(_rows(batch, split, system_prompt)), schema=SCHEMA))


def _rows(examples: Iterable[tuple[int, Example]], split: str, system_prompt: str) -> Iterable[dict]:
    for index, example in examples:
        yield {
            "data_source": example.data_source,
            "agent_name": "workflow_r1_agent_loop",
            "prompt": policy_messages(example.question, system_prompt),
            "ability": "question answering",
            "reward_model": {"style": "rule", "ground_truth": {"target": list(example.golds)}},
            "extra_info": {"index": index, "split": split, "id": example.id, "question": example.question},
        }
