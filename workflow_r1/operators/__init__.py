"""The operators that a workflow is built from, served by OpenAI-compatible endpoints and search back ends."""

from workflow_r1.operators.builtin import BUILTIN_OPERATORS, WARNING_OP
from workflow_r1.operators.pool import OperatorPool
from workflow_r1.operators.registry import PoolSettings
from workflow_r1.operators.spec import InputField, OperatorSpec
from workflow_r1.services.coordinator import RunCoordinator
from workflow_r1.services.errors import OperatorConfigError, OperatorEndpointError
from workflow_r1.services.ledger import Budget, RunLedger, read_ledger
from workflow_r1.services.request import Sampling
from workflow_r1.services.result import OperatorResult
from workflow_r1.services.settings import OperatorSettings
from workflow_r1.services.usage import OperatorUsage, UsageMeter

__all__ = [
    "BUILTIN_OPERATORS",
    "WARNING_OP",
    "Budget",
    "InputField",
    "OperatorConfigError",
    "OperatorEndpointError",
    "OperatorPool",
    "OperatorResult",
    "OperatorSettings",
    "OperatorSpec",
    "OperatorUsage",
    "PoolSettings",
    "RunCoordinator",
    "RunLedger",
    "Sampling",
    "UsageMeter",
    "read_ledger",
]
