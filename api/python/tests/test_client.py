"""Asks a real server, by TANDEM_URL, and one that breaks each answer. It has 90 of the 100 users of ranker.py, user-0000000 to user-0000099."""

import os
import re
import socket
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable

import ranker

import tandem
from google.protobuf import descriptor_pb2
from tandem.v1 import retrieval_pb2 as pb

URL = os.environ["TANDEM_URL"]
USER = "user-0000042"
DOCS = Path(__file__).parents[3] / "docs"


class Broken(ThreadingHTTPServer):
    """A server that answers as it is told."""

    daemon_threads = True

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler, bytes], None]) -> None:
        self.calls = 0
        self.headers: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.calls += 1
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
                server.answer(self, self.rfile.read(int(self.headers["content-length"])))

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


def http(status: int, body: bytes = b"", kind: str = "text/html", **headers: str) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    def answer(h: BaseHTTPRequestHandler, _: bytes) -> None:
        h.send_response(status)
        h.send_header("content-type", kind)
        h.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            h.send_header(name.replace("_", "-"), value)
        h.end_headers()
        h.wfile.write(body)

    return answer


def refuse(code: str, reason: str, status: int) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    import base64
    import json

    from google.rpc.error_details_pb2 import ErrorInfo

    value = base64.b64encode(ErrorInfo(reason=reason, domain="tandem").SerializeToString()).decode().rstrip("=")
    body = json.dumps({"code": code, "message": "no", "details": [{"type": "google.rpc.ErrorInfo", "value": value}]})
    return http(status, body.encode(), "application/json", x_request_id="shop%207")


def good(staleness: float) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    answer = pb.RetrieveResponse(request_id="r")
    answer.staleness.FromNanoseconds(int(staleness * 1e9))
    return http(200, answer.SerializeToString(), "application/proto")


def reset(h: BaseHTTPRequestHandler, _: bytes) -> None:
    h.connection.shutdown(socket.SHUT_RDWR)
    h.close_connection = True


def cut(h: BaseHTTPRequestHandler, _: bytes) -> None:
    h.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/proto\r\ncontent-length: 1000\r\n\r\nabc")
    reset(h, b"")


def plain(message: descriptor_pb2.DescriptorProto) -> None:
    """Takes out of a message what only servers read, and what compilers may leave out."""
    if not message.options.map_entry:
        message.ClearField("options")
    for one in message.field:
        one.ClearField("options")
        one.ClearField("json_name")
    for nested in message.nested_type:
        plain(nested)


