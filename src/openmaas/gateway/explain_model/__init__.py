"""How a whole model behaves on rows of a data set."""

from openmaas.gateway.explain_model.routes import endpoints

__all__ = ["endpoints"]
