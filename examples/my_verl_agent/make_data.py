"""Questions of one and of two look-ups, in verl's columns: python make_data.py questions.parquet"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tools import BIRTHPLACES, DIRECTORS

QUESTIONS = {
    **{f"who directed {film} ?": person for film, person in DIRECTORS.items()},
    **{f"where was the director of {film} born ?": BIRTHPLACES[person] for film, person in DIRECTORS.items()},
}

rows = [
    {
        "data_source": "library",
        "agent_name": "tool_agent",  # verl's own agent loop
        "prompt": [{"role": "user", "content": question}],
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"index": index},
    }
    for index, (question, answer) in enumerate(QUESTIONS.items())
]
path = Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
pq.write_table(pa.Table.from_pylist(rows), path)
