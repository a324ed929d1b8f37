"""Why a model answered as it did: explanations as an API."""

from openmaas.gateway.explain.routes import endpoints

__all__ = ["endpoints"]
