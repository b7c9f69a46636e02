"""Methods for language models."""
