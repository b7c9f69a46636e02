"""Texts as data sets: documents in files, tokenizers, a synthetic corpus."""

from jaxunlearn.data.language import texts

__all__ = ["texts"]
