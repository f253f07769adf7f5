"""The rollout correction: options and thresholds as verl reads them, which it does in the first step only."""

from omegaconf import DictConfig

from workflow_r1.runs.recipe import LaunchError

_SECTION = "algorithm.rollout_correction"
_REJECTIONS = tuple(
    f"{unit}_{level}_k{estimator}"
    for unit in ("turn", "any_turn", "seq")
    for level in ("mean", "sum", "max")
    for estimator in (1, 2, 3)
    if (level, estimator) != ("max", 1)
)
"""By turn, by response where one of its turns is outside, and by response as verl has it."""
_OF_TOKENS = ("token_k1", "token_k2", "token_k3")  # which gsspo's loss cannot take: `check_rollouts` has refused them


def check_correction(config: DictConfig) -> None:
    """Every rejection option is one, every threshold fits its option, and something is corrected.

    Raises:
        LaunchError: naming the first that does not.
    """
    correction = config.algorithm.rollout_correction
    if not _fits(correction.rollout_is_threshold, takes_two=True):
        raise LaunchError(
            f"{_SECTION}.rollout_is_threshold={correction.rollout_is_threshold} has to be a number above 0, or two as "
            "0.5_2.0, the lower first: set it to that."
        )
    rejection, threshold = correction.rollout_rs, correction.rollout_rs_threshold
    if correction.bypass_mode and (idle := [name for name in ("rollout_is", "rollout_rs") if correction[name]]):
        raise LaunchError(
            f"{_SECTION}.{idle[0]}={correction[idle[0]]} corrects nothing with {_SECTION}.bypass_mode=True, where the "
            "policy's ratio is to the sampler itself: take one of the two."
        )
    if rejection is None:
        if threshold is not None:
            raise LaunchError(
                f"{_SECTION}.rollout_rs_threshold={threshold} rejects nothing without {_SECTION}.rollout_rs: set that, "
                "or leave the threshold null."
            )
        return
    options = [option.strip() for option in str(rejection).split(",") if option.strip()]
    if not options or not {*_REJECTIONS, *_OF_TOKENS}.issuperset(options):
        raise LaunchError(f"{_SECTION}.rollout_rs={rejection} is not known: take of {', '.join(_REJECTIONS)}.")
    given = [part.strip() for part in str(threshold).split(",") if part.strip()]
    given = given * len(options) if len(given) == 1 else given
    if len(given) != len(options) or not all(map(_fits_option, given, options)):
        raise LaunchError(
            f"{_SECTION}.rollout_rs_threshold={threshold} does not fit {_SECTION}.rollout_rs={rejection}: give one "
            "number above 0 for all options, or one for each with commas; for an option that ends in k1 at least 1, or "
            "two as 0.5_2.0."
        )


def _fits_option(threshold: str, option: str) -> bool:
    of_ratios = option.endswith("k1")
    return _fits(threshold, takes_two=of_ratios) and (not of_ratios or "_" in threshold or float(threshold) >= 1)


def _fits(threshold: object, takes_two: bool) -> bool:
    if isinstance(threshold, bool):
        return False
    try:
        bounds = [float(bound) for bound in str(threshold).split("_", 1)]
    except ValueError:
        return False
    return 0 < bounds[0] <= bounds[-1] and (takes_two or len(bounds) == 1)
