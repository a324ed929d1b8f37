"""Artifacts for the contract suites."""

from __future__ import annotations

from tests.language_folders import gemma_folder, smollm2_folder

__all__ = ["gemma_folder", "smollm2_folder"]
