"""A made-up organization, and the main job end to end on its data."""
