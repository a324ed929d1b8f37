"""Explanations as people read them: in a terminal, in a browser, as a picture."""
