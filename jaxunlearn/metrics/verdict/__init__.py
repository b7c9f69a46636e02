"""The verdict on one request: forgotten, not forgotten, suppressed, or cannot tell."""
