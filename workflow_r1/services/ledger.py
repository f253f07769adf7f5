"""What a run has spent on its operators, and when that is enough."""

import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from workflow_r1.services.errors import OperatorConfigError
from workflow_r1.services.result import OperatorResult
from workflow_r1.services.usage import OperatorUsage, UsageMeter
from workflow_r1.system.files import made_whole

_FEWEST_CALLS = 20  # of a step, before a fraction of them says anything


class Budget(BaseModel):
    """What a run may take; None is no bound.

    Attributes:
        max_calls: operator calls.
        max_tokens: prompt and completion tokens together.
        max_cost: US dollars, by the prices in the settings.
        max_failed_fraction: of a step's calls that the policy made rightly, how many may fail.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_calls: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_cost: float | None = Field(default=None, gt=0)
    max_failed_fraction: float | None = Field(default=0.5, ge=0, le=1)


class RunLedger:
    """The usage of a run, kept on disk, so that a resumed run goes on counting. Safe between threads.

    Args:
        path: a JSON file; the folder is made.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self._path, self._budget, self._lock = path, budget, threading.Lock()
        self._total = read_ledger(path)
        self._step, self._last_step = UsageMeter(), UsageMeter()
        self._last_error = ""

    def add(self, result: OperatorResult) -> None:
        with self._lock:
            self._total.add(result)
            self._step.add(result)
            self._last_error = result.error or self._last_error

    @property
    def total(self) -> UsageMeter:
        """Everything since the run began."""
        with self._lock:
            return self._total.model_copy(deep=True)

    def take_step(self) -> UsageMeter:
        """What came in since the last time, and save."""
        with self._lock:
            self._last_step, self._step = self._step, UsageMeter()
        self.save()
        return self._last_step

    def exceeded(self) -> str | None:
        """One sentence that says why the run has to stop, or None; a failing endpoint shows by the last step taken."""
        step = self._last_step.total
        return self._failing(step) or self._uncounted(step) or self._overspent(self.total.total)

    def _failing(self, step: OperatorUsage) -> str | None:
        made, most = step.calls - step.rejected, self._budget.max_failed_fraction
        if most is None or made < _FEWEST_CALLS or step.failed <= most * made:
            return None
        return (
            f"{step.failed} of {made} operator calls of the last step failed, more than the "
            f"{most:.0%} of workflow_r1.budget.max_failed_fraction: {self._last_error or 'see the log.'}"
        )

    def _uncounted(self, step: OperatorUsage) -> str | None:
        """A budget that cannot be measured cannot be kept."""
        for setting, most, lacking in (
            ("max_tokens", self._budget.max_tokens, step.uncounted),
            ("max_cost", self._budget.max_cost, step.unpriced),
        ):
            if most is not None and 2 * lacking > step.calls:
                return (
                    f"workflow_r1.budget.{setting} cannot be kept: the operators' endpoint did not count the tokens of "
                    f"{lacking} of the last step's {step.calls} calls. Set workflow_r1.budget.max_calls instead."
                )
        return None

    def _overspent(self, total: OperatorUsage) -> str | None:
        budget, tokens = self._budget, total.prompt_tokens + total.completion_tokens
        some = "at least " if total.uncounted else ""
        for setting, most, spent, shown in (
            ("max_calls", budget.max_calls, total.calls, f"{total.calls:,} operator calls"),
            ("max_tokens", budget.max_tokens, tokens, f"{some}{tokens:,} operator tokens"),
            ("max_cost", budget.max_cost, total.cost, f"{some}{total.cost:.2f} US dollars"),
        ):
            if most is not None and spent >= most:
                name = f"workflow_r1.budget.{setting}"
                return f"The run has used up its budget ({shown} spent): raise {name} ({most:,}) to go on."
        return None

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with made_whole(self._path) as part:
            part.write_text(self.total.model_dump_json(), encoding="utf-8")


def read_ledger(path: Path) -> UsageMeter:
    """The usage that a `RunLedger` saved; none where there is no such file.

    Raises:
        OperatorConfigError: it is something else.
    """
    try:
        return UsageMeter.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return UsageMeter()
    except (OSError, ValueError):
        raise OperatorConfigError(f"The ledger {path} cannot be read: move it away to count from zero.") from None
