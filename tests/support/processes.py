"""Which processes are still there."""

from collections.abc import Iterable

import psutil


def still_there(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; one that has ended counts as gone before its parent asks how (a zombie)."""
    return [process for process in processes if not _has_ended(process)]


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
