"""Reading files: checked paths, arrays, pictures, coded columns; the published permutations."""
