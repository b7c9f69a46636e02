"""Reports: findings to words, tables, figures and pages. Functions take records and return text or figures."""
