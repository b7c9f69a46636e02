"""Building blocks of methods: losses, gradient transforms, schedules, labels, streamed passes."""
