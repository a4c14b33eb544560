"""A client of Tandem servers for rankers in Python, safe for use by many threads."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import stat
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from connectrpc.client import ConnectClientSync, ResponseMetadata
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_binary_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from google.rpc import error_details_pb2
from pyqwest import HTTPVersion, SyncClient, SyncHTTPTransport

from tandem.errors import ELSEWHERE, OVERLOAD, Reason, TandemError, item_error, take_detail
from tandem.v1 import retrieval_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message

_MAX_TRIES = 4
_LOSSES = 3  # in a row, before a server is left alone
_LEAVE_FIRST, _LEAVE_MOST = 0.5, 15.0
_RAMP = 5.0  # seconds until a server that is back is given as much as others
_BUDGET_MOST, _BUDGET_PER_SECOND = 10.0, 0.5
_LOOK_EVERY = 5.0
_TOKEN_EVERY = 3.0
_UNKNOWN_LATENCY = 0.0002
_MAX_ANSWER = 64 << 20

_DETAILS: dict[str, Callable[[], Message]] = {
    "google.rpc.ErrorInfo": error_details_pb2.ErrorInfo,
    "google.rpc.BadRequest": error_details_pb2.BadRequest,
    "google.rpc.ResourceInfo": error_details_pb2.ResourceInfo,
    "google.rpc.RetryInfo": error_details_pb2.RetryInfo,
}

T = TypeVar("T")


def _method(name: str, request: type[Any], answer: type[Any]) -> MethodInfo[Any, Any]:
    return MethodInfo(
        name=name, service_name="tandem.v1.RetrievalService", input=request, output=answer,
        idempotency_level=IdempotencyLevel.NO_SIDE_EFFECTS, stream_type=StreamType.UNARY,
    )


_RETRIEVE = _method("Retrieve", pb.RetrieveRequest, pb.RetrieveResponse)
_BATCH = _method("BatchRetrieve", pb.BatchRetrieveRequest, pb.BatchRetrieveResponse)
_EMBEDDINGS = _method("GetEmbeddings", pb.GetEmbeddingsRequest, pb.GetEmbeddingsResponse)


@dataclass(frozen=True)
class Result:
    """The outcome of one query of a batch: an answer or an error."""

    response: pb.RetrieveResponse | None
    error: TandemError | None


@dataclass
class _Server:
    """A server as the client sees it; guarded by the client's lock."""

    name: str
    rpc: ConnectClientSync
    in_flight: int = 0
    latency: float = 0.0
    seen: float = 0.0
    losses: int = 0
    left: int = 0
    until: float = 0.0
    back: float = 0.0  # when it has answered again after it was left alone

    def rank(self, now: float) -> float:
        if self.left or (self.back and now - self.back < _RAMP):
            share = 0.05 if self.left else max((now - self.back) / _RAMP, 0.05)
            if random.random() > share:
                return float("inf")
        latency: float = self.latency or _UNKNOWN_LATENCY
        latency = max(latency * 0.5 ** max(now - self.seen, 0.0), _UNKNOWN_LATENCY)  # it may be faster by now
        return latency * (1 + self.in_flight) ** 2

    def end(self, now: float, took: float, how: str) -> None:
        self.in_flight -= 1
        if how != "answered":  # what is quick because it fails must not draw calls
            took = max(took, 4 * max(self.latency, _UNKNOWN_LATENCY))
        self.latency = took if not self.latency else 0.9 * self.latency + 0.1 * took
        self.seen = now
        if how != "failed":
            if self.left:
                self.back = now
            self.losses = self.left = 0
            return
        self.losses += 1
        if self.losses >= _LOSSES and now >= self.until:
            wait = min(_LEAVE_FIRST * 2**self.left, _LEAVE_MOST)
            self.until, self.left, self.losses = now + wait * random.uniform(0.75, 1.25), self.left + 1, _LOSSES - 1


