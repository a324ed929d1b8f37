"""Texts with known personal data, and how well it is found in them."""
