"""Every check of a run by its subject, in the order in which a mistake is best heard of."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from workflow_r1.runs.preflight.batches import check_batches
from workflow_r1.runs.preflight.correction import check_correction
from workflow_r1.runs.preflight.credit import check_credit
from workflow_r1.runs.preflight.data import check_data
from workflow_r1.runs.preflight.machine import check_machine, check_plugin, check_temporary_folders
from workflow_r1.runs.preflight.model import check_model, check_template_arguments
from workflow_r1.runs.preflight.numbers import check_numbers
from workflow_r1.runs.preflight.operators import check_operators_rate
from workflow_r1.runs.preflight.resources import check_cores, check_disk, check_gpus, check_memory
from workflow_r1.runs.preflight.resume import check_resume
from workflow_r1.runs.preflight.reward import check_reward
from workflow_r1.runs.preflight.rollouts import check_rollouts
from workflow_r1.runs.preflight.settings import check_keys
from workflow_r1.runs.preflight.training import check_training
from workflow_r1.runs.preflight.unread import check_unread

Check = Callable[[], object]


def checks(config: DictConfig, environ: Mapping[str, str], checkpoint: Path | None) -> list[tuple[str, Check]]:
    """The checks of a composed recipe, each with its subject; a check returns what it found, if that is worth a line.

    Args:
        environ: of the run.
        checkpoint: the `global_step_N` that the run goes on from.
    """
    model = config.actor_rollout_ref.model
    of_settings = (check_keys, check_unread, check_numbers, check_rollouts, check_correction, check_credit)
    return [
        ("software", partial(check_machine, config.trainer.device)),
        ("software", partial(check_temporary_folders, environ)),
        *(("settings", partial(check, config)) for check in of_settings),
        ("settings", partial(check_training, config)),
        ("GPUs", partial(check_gpus, config, environ)),
        ("CPU cores", partial(check_cores, config, environ)),
        ("memory", partial(check_memory, config, environ)),
        ("disk", partial(check_disk, config, environ)),
        ("data", partial(check_data, config)),
        ("data", partial(check_batches, config)),
        ("data", partial(check_resume, config, checkpoint)),
        ("settings", partial(check_template_arguments, config)),
        ("model", partial(check_model, model.path, trust_remote_code=model.trust_remote_code)),
        ("operators", partial(check_operators_rate, config)),
        ("reward", partial(check_reward, config)),
        ("plug-in", partial(check_plugin, environ, config)),
    ]
