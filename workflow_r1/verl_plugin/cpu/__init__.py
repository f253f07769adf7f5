"""verl and vLLM on a machine without a GPU: nothing here runs unless `VERL_PLATFORM=cpu` is set."""
