"""The settings of an evaluation run, from flags or from a YAML file of runs."""

import hashlib
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from workflow_r1.config import RolloutSettings
from workflow_r1.evaluation import baselines
from workflow_r1.evaluation.baselines import BASELINES
from workflow_r1.evaluation.checkpoint import find_checkpoint, trained_rollout
from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.evaluation.summary import Prices
from workflow_r1.operators import OperatorPool, OperatorSettings
from workflow_r1.records import from_json
from workflow_r1.reward import RewardSettings
from workflow_r1.services.service import EndpointSettings, chat_url, request_fields


def _plain_url(policy: str | None) -> str | None:
    return chat_url(policy, "--policy") if policy and re.match(r"[\s\"']*https?:", policy, re.IGNORECASE) else policy


def _request(value: object) -> object:
    return request_fields(value, "--request")


def _arguments(value: object) -> object:
    return shlex.split(value) if isinstance(value, str) else value


class PolicySettings(RolloutSettings):
    """A policy, its operators and the bounds it works in: what evaluating it and asking it one question share."""

    model_config = ConfigDict(title="Policy")

    policy: Annotated[str | None, AfterValidator(_plain_url)] = None
    """What answers: the URL of an OpenAI-compatible endpoint (its key is read from POLICY_API_KEY); a checkpoint's
    folder, Hugging Face's or verl's (a run, its best, a global_step_N), which vLLM then serves on this machine;
    or a Hugging Face model id."""

    model: str | None = None
    """The name that the endpoint serves the policy under, if it serves several models."""

    request: Annotated[dict[str, Any], BeforeValidator(_request)] = Field(default={})
    """Fields of every request to the policy's endpoint as JSON, for models that refuse some of ours: '{"max_tokens":
    null, "max_completion_tokens": 4096, "temperature": 1}'. A null leaves the field out."""

    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy decoding."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling."""

    seed: int = 0
    """Of sampling, at a temperature above 0."""

    max_response_tokens: int = Field(default=8192, ge=1)
    """Tokens of all turns and observations together."""

    serve_arguments: Annotated[tuple[str, ...], BeforeValidator(_arguments)] = ()
    """More arguments of 'vllm serve' for a checkpoint, such as '--tensor-parallel-size 2'."""

    template_arguments: Annotated[dict[str, Any], BeforeValidator(from_json)] = Field(default={})
    """Variables of a checkpoint's chat template, as JSON '{"enable_thinking": false}'."""

    policy_prompt_price: float = Field(default=0.0, ge=0)
    """US dollars per million prompt tokens of the policy; the operators' prices are among their settings."""

    policy_completion_price: float = Field(default=0.0, ge=0)
    """The same for its completion tokens."""

    @model_validator(mode="after")
    def _renders_it_here(self) -> "PolicySettings":
        if self.template_arguments and self.is_endpoint:
            raise ValueError(
                "template_arguments are for a checkpoint; the server of an endpoint takes them with --request "
                """'{"chat_template_kwargs": {...}}'"""
            )
        return self

    @property
    def is_endpoint(self) -> bool:
        return bool(self.policy and re.match(r"https?://", self.policy, re.IGNORECASE))

    def checkpoint(self) -> str:
        """What vLLM is to serve: a checkpoint's folder, not yet merged, or a model id.

        Raises:
            EvaluationError: it is neither.
        """
        policy = self.policy or ""
        if not Path(policy).exists() and re.fullmatch(r"\w[\w.-]*/[\w.-]+", policy):
            return policy
        return str(find_checkpoint(Path(policy).expanduser()).resolve())

    @property
    def trusts_remote_code(self) -> bool:
        """Whether `serve_arguments` let code that comes with the model run; the last of two that contradict wins."""
        flags = [argument.replace("_", "-") for argument in self.serve_arguments]
        said = [flag for flag in flags if flag in ("--trust-remote-code", "--no-trust-remote-code")]
        return said[-1:] == ["--trust-remote-code"]

    @property
    def operator_seed(self) -> int | None:
        """What makes the operators' samples the same each time."""
        return self.seed

    def operator_settings(self) -> OperatorSettings:
        """The operators' endpoints: OPERATOR_* with `operators` on top."""
        return OperatorSettings.from_env(**{"seed": self.operator_seed, **self.operators})

    def operator_pool(self) -> OperatorPool:
        """The operators; makes no connection.

        Raises:
            OperatorConfigError: the endpoint or the operators are set up wrongly.
        """
        return self.pool_of(self.operator_settings())

    def prices(self, operators: OperatorPool) -> Prices:
        """What the policy's and the operators' tokens cost."""
        services = operators.settings.services
        by_operator = {name: services[service] for name, service in operators.service_names.items()}
        return Prices(self.policy_prompt_price, self.policy_completion_price, by_operator)


Settings = TypeVar("Settings", bound=BaseModel)


def _known(baseline: str | None) -> str | None:
    if baseline is not None and baseline not in BASELINES:
        raise ValueError(f"there is no baseline {baseline!r}: choose from {', '.join(BASELINES)}")
    return baseline


