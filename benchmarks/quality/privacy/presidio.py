"""Presidio's own recognisers, as they come, in front of a spaCy pipeline without a model.

None can be had from a package registry; so its names and places, which need one, are not there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from quality.privacy.generated import Label

LEAST = 0.3
"""Below this score Presidio says of any eight digits that they are a driving licence."""

_KINDS = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "credit_card",
    "IBAN_CODE": "iban", "IP_ADDRESS": "ip_address", "MAC_ADDRESS": "mac_address",
    "PERSON": "person", "LOCATION": "address", "US_SSN": "national_id", "US_ITIN": "national_id",
    "UK_NHS": "national_id", "UK_NINO": "national_id", "ES_NIF": "national_id",
    "ES_NIE": "national_id", "IT_FISCAL_CODE": "national_id", "PL_PESEL": "national_id",
    "DE_TAX_ID": "national_id",
}  # fmt: skip


class _Blank(SpacyNlpEngine):  # type: ignore[misc]
    def __init__(self, languages: list[str]) -> None:
        super().__init__(models=[{"lang_code": one, "model_name": one} for one in languages])
        self.nlp = {one: spacy.blank(one) for one in languages}

    def load(self) -> None:
        """It is."""


class Presidio:
    def __init__(self, languages: list[str]) -> None:
        logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
        registry = RecognizerRegistry(supported_languages=languages)
        registry.load_predefined_recognizers(languages=languages)
        self._engine = AnalyzerEngine(
            nlp_engine=_Blank(languages), registry=registry, supported_languages=languages
        )

    def find(self, text: str, language: str) -> Iterable[Label]:
        for one in self._engine.analyze(text, language, score_threshold=LEAST):
            if one.entity_type in _KINDS:
                yield Label(one.start, one.end, _KINDS[one.entity_type])
