"""From a policy or a baseline to a results table, and asking one question."""
