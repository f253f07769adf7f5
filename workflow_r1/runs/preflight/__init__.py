"""What is checked before a run starts, so that it does not fail ten minutes in: a file a subject.

Every check raises `LaunchError` with one sentence that says what to do.
"""

from workflow_r1.runs.preflight.batches import check_batches
from workflow_r1.runs.preflight.correction import check_correction
from workflow_r1.runs.preflight.credit import check_credit
from workflow_r1.runs.preflight.data import check_data
from workflow_r1.runs.preflight.lengths import check_lengths
from workflow_r1.runs.preflight.machine import (
    check_machine,
    check_plugin,
    check_system,
    check_temporary_folders,
    usable_hardware,
)
from workflow_r1.runs.preflight.model import check_chat_template, check_model, check_template_arguments
from workflow_r1.runs.preflight.numbers import check_numbers
from workflow_r1.runs.preflight.operators import check_operators
from workflow_r1.runs.preflight.resume import check_resume
from workflow_r1.runs.preflight.reward import check_reward
from workflow_r1.runs.preflight.rollouts import check_rollouts
from workflow_r1.runs.preflight.settings import check_keys, clip_range_warning
from workflow_r1.runs.preflight.subjects import Check, checks
from workflow_r1.runs.preflight.training import check_training
from workflow_r1.runs.preflight.unread import check_unread, unread_notes

__all__ = [
    "Check",
    "check_batches",
    "check_chat_template",
    "check_correction",
    "check_credit",
    "check_data",
    "check_keys",
    "check_lengths",
    "check_machine",
    "check_model",
    "check_numbers",
    "check_operators",
    "check_plugin",
    "check_resume",
    "check_reward",
    "check_rollouts",
    "check_system",
    "check_template_arguments",
    "check_temporary_folders",
    "check_training",
    "check_unread",
    "checks",
    "clip_range_warning",
    "unread_notes",
    "usable_hardware",
]
