"""The checkpoint of a run with the best validation, kept beside the newest."""

import os
import shutil
from pathlib import Path

from workflow_r1.runs.checkpoints import BEST, LATEST_FILE, step_folder
from workflow_r1.system.files import made_whole

_SCORE_FILE = "score.txt"


class BestCheckpoint:
    """The folder `best` of a run, laid out as a run's with one checkpoint, so that it can be named wherever a run can.

    It holds further names of that checkpoint's files (hard links): they take no room of their own, and stay when verl
    removes the checkpoint.

    Args:
        folder: the run's.

    Attributes:
        score: of the kept checkpoint in validation, minus infinity where there is none.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        score = folder / BEST / _SCORE_FILE
        self.score = float(score.read_text()) if score.is_file() else float("-inf")

    def replace(self, step: int, score: float) -> None:
        """Keep the checkpoint of a step in place of the one before.

        Raises:
            OSError: the file system takes no hard links, or is full.
        """
        with made_whole(self._folder / BEST) as unfinished:
            shutil.copytree(step_folder(self._folder, step), step_folder(unfinished, step), copy_function=os.link)
            (unfinished / _SCORE_FILE).write_text(repr(score))
            (unfinished / LATEST_FILE).write_text(str(step))
        self.score = score
