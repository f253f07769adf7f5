"""What can be evaluated: a policy, or a baseline."""

from dataclasses import dataclass, replace
from typing import Protocol

from workflow_r1.evaluation.baselines import run_baseline
from workflow_r1.evaluation.checkpoint_session import CheckpointSession
from workflow_r1.evaluation.endpoint import PolicyEndpoint
from workflow_r1.evaluation.session import EndpointSession, PolicySampling
from workflow_r1.operators import OperatorPool
from workflow_r1.policy.chat_format import ChatFormat
from workflow_r1.policy.prompt import PolicyPrompt
from workflow_r1.records import total
from workflow_r1.rollout import PolicySession, RolloutLimits, rollout
from workflow_r1.trajectory import Trajectory


@dataclass(frozen=True)
class Attempt:
    """One question worked on.

    Attributes:
        prompt_tokens: the policy's, over all its turns; None where its endpoint did not count them.
        completion_tokens: likewise.
    """

    trajectory: Trajectory
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0

    @property
    def tokens(self) -> int | None:
        """Prompt and completion together."""
        return total([self.prompt_tokens, self.completion_tokens])


class System(Protocol):
    """Something that answers questions."""

    @property
    def operators(self) -> OperatorPool: ...

    async def attempt(self, question: str, seed: int) -> Attempt:
        """Work on `question`; the same seed samples the same.

        Raises:
            PolicyEndpointError: the policy could not be asked. A failing operator ends the trajectory instead.
        """
        ...


@dataclass(frozen=True)
class Baseline:
    """A fixed workflow of `workflow_r1.evaluation.baselines` by name."""

    name: str
    operators: OperatorPool

    async def attempt(self, question: str, seed: int) -> Attempt:
        return Attempt(await run_baseline(self.name, question, self.operators, seed))


@dataclass(frozen=True)
class Policy:
    """A policy behind an endpoint, in the loop it was trained in.

    Attributes:
        prompt: what the policy is told before the question, as in training.
        chat: how the policy's tokens are laid out, where it is a checkpoint that this machine serves.
    """

    endpoint: PolicyEndpoint
    operators: OperatorPool
    prompt: PolicyPrompt
    sampling: PolicySampling
    limits: RolloutLimits
    chat: ChatFormat | None = None

    def session(self, question: str, seed: int) -> EndpointSession | CheckpointSession:
        """A new conversation about `question`."""
        messages = self.prompt.messages([{"role": "user", "content": question}])
        sampling = replace(self.sampling, seed=seed)
        if self.chat is None:
            return EndpointSession(self.endpoint, messages, sampling)
        return CheckpointSession(self.endpoint, self.chat, messages, sampling)

    async def rollout(self, question: str, session: PolicySession) -> Trajectory:
        """Let the policy work on `question` in `session`."""
        tokenizer = None if self.chat is None else self.chat.tokenizer
        return await rollout(question, session, self.operators, self.limits, tokenizer)

    async def attempt(self, question: str, seed: int) -> Attempt:
        session = self.session(question, seed)
        trajectory = await self.rollout(question, session)
        return Attempt(trajectory, session.prompt_tokens, session.completion_tokens)