class ClientTest(unittest.TestCase):
    def broken(self, answer: Callable[[BaseHTTPRequestHandler, bytes], None]) -> Broken:
        server = Broken(answer)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server

    def client(self, *addresses: str, **options: object) -> tandem.Client:
        options.setdefault("deadline", 30.0)
        c = tandem.Client(addresses, **options)  # type: ignore[arg-type]
        self.addCleanup(c.close)
        return c

    def fails(self, call: Callable[[], object]) -> tandem.TandemError:
        with self.assertRaises(tandem.TandemError) as caught:
            call()
        return caught.exception

    def test_answers(self) -> None:
        c = self.client(URL)
        answer = c.retrieve(tandem.RetrieveRequest(user_id=USER, k=3, attributes=["name"]), request_id="shop 7")
        self.assertEqual(len(answer.candidates), 3)
        self.assertEqual(answer.request_id, "shop 7")
        self.assertTrue(answer.candidates[0].attributes["name"].keyword)
        vectors = c.get_embeddings(tandem.GetEmbeddingsRequest(ids=[answer.candidates[0].id, "nothing"]))
        self.assertEqual(len(vectors.embeddings[0].values), 16)
        self.assertEqual(list(vectors.unknown_ids), ["nothing"])
        by_vector = c.retrieve(tandem.RetrieveRequest(vector=vectors.embeddings[0].values, k=1, filter="price_usd >= 0.0"))
        self.assertEqual(len(by_vector.candidates), 1)

    def test_ranker(self) -> None:
        self.assertEqual(ranker.rank(URL), (90, 10))

    def test_errors(self) -> None:
        c = self.client(URL)
        for request, code, reason, fields in [
            (pb.RetrieveRequest(user_id=USER), "invalid_argument", tandem.Reason.RULE_BROKEN, ["k"]),
            (pb.RetrieveRequest(user_id=USER, k=1, filter="price <"), "invalid_argument", tandem.Reason.FILTER_INVALID, ["filter"]),
            (pb.RetrieveRequest(vector=[1, 2], k=1), "invalid_argument", tandem.Reason.VECTOR_INVALID, ["vector"]),
            (pb.RetrieveRequest(user_id="nobody", k=1), "not_found", tandem.Reason.ENTITY_UNKNOWN, []),
            (pb.RetrieveRequest(user_id=USER, k=1, model_version="none"), "failed_precondition", tandem.Reason.MODEL_VERSION_NOT_SERVED, []),
        ]:
            call = self.fails(lambda request=request: c.retrieve(request, request_id="shop 7"))
            item = c.batch_retrieve([request], request_id="shop 7")[0].error
            for e in (call, item):
                self.assertEqual((e.code, e.reason, [f.path for f in e.fields]), (code, reason, fields))
                self.assertEqual(e.message, call.message)
                self.assertTrue(e.request_id.startswith("shop 7"))
                self.assertEqual(e.mistake, code != "not_found")
            self.assertEqual(call.tries, 1)
            if code == "not_found":
                self.assertEqual(call.missing, tandem.Missing("user", "nobody"))
                self.assertEqual(item.missing, call.missing)

    def test_faults(self) -> None:
        proxy = b"<html>a proxy</html>"
        for name, fault, code, reason in [
            ("503", http(503, proxy), "unavailable", tandem.Reason.UNEXPLAINED),
            ("429", http(429, proxy, retry_after="7"), "resource_exhausted", tandem.Reason.UNEXPLAINED),
            ("reset", reset, "unavailable", tandem.Reason.UNREACHABLE),
            ("cut", cut, "unavailable", tandem.Reason.UNREACHABLE),
            ("wrong bytes", http(200, b"\xff\xff\xff", "application/proto"), "unavailable", tandem.Reason.ANSWER_MALFORMED),
            ("another type", http(200, proxy), "unavailable", tandem.Reason.ANSWER_MALFORMED),
            ("overloaded", refuse("resource_exhausted", "OVERLOADED", 429), "resource_exhausted", tandem.Reason.OVERLOADED),
            ("stale server", refuse("unavailable", "LIVE_STALE", 503), "unavailable", tandem.Reason.LIVE_STALE),
        ]:
            with self.subTest(name):
                broken = self.broken(fault)
                e = self.fails(lambda: self.client(broken.address, retries=0).retrieve(pb.RetrieveRequest(user_id=USER, k=1)))
                self.assertEqual((e.code, e.reason, e.tries), (code, reason, 1), e)
                if name == "429":
                    self.assertEqual(e.retry_after, 7.0)
                both = self.client(broken.address, URL, retries=1)
                for _ in range(10):
                    both.retrieve(pb.RetrieveRequest(user_id=USER, k=1))
                self.assertLess(broken.calls, 10)

    def test_not_repeated_and_budget(self) -> None:
        broken = self.broken(refuse("internal", "INTERNAL", 500))
        e = self.fails(lambda: self.client(broken.address).retrieve(pb.RetrieveRequest(user_id=USER, k=1)))
        self.assertEqual((e.reason, e.request_id, broken.calls), (tandem.Reason.INTERNAL, "shop 7", 1))
        broken.answer = refuse("weird", "NEWER", 500)
        e = self.fails(lambda: self.client(broken.address).retrieve(pb.RetrieveRequest(user_id=USER, k=1)))
        self.assertEqual((e.reason, e.raw_reason), (tandem.Reason.UNEXPLAINED, "NEWER"))
        broken.answer, broken.calls = refuse("unavailable", "STOPPING", 503), 0
        c, start = self.client(broken.address), time.monotonic()
        for _ in range(50):
            self.fails(lambda: c.retrieve(pb.RetrieveRequest(user_id=USER, k=1)))
        self.assertLessEqual(broken.calls, 50 + 10 + 5 + (time.monotonic() - start) / 2)
        self.assertGreater(broken.calls, 55)

    def test_stale(self) -> None:
        old = self.broken(good(5.9))
        c = self.client(old.address, deadline=1.0, retries=0)
        c.retrieve(pb.RetrieveRequest(user_id=USER, k=1))
        old.answer = good(6.1)
        e = self.fails(lambda: c.retrieve(pb.RetrieveRequest(user_id=USER, k=1)))
        self.assertIs(e.reason, tandem.Reason.ANSWER_STALE)
        c.retrieve(pb.RetrieveRequest(user_id=USER, k=1), deadline=3.0)
        self.client(old.address, fence=0.0).retrieve(pb.RetrieveRequest(user_id=USER, k=1))

    def test_deadline(self) -> None:
        ended = threading.Event()
        self.addCleanup(ended.set)
        slow = self.broken(lambda *_: (ended.wait(30), None)[1])
        start = time.monotonic()
        e = self.fails(lambda: self.client(slow.address).retrieve(pb.RetrieveRequest(user_id=USER, k=1), deadline=0.1))
        self.assertIs(e.reason, tandem.Reason.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - start, 10)
        e = self.fails(lambda: self.client("127.0.0.1:1", retries=0).retrieve(pb.RetrieveRequest(user_id=USER, k=1)))
        self.assertIs(e.reason, tandem.Reason.UNREACHABLE)

    def test_threads(self) -> None:
        c = self.client(URL)
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda i: c.retrieve(pb.RetrieveRequest(user_id=f"user-{i % 90:07d}", k=5), request_id=str(i)).request_id, range(200)))
        self.assertEqual(got, [str(i) for i in range(200)])
        c.close()
        self.assertIs(self.fails(lambda: c.retrieve(pb.RetrieveRequest(user_id=USER, k=1))).reason, tandem.Reason.CLIENT_CLOSED)

    def test_headers_and_token_file(self) -> None:
        server = self.broken(good(0))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "token")
            path.write_text("first\n")
            c = self.client(server.address, token_file=path, priority="batch")
            c.retrieve(pb.RetrieveRequest(user_id=USER, k=1))
            self.assertEqual(server.headers[0]["authorization"], "Bearer first")
            self.assertEqual(server.headers[0]["tandem-priority"], "batch")
            self.assertNotIn("gzip", server.headers[0].get("accept-encoding", ""))
            given = good(0)

            def check(h: BaseHTTPRequestHandler, body: bytes) -> None:
                (given if h.headers["authorization"] == "Bearer second" else refuse("unauthenticated", "TOKEN_INVALID", 401))(h, body)

            server.answer = check
            e = self.fails(lambda: c.retrieve(pb.RetrieveRequest(user_id=USER, k=1)))
            self.assertIs(e.reason, tandem.Reason.TOKEN_INVALID)
            path.write_text("second")
            c.retrieve(pb.RetrieveRequest(user_id=USER, k=1))

    def test_options(self) -> None:
        for addresses, options, want in [
            ([], {}, "there are none"),
            (["a:1", "ftp://a"], {}, r"addresses\[1\] is 'ftp://a'; accepted"),
            (["http://user:secret@a"], {}, "accepted: http://HOST:PORT"),
            (["10.0.0.1:80"], {"token": "t"}, "in clear text"),
            (["a:1"], {"token": "two words"}, "the token is not one"),
            (["a:1"], {"deadline": 0}, "deadline is 0; accepted"),
            (["a:1"], {"retries": float("nan")}, "retries is nan"),
            (["a:1"], {"priority": "high"}, "accepted: 'live'"),
            (["a:1"], {"cert": "x"}, "cert and key go together"),
        ]:
            with self.assertRaisesRegex(ValueError, want) as caught:
                tandem.Client(addresses, **options)
            self.assertNotIn("secret", str(caught.exception))

    def test_code_is_generated_from_the_contract(self) -> None:
        """The contract but for its rules, which are the server's."""
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(os.environ["TANDEM_DESCRIPTORS"]).read_bytes())
        want = next(f for f in files.file if f.name == "tandem/v1/retrieval.proto")
        got = descriptor_pb2.FileDescriptorProto()
        pb.DESCRIPTOR.CopyToProto(got)
        for of in (want, got):
            del of.dependency[:]
            of.ClearField("source_code_info")
            of.DiscardUnknownFields()  # of the tool that has made the set
            for message in of.message_type:
                plain(message)
        self.assertEqual(got, want, "run: .ci/run generate")

    def test_reasons_are_those_of_the_page(self) -> None:
        page = (DOCS / "errors.md").read_text()
        rows = re.findall(r"^\| `[a-z_]+` \| (.*) \|$", page, re.M)
        listed = {r for row in rows for r in re.findall(r"`([A-Z_]+)`", row)}
        own = {"UNREACHABLE", "ANSWER_MALFORMED", "ANSWER_STALE", "UNEXPLAINED", "CLIENT_CLOSED"}
        self.assertEqual({r.value for r in tandem.Reason}, listed | own)


if __name__ == "__main__":
    unittest.main()
