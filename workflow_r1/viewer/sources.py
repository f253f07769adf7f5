"""What there is to see under the paths that a user names: training runs, evaluations, and files of trajectories."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workflow_r1.errors import UserError

_DEPTH = 5  # folders below a path that are looked into
_CLOSED = {"data", "hydra", "operators", "trajectories"}  # of a run's folder: they hold no run of their own
_TRAINING: tuple[Literal["train", "val"], ...] = ("train", "val")
Part = Literal["train", "val", "eval"]


class ViewError(UserError):
    """Nothing can be shown, or not what was asked for."""


@dataclass(frozen=True)
class Source:
    """A run, an evaluation or a file.

    Attributes:
        name: as it is shown and linked, unique among the sources.
        path: its folder, or the file.
        root: the path that the user named; nothing outside it is read.
    """

    name: str
    path: Path
    root: Path

    @property
    def is_run(self) -> bool:
        """Whether training wrote it."""
        return _is_run(self.path)

    def inside(self, path: Path) -> bool:
        """Whether `path` leads to something under the root, wherever its links point."""
        return path.resolve().is_relative_to(self.root)


@dataclass(frozen=True)
class TrajectoryFile:
    """A JSON Lines file of trajectories.

    Attributes:
        step: the training step; 0 in an evaluation.
    """

    path: Path
    part: Part
    step: int


def roots_of(paths: Sequence[Path]) -> list[Path]:
    """The paths as they are on the disk.

    Raises:
        ViewError: one does not exist.
    """
    for path in paths:
        if not path.exists():
            raise ViewError(f"There is no {path}: name a run's folder, an evaluation's, or one that holds several.")
    return list(dict.fromkeys(path.resolve() for path in paths))


def find_sources(roots: Sequence[Path]) -> list[Source]:
    """All sources under `roots`, which are resolved, by name."""
    found = {path: root for root in roots for path in _find(root, _DEPTH)}
    names = {path: _name(path, root) for path, root in found.items()}
    uses = Counter(names.values())
    sources = [Source(names[path] if uses[names[path]] == 1 else str(path), path, root) for path, root in found.items()]
    return sorted(sources, key=lambda source: source.name)


def trajectory_files(source: Source) -> list[TrajectoryFile]:
    """The source's files, the newest step first."""
    if source.path.is_file():
        return [_single(source.path)]
    files = [
        TrajectoryFile(path, part, int(path.stem))
        for folder in (source.path / "trajectories", source.path)
        for part in _TRAINING
        for path in (folder / part).glob("*.jsonl")
        if _is_step(path) and source.inside(path)
    ]
    results = source.path / "results.jsonl"
    if results.is_file() and source.inside(results):
        files.append(TrajectoryFile(results, "eval", 0))
    return sorted(files, key=lambda file: (-file.step, file.part))


def _is_step(path: Path) -> bool:
    return path.stem.isascii() and path.stem.isdecimal() and len(path.stem) <= 12


def _single(path: Path) -> TrajectoryFile:
    for part in _TRAINING:
        if path.parent.name == part and _is_step(path):
            return TrajectoryFile(path, part, int(path.stem))
    return TrajectoryFile(path, "eval", 0)


def _find(path: Path, depth: int) -> Iterator[Path]:
    if path.is_file() or _is_run(path) or (path / "results.jsonl").is_file():
        yield path
    if not path.is_dir() or not depth:
        return
    try:
        with os.scandir(path) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in folders:
        if not name.startswith((".", "global_step_")) and name not in _CLOSED:
            yield from _find(path / name, depth - 1)


def _is_run(path: Path) -> bool:
    marks = ("metrics*.jsonl", "trajectories", "train/[0-9]*.jsonl", "val/[0-9]*.jsonl")
    return any(True for mark in marks for _ in path.glob(mark))


def _name(path: Path, root: Path) -> str:
    return root.name if path == root else path.relative_to(root).as_posix()
