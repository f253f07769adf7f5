"""The reward, as verl calls it: the answer in the last sentence, and a small price for every turn."""

from typing import Any

PRICE = 0.02


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any]) -> float:
    """1 where the end of the response names the answer, less what its turns cost."""
    return float(ground_truth in solution_str[-100:]) - PRICE * extra_info["num_turns"]
