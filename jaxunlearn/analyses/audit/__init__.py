"""The audit: membership scores, what they are worth, and a verdict for every single sample."""
