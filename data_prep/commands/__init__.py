"""The commands of `megapt-prep`, one module per group."""
