"""The description of the API is true: a fuzzer that goes by it finds no fault, and no route is missing in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from tests.rig import PROJECT
from tests.test_history import made, row
from tests.web.stand import Stand
from tests.web.test_auth import PASSWORD, basic
from web.server import FOLDER

DESCRIPTION: dict[str, Any] = json.loads((FOLDER / "openapi.json").read_text(encoding="utf-8"))
ERROR = {"$ref": "#/components/schemas/Error"}
fuzzed = schemathesis.openapi.from_dict(DESCRIPTION)
# Values that are valid each may not be together (from after to): no schema can say so, and 400 does.
fuzzed.config.checks.positive_data_acceptance.expected_statuses += ["400"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a page, and the real description."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "static").mkdir()
    (folder / "static" / "index.html").write_text("<!doctype html>")
    (folder / "static" / "page.js").write_text("// a page")
    (folder / "openapi.json").write_text(json.dumps(DESCRIPTION))
    return folder


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("fuzz")
    made(folder, [row(1_795_900_000_000 + 30_000 * number) for number in range(50)])
    with Stand(folder, files=files) as stand:
        stand.take(52.0, 1.0)
        yield stand


def test_every_route_is_described_and_nothing_else(stand: Stand) -> None:
    routes = {re.sub(r"<(\w+)[^>]*>", r"{\1}", path) for path in stand.server._site.paths}
    assert routes == set(DESCRIPTION["paths"])


def test_the_readme_has_every_endpoint() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("### Every address") :]
    table = table[: table.index("\n### ")]
    assert set(re.findall(r"^\| `(/[^`?]*)", table, re.MULTILINE)) == set(DESCRIPTION["paths"])


@pytest.mark.parametrize(
    "path",
    [
        "/api/latest",
        "/api/status",
        "/api/energy",
        "/api/energy?from=0",
        "/api/history?from=0",
        "/api/history?columns=1",
        "/api/history?step=x",
        "/healthz",
        "/nothing",
    ],
)
def test_an_answer_has_just_the_fields_that_are_described(stand: Stand, path: str) -> None:
    """The fuzzer lets more fields than those pass."""
    stand.close_interval()
    answer = stand.get(path)
    operation = DESCRIPTION["paths"].get(path.partition("?")[0], DESCRIPTION["paths"]["/healthz"])["get"]
    responses: Any = operation["responses"]
    described = responses.get(str(answer.status), {"content": {"application/json": {"schema": ERROR}}})
    described = {"content": {"application/json": {"schema": ERROR}}} if "$ref" in described else described
    schema = {**described["content"]["application/json"]["schema"], "components": DESCRIPTION["components"]}
    assert [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(answer.json)] == []


@fuzzed.parametrize()
@settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_fuzzer_finds_no_fault(case: schemathesis.Case[Any], stand: Stand) -> None:
    """All of schemathesis' checks, on valid and invalid requests, with its unusual methods and headers, too."""
    case.call_and_validate(base_url=f"http://127.0.0.1:{stand.port}", timeout=10)


def test_the_description_is_behind_the_password_too(tmp_path: Path, files: Path) -> None:
    with Stand(tmp_path, password=PASSWORD, files=files) as stand:
        assert stand.get("/openapi.json").status == 401
        answer = stand.get("/openapi.json", Authorization=basic(PASSWORD))
        assert answer.json == DESCRIPTION
