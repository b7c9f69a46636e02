"""Options of architectures: builders refuse those that they do not use."""

from jaxunlearn import errors


def reject_unused_options(architecture: str, **values: tuple[int, ...] | int) -> None:
    """Raises a ConfigError naming the first option that was set although the architecture does not use it.

    Args:
      architecture: its name in the table.
      **values: options of `settings.model` by name; empty and 0 mean "not set".
    """
    for name, value in values.items():
        if value:
            raise errors.ConfigError(
                f"model.{name} = {value!r}: architecture {architecture!r} does not use it. Leave it unset"
                + (", or choose the architecture 'mlp' (model.name = 'mlp')." if name == "hidden" else ".")
            )


def widths(hidden: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the hidden widths as a tuple of integers, or raises a ConfigError if one is below 1."""
    for width in hidden:
        if width < 1:
            raise errors.ConfigError(f"model.hidden = {tuple(hidden)!r}: every width must be at least 1.")
    return tuple(int(width) for width in hidden)
