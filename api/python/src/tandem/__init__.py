"""Tandem: candidates for rankers, and towers for builds."""

from tandem.client import Client, Result
from tandem.errors import Field, Missing, Reason, TandemError
from tandem.v1.retrieval_pb2 import (
    AtMost,
    Candidate,
    GetEmbeddingsRequest,
    GetEmbeddingsResponse,
    LivePosition,
    RetrieveRequest,
    RetrieveResponse,
    Vector,
)

__all__ = [
    "AtMost",
    "Candidate",
    "Client",
    "Field",
    "GetEmbeddingsRequest",
    "GetEmbeddingsResponse",
    "LivePosition",
    "Missing",
    "Reason",
    "Result",
    "RetrieveRequest",
    "RetrieveResponse",
    "TandemError",
    "Vector",
]
