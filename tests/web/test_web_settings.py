"""The settings of the page: who may reach it, and where its password comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from config_file import ConfigurationError
from settings import Settings, WebSettings
from tests.test_config_example import filled_in, load


def loaded(folder: Path, **web: str) -> Settings:
    kept = filled_in().partition("[WEB]")[0]
    return load(folder, kept + "[WEB]\n" + "".join(f"{key} = {value}\n" for key, value in web.items()))


def test_it_is_off_by_default(tmp_path: Path) -> None:
    assert loaded(tmp_path).web is None


def test_switched_on_it_is_for_this_computer_alone(tmp_path: Path) -> None:
    got = loaded(tmp_path, enable_web="True")
    assert got.web == WebSettings(host="127.0.0.1", port=8041, password=None)
    assert got.warnings == ()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.5.0.1", "::1", "[::1]"])
def test_loopback_needs_no_password(tmp_path: Path, host: str) -> None:
    assert loaded(tmp_path, enable_web="True", web_host=host).web is not None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.20", "fe80::1", "::ffff:192.168.1.20"])
def test_others_need_a_password_or_a_decision(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match="is an address that others can reach"):
        loaded(tmp_path, enable_web="True", web_host=host)
    with pytest.raises(ConfigurationError, match="is an address that others can reach"):
        loaded(tmp_path, enable_web="True", web_host=host, web_password="")
    assert loaded(tmp_path, enable_web="True", web_host=host, web_password="brown heron").web is not None
    assert loaded(tmp_path, enable_web="True", web_host=host, web_allow_open="True").web is not None
    assert loaded(tmp_path, web_host=host).web is None


@pytest.mark.parametrize("host", ["battery.local", "0.0.0.0:80", "http://0.0.0.0", "256.1.1.1", "0"])
def test_a_host_that_is_no_address_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match="must be an IP address of this computer"):
        loaded(tmp_path, enable_web="True", web_host=host)


@pytest.mark.parametrize("source", ["key", "file", "variable", "credential"])
def test_the_password_comes_from_where_the_others_do_and_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    web = {"enable_web": "True", "web_host": "0.0.0.0"}
    (tmp_path / "web_password").write_text("brown heron\n")
    (tmp_path / "web_password").chmod(0o600)
    if source == "key":
        web["web_password"] = "brown heron"
    elif source == "file":
        web["web_password_file"] = "web_password"
    elif source == "variable":
        monkeypatch.setenv("WEB_PASSWORD", "brown heron")
    else:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        web["web_password_file"] = "credential"
    got = loaded(tmp_path, **web)
    assert got.web is not None
    assert got.web.password == "brown heron"
    assert "brown heron" in got.secrets()
    assert "brown heron" not in repr(got)


def test_a_password_file_that_is_missing_is_a_problem_only_where_the_page_is_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        loaded(tmp_path, enable_web="True", web_password_file="nowhere")
    assert loaded(tmp_path, web_password_file="nowhere").web is None
