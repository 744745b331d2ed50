"""The commands that people run: they read and write Holdfast's objects with the user's own rights."""
