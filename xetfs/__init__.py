"""Hugging Face models and datasets as plain read-only files; docs/architecture.md shows the house."""

__version__ = "0.1.0"
