"""What hostile, slow and broken callers get: a clear error, before anything of theirs is kept; and what is seen."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import scripted_fleet, services
from support.collector import collector
from support.gateway.process import LONG, WAIT, Gateway, Part, gateway
from support.scripted_fleet import ScriptedFleet

MOST_JSON, MOST_FILE, PATIENCE = 20_000, 100_000, 4.0
RAIN = {"task": "generate.t2a", "text": "rain", "seconds": 0.5, "steps": 2}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def strict(fleet: ScriptedFleet, omnigate: Gateway) -> Iterator[Gateway]:
    """A gateway that takes little, and waits for nobody."""
    settings = {
        "OMNIFLEET_GATEWAY_MAX_JSON": str(MOST_JSON),
        "OMNIFLEET_MAX_INPUT_BYTES": str(MOST_FILE),
        "OMNIFLEET_GATEWAY_BODY_PATIENCE": str(PATIENCE),
        "OMNIFLEET_GATEWAY_MAX_REQUESTS": "3",
    }
    with gateway(fleet.environment | settings, fleet.folder / "strict.log", key=omnigate.key) as running:
        yield running
    assert running.faults() == []


def lines_of(gateway: Gateway, request_id: str) -> list[dict[str, Any]]:
    return [one for one in gateway.lines() if one.get("request_id") == request_id]


def chunks(size: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b" " * size


class TestSize:
    def test_an_announced_body_is_refused_unread(self, strict: Gateway) -> None:
        with strict.opened("POST", "/v1/jobs", {**JSON, "Content-Length": str(10**15)}) as caller:
            answer = caller.read_to_end()

        assert answer.startswith("HTTP/1.1 413 ")
        assert '"code":"MediaTooLarge"' in answer and f'"limit":{MOST_JSON}' in answer

    def test_a_stranger_s_body_is_not_read_either(self, strict: Gateway) -> None:
        with strict.with_key(None).opened("POST", "/v1/uploads", {"Content-Length": str(10**6)}) as caller:
            assert caller.read_to_end().startswith("HTTP/1.1 401 ")

    def test_a_body_without_a_length_is_cut_off_at_the_limit(self, strict: Gateway) -> None:
        with strict.opened("POST", "/v1/jobs", {**JSON, "Transfer-Encoding": "chunked"}) as caller:
            for piece in chunks(5_000, 5):
                caller.caller.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            answer = caller.read_to_end()

        assert answer.startswith("HTTP/1.1 413 ")

    def test_a_file_that_is_too_large_is_refused(self, strict: Gateway) -> None:
        answer = strict.post_form("/v1/uploads", Part("file", b"x" * (MOST_FILE + 1), "a.wav"))

        assert (answer.status, answer.error["code"], answer.error["param"]) == (413, "MediaTooLarge", "file")

    @pytest.mark.parametrize("length", ["-1", "many", "1e3", "9" * 400])
    def test_a_length_that_is_none_is_refused(self, strict: Gateway, length: str) -> None:
        with strict.opened("POST", "/v1/jobs", {**JSON, "Content-Length": length}) as caller:
            status = caller.read_until("\r\n").split()[1]

        assert status in ("400", "413")


class TestPatience:
    def test_a_body_that_does_not_come_is_not_waited_for(self, strict: Gateway) -> None:
        begun = time.monotonic()

        with strict.opened("POST", "/v1/jobs", {**JSON, "Content-Length": "100"}) as caller:
            caller.caller.sendall(b'{"task"')
            answer = caller.read_to_end()

        assert answer.startswith("HTTP/1.1 408 ")
        assert '"code":"RequestTooSlow"' in answer
        assert time.monotonic() - begun >= PATIENCE

    def test_drops_do_not_keep_a_body_open(self, strict: Gateway) -> None:
        with strict.opened("POST", "/v1/jobs", {**JSON, "Content-Length": "19000"}) as caller:
            dripping = True
            while dripping:
                try:
                    caller.caller.sendall(b" ")
                    time.sleep(0.05)
                except OSError:
                    dripping = False
                caller.caller.setblocking(False)
                try:
                    dripping = dripping and not caller.caller.recv(1, socket.MSG_PEEK)
                except BlockingIOError:
                    pass
                finally:
                    caller.caller.settimeout(WAIT)
            assert caller.read_to_end().startswith("HTTP/1.1 408 ")

    def test_headers_that_do_not_end_are_not_waited_for(self, strict: Gateway) -> None:
        with socket.create_connection(("127.0.0.1", strict.port), timeout=WAIT) as caller:
            caller.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")

            assert caller.recv(1000) == b""


class TestCrowd:
    def test_more_requests_than_it_may_have_are_refused(self, strict: Gateway) -> None:
        job_id = strict.send(**RAIN | {"steps": LONG})
        path = f"/v1/jobs/{job_id}/events"

        with strict.opened("GET", path) as one, strict.opened("GET", path) as two, strict.opened("GET", path) as three:
            for stream in (one, two, three):
                stream.read_until("event: ")
            refused = strict.get(f"/v1/jobs/{job_id}")

        assert (refused.status, refused.error["code"]) == (503, "GatewayBusy")
        assert refused.headers["retry-after"]
        services.wait_until(lambda: strict.ask("DELETE", f"/v1/jobs/{job_id}").status == 202, WAIT, "room again")


class TestForms:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"--cut",
            b"--cut\r\n\r\nno headers\r\n--cut--\r\n",
            b'--cut\r\nContent-Disposition: form-data; name="job"\r\n\r\n{"task": ',
            b'--cut\r\nContent-Disposition: form-data; name="job"\r\n\r\n{}\r\n--cut--\r\n',
            b"--cut\r\nContent-Disposition: form-data\r\n\r\nx\r\n--cut--\r\n",
            b'--cut\r\nContent-Disposition: form-data; name="ref_text"\r\n\r\nx\r\n--cut--\r\n',
            b'--cut\r\nContent-Disposition: form-data; name="evil"; filename="x"\r\n\r\nx\r\n--cut--\r\n',
            b"\x00\xff" * 50,
        ],
    )
    def test_a_broken_form_is_the_callers_fault(self, strict: Gateway, body: bytes) -> None:
        answer = strict.ask("POST", "/v1/jobs", body, {"Content-Type": "multipart/form-data; boundary=cut"})

        assert answer.status == 400, answer.body
        assert answer.error["type"] == "invalid_request_error"

    @pytest.mark.parametrize(
        "kind", ["multipart/form-data", "text/plain", "application/x-www-form-urlencoded", "x" * 200]
    )
    def test_another_kind_of_body_is_refused(self, strict: Gateway, kind: str) -> None:
        assert strict.ask("POST", "/v1/jobs", b"task=generate.t2a", {"Content-Type": kind}).status == 400

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"1" * 9_000, b"[" * 9_000, b'{"task": NaN}'])
    def test_what_is_no_json_object_is_refused(self, strict: Gateway, body: bytes) -> None:
        assert strict.ask("POST", "/v1/jobs", body, JSON).status == 400


class TestWhatIsSeen:
    def test_a_request_is_named_in_its_answer_and_on_its_lines(self, omnigate: Gateway) -> None:
        answer = omnigate.post("/v1/jobs", RAIN, {"X-Request-ID": "mine-1"})

        assert answer.headers["x-request-id"] == "mine-1"
        # It is written once the answer has been sent.
        services.wait_until(lambda: bool(lines_of(omnigate, "mine-1")), WAIT, "the line")
        (line,) = lines_of(omnigate, "mine-1")
        assert (line["action"], line["status"], line["route"]) == ("request_answered", 202, "/v1/jobs")
        assert (line["job_id"], line["tenant"]) == (answer.json["id"], "acme")
        assert omnigate.key and omnigate.key not in omnigate.process.log.read_text()

    @pytest.mark.parametrize("given", ["", "two words", "x" * 65, "a;b", "é"])
    def test_an_id_that_will_not_do_is_replaced(self, omnigate: Gateway, given: str) -> None:
        answer = omnigate.get("/v1/jobs/nobody", {"X-Request-ID": given.encode().decode("latin-1")})

        assert len(answer.headers["x-request-id"]) == 32

    @pytest.mark.parametrize("path", ["/v1/jobs/x%0d%0aSet-Cookie:%20a=b", "/v1/%0a{%22action%22:%22forged%22}"])
    def test_nothing_is_injected_into_headers_or_the_log(self, omnigate: Gateway, path: str) -> None:
        answer = omnigate.get(path)

        assert answer.status == 404
        assert "set-cookie" not in answer.headers
        assert all(line.get("action") != "forged" for line in omnigate.lines())

    def test_paths_are_counted_by_their_routes(self, omnigate: Gateway) -> None:
        for number in range(3):
            omnigate.get(f"/v1/nowhere/{number}")
            omnigate.get(f"/v1/jobs/nobody-{number}")

        routes = {
            dict(labels)["route"] for name, labels in omnigate.metrics() if name == "omnifleet_gateway_requests_total"
        }
        assert {"/v1/jobs/{job_id}", "unmatched"} <= routes
        assert not any("nobody" in route or "nowhere" in route for route in routes)

    def test_metrics_are_not_shown_to_callers(self, omnigate: Gateway) -> None:
        assert omnigate.get("/metrics").status == 404

    def test_a_trace_leads_from_the_caller_through_the_gateway_to_the_worker(
        self, fleet: ScriptedFleet, omnigate: Gateway
    ) -> None:
        trace_id, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        with collector() as collected:
            environment = fleet.environment | collected.environment
            with gateway(environment, fleet.folder / "traced.log", key=omnigate.key) as traced:
                traced.post(
                    "/v1/jobs?wait=60", RAIN, {"traceparent": f"00-{trace_id}-{caller}-01", "X-Request-ID": "traced-1"}
                )
                services.wait_until(lambda: "POST /v1/jobs" in collected.names(), WAIT, "the span")
        spans = {span.name: span for _, span in collected.spans}

        assert {span.trace_id.hex() for span in spans.values()} == {trace_id}, list(spans)
        assert spans["POST /v1/jobs"].parent_span_id.hex() == caller
        attributes = {one.key: one.value.string_value for one in spans["POST /v1/jobs"].attributes}
        assert attributes["omnifleet.request_id"] == "traced-1"
        assert spans["generate t2a"].parent_span_id == spans["POST /v1/jobs"].span_id


def test_without_redis_it_lives_is_not_ready_and_says_so(fleet: ScriptedFleet) -> None:
    nowhere = {"OMNIFLEET_REDIS_URL": f"redis://127.0.0.1:{services.free_port()}/0"}

    with gateway(
        fleet.environment | nowhere, fleet.folder / "alone.log", key="of_" + "0" * 12 + "_" + "x" * 43
    ) as alone:
        ready, asked = alone.get("/readyz"), alone.get("/v1/jobs/nobody")

        assert (alone.get("/livez").status, ready.status) == (200, 503)
        assert (asked.status, asked.error["code"]) == (503, "BrokerUnavailable")
        # Where Redis is, is not for callers to know.
        assert "127.0.0.1" not in asked.body.decode()
        assert scripted_fleet.page(alone.pages_port, "/livez")[0] == 200