@dataclass
class _Token:
    """The token to send, from a file that is read again when it changes."""

    text: str | None
    path: str | None
    stamp: tuple[int, int] | None = None
    next_look: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, now: float) -> bool:
        """Reads the file if it has changed, and returns whether the token has."""
        if self.path is None:
            return False
        with self.lock:
            self.next_look = now + _TOKEN_EVERY
            info = os.stat(self.path)
            if not stat.S_ISREG(info.st_mode):  # it may block whoever reads it
                raise ValueError(f"token file: {self.path} is no regular file")
            stamp = (info.st_mtime_ns, info.st_size)
            if stamp == self.stamp:
                return False
            with open(self.path, encoding="utf-8", errors="replace") as f:
                text = f.read(64 << 10).strip()
            if not _is_token(text):
                raise ValueError(f"token file: {self.path} does not have one token, alone")
            self.stamp = stamp
            changed, self.text = text != self.text, text
            return changed


def _is_token(text: str) -> bool:
    return text != "" and all("!" <= c <= "~" for c in text)


class Client:
    """Asks Tandem servers. A process needs one; close it, or use it in a with statement.

    addresses are URLs or HOST:PORT; the IP addresses of a host are looked up again all the time, and each is a
    server. deadline is how many seconds a call takes at most that does not say. fence is that of the servers, in
    seconds: an answer that may lack takedowns of longer than the fence and the deadline is dropped; 0 takes all.
    retries is how many calls may be repeated, as a share of all. ca, cert and key are paths of PEM files.
    """

    def __init__(
        self,
        addresses: str | Iterable[str],
        *,
        deadline: float = 1.0,
        fence: float = 5.0,
        retries: float = 0.1,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        token_in_clear: bool = False,
        priority: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
    ) -> None:
        if not deadline > 0:
            raise ValueError(f"deadline is {deadline}; accepted: more than 0 seconds")
        if not fence >= 0:
            raise ValueError(f"fence is {fence}; accepted: more than 0 seconds, or 0 for none")
        if not 0 <= retries <= 1:
            raise ValueError(f"retries is {retries}; accepted: 0 to 1")
        if priority not in (None, "live", "batch", "audit"):
            raise ValueError(f"priority is {priority!r:.200}; accepted: 'live', 'batch', 'audit'")
        if token is not None and token_file is not None:
            raise ValueError("there is a token and a file of one; accepted: one of them")
        if token is not None and not _is_token(token):
            raise ValueError("the token is not one; accepted: visible characters of ASCII, without spaces")
        if (cert is None) != (key is None):
            raise ValueError("cert and key go together, and one is missing")
        self._tls: dict[str, Any] = {"tls_include_system_certs": ca is None}
        for name, path in (("tls_ca_cert", ca), ("tls_cert", cert), ("tls_key", key)):
            if path is not None:
                with open(path, "rb") as f:
                    self._tls[name] = f.read()
        self._deadline, self._fence, self._share, self._priority = deadline, fence, retries, priority
        self._token = _Token(token, None if token_file is None else os.fspath(token_file))
        self._token.look(time.monotonic())
        secure = ca is not None or cert is not None
        self._urls = [_parse(i, text, secure) for i, text in enumerate([addresses] if isinstance(addresses, str) else addresses)]
        if not self._urls:
            raise ValueError("addresses: there are none; accepted: URLs or HOST:PORT")
        self._clear = token_in_clear or (token is None and token_file is None)
        for url in self._urls:
            self._check_clear(url, urlsplit(url).hostname or "")
        self._lock = threading.Lock()
        self._servers: dict[str, _Server] = {}
        self._budget, self._budget_at = _BUDGET_MOST, time.monotonic()
        self._failed: str = ""
        self._ended = threading.Event()
        self._known = threading.Event()
        self._follower: threading.Thread | None = None
        if all(_is_fixed(urlsplit(u).hostname or "") for u in self._urls):
            self._look()
        else:
            self._follower = threading.Thread(target=self._follow, name="tandem-addresses", daemon=True)
            self._follower.start()

    def close(self) -> None:
        """Lets go of connections. Calls that are under way go on; further ones fail."""
        self._ended.set()
        with self._lock:
            self._servers = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def retrieve(self, request: pb.RetrieveRequest, *, deadline: float | None = None, request_id: str | None = None) -> pb.RetrieveResponse:
        """Returns the best candidates for one query."""
        def take(answer: pb.RetrieveResponse, call: _Call) -> pb.RetrieveResponse:
            self._fresh(answer, call)
            return answer

        return self._do(_RETRIEVE, request, deadline, request_id, take)

    def batch_retrieve(
        self, requests: Iterable[pb.RetrieveRequest], *, deadline: float | None = None, request_id: str | None = None
    ) -> list[Result]:
        """Answers up to 256 queries in one call: a result for each, in their order."""
        message = pb.BatchRetrieveRequest(requests=requests)

        def take(answer: pb.BatchRetrieveResponse, call: _Call) -> list[Result]:
            if len(answer.results) != len(message.requests):
                raise call.error("unavailable", Reason.ANSWER_MALFORMED, f"the answer has {len(answer.results)} results for {len(message.requests)} requests")
            out: list[Result] = []
            for i, r in enumerate(answer.results):
                if r.WhichOneof("outcome") == "response":
                    try:
                        self._fresh(r.response, call)
                    except TandemError as e:
                        out.append(Result(None, e))
                    else:
                        out.append(Result(r.response, None))
                elif r.WhichOneof("outcome") == "error":
                    out.append(Result(None, item_error(r.error, call.server, call.tries)))
                else:
                    raise call.error("unavailable", Reason.ANSWER_MALFORMED, f"the result of requests[{i}] has neither an answer nor an error")
            stale = [r.error for r in out if r.error is not None and r.error.reason is Reason.ANSWER_STALE]
            if stale and len(stale) == len(out):
                raise stale[0]
            return out

        return self._do(_BATCH, message, deadline, request_id, take)

    def get_embeddings(
        self, request: pb.GetEmbeddingsRequest, *, deadline: float | None = None, request_id: str | None = None
    ) -> pb.GetEmbeddingsResponse:
        """Returns vectors of one tower by id."""
        def take(answer: pb.GetEmbeddingsResponse, call: _Call) -> pb.GetEmbeddingsResponse:
            self._fresh(answer, call)
            return answer

        return self._do(_EMBEDDINGS, request, deadline, request_id, take)

    # Where servers are.

    def _follow(self) -> None:
        while not self._ended.is_set():
            self._look()
            self._ended.wait(_LOOK_EVERY if self._servers else 0.2)

    def _look(self) -> None:
        """Looks up where servers are. A failure leaves those that are known."""
        try:
            found: dict[str, tuple[str, str, str | None]] = {}
            for url in self._urls:
                host = urlsplit(url).hostname or ""
                if _is_fixed(host):
                    found[url] = (urlsplit(url).netloc, url, None)
                    continue
                port = urlsplit(url).port or (443 if url.startswith("https") else 80)
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                ips = {str(i[4][0]) for i in infos if i[0] == socket.AF_INET} or {str(i[4][0]) for i in infos}
                for ip in ips:
                    self._check_clear(url, ip)
                    found[f"{url} {ip}"] = (f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}", url, ip)
        except (OSError, ValueError) as e:
            self._failed = f"look up where servers are: {e}"
        else:
            with self._lock:
                kept = {k: s for k, s in self._servers.items() if k in found}
                for k, (name, url, at) in found.items():
                    if k not in kept and not self._ended.is_set():
                        kept[k] = _Server(name, self._connect(url, at))
                self._servers = kept
        finally:
            self._known.set()

    def _connect(self, url: str, ip: str | None) -> ConnectClientSync:
        host = urlsplit(url).hostname or ""
        transport = SyncHTTPTransport(
            http_version=HTTPVersion.HTTP1, connect_timeout=1.0, pool_idle_timeout=20.0, follow_redirects=False,
            enable_gzip=False, enable_brotli=False, enable_zstd=False,
            dns_overrides={host: [ip]} if ip else None, **self._tls,
        )
        return ConnectClientSync(
            url, codec=google_protobuf_binary_codec(), accept_compression=(), send_compression=None,
            read_max_bytes=_MAX_ANSWER, http_client=SyncClient(transport),
        )

    def _check_clear(self, url: str, host: str) -> None:
        if self._clear or url.startswith("https://"):
            return
        if host == "localhost":
            return
        try:
            if ipaddress.ip_address(host).is_loopback:
                return
        except ValueError:
            return  # a name, which is looked up first
        raise ValueError(f"{url:.200} is where a token would be sent in clear text; accepted: https://, this machine, or token_in_clear")

    # Calls.

    def _do(self, method: MethodInfo[Any, Any], request: Message, deadline: float | None, request_id: str | None, take: Callable[[Any, _Call], T]) -> T:
        allowed = self._deadline if deadline is None else deadline
        call = _Call(allowed, time.monotonic() + allowed)
        if self._ended.is_set():
            raise call.error("canceled", Reason.CLIENT_CLOSED, "the client is closed")
        if not self._known.wait(max(allowed, 0)):
            raise call.error("deadline_exceeded", Reason.DEADLINE_EXCEEDED, "where servers are was not known before the deadline")
        with self._lock:
            self._budget = min(self._budget + self._share, _BUDGET_MOST)
        last: TandemError | None = None
        asked: dict[int, float] = {}  # when a server may be asked again
        while True:
            server, wait = self._pick(asked)
            if last is not None:
                if server is None or time.monotonic() + wait >= call.end or not self._spend():
                    raise last
                if wait > 0 and self._ended.wait(wait):
                    raise last
            if server is None:
                raise call.error("unavailable", Reason.UNREACHABLE, "no server is known" + (f": {self._failed}" if self._failed else ""))
            try:
                return self._one(server, method, request, request_id, call, take)
            except TandemError as e:
                last = e
                if call.tries >= _MAX_TRIES or not self._again(e):
                    raise
                back = 0.005 * 2 ** (call.tries - 1) * random.uniform(0.5, 1.5)
                if e.retry_after:  # all who were refused come back at different times
                    back = e.retry_after * random.uniform(1.0, 1.1)
                if e.reason in (Reason.TOKEN_INVALID, Reason.TOKEN_EXPIRED):
                    back = 0.0
                asked[id(server)] = time.monotonic() + back

    def _again(self, e: TandemError) -> bool:
        if e.reason in (Reason.TOKEN_INVALID, Reason.TOKEN_EXPIRED):
            try:
                return self._token.look(time.monotonic())
            except (OSError, ValueError):
                return False
        if e.reason is Reason.UNEXPLAINED and e.raw_reason == Reason.UNEXPLAINED.value:
            return e.code in ("unavailable", "resource_exhausted")
        return e.reason in ELSEWHERE

    def _pick(self, asked: Mapping[int, float]) -> tuple[_Server | None, float]:
        now = time.monotonic()
        with self._lock:
            new = [s for s in self._servers.values() if id(s) not in asked]
            well = [s for s in new if now >= s.until]
            if len(well) > 2:
                well = random.sample(well, 2)
            if well:
                random.shuffle(well)
                return min(well, key=lambda s: s.rank(now)), 0.0
            if new:
                return min(new, key=lambda s: s.until), 0.0
            old = [(max(asked[id(s)] - now, 0.0), i, s) for i, s in enumerate(self._servers.values())]
            if not old:
                return None, 0.0
            wait, _, server = min(old)
            return server, wait

    def _spend(self) -> bool:
        if self._share == 0:
            return False
        now = time.monotonic()
        with self._lock:
            self._budget = min(self._budget + _BUDGET_PER_SECOND * (now - self._budget_at), _BUDGET_MOST)
            self._budget_at = now
            if self._budget < 1:
                return False
            self._budget -= 1
            return True

    def _one(self, server: _Server, method: MethodInfo[Any, Any], request: Message, request_id: str | None, call: _Call, take: Callable[[Any, _Call], T]) -> T:
        call.tries += 1
        call.server = server.name
        call.start = time.monotonic()
        if self._token.path is not None and call.start >= self._token.next_look:
            try:
                self._token.look(call.start)
            except (OSError, ValueError):
                pass  # the one before is in use; a server that refuses it says so
        headers: dict[str, str] = {}
        if self._token.text is not None:
            headers["authorization"] = "Bearer " + self._token.text
        if self._priority is not None:
            headers["tandem-priority"] = self._priority
        if request_id is not None:
            headers["x-request-id"] = request_id
        with self._lock:
            server.in_flight += 1
        how = "failed"
        try:
            with ResponseMetadata() as got:
                try:
                    answer = server.rpc.execute_unary(
                        request=request, method=method, headers=headers, timeout_ms=max(int((call.end - call.start) * 1000), 0)
                    )
                except ConnectError as e:
                    raise self._error(e, got, call) from e
            result = take(answer, call)
            how = "answered"
            return result
        except TandemError as e:
            if e.reason in OVERLOAD or (e.reason is Reason.UNEXPLAINED and e.retry_after):
                how = "refused"
            elif e.reason not in ELSEWHERE and not (e.reason is Reason.UNEXPLAINED and e.code == "unavailable"):
                how = "answered"
            if e.reason is Reason.DEADLINE_EXCEEDED and not e.request_id and call.allowed >= 0.5:
                how = "failed"  # it stands still
            raise
        finally:
            with self._lock:
                server.end(time.monotonic(), time.monotonic() - call.start, how)

    def _error(self, e: ConnectError, got: ResponseMetadata, call: _Call) -> TandemError:
        """Returns the error of one try."""
        status, headers = got.http_status, got.headers
        if status is None:  # nothing has arrived
            if e.code is Code.DEADLINE_EXCEEDED:
                return call.error("deadline_exceeded", Reason.DEADLINE_EXCEEDED, "the deadline passed before there was an answer")
            return call.error("unavailable", Reason.UNREACHABLE, e.message)
        after = headers.get("retry-after", "")
        retry_after = float(after) if after.isdecimal() and len(after) < 6 else 0.0
        request_id = unquote(headers.get("x-request-id", ""))
        if status == 200 or e.code is Code.DEADLINE_EXCEEDED and not e.details:
            if e.code is Code.DEADLINE_EXCEEDED:
                return call.error("deadline_exceeded", Reason.DEADLINE_EXCEEDED, "the deadline passed before all of the answer had arrived")
            if isinstance(e.__cause__, Exception) and not isinstance(e.__cause__, (ValueError, TypeError)) and "decode" not in type(e.__cause__).__name__.lower():
                return call.error("unavailable", Reason.UNREACHABLE, e.message)
            return call.error("unavailable", Reason.ANSWER_MALFORMED, e.message)
        said: dict[str, Any] = {"reason": Reason.UNEXPLAINED, "retry_after": retry_after}
        for detail in e.details:
            kind = _DETAILS.get(detail.type_name)
            if kind is None:
                continue
            message = kind()
            try:
                message.ParseFromString(detail.message_bytes)
            except Exception:  # others may send what is none of ours
                continue
            take_detail(said, message)
        code = e.code.value
        text = e.message
        if "raw_reason" not in said:
            code = "resource_exhausted" if status == 429 else code
            text = f"the answer is HTTP {status}, and not of a Tandem server: {text}"
        return call.error(code, said.pop("reason"), text, request_id=request_id, **said)

    def _fresh(self, answer: pb.RetrieveResponse | pb.GetEmbeddingsResponse, call: _Call) -> None:
        """Raises for an answer that is too old; the age of its proof counts from when the try began."""
        if not self._fence or not answer.HasField("staleness"):
            return
        age = _seconds(answer.staleness) + time.monotonic() - call.start
        if age > self._fence + call.allowed:
            raise call.error(
                "unavailable", Reason.ANSWER_STALE,
                f"the answer may lack takedowns of the last {age:.3f} s; accepted: up to the fence of {self._fence:g} s and the {call.allowed:g} s that the call had",
                request_id=answer.request_id,
            )


@dataclass
class _Call:
    """One call, by one or several tries."""

    allowed: float
    end: float
    start: float = 0.0
    server: str = ""
    tries: int = 0

    def error(self, code: str, reason: Reason, message: str, **more: Any) -> TandemError:
        return TandemError(code, reason, message, server=self.server, tries=self.tries, **more)


def _seconds(d: Duration) -> float:
    return float(d.seconds + d.nanos / 1e9)


def _is_fixed(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _parse(i: int, text: str, secure: bool) -> str:
    full = text if "://" in text else ("https://" if secure else "http://") + text
    shown = "..." + text[text.rindex("@"):] if "@" in text else text  # what is before may be a password
    try:
        u = urlsplit(full)
        ok = u.scheme in ("http", "https") and bool(u.hostname) and "@" not in u.netloc and not u.query and not u.fragment and u.port != 0
    except ValueError:
        ok = False
    if not ok:
        raise ValueError(f"addresses[{i}] is {shown[:200]!r}; accepted: http://HOST:PORT, https://HOST:PORT or HOST:PORT")
    return full.rstrip("/")
