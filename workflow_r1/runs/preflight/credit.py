"""The credit by turn."""

from omegaconf import DictConfig

from workflow_r1.credit import SETTINGS, Credit
from workflow_r1.runs.recipe import LaunchError

# The settings that not every credit reads, and those that do.
READERS = {"gsspo_discount": ("discounted", "anchors"), "gsspo_credit_weight": ("zero_sum", "anchors")}


def check_credit(config: DictConfig) -> None:
    """The credit is one there is, and reads what is set for it.

    Raises:
        LaunchError: naming the setting that is not known, cannot be or is not read.
    """
    given = [str(name) for name in config.algorithm if str(name).startswith("gsspo_")]
    if given and config.algorithm.adv_estimator != "gsspo":
        raise LaunchError(f"algorithm.{given[0]} is read by algorithm.adv_estimator=gsspo alone: leave it out.")
    if unknown := [name for name in given if name not in SETTINGS]:
        raise LaunchError(f"algorithm.{unknown[0]} is not known: take {', '.join(SETTINGS)}.")
    try:
        credit = Credit.of(config.algorithm)
    except ValueError as error:
        raise LaunchError(f"algorithm.{error}") from None
    for name, readers in READERS.items():
        if name in given and credit.name not in readers:
            raise LaunchError(
                f"algorithm.{name} is not read with algorithm.gsspo_credit={credit.name}: leave it out, or take "
                f"{' or '.join(readers)}."
            )
