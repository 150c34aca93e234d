"""The ranks of a job and the model that they train. Only this package depends on DeepSpeed."""
