"""The `workflow_r1` section of the training configuration, typed: a model a subject."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from workflow_r1.endings import Endings
from workflow_r1.errors import UserError
from workflow_r1.operators import Budget, OperatorPool, OperatorSettings, PoolSettings
from workflow_r1.policy.prompt import PolicyPrompt
from workflow_r1.records import from_json
from workflow_r1.reward import RewardSettings
from workflow_r1.rollout import RolloutLimits
from workflow_r1.watch import WatchSettings


class ConfigError(UserError):
    """A setting that cannot work; the message says which one and what to do."""


class RolloutSettings(BaseModel):
    """What a rollout takes beside a policy and a question: the same in training, `eval` and `ask`."""

    model_config = ConfigDict(title="Rollout", extra="forbid", frozen=True, use_attribute_docstrings=True)

    prompt: str = "default"
    """The policy's system prompt: 'default', 'none' for the bare question, or the file of a Jinja template."""

    limits: RolloutLimits = RolloutLimits()

    pool: PoolSettings = PoolSettings()

    operators: Annotated[dict[str, Any], BeforeValidator(from_json)] = {}
    """Settings of the operators' endpoints, which win over the OPERATOR_* environment variables; as JSON
    '{"cache": "on", "prompt_price": 0.1}'."""

    def policy_prompt(self) -> PolicyPrompt:
        """What a trajectory starts from.

        Raises:
            OperatorConfigError: the operators cannot be used.
            PromptError: the template cannot.
        """
        return PolicyPrompt.of(self.prompt, tuple(self.pool.specs().values()), self.limits)

    def pool_of(self, settings: OperatorSettings) -> OperatorPool:
        """The operators on offer, at these endpoints; makes no connection.

        Raises:
            OperatorConfigError: the operators cannot be used.
        """
        return OperatorPool(settings, tuple(self.pool.specs()), self.pool.modules)


class WorkflowConfig(RolloutSettings):
    """What verl's own configuration has no place for."""

    max_lost_fraction: float = Field(default=0.1, ge=0, le=1)
    """Of a batch's rollouts, how many may end in an exception before the run stops."""

    max_trajectories: int | None = Field(default=None, ge=1)
    """How many trajectories are rolled out at once, over all workers; null starts a step's all. More than vLLM's cache
    holds push each other out of it between two turns, and are prefilled anew."""

    reward: RewardSettings = RewardSettings()

    watch: WatchSettings = WatchSettings()

    endings: Endings = Endings()

    run_dir: Path | None = None
    """The folder in which the processes of a run keep their limits and what they spend; null keeps limits in each
    process alone."""

    budget: Budget = Budget()

    @classmethod
    def parse(cls, config: DictConfig) -> "WorkflowConfig":
        """The typed form of the `workflow_r1` section of a run's configuration; a missing one is all defaults.

        Raises:
            ConfigError: naming every setting that does not fit.
        """
        section = config.get("workflow_r1")
        try:
            plain = OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else section
            return cls.model_validate({} if plain is None else plain)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, ('workflow_r1', *fault['loc'])))}: "
                + ("there is no such setting" if fault["type"] == "extra_forbidden" else fault["msg"])
                for fault in error.errors()
            )
            raise ConfigError(f"The workflow_r1 section of the configuration does not fit: {faults}.") from None

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
        return self.pool_of(self.operator_settings(environ, coordinated))
