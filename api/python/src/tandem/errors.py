"""Errors of calls, as the server's details say them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.rpc import error_details_pb2

if TYPE_CHECKING:
    from tandem.v1 import retrieval_pb2

DOMAIN = "tandem"
"""The domain of the reasons of Tandem's servers."""

_MAX_MESSAGE = 4096


class Reason(str, enum.Enum):
    """Why a call failed, for programs. The last ones are the client's own."""

    RULE_BROKEN = "RULE_BROKEN"
    VECTOR_INVALID = "VECTOR_INVALID"
    ID_INVALID = "ID_INVALID"
    ATTRIBUTE_INVALID = "ATTRIBUTE_INVALID"
    FILTER_INVALID = "FILTER_INVALID"
    BINDING_INVALID = "BINDING_INVALID"
    SEGMENT_INVALID = "SEGMENT_INVALID"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"
    ANSWER_TOO_LARGE = "ANSWER_TOO_LARGE"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    MESSAGE_MALFORMED = "MESSAGE_MALFORMED"
    HEADER_INVALID = "HEADER_INVALID"
    CONTENT_TYPE_UNKNOWN = "CONTENT_TYPE_UNKNOWN"
    EVENT_INVALID = "EVENT_INVALID"
    OUTCOME_INVALID = "OUTCOME_INVALID"
    SNAPSHOT_AMBIGUOUS = "SNAPSHOT_AMBIGUOUS"
    ENTITY_UNKNOWN = "ENTITY_UNKNOWN"
    SNAPSHOT_UNKNOWN = "SNAPSHOT_UNKNOWN"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"
    MODEL_VERSION_NOT_SERVED = "MODEL_VERSION_NOT_SERVED"
    FALLBACK_UNAVAILABLE = "FALLBACK_UNAVAILABLE"
    PAGE_TOKEN_GONE = "PAGE_TOKEN_GONE"
    LIVE_LOG_UNKNOWN = "LIVE_LOG_UNKNOWN"
    GATES_FAILED = "GATES_FAILED"
    CHANGE_REFUSED = "CHANGE_REFUSED"
    NOTHING_RELEASED = "NOTHING_RELEASED"
    RELEASE_UNREADABLE = "RELEASE_UNREADABLE"
    RELEASE_LOG_LOST = "RELEASE_LOG_LOST"
    RELEASE_LOG_BROKEN = "RELEASE_LOG_BROKEN"
    DIFF_UNAVAILABLE = "DIFF_UNAVAILABLE"
    EVENT_CONFLICT = "EVENT_CONFLICT"
    RELEASE_CONFLICT = "RELEASE_CONFLICT"
    TOKEN_MISSING = "TOKEN_MISSING"
    TOKEN_INVALID = "TOKEN_INVALID"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"
    SCOPE_MISSING = "SCOPE_MISSING"
    WRITES_OFF = "WRITES_OFF"
    OUTCOMES_OFF = "OUTCOMES_OFF"
    PATH_UNKNOWN = "PATH_UNKNOWN"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    ENCODING_UNKNOWN = "ENCODING_UNKNOWN"
    COVERAGE_TOO_LOW = "COVERAGE_TOO_LOW"
    LIVE_STALE = "LIVE_STALE"
    LIVE_BEHIND = "LIVE_BEHIND"
    LIVE_UNCONFIRMED = "LIVE_UNCONFIRMED"
    OUTCOMES_UNCONFIRMED = "OUTCOMES_UNCONFIRMED"
    LIVE_LOG_BROKEN = "LIVE_LOG_BROKEN"
    RELEASE_UNCONFIRMED = "RELEASE_UNCONFIRMED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STORE_BUSY = "STORE_BUSY"
    NOT_READY = "NOT_READY"
    STOPPING = "STOPPING"
    SHARD_UNREADABLE = "SHARD_UNREADABLE"
    SNAPSHOT_DAMAGED = "SNAPSHOT_DAMAGED"
    OVERLOADED = "OVERLOADED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    FRESH_FULL = "FRESH_FULL"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CALLER_GONE = "CALLER_GONE"
    INTERNAL = "INTERNAL"

    UNREACHABLE = "UNREACHABLE"
    """No server is known, or the connection failed before there was an answer."""
    ANSWER_MALFORMED = "ANSWER_MALFORMED"
    """What came back is no answer of a Tandem server."""
    ANSWER_STALE = "ANSWER_STALE"
    """The answer was older than the fence and the deadline, and was dropped."""
    UNEXPLAINED = "UNEXPLAINED"
    """An error without a reason of Tandem, as proxies make them, or of a newer server."""
    CLIENT_CLOSED = "CLIENT_CLOSED"


