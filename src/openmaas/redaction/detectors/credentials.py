"""Keys, tokens and passwords."""

from __future__ import annotations

import re
from collections.abc import Iterable

from openmaas.redaction.entity import SHAPED, Entity
from openmaas.redaction.policy import Kind

# What a key begins with, and what follows. Only where a text has the former is the latter asked.
_SHAPES = {
    "om-": r"[\w-]{43}(?![\w-])",  # ours
    "sk-": r"(?=[\w-]{0,250}\d)[\w-]{20,250}",  # OpenAI, Anthropic, OpenRouter …
    "AKIA": r"[A-Z2-7]{16}(?!\w)", "ASIA": r"[A-Z2-7]{16}(?!\w)",  # AWS
    "ghp_": r"\w{36,255}", "gho_": r"\w{36,255}", "ghu_": r"\w{36,255}", "ghs_": r"\w{36,255}",
    "ghr_": r"\w{36,255}", "github_pat_": r"\w{22,255}", "glpat-": r"[\w-]{20,100}",
    "xoxa-": r"[\w-]{10,250}", "xoxb-": r"[\w-]{10,250}", "xoxp-": r"[\w-]{10,250}",  # Slack
    "xoxe": r"[.-][\w.-]{10,250}", "xoxr-": r"[\w-]{10,250}", "xoxs-": r"[\w-]{10,250}",
    "xapp-": r"[\w-]{10,250}",
    "sk_live_": r"\w{10,250}", "sk_test_": r"\w{10,250}", "rk_live_": r"\w{10,250}",  # Stripe
    "rk_test_": r"\w{10,250}", "pk_live_": r"\w{10,250}", "pk_test_": r"\w{10,250}",
    "whsec_": r"[\w+/=]{20,100}",
    "AIza": r"[\w-]{35}(?![\w-])", "ya29.": r"[\w-]{20,500}", "GOCSPX-": r"[\w-]{20,60}",  # Google
    "hf_": r"[A-Za-z]{30,60}", "npm_": r"\w{36}", "pypi-": r"[\w-]{50,500}",
    "dop_v1_": r"[0-9a-f]{64}", "SG.": r"[\w-]{16,32}\.[\w-]{16,64}", "gsk_": r"\w{40,64}",
    "shpat_": r"[0-9a-fA-F]{32}", "shpss_": r"[0-9a-fA-F]{32}", "lin_api_": r"\w{40}",
    "AGE-SECRET-KEY-1": r"[0-9A-Z]{58}",
    "eyJ": r"[\w-]{8,4000}\.eyJ[\w-]{4,8000}\.[\w-]{0,2000}",  # JWT (RFC 7519)
    "-----BEGIN ": r"(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{0,20000}(?:-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)?)?",
}  # fmt: skip
_TOKENS = {
    begin: re.compile(rf"(?<![\w.-]){re.escape(begin)}{rest}", re.ASCII)
    for begin, rest in _SHAPES.items()
}
_URL = re.compile(r"://([^\s/@:]{0,128}:[^\s/@]{1,256})@(?=[\w\[])")

_NAMES = (
    "passw", "passphrase", "pwd", "kennwort", "api", "secret", "access", "token", "private",
    "mot de passe", "contraseña", "senha", "hasło", "wachtwoord", "密", "口令", "كلمة",
)  # fmt: skip
_NAMED = re.compile(
    r"(?<![^\W_])(?:pass(?:word|wd|phrase|wort)|pwd|kennwort|api[ _-]?key|secret(?:[ _-]?key)?"
    r"|access[ _-]?key|(?:auth|access)[ _-]?token|client[ _-]?secret|private[ _-]?key"
    r"|mot de passe|contraseña|senha|hasło|wachtwoord|密码|口令|密钥|كلمة المرور|كلمة السر)"
    r"(?:['\"]? ?(?:[:=]|:=|=>) ?| (?:is|ist|est|es|è|é|to|هي):? |是|为)"
    r"['\"]?([^\s'\",;，。]{6,200})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\bBearer ([\w.~+/-]{20,4000}=*)", re.ASCII | re.IGNORECASE)
# Letters and digits, or two signs: else it is a word of a sentence.
_MEANT = re.compile(r"(?=.*\d)(?=.*[^\W\d_])|.*[^\w\s].*[^\w\s]")


class Credentials:
    kinds: tuple[Kind, ...] = ("secret",)

    def find(self, text: str) -> Iterable[Entity]:
        for begin, pattern in _TOKENS.items():
            if begin in text:
                for found in pattern.finditer(text):
                    yield Entity(found.start(), found.end(), "secret", SHAPED)
        if "://" in text:
            for found in _URL.finditer(text):
                yield Entity(found.start(1), found.end(1), "secret", SHAPED)
        lower = text.lower()
        if len(lower) != len(text):  # some letters have two in lower case
            lower = text
        for pattern in (_NAMED, _BEARER):
            if not any(name in lower for name in (_NAMES if pattern is _NAMED else ("bearer",))):
                continue
            for found in pattern.finditer(text):
                value = found[1].rstrip(".)]}!?")
                if _MEANT.match(value):
                    yield Entity(found.start(1), found.start(1) + len(value), "secret", SHAPED)
