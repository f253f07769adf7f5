"""A policy session that follows a script instead of a model."""

from collections.abc import Generator
from dataclasses import dataclass

from workflow_r1.rollout import GeneratedTurn

# Yields the texts of the turns and is sent the observations between them.
Script = Generator[str, str, None]


@dataclass
class ScriptedSession:
    """A policy session, as `workflow_r1.rollout` takes it, that writes what a script yields."""

    script: Script
    observation: str | None = None

    async def take_turn(self, max_calls: int, max_tokens: int | None = None) -> GeneratedTurn:
        text = next(self.script) if self.observation is None else self.script.send(self.observation)
        return GeneratedTurn(text=text, tokens=(0, 0), seconds=0.0)

    async def observe(self, observation: str) -> bool:
        self.observation = observation
        return True
