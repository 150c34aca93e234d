"""The stages of `megapt-prep build`."""
