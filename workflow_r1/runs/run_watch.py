"""The watch of one run: it warns in a file of the run's folder, which progress and report show."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel

from workflow_r1.records import Text, read_lines
from workflow_r1.system.files import made_whole
from workflow_r1.watch import Watch, WatchSettings

WATCH_FILE = "watch.jsonl"


class Warned(BaseModel):
    """One line of the file: a step, and in a sentence what is wrong since then."""

    step: int
    text: Text

    def __str__(self) -> str:
        return f"warning at step {self.step}: {self.text}"


class RunWatch:
    """Judges a run's steps.

    Args:
        folder: the run's.
        history: the metrics of the steps before, in order.
    """

    def __init__(self, settings: WatchSettings, folder: Path, history: Iterable[Mapping[str, float]]):
        self._watch, self._stop_on, self._folder = Watch(settings, history), settings.stop_on, folder

    def judge(self, step: int, metrics: dict[str, float]) -> str | None:
        """Warn of what is wrong in a step and was not in the one before.

        Args:
            metrics: of the step; gets `watch/<condition>` for every condition that could be judged, 1 where it is met.

        Returns:
            one sentence where the run should stop before the step is saved.
        """
        sentences, new = self._watch.judge(metrics)
        metrics.update({f"watch/{name}": float(sentence is not None) for name, sentence in sentences.items()})
        for name in new:
            self.warn(step, sentences[name] or "")
        for name in self._stop_on:
            if sentence := sentences.get(name):
                return (
                    f"At step {step} {sentence} As workflow_r1.watch.stop_on={name} asks, the run has stopped and this "
                    "step is not saved: change what led to it, or take the condition out of there."
                )
        return None

    def warn(self, step: int, text: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / WATCH_FILE).open("a", encoding="utf-8") as file:
            file.write(Warned(step=step, text=text).model_dump_json() + "\n")


def read_warnings(folder: Path) -> list[Warned]:
    """What the watch of a run has warned of."""
    path = folder / WATCH_FILE
    return list(read_lines(path, Warned.model_validate_json)) if path.is_file() else []


def forget_warnings(folder: Path, after: int) -> None:
    """For a start in the folder at step `after`: what comes later will come again, or not."""
    if warnings := read_warnings(folder):
        kept = [warned.model_dump_json() + "\n" for warned in warnings if warned.step <= after]
        with made_whole(folder / WATCH_FILE) as file:
            file.write_text("".join(kept), encoding="utf-8")
