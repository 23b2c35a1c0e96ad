"""What credentials.py promises: the first source counts, a useless one is a problem, no password is ever shown."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from config_file import ConfigurationError
from settings import Settings, load_settings
from tests.redis_server import RedisServer
from tests.rig import PASSWORD, Rig, run_daemon
from tests.test_settings import XDM, write

BARE = """\
[DEFAULT]
self_mac = 123456789
API_URL = https://iot.aretas.ca/rest/
API_USERNAME = jane
"""
REDIS = "[REDIS]\nredis_enable = True\n"
VARIABLES = ("API_PASSWORD", "API_PASSWORD_FILE", "REDIS_AUTHPW", "REDIS_AUTHPW_FILE", "CREDENTIALS_DIRECTORY")


@pytest.fixture(autouse=True)
def _no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def config(folder: Path, *, account: str = "", redis: str = "", mode: int = 0o600) -> Path:
    return write(folder, BARE + account + XDM + (REDIS + redis if redis else ""), mode)


def private(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    return path


def trouble_of(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path)
    return str(caught.value)


def test_the_first_source_that_is_there_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All five, then without the one that counted, until the last is gone."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    private(tmp_path / "named", "by-config\n")
    private(tmp_path / "by_variable", "by-variable\n")

    def password(account: str) -> str:
        return load_settings(config(tmp_path, account=account)).api.password

    both = "API_PASSWORD = in-config\nAPI_PASSWORD_FILE = named\n"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setenv("API_PASSWORD", "in-environment")
    monkeypatch.setenv("API_PASSWORD_FILE", "by_variable")
    private(credentials / "API_PASSWORD", "by-service\n")
    got = [password(both)]
    (credentials / "API_PASSWORD").unlink()
    got.append(password(both))
    monkeypatch.setenv("API_PASSWORD", "")
    got.append(password(both))
    monkeypatch.delenv("API_PASSWORD_FILE")
    got.append(password(both))
    got.append(password("API_PASSWORD = in-config\n"))
    assert got == ["by-service", "in-environment", "by-variable", "by-config", "in-config"]


def test_the_password_of_redis_has_the_same_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private(tmp_path / "redis_authpw", "first\n")
    private(tmp_path / "by_variable", "third")
    private(tmp_path / "named", "fourth")
    monkeypatch.setenv("API_PASSWORD", "hunter2secret")
    path = config(tmp_path, redis="redis_authpw = fifth\nredis_authpw_file = named\n")

    def password() -> str | None:
        redis = load_settings(path).redis
        assert redis is not None
        return redis.password

    assert password() == "fourth"
    monkeypatch.setenv("REDIS_AUTHPW_FILE", str(tmp_path / "by_variable"))
    assert password() == "third"
    monkeypatch.setenv("REDIS_AUTHPW", "second")
    assert password() == "second"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert password() == "first"
    assert load_settings(path).secrets() == ("hunter2secret", "first", "second", "third", "fourth", "fifth")


@pytest.mark.parametrize(
    ("content", "password"),
    [
        ("hunter2secret\n", "hunter2secret"),
        ("hunter2secret\r\n", "hunter2secret"),
        ("hunter2secret", "hunter2secret"),
        (" two blanks \n", " two blanks "),
        ("100%%; # 'ä€'\n", "100%%; # 'ä€'"),
        (b"\xef\xbb\xbfhunter2secret\r\n", "hunter2secret"),
        ("password\n", "password"),
        ("x" * 65_536, "x" * 65_536),
    ],
)
def test_a_file_holds_the_password_alone(tmp_path: Path, content: str | bytes, password: str) -> None:
    private(tmp_path / "secret", content)
    got = load_settings(config(tmp_path, account="API_PASSWORD_FILE = secret\n"))
    assert (got.api.password, got.secrets(), got.warnings) == (password, (password,), ())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        (" \r\n", "is empty"),
        ("hunter2\0secret\n", "NUL"),
        ("hunter2secret\nand more\n", "several lines"),
        ("hunter2secret\n\n", "several lines"),
        ("hunter2\rsecret", "several lines"),
        (b"hunter2secret\xff\n", "UTF-8"),
        ("hunter2secret" * 6_000, "larger than 64 KiB"),
    ],
)
@pytest.mark.parametrize("source", ["key", "variable", "credential"])
def test_a_file_that_is_of_no_use_is_a_problem_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes, words: str, source: str
) -> None:
    private(tmp_path / "API_PASSWORD", content)
    account = "API_PASSWORD = otherone\n"
    if source == "key":
        account += "API_PASSWORD_FILE = API_PASSWORD\n"
    else:
        name = "API_PASSWORD_FILE" if source == "variable" else "CREDENTIALS_DIRECTORY"
        monkeypatch.setenv(name, str(tmp_path / ("API_PASSWORD" if source == "variable" else "")))
    report = trouble_of(config(tmp_path, account=account))
    assert "has 1 problem:" in report
    assert words in report
    assert "hunter2" not in report
    assert "otherone" not in report


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("hunter2secret", "does not exist"),
        ("", "cannot be read (Is a directory)"),
        ("/dev/null", "is not a plain file"),
        ("named/hunter2secret", "cannot be read"),
        ("hunter2secret" * 30, "cannot be read"),
    ],
)
def test_a_path_that_leads_to_no_file_is_told_but_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    """Somebody may have put the password itself there."""
    private(tmp_path / "named", "x")
    monkeypatch.setenv("API_PASSWORD_FILE", path or str(tmp_path))
    report = trouble_of(config(tmp_path, account="API_PASSWORD = otherone\n"))
    assert f"the environment variable API_PASSWORD_FILE names {words}" in report
    assert "hunter2" not in report


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    private(tmp_path / "secret", "hunter2secret").chmod(0)
    assert "cannot be read (Permission denied)" in trouble_of(config(tmp_path, account="API_PASSWORD_FILE = secret\n"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_that_nobody_writes_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret")
    assert "is not a plain file" in trouble_of(config(tmp_path, account="API_PASSWORD_FILE = secret\n"))


@pytest.mark.parametrize("value", ["two\nlines", "\udcff", "x" * 65_537])
def test_an_environment_variable_that_is_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("API_PASSWORD", value)
    report = trouble_of(config(tmp_path))
    assert "the environment variable API_PASSWORD " in report
    assert value not in report


@pytest.mark.parametrize("value", ["'secret'", '"secret"', "secret # mine"])
def test_a_path_with_quotes_or_a_comment(tmp_path: Path, value: str) -> None:
    private(tmp_path / "secret", "hunter2secret")
    report = trouble_of(config(tmp_path, account=f"API_PASSWORD_FILE = {value}\n"))
    assert "API_PASSWORD_FILE must be the path of a file" in report


def test_a_password_that_does_not_count_is_told_and_kept_out_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_PASSWORD", "hunter2secret")
    got = load_settings(config(tmp_path, account="API_PASSWORD = otherone\n"))
    assert got.warnings == (
        "API_PASSWORD is taken from the environment variable API_PASSWORD; the one in config.cfg can be deleted",
    )
    assert got.secrets() == ("hunter2secret", "otherone")
    assert "hunter2" not in repr(got)
    assert "otherone" not in repr(got)


def test_the_example_s_password_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path, account="API_PASSWORD = password\n")
    assert "API_PASSWORD is still the example's value" in trouble_of(path)
    monkeypatch.setenv("API_PASSWORD", "hunter2secret")
    got = load_settings(path)
    assert (got.api.password, got.warnings, got.secrets()) == ("hunter2secret", (), ("hunter2secret",))


def test_no_password_anywhere_is_a_problem_with_a_hint(tmp_path: Path) -> None:
    report = trouble_of(config(tmp_path))
    assert "[DEFAULT] API_PASSWORD is missing: the password of your Aretas account" in report
    assert "API_PASSWORD_FILE = credential" in report


def test_the_warning_of_what_everybody_can_read_is_of_the_file_that_holds_a_password(tmp_path: Path) -> None:
    secret = private(tmp_path / "secret", "hunter2secret")
    path = config(tmp_path, account="API_PASSWORD_FILE = secret\n", mode=0o644)
    assert load_settings(path).warnings == ()
    secret.chmod(0o644)
    (warning,) = load_settings(path).warnings
    assert warning.endswith(f"run  chmod 600 {secret}")
    secret.chmod(0o600)
    path = config(tmp_path, account="API_PASSWORD_FILE = secret\nAPI_PASSWORD = password\n", mode=0o644)
    assert load_settings(path).warnings == ()
    path = config(tmp_path, account="API_PASSWORD_FILE = secret\n", redis="redis_authpw = redispass\n", mode=0o644)
    (warning,) = load_settings(path).warnings
    assert warning.endswith(f"run  chmod 600 {path}")


def test_what_the_service_passes_is_only_needed_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path, account="API_PASSWORD_FILE = credential\n", redis="redis_authpw_file = Credential\n")
    report = trouble_of(path)
    assert "has 2 problems:" in report
    assert report.count("was not passed: see to LoadCredential=") == 2
    got = load_settings(path, to_run=False)
    assert [warning.split()[0] for warning in got.warnings] == ["API_PASSWORD", "redis_authpw"]
    assert all("not checked here" in warning for warning in got.warnings)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    private(tmp_path / "API_PASSWORD", "hunter2secret\n")
    private(tmp_path / "redis_authpw", "redispass\n")
    got = load_settings(path)
    assert (got.api.password, got.secrets(), got.warnings) == ("hunter2secret", ("hunter2secret", "redispass"), ())


def test_a_bad_source_of_a_redis_that_is_not_used_is_no_matter(tmp_path: Path) -> None:
    private(tmp_path / "named", "x")
    got: Settings = load_settings(
        write(tmp_path, BARE + "API_PASSWORD = hunter2secret\n" + XDM + "[REDIS]\nredis_authpw_file = missing\n")
    )
    assert got.redis is None


def test_every_reading_asks_the_sources_again(tmp_path: Path) -> None:
    path = config(tmp_path, account="API_PASSWORD_FILE = secret\n")
    passwords = []
    for password in ("before", "afterwards"):
        private(tmp_path / "secret", password)
        passwords.append(load_settings(path).api.password)
    assert passwords == ["before", "afterwards"]


def test_check_config_says_that_the_password_will_come_and_the_daemon_insists(tmp_path: Path) -> None:
    config(tmp_path, account="API_PASSWORD_FILE = credential\n")
    checked = run_daemon(tmp_path, "--check-config")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "warning: API_PASSWORD will come from the service manager" in checked.stdout
    assert "the configuration is good" in checked.stdout
    started = run_daemon(tmp_path)
    assert started.returncode == 78
    assert "the service's credential API_PASSWORD was not passed" in started.stderr


def test_the_daemon_runs_with_what_the_service_passes_and_shows_it_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = tmp_path / "passed"
    passed.mkdir()
    private(passed / "API_PASSWORD", f"{PASSWORD}\n")
    private(passed / "redis_authpw", "redis%pass word\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(passed))
    with Rig(tmp_path) as rig, RedisServer(tmp_path, password="redis%pass word") as server:
        redis: dict[str, object] = {"redis_enable": True, "redis_port": server.port}
        rig.configure({"DEFAULT": {"API_PASSWORD": "a wrong one"}, "REDIS": redis})
        process = rig.start("--log-level", "DEBUG")
        rig.wait_for_intervals(1)
        assert rig.stop()[0] == 0
        stdout, stderr = process.communicate()
    everything = rig.log + stdout + stderr
    assert "the service's credential API_PASSWORD; the one in config.cfg can be deleted" in everything
    assert "Redis" not in everything
    for secret in (PASSWORD, "a wrong one", "redis%pass word"):
        assert secret not in everything


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_a_reload_takes_the_new_password_of_the_file_and_shows_it_nowhere(tmp_path: Path) -> None:
    secret = private(tmp_path / "secret", "an old one\n")
    with Rig(tmp_path) as rig:
        rig.configure({"DEFAULT": {"API_PASSWORD": None, "API_PASSWORD_FILE": "secret"}})
        process = rig.start("--log-level", "DEBUG")
        rig.wait_for_log("refused the user name and password")
        private(secret, f"{PASSWORD}\n")
        process.send_signal(signal.SIGHUP)
        rig.wait_for_log("the configuration is used")
        rig.wait_for_intervals(1)
        assert rig.stop()[0] == 0
        stdout, stderr = process.communicate()
    for password in ("an old one", PASSWORD):
        assert password not in rig.log + stdout + stderr


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not tell which files are open")
def test_a_folder_in_place_of_a_password_file_stays_open_after_no_reading(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        trouble_of(config(tmp_path, account=f"API_PASSWORD_FILE = {tmp_path}\n"))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
