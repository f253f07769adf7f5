"""The settings of an evaluation run, from flags or from a YAML file of runs."""

import hashlib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workflow_r1.evaluation import baselines
from workflow_r1.evaluation.baselines import BASELINES
from workflow_r1.evaluation.checkpoint import find_checkpoint
from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.evaluation.summary import Prices
from workflow_r1.operators import OperatorPool, OperatorSettings
from workflow_r1.operators.registry import select_operators
from workflow_r1.policy.prompt import DEFAULT_TEMPLATE, render_system_prompt
from workflow_r1.rollout import RolloutLimits
from workflow_r1.services.service import EndpointSettings, chat_url, request_fields


class PolicySettings(BaseModel):
    """A policy, its operators and the bounds it works in: what evaluating it and asking it one question share.

    Attributes:
        policy: the URL of an OpenAI-compatible endpoint, a checkpoint's folder, or a Hugging Face model id.
        model: the name that an endpoint serves the policy under; needed where it serves several.
        request: fields of every request to the policy's endpoint, in place of ours or beside them; None leaves one out.
        prompt: a template file; `default` for the one that training uses, `none` for the bare question.
        max_response_tokens: tokens of all turns and observations of one question.
        limits: the rollout's other bounds.
        operators: `OperatorSettings` fields that win over the OPERATOR_* environment variables.
        operator_names: the operators on offer; None is every one but the built-in Search.
        search: offer Search too.
        operator_modules: Python modules that declare more operators.
        serve_arguments: more arguments of `vllm serve`, for a checkpoint.
        policy_prompt_price: US dollars per million prompt tokens of the policy; the operators' prices are among the
            `operators` settings.
        policy_completion_price: the same for its completion tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str | None = None
    model: str | None = None
    request: dict[str, Any] = {}
    prompt: str = "default"
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    max_response_tokens: int = Field(default=8192, ge=1)
    limits: RolloutLimits = RolloutLimits()
    operators: dict[str, Any] = {}
    operator_names: tuple[str, ...] | None = None
    search: bool = False
    operator_modules: tuple[str, ...] = ()
    serve_arguments: tuple[str, ...] = ()
    policy_prompt_price: float = Field(default=0.0, ge=0)
    policy_completion_price: float = Field(default=0.0, ge=0)

    @field_validator("policy")
    @classmethod
    def _plain_url(cls, policy: str | None) -> str | None:
        return (
            chat_url(policy, "--policy") if policy and re.match(r"[\s\"']*https?:", policy, re.IGNORECASE) else policy
        )

    @field_validator("request", mode="before")
    @classmethod
    def _from_json(cls, value: object) -> object:
        return request_fields(value, "--request")

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
        return OperatorPool(self.operator_settings(), self._offered(), self.operator_modules)

    def _offered(self) -> tuple[str, ...]:
        return tuple(select_operators(self.operator_names, self.operator_modules, self.search))

    def prices(self, operators: OperatorPool) -> Prices:
        """What the policy's and the operators' tokens cost."""
        services = operators.settings.services
        by_operator = {name: services[service] for name, service in operators.service_names.items()}
        return Prices(self.policy_prompt_price, self.policy_completion_price, by_operator)

    def system_prompt(self, operators: OperatorPool) -> str | None:
        """The system prompt for a pool, or None for the bare question.

        Raises:
            PromptError: the template cannot be used.
        """
        if self.prompt == "none":
            return None
        template = DEFAULT_TEMPLATE if self.prompt == "default" else Path(self.prompt)
        return render_system_prompt(
            operators.specs, self.limits.max_calls, self.limits.max_parallel_calls, template=template
        )


Settings = TypeVar("Settings", bound=PolicySettings)


class RunSettings(PolicySettings):
    """One run: a policy or a baseline on benchmarks.

    Attributes:
        baseline: a name in `workflow_r1.evaluation.baselines`, in place of a policy.
        benchmarks: names of evaluation sets, files or folders.
        limit: questions of each benchmark, drawn by `data_seed`; None asks all.
        samples: answers to each question.
        concurrency: questions worked on at once.
    """

    baseline: str | None = None
    benchmarks: tuple[str, ...] = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)
    data_seed: int = 1
    samples: int = Field(default=1, ge=1)
    concurrency: int = Field(default=64, ge=1)

    @field_validator("baseline")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in BASELINES:
            raise ValueError(f"there is no baseline {name!r}: choose from {', '.join(BASELINES)}")
        return name

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

    def identity(self, system_prompt: str | None) -> dict[str, Any]:
        """What has to be the same for results to belong to one run.

        Left out is what may change while a run goes on: how many questions and samples, concurrency, prices, and the
        address of an endpoint whose model has a name. Without one the address is all that tells two policies apart.
        """
        services = self.operator_settings().services.values()
        models = [service.model for service in services if isinstance(service, EndpointSettings)]
        if self.baseline is not None:
            return {"baseline": self.baseline, "operator_models": models, "seed": self.seed}
        kept = {"model", "temperature", "top_p", "seed", "max_response_tokens", "limits"}
        kept |= {"request"} if self.request else set()
        # A system prompt lists the operators on offer.
        offered = {"operators": list(self._offered())} if system_prompt is None else {}
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
    """Settings from plain values.

    Raises:
        EvaluationError: naming the first setting that does not fit.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        reason = fault["msg"].removeprefix("Value error, ")
        raise EvaluationError(f"{where}: {place + ': ' if place else ''}{reason}.") from None
