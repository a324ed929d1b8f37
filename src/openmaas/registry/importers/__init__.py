"""One importer a format: ``convert(source, out, say)`` → Description.

They run only in the process of ``openmaas.registry.convert``, so each imports what it needs.
"""