ELSEWHERE = frozenset({
    Reason.UNREACHABLE, Reason.ANSWER_MALFORMED, Reason.ANSWER_STALE, Reason.COVERAGE_TOO_LOW, Reason.LIVE_STALE,
    Reason.LIVE_LOG_BROKEN, Reason.STORE_UNAVAILABLE, Reason.STORE_BUSY, Reason.NOT_READY, Reason.STOPPING,
    Reason.SHARD_UNREADABLE, Reason.SNAPSHOT_DAMAGED, Reason.OVERLOADED, Reason.QUOTA_EXCEEDED,
})
"""The reasons for which another server may have an answer where one has none."""

OVERLOAD = frozenset({Reason.OVERLOADED, Reason.QUOTA_EXCEEDED})


@dataclass(frozen=True)
class Field:
    """A field of a request that is wrong."""

    path: str
    """Where it is, such as "at_most[0].n"; empty for the request as a whole."""
    description: str


@dataclass(frozen=True)
class Missing:
    """Something that was not found."""

    type: str
    """"user", "app", "snapshot" or "service"."""
    name: str


class TandemError(Exception):
    """Why a call, or one query of a batch, has no answer."""

    def __init__(
        self,
        code: str,
        reason: Reason,
        message: str,
        *,
        raw_reason: str = "",
        fields: tuple[Field, ...] = (),
        missing: Missing | None = None,
        retry_after: float = 0.0,
        request_id: str = "",
        server: str = "",
        tries: int = 0,
    ) -> None:
        self.code = code
        """The code in Connect and gRPC, such as "not_found"."""
        self.reason = reason
        self.raw_reason = raw_reason or reason.value
        """The reason as the server has sent it: a newer one may have others."""
        self.message = message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "..."
        self.fields = fields
        self.missing = missing
        self.retry_after = retry_after
        """After how many seconds the server has asked to be tried again; 0 if it has not said."""
        self.request_id = request_id
        """What the server's log calls the request; empty if none has answered."""
        self.server = server
        self.tries = tries
        super().__init__(self.message)

    @property
    def mistake(self) -> bool:
        """Whether the request is wrong, or not allowed: it fails again until it, or what is served, is changed."""
        return self.code in {"invalid_argument", "failed_precondition", "unauthenticated", "permission_denied", "unimplemented"}

    @property
    def temporary(self) -> bool:
        """Whether the same request may have an answer later."""
        return self.code in {"unavailable", "resource_exhausted", "deadline_exceeded"}

    def __str__(self) -> str:
        more = [self.raw_reason]
        if self.server:
            more.append(f"server {self.server}")
        if self.request_id:
            more.append(f"request {self.request_id!r}")
        if self.tries > 1:
            more.append(f"{self.tries} tries")
        return f"{self.code}: {self.message} ({', '.join(more)})"


def take_detail(into: dict[str, Any], detail: object) -> None:
    """Adds what a detail of an error says to arguments of TandemError."""
    if isinstance(detail, error_details_pb2.ErrorInfo):
        if detail.domain == DOMAIN and detail.reason:
            into["raw_reason"] = detail.reason
            try:
                into["reason"] = Reason(detail.reason)
            except ValueError:
                into["reason"] = Reason.UNEXPLAINED
    elif isinstance(detail, error_details_pb2.BadRequest):
        into["fields"] = tuple(Field(v.field, v.description) for v in detail.field_violations)
    elif isinstance(detail, error_details_pb2.ResourceInfo):
        into["missing"] = Missing(detail.resource_type, detail.resource_name)
    elif isinstance(detail, error_details_pb2.RetryInfo):
        into["retry_after"] = max(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9, 0.0)


def item_error(item: retrieval_pb2.ItemError, server: str, tries: int) -> TandemError:
    """Returns the error of a query of a batch."""
    said: dict[str, Any] = {"reason": Reason.UNEXPLAINED}
    for name in ("info", "bad_request", "resource", "retry"):
        if item.HasField(name):
            take_detail(said, getattr(item, name))
    return TandemError(item.code or "unknown", message=item.message, request_id=item.request_id, server=server, tries=tries, **said)
