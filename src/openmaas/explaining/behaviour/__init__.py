"""How a whole model behaves: what it needs, how sure it is, what it mistakes."""
