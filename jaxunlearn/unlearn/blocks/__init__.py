"""Building blocks of methods: losses, gradient transforms, schedules, labels, streamed passes."""

__all__: list[str] = []
