"""Records of methods: `Method` and its phases, the model as pure functions, entries of the table of methods."""

__all__: list[str] = []
