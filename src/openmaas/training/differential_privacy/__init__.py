"""Differentially private training: what one row can change of a version is bounded.

``clipping`` and ``noise`` make a step private, ``engine`` and ``loop`` train with such steps,
``accounting`` says what they cost, ``budgets`` what a data set has left.
"""
