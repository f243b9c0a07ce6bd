"""Requests that are drawn from the OpenAPI description, valid and invalid ones: no 5xx, and answers as described."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import positive_data_acceptance

from support.small_server import running_server, small_model
from tslrec.serving.server.app import Settings, create_app
from tslrec.serving.server.limits import Limits
from tslrec.serving.server.models import Models

# Small limits, so that what exceeds them is no larger than the limit of the body.
SETTINGS = Settings(Limits(histories=5, history=10, k=20, filter=10), reload_token="correct-horse-battery-staple")

schema = schemathesis.openapi.from_dict(create_app(Models([small_model()]), SETTINGS).openapi())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where a server listens that has this description."""
    with running_server([small_model()], SETTINGS) as client:
        yield str(client.base_url)


def test_the_description_has_every_path() -> None:
    paths = {"/recommend", "/similar", "/items", "/models", "/health", "/metrics", "/reload"}
    assert set(schema.raw_schema["paths"]) == paths


@schema.parametrize()
@settings(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_the_server_answers_as_its_description_says(case: schemathesis.Case, address: str) -> None:
    # A request that fits the description may still name an item that the catalogue lacks.
    case.call_and_validate(base_url=address, excluded_checks=[positive_data_acceptance])
