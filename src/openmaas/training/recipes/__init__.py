"""Recipes: one file each. What is imported here imports no framework."""
