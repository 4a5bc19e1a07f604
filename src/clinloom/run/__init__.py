"""A run: the story, one step a file."""
