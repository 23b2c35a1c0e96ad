"""What every test may rely on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.test_outbox import BOXES


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ports of real meters, for ``tests/hardware``."""
    for name in ("voltage", "current"):
        parser.addoption(f"--{name}-port", metavar="PORT", help=f"a real {name} meter, for tests/hardware")


@pytest.fixture(autouse=True)
def _close_databases() -> Iterator[None]:
    yield
    for box in BOXES:
        box.store.close()
        box._store.close()
    BOXES.clear()
