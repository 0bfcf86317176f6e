"""The pages of the exercises: files to be completed, which ``npflow exercise NAME`` copies."""
