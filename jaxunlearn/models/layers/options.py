"""What a builder of an architecture does with options that a user set: refuse the ones it has no use for."""

from jaxunlearn import errors


def reject_unused_options(architecture: str, **given: tuple[int, ...] | int) -> None:
    """Raises a ConfigError naming the first option that was set although the architecture does not use it.

    Args:
      architecture: its name in the table.
      **given: options of `settings.model` by name; empty and 0 mean "not set".
    """
    for name, value in given.items():
        if value:
            raise errors.ConfigError(
                f"model.{name} = {value!r}: architecture {architecture!r} does not use it. Leave it unset"
                + (", or choose model.name = 'mlp'." if name == "hidden" else ".")
            )


def widths(hidden: tuple[int, ...]) -> tuple[int, ...]:
    """Hidden widths as a tuple of positive whole numbers, or a ConfigError."""
    for width in hidden:
        if width < 1:
            raise errors.ConfigError(f"model.hidden = {tuple(hidden)!r}: every width must be at least 1.")
    return tuple(int(width) for width in hidden)
