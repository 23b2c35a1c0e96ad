"""What the client's tests share: a virtual cloud, a client of it with short timeouts, a reading, a certificate."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aretas_api import AretasClient
from measurements import Datum
from simulator.cloud import VirtualCloud

MAC = 123456789
PASSWORD = 'S3cr%t &#+/?"ü€'


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def cloud() -> Iterator[VirtualCloud]:
    with VirtualCloud(username="an operator", password=PASSWORD, macs=[MAC, 42]) as running:
        yield running


@pytest.fixture
def new_client() -> Iterator[Callable[..., AretasClient]]:
    """Return a maker of clients, all of which are closed after the test."""
    made: list[AretasClient] = []

    def make(
        base_url: str, *, username: str = "an operator", password: str = PASSWORD, **options: object
    ) -> AretasClient:
        settings: dict[str, object] = {"connect_timeout_s": 0.5, "read_timeout_s": 0.5, "total_timeout_s": 2.0}
        made.append(AretasClient(base_url, username, password, **(settings | options)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(cloud: VirtualCloud, new_client: Callable[..., AretasClient]) -> AretasClient:
    return new_client(cloud.url)


def reading(
    data: float = -12.5, *, mac: int = MAC, type: int = 531, timestamp_utc_ms: int = 1_700_000_000_000
) -> Datum:
    return Datum(mac=mac, type=type, data=data, timestamp_utc_ms=timestamp_utc_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """A certificate for 127.0.0.1: what the server needs, and the file the client must trust."""

    server: ssl.SSLContext
    trusted: Path


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=20)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return Tls(server=server, trusted=certificate)
