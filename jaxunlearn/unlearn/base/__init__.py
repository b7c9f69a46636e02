"""What methods are made of as records: `Method` and its phases, the model as pure functions, an entry of the table."""
