"""Artifacts of real language models for the tests of tasks."""

from __future__ import annotations

from tests.language_folders import smollm2_folder

__all__ = ["smollm2_folder"]
