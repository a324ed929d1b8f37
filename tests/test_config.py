"""Settings come from four places, the later over the earlier, and unknown ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from openmaas.config import Limits, Settings, load
from openmaas.errors import ConfigurationError


def written(folder: Path, text: str) -> Path:
    path = folder / "openmaas.toml"
    path.write_text(text)
    return path


def test_defaults_are_safe() -> None:
    settings = load(None, {}, {})
    assert settings == Settings()
    assert settings.host == "127.0.0.1"
    assert settings.allow_https_sources is False
    assert settings.admin_key is None


def test_the_later_place_wins(tmp_path: Path) -> None:
    file = written(tmp_path, 'port = 1\nhost = "::1"\nlog_level = "debug"\n[limits]\nqueue = 5\n')
    environment = {"OPENMAAS_PORT": "2", "OPENMAAS_HOST": "localhost"}
    settings = load(file, environment, {"port": 3, "data_dir": None})
    assert (settings.port, settings.host, settings.log_level) == (3, "localhost", "debug")
    assert settings.limits.queue == 5
    assert settings.data_dir == Settings().data_dir


@pytest.mark.parametrize("name", Limits.__struct_fields__)
def test_every_limit_has_a_variable(name: str) -> None:
    value = 7 if isinstance(getattr(Limits(), name), int) else 7.5
    settings = load(None, {f"OPENMAAS_LIMITS_{name.upper()}": str(value)}, {})
    assert getattr(settings.limits, name) == value


def test_a_limit_from_the_environment_leaves_those_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[limits]\nqueue = 5\nn = 2\n")
    limits = load(file, {"OPENMAAS_LIMITS_QUEUE": "6"}, {}).limits
    assert (limits.queue, limits.n) == (6, 2)


@pytest.mark.parametrize(
    "environment",
    [{"OPENMAAS_PROT": "1"}, {"OPENMAAS_LIMITS_PROT": "1"}, {"OPENMAAS_": "1"}],
    ids=str,
)
def test_unknown_variables_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="unknown field"):
        load(None, environment, {})


def test_variables_of_the_client_and_of_others_are_none_of_ours() -> None:
    environment = {
        "OPENMAAS_API_KEY": "k",
        "OPENMAAS_URL": "u",
        "OPENMAAS_CONFIG": "c",
        "PORT": "1",
    }
    assert load(None, environment, {}) == Settings()


@pytest.mark.parametrize(
    "text",
    ["prot = 1", "[limits]\nprot = 1", "limits = 3", "port = 'x'", "port = -1", "not toml", "[a]"],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        load(written(tmp_path, text), {}, {})
    with pytest.raises(ConfigurationError):
        load(written(tmp_path, text), {"OPENMAAS_LIMITS_QUEUE": "6"}, {})


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "openmaas.toml"
    file.write_bytes(b"host = '\xff'")
    with pytest.raises(ConfigurationError):
        load(file, {}, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENMAAS_PORT", "65536"),
        ("OPENMAAS_LIMITS_QUEUE", "0"),
        ("OPENMAAS_LIMITS_REQUEST_SECONDS", "0"),
        ("OPENMAAS_LIMITS_REQUEST_SECONDS", "nan"),
        ("OPENMAAS_LIMITS_REQUEST_SECONDS", "inf"),
        ("OPENMAAS_LIMITS_BODY_BYTES", "1.5"),
        ("OPENMAAS_ADMIN_KEY", "too-short"),
        ("OPENMAAS_ALLOW_HTTPS_SOURCES", "perhaps"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError):
        load(None, {name: value}, {})


def test_a_short_admin_key_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(None, {"OPENMAAS_ADMIN_KEY": "hunter2"}, {})
    assert "hunter2" not in str(raised.value)
