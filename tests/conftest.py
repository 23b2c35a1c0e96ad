"""What every test may rely on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.test_outbox import BOXES


@pytest.fixture(autouse=True)
def _close_databases() -> Iterator[None]:
    yield
    for box in BOXES:
        box.store.close()
        box._store.close()
    BOXES.clear()
