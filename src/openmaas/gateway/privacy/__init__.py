"""Policies of privacy, erasure, export and reports over HTTP."""
