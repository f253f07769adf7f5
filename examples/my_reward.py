"""Rewards of one's own: right answers with few operator calls, and a second opinion from an operator.

To train with the one, or to evaluate with the other:

    bash train.sh workflow_r1.reward.function=examples/my_reward.py:short_workflow workflow_r1.reward.settings.price=0.1
    workflow-r1 eval --benchmark nq --policy outputs/RUN --reward examples/my_reward.py:second_opinion
"""

from workflow_r1.answers import exact_match
from workflow_r1.reward import Operators
from workflow_r1.trajectory import Trajectory


def short_workflow(trajectory: Trajectory, golds: list[str], price: float = 0.05) -> dict[str, float]:
    """1 for a right answer, less `price` for each operator call; -1 for no answer."""
    spent = price * len(trajectory.calls)
    if trajectory.answer is None:
        return {"acc": 0.0, "spent": spent, "reward": -1.0}
    acc = exact_match(trajectory.answer, golds)
    return {"acc": acc, "spent": spent, "reward": acc - spent}


async def second_opinion(trajectory: Trajectory, golds: list[str], operators: Operators) -> float:
    """1 for a right answer, and half of it for another one in which the operator Review finds no fault."""
    if trajectory.answer is None:
        return 0.0
    if exact_match(trajectory.answer, golds):
        return 1.0
    review = await operators.call("Review", question=trajectory.question, solution=trajectory.answer)
    return 0.5 * review.startswith("Correct")
