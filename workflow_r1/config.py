"""The `workflow_r1` section of the training configuration, typed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_r1.errors import UserError
from workflow_r1.operators import Budget, OperatorPool, OperatorSettings
from workflow_r1.reward import RewardWeights
from workflow_r1.rollout import RolloutLimits

_LIMITS_OF_VERL = {
    "max_turns": "max_assistant_turns",
    "max_parallel_calls": "max_parallel_calls",
    "max_observation_length": "max_tool_response_length",
    "truncate_side": "tool_response_truncate_side",
}
"""Limits that have a setting in verl's `actor_rollout_ref.rollout.multi_turn`, and its name there."""


class ConfigError(UserError):
    """A setting that cannot work; the message says which one and what to do."""


class WorkflowConfig(BaseModel):
    """What verl's own configuration has no place for.

    Attributes:
        operators: overrides of the OPERATOR_* environment variables, by `OperatorSettings` field name.
        operator_names: the operators of this run; None is every built-in one.
        operator_modules: Python modules that declare more operators.
        max_calls: operator calls in one trajectory.
        max_malformed_turns: malformed turns that get a warning before the next one ends the trajectory.
        keep_failed: train on trajectories in which the endpoint could not serve a call.
        max_lost_fraction: of a batch's rollouts, how many may end in an exception before the run stops.
        reward: what each outcome is worth.
        run_dir: the folder in which the processes of a run keep their limits and what they spend; None keeps limits
            in each process alone.
        budget: what the run may take before it stops at a checkpoint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    operators: dict[str, Any] = {}
    operator_names: list[str] | None = None
    operator_modules: list[str] = []
    max_calls: int = Field(default=20, ge=1)
    max_malformed_turns: int = Field(default=2, ge=0)
    keep_failed: bool = False
    max_lost_fraction: float = Field(default=0.1, ge=0, le=1)
    reward: RewardWeights = RewardWeights()
    run_dir: Path | None = None
    budget: Budget = Budget()

    @classmethod
    def parse(cls, config: DictConfig) -> "WorkflowConfig":
        """The typed form of the `workflow_r1` section of a run's configuration; a missing one is all defaults.

        Raises:
            ConfigError: naming every setting that does not fit.
        """
        section = config.get("workflow_r1")
        try:
            return cls.model_validate({} if section is None else OmegaConf.to_container(section, resolve=True))
        except ValidationError as error:
            faults = "; ".join(
                f"workflow_r1.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
            )
            raise ConfigError(f"The workflow_r1 section of the configuration does not fit: {faults}.") from None

    def limits(self, multi_turn: Any) -> RolloutLimits:
        """The limits of a trajectory: this section's, and those of verl's `actor_rollout_ref.rollout.multi_turn`.

        Raises:
            ConfigError: naming every setting that does not fit.
        """
        ours = self.model_dump(include=set(RolloutLimits.model_fields))
        verls = {field: multi_turn[name] for field, name in _LIMITS_OF_VERL.items()}
        try:
            return RolloutLimits.model_validate(ours | verls)
        except ValidationError as error:
            faults = "; ".join(
                f"actor_rollout_ref.rollout.multi_turn.{_LIMITS_OF_VERL[str(fault['loc'][0])]}: {fault['msg']}"
                for fault in error.errors()
            )
            raise ConfigError(f"The limits of a rollout do not fit: {faults}.") from None

    def operator_settings(self, environ: Mapping[str, str], coordinated: bool = False) -> OperatorSettings:
        """The endpoint and its limits: OPERATOR_* of `environ`, with this section's values on top.

        Args:
            coordinated: keep the limits together with the other processes of the run, in `run_dir`.

        Raises:
            OperatorConfigError: a variable or a setting is missing or wrong.
        """
        return OperatorSettings.from_env(environ, **self.operators, run_dir=self.run_dir if coordinated else None)

    def operator_pool(self, environ: Mapping[str, str], coordinated: bool = False) -> OperatorPool:
        """The operators of this run, at the endpoint of `operator_settings`; takes and raises what that does."""
        return OperatorPool(
            self.operator_settings(environ, coordinated), operators=self.operator_names, modules=self.operator_modules
        )
