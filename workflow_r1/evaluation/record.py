"""The results of an evaluation on disk, one JSON object a line.

Each is written as soon as it is there, so that an evaluation that was killed goes on with the questions it lacks.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.records import Text
from workflow_r1.system.files import made_whole
from workflow_r1.system.folder_lock import FolderInUseError, FolderLock
from workflow_r1.trajectory import Trajectory

Key = tuple[str, str, int]


class Record(BaseModel):
    """One answer to one question: how it came about, what it took, or why there is none.

    Attributes:
        benchmark: the dataset that the question belongs to.
        id: names the question in it.
        sample: 0, 1, ... where a question is asked several times.
        trajectory: with its reward; None if the policy's endpoint failed half-way.
        prompt_tokens: the policy's, over all its turns; a baseline has no policy. None where the endpoint did not
            count them.
        completion_tokens: likewise.
        seconds: wall-clock time.
        error: why an endpoint could not serve it. Such a record is never scored, and the next run asks again.
    """

    model_config = ConfigDict(extra="forbid")

    benchmark: Text
    id: Text
    sample: int = 0
    trajectory: Trajectory | None = None
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    seconds: float = 0.0
    error: Text | None = None

    @property
    def key(self) -> Key:
        return self.benchmark, self.id, self.sample


class ResultStore:
    """`results.jsonl` in a folder of its own, beside `run.json`, which says what the results are results of.

    Args:
        identity: what must be the same for results to belong together.

    Attributes:
        records: the last record of each key.

    Raises:
        EvaluationError: the folder holds another run's results, or another process writes to it.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.records: dict[Key, Record] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        self._file = (folder / "results.jsonl").open("a+b")
        try:
            self._identify(dict(identity))
            self._load()
        except BaseException:
            self.close()
            raise

    def _identify(self, identity: dict[str, Any]) -> None:
        path = self.folder / "run.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if differing := sorted(key for key in identity | found if identity.get(key) != found.get(key)):
                raise EvaluationError(
                    f"{self.folder} holds the results of another run (it differs in {', '.join(differing)}): "
                    "choose another --output, or delete the folder."
                )
        else:
            with made_whole(path) as unfinished:
                unfinished.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")

    def _load(self) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                self._file.truncate(end)  # the process was killed while it wrote this line
                break
            end += len(line)
            try:
                record = Record.model_validate_json(line)
            except ValidationError as error:
                raise EvaluationError(
                    f"Line {number} of {self.folder / 'results.jsonl'} is not a result "
                    f"({error.errors()[0]['msg']}): delete the line, and its question is asked again."
                ) from None
            self.records[record.key] = record

    def is_done(self, key: Key) -> bool:
        """Whether `key` has a result; a failure is none."""
        return key in self.records and self.records[key].error is None

    def append(self, record: Record) -> None:
        """Keep a record; it is in the file when this returns."""
        self._file.write(record.model_dump_json().encode() + b"\n")
        self._file.flush()
        self.records[record.key] = record

    def close(self) -> None:
        """Close the file and let another process write to the folder."""
        self._file.close()
        self._lock.close()


def _lock(folder: Path) -> FolderLock:
    try:
        return FolderLock(folder)
    except FolderInUseError as holder:
        raise EvaluationError(
            f"Another evaluation is writing to {folder} ({holder}): wait for it, or choose another --output."
        ) from None
