"""The ranks of a job and the model that they train together. Only this folder knows DeepSpeed."""
