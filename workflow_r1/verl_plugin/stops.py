"""Why a run ends before its last step."""


class RunStopped(RuntimeError):
    """The run ended early on purpose, with its checkpoint saved; the message says why and what to do."""


class RolloutsLost(RuntimeError):
    """Too little is left of a batch of rollouts; the message says why."""
