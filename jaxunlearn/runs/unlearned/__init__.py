"""Approximate unlearning of a run: variants of methods (`variants`), their members (`members`), the job (`runs`)."""