class RunSettings(PolicySettings):
    """One run: a policy or a baseline on benchmarks."""

    model_config = ConfigDict(title="Questions")

    benchmarks: tuple[str, ...] = Field(min_length=1)
    """What to ask: a benchmark, such as nq or hotpotqa (a wrong name shows all of them); or a file, a folder or a Hub
    dataset, as for 'prepare --source'."""

    baseline: Annotated[str | None, AfterValidator(_known)] = None
    """In place of a policy: direct, cot, self-consistency, medprompt, review-revise or ensemble, over the operators'
    model."""

    limit: int | None = Field(default=None, ge=1)
    """Questions of each benchmark; by default all."""

    data_seed: int = 1
    """Which questions, under a limit."""

    samples: int = Field(default=1, ge=1)
    """Answers to each question: several add pass@k and the majority's answer."""

    concurrency: int = Field(default=64, ge=1)
    """Questions worked on at once."""

    reward: RewardSettings = RewardSettings()

    @property
    def operator_seed(self) -> int | None:
        """With several samples the operators are sampled anew for each."""
        return self.seed if self.samples == 1 else None

    def operator_pool(self) -> OperatorPool:
        """As for a policy; a baseline's are its own."""
        if self.baseline is None:
            return super().operator_pool()
        return OperatorPool(self.operator_settings(), baselines.OPERATORS, [baselines.__name__])

    @model_validator(mode="after")
    def _is_one_thing(self) -> "RunSettings":
        if (self.policy is None) == (self.baseline is None):
            raise ValueError("name either a policy or a baseline")
        if self.policy is not None and self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples of a policy need a temperature above 0, or they are all the same")
        return self

    def identity(self) -> dict[str, Any]:
        """What has to be the same for results to belong to one run.

        Left out is what may change while a run goes on: how many questions and samples, concurrency, prices, and the
        address of an endpoint whose model has a name. Without one the address is all that tells two policies apart.

        Raises:
            EvaluationError, OperatorConfigError, PromptError: what they are about cannot be used.
        """
        services = self.operator_settings().services.values()
        models = [service.model for service in services if isinstance(service, EndpointSettings)]
        if self.baseline is not None:
            reward = self.reward.model_dump(mode="json")
            return {"baseline": self.baseline, "operator_models": models, "seed": self.seed, "reward": reward}
        kept = {"model", "temperature", "top_p", "seed", "max_response_tokens", "limits", "reward"}
        kept |= {name for name in ("request", "template_arguments") if getattr(self, name)}
        system_prompt = self.policy_prompt().system
        # A system prompt lists the operators on offer.
        offered = {"operators": list(self.pool.specs())} if system_prompt is None else {}
        return {
            "policy": self._policy_identity(),
            **self.model_dump(mode="json", include=kept),
            "prompt": hashlib.sha256((system_prompt or "").encode()).hexdigest()[:16],
            **offered,
            "operator_models": models,
        }

    def _policy_identity(self) -> str:
        if not self.is_endpoint:
            return self.checkpoint()
        return "endpoint" if self.model else (self.policy or "").rstrip("/")


class Comparison(BaseModel):
    """Runs side by side.

    Attributes:
        runs: by the name that tables and charts show, in their order.
        reference: the run that the others are tested against; by default the last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: dict[str, RunSettings] = Field(min_length=1)
    reference: str

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        """Read a YAML file: `runs`, by name, each with settings of `RunSettings`; `reference`; and at the top level
        whatever all runs share.

        Raises:
            EvaluationError: the file is missing, is not such YAML, or has a setting that does not fit.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise EvaluationError(f"{path} cannot be read: {error.strerror}.") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise EvaluationError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
        runs = content.get("runs") if isinstance(content, dict) else None
        if not isinstance(runs, dict) or not runs or not all(isinstance(run, dict) for run in runs.values()):
            raise EvaluationError(f"{path} needs `runs`: a name for each run, and under it its policy or baseline.")
        shared = {key: value for key, value in content.items() if key not in ("runs", "reference")}
        names = [str(name) for name in runs]
        if bad := next((name for name in names if not re.fullmatch(r"[\w. +-]+", name) or name in (".", "..")), None):
            raise EvaluationError(f"{path}: the run name {bad!r} cannot name a folder: use letters, digits and - _ . +")
        reference = str(content.get("reference", names[-1]))
        if reference not in names:
            raise EvaluationError(f"{path}: the reference {reference!r} is none of the runs {', '.join(names)}.")
        return cls(
            runs={
                name: parse_settings(RunSettings, {**shared, **run}, f"{path}, run {name!r}")
                for name, run in zip(names, runs.values(), strict=True)
            },
            reference=reference,
        )


def parse_settings(kind: type[Settings], values: dict[str, Any], where: str) -> Settings:
    """Settings from plain values, those of a checkpoint of a run on top of what it was trained with.

    Raises:
        EvaluationError: naming the first setting that does not fit, or the checkpoint.
    """
    policy = values.get("policy")
    if isinstance(policy, str) and Path(policy).expanduser().is_dir():
        trained = trained_rollout(Path(policy).expanduser())
        values = trained | {
            name: trained[name] | value if isinstance(value, dict) and name in trained else value
            for name, value in values.items()
        }
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        reason = fault["msg"].removeprefix("Value error, ")
        raise EvaluationError(f"{where}: {place + ': ' if place else ''}{reason}.") from None
