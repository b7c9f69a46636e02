"""Texts as data sets: documents of files, tokenizers, the made corpus."""
