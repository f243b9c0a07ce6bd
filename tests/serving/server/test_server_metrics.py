"""The counters of `/metrics` move with what happens."""

from __future__ import annotations

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from support.small_server import small_model
from tslrec.serving.server.app import Settings, create_app
from tslrec.serving.server.models import Models


def numbers(client: TestClient) -> dict[tuple[str, ...], float]:
    """Every number of the project, by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name.startswith("tslrec_")
    }


def test_requests_batches_and_items_are_counted() -> None:
    with TestClient(create_app(Models([small_model()]), Settings())) as client:
        before = numbers(client)
        client.post("/recommend", json={"histories": [["7"], ["8"]], "k": 4})
        client.post("/recommend", json={"histories": [["7"]], "k": 0})
        client.get("/made/up/path")
        client.get("/another/one")
        after = numbers(client)

    def grown(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert grown("tslrec_requests_total", "/recommend", "200") == 1
    assert grown("tslrec_requests_total", "/recommend", "422") == 1
    # A client cannot make labels.
    assert grown("tslrec_requests_total", "other", "404") == 2
    assert grown("tslrec_request_seconds_count", "/recommend") == 2
    assert grown("tslrec_batch_histories_count") == 1
    assert grown("tslrec_batch_histories_sum") == 2
    assert grown("tslrec_recommended_items_total") == 8
    assert after["tslrec_requests_running",] == 1
    assert after["tslrec_reloads_total", "done"] == 0


def test_a_defect_is_a_500_of_one_line_and_is_counted() -> None:
    def fail() -> None:
        raise ZeroDivisionError("a defect")

    with TestClient(
        create_app(Models([small_model(before=fail)]), Settings()), raise_server_exceptions=False
    ) as client:
        answer = client.post("/recommend", json={"histories": [["7"]]})
        assert answer.status_code == 500
        assert answer.json() == {"error": "internal error; the server's log has the details"}
        assert numbers(client)["tslrec_requests_total", "/recommend", "500"] == 1
        assert client.get("/health").status_code == 200
