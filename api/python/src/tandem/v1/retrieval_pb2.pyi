import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import error_details_pb2 as _error_details_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tower(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOWER_UNSPECIFIED: _ClassVar[Tower]
    TOWER_APPS: _ClassVar[Tower]
    TOWER_USERS: _ClassVar[Tower]

class Plan(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLAN_UNSPECIFIED: _ClassVar[Plan]
    PLAN_EXACT_SCAN: _ClassVar[Plan]
    PLAN_FILTERED_WALK: _ClassVar[Plan]
    PLAN_GRAPH_WALK: _ClassVar[Plan]
    PLAN_MIXED: _ClassVar[Plan]

class ShortReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHORT_REASON_UNSPECIFIED: _ClassVar[ShortReason]
    SHORT_REASON_ELIGIBLE: _ClassVar[ShortReason]
    SHORT_REASON_COVERAGE: _ClassVar[ShortReason]
    SHORT_REASON_AT_MOST: _ClassVar[ShortReason]
    SHORT_REASON_PAGES: _ClassVar[ShortReason]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_SHARD_MISSING: _ClassVar[Verdict]
    VERDICT_UNKNOWN: _ClassVar[Verdict]
    VERDICT_QUERY: _ClassVar[Verdict]
    VERDICT_EXCLUDED: _ClassVar[Verdict]
    VERDICT_NOT_INCLUDED: _ClassVar[Verdict]
    VERDICT_NOT_ELIGIBLE: _ClassVar[Verdict]
    VERDICT_RETURNED: _ClassVar[Verdict]
    VERDICT_CAPPED: _ClassVar[Verdict]
    VERDICT_BELOW_CUT: _ClassVar[Verdict]
    VERDICT_NOT_VISITED: _ClassVar[Verdict]
    VERDICT_TAKEN_DOWN: _ClassVar[Verdict]
    VERDICT_OUTSIDE_WINDOW: _ClassVar[Verdict]
    VERDICT_EARLIER_PAGE: _ClassVar[Verdict]

class Fallback(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FALLBACK_UNSPECIFIED: _ClassVar[Fallback]
    FALLBACK_NONE: _ClassVar[Fallback]
    FALLBACK_MEAN_USER: _ClassVar[Fallback]
TOWER_UNSPECIFIED: Tower
TOWER_APPS: Tower
TOWER_USERS: Tower
PLAN_UNSPECIFIED: Plan
PLAN_EXACT_SCAN: Plan
PLAN_FILTERED_WALK: Plan
PLAN_GRAPH_WALK: Plan
PLAN_MIXED: Plan
SHORT_REASON_UNSPECIFIED: ShortReason
SHORT_REASON_ELIGIBLE: ShortReason
SHORT_REASON_COVERAGE: ShortReason
SHORT_REASON_AT_MOST: ShortReason
SHORT_REASON_PAGES: ShortReason
VERDICT_UNSPECIFIED: Verdict
VERDICT_SHARD_MISSING: Verdict
VERDICT_UNKNOWN: Verdict
VERDICT_QUERY: Verdict
VERDICT_EXCLUDED: Verdict
VERDICT_NOT_INCLUDED: Verdict
VERDICT_NOT_ELIGIBLE: Verdict
VERDICT_RETURNED: Verdict
VERDICT_CAPPED: Verdict
VERDICT_BELOW_CUT: Verdict
VERDICT_NOT_VISITED: Verdict
VERDICT_TAKEN_DOWN: Verdict
VERDICT_OUTSIDE_WINDOW: Verdict
VERDICT_EARLIER_PAGE: Verdict
FALLBACK_UNSPECIFIED: Fallback
FALLBACK_NONE: Fallback
FALLBACK_MEAN_USER: Fallback

class Vector(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class AtMost(_message.Message):
    __slots__ = ("attribute", "n")
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    attribute: str
    n: int
    def __init__(self, attribute: _Optional[str] = ..., n: _Optional[int] = ...) -> None: ...

class RetrieveRequest(_message.Message):
    __slots__ = ("vector", "vectors", "user_id", "app_id", "target", "k", "filter", "bindings", "segment", "exclude_ids", "model_version", "recall_target", "ef", "attributes", "min_coverage", "explain", "request_id", "include_ids", "at_most", "request_key", "explain_ids", "fallback", "min_live", "page_token", "experiment", "variant")
    class BindingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    APP_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RECALL_TARGET_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MIN_COVERAGE_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_IDS_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_IDS_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    MIN_LIVE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    vector: _containers.RepeatedScalarFieldContainer[float]
    vectors: _containers.RepeatedCompositeFieldContainer[Vector]
    user_id: str
    app_id: str
    target: Tower
    k: int
    filter: str
    bindings: _containers.MessageMap[str, _struct_pb2.Value]
    segment: str
    exclude_ids: _containers.RepeatedScalarFieldContainer[str]
    model_version: str
    recall_target: float
    ef: int
    attributes: _containers.RepeatedScalarFieldContainer[str]
    min_coverage: float
    explain: bool
    request_id: str
    include_ids: _containers.RepeatedScalarFieldContainer[str]
    at_most: _containers.RepeatedCompositeFieldContainer[AtMost]
    request_key: str
    explain_ids: _containers.RepeatedScalarFieldContainer[str]
    fallback: Fallback
    min_live: LivePosition
    page_token: str
    experiment: str
    variant: str
    def __init__(self, vector: _Optional[_Iterable[float]] = ..., vectors: _Optional[_Iterable[_Union[Vector, _Mapping]]] = ..., user_id: _Optional[str] = ..., app_id: _Optional[str] = ..., target: _Optional[_Union[Tower, str]] = ..., k: _Optional[int] = ..., filter: _Optional[str] = ..., bindings: _Optional[_Mapping[str, _struct_pb2.Value]] = ..., segment: _Optional[str] = ..., exclude_ids: _Optional[_Iterable[str]] = ..., model_version: _Optional[str] = ..., recall_target: _Optional[float] = ..., ef: _Optional[int] = ..., attributes: _Optional[_Iterable[str]] = ..., min_coverage: _Optional[float] = ..., explain: bool = ..., request_id: _Optional[str] = ..., include_ids: _Optional[_Iterable[str]] = ..., at_most: _Optional[_Iterable[_Union[AtMost, _Mapping]]] = ..., request_key: _Optional[str] = ..., explain_ids: _Optional[_Iterable[str]] = ..., fallback: _Optional[_Union[Fallback, str]] = ..., min_live: _Optional[_Union[LivePosition, _Mapping]] = ..., page_token: _Optional[str] = ..., experiment: _Optional[str] = ..., variant: _Optional[str] = ...) -> None: ...

class LivePosition(_message.Message):
    __slots__ = ("log", "sequence")
    LOG_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    log: str
    sequence: int
    def __init__(self, log: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("candidates", "model", "model_version", "snapshot", "coverage", "plan", "eligible", "short_reason", "short_reason_text", "request_id", "explain", "generation", "arm", "fallback_used", "live", "staleness", "next_page_token", "interleaved", "explored", "not_interleaved")
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    SHORT_REASON_FIELD_NUMBER: _ClassVar[int]
    SHORT_REASON_TEXT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_USED_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INTERLEAVED_FIELD_NUMBER: _ClassVar[int]
    EXPLORED_FIELD_NUMBER: _ClassVar[int]
    NOT_INTERLEAVED_FIELD_NUMBER: _ClassVar[int]
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    model: str
    model_version: str
    snapshot: str
    coverage: Coverage
    plan: Plan
    eligible: int
    short_reason: ShortReason
    short_reason_text: str
    request_id: str
    explain: Explain
    generation: int
    arm: str
    fallback_used: Fallback
    live: LivePosition
    staleness: _duration_pb2.Duration
    next_page_token: str
    interleaved: _containers.RepeatedCompositeFieldContainer[AnsweredArm]
    explored: bool
    not_interleaved: str
    def __init__(self, candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., snapshot: _Optional[str] = ..., coverage: _Optional[_Union[Coverage, _Mapping]] = ..., plan: _Optional[_Union[Plan, str]] = ..., eligible: _Optional[int] = ..., short_reason: _Optional[_Union[ShortReason, str]] = ..., short_reason_text: _Optional[str] = ..., request_id: _Optional[str] = ..., explain: _Optional[_Union[Explain, _Mapping]] = ..., generation: _Optional[int] = ..., arm: _Optional[str] = ..., fallback_used: _Optional[_Union[Fallback, str]] = ..., live: _Optional[_Union[LivePosition, _Mapping]] = ..., staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., next_page_token: _Optional[str] = ..., interleaved: _Optional[_Iterable[_Union[AnsweredArm, _Mapping]]] = ..., explored: bool = ..., not_interleaved: _Optional[str] = ...) -> None: ...

class AnsweredArm(_message.Message):
    __slots__ = ("arm", "snapshot", "model_version", "plan", "eligible", "coverage", "fallback_used")
    ARM_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_USED_FIELD_NUMBER: _ClassVar[int]
    arm: str
    snapshot: str
    model_version: str
    plan: Plan
    eligible: int
    coverage: Coverage
    fallback_used: Fallback
    def __init__(self, arm: _Optional[str] = ..., snapshot: _Optional[str] = ..., model_version: _Optional[str] = ..., plan: _Optional[_Union[Plan, str]] = ..., eligible: _Optional[int] = ..., coverage: _Optional[_Union[Coverage, _Mapping]] = ..., fallback_used: _Optional[_Union[Fallback, str]] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("id", "score", "attributes", "team", "propensity")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: AttributeValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    attributes: _containers.MessageMap[str, AttributeValue]
    team: str
    propensity: float
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., attributes: _Optional[_Mapping[str, AttributeValue]] = ..., team: _Optional[str] = ..., propensity: _Optional[float] = ...) -> None: ...

class AttributeValue(_message.Message):
    __slots__ = ("keyword", "keywords", "bool", "int", "float", "timestamp")
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    BOOL_FIELD_NUMBER: _ClassVar[int]
    INT_FIELD_NUMBER: _ClassVar[int]
    FLOAT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    keyword: str
    keywords: Keywords
    bool: bool
    int: int
    float: float
    timestamp: _timestamp_pb2.Timestamp
    def __init__(self, keyword: _Optional[str] = ..., keywords: _Optional[_Union[Keywords, _Mapping]] = ..., bool: bool = ..., int: _Optional[int] = ..., float: _Optional[float] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Keywords(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Coverage(_message.Message):
    __slots__ = ("shards_answered", "shards", "shard_share", "eligible_share", "shards_cut")
    SHARDS_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SHARD_SHARE_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_SHARE_FIELD_NUMBER: _ClassVar[int]
    SHARDS_CUT_FIELD_NUMBER: _ClassVar[int]
    shards_answered: int
    shards: int
    shard_share: float
    eligible_share: float
    shards_cut: int
    def __init__(self, shards_answered: _Optional[int] = ..., shards: _Optional[int] = ..., shard_share: _Optional[float] = ..., eligible_share: _Optional[float] = ..., shards_cut: _Optional[int] = ...) -> None: ...

class Explain(_message.Message):
    __slots__ = ("shards", "prepare_time", "fan_out_time", "merge_time", "total_time", "ids", "unknown_include_ids", "unknown_exclude_ids", "other_forms")
    class OtherFormsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    PREPARE_TIME_FIELD_NUMBER: _ClassVar[int]
    FAN_OUT_TIME_FIELD_NUMBER: _ClassVar[int]
    MERGE_TIME_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TIME_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_INCLUDE_IDS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_EXCLUDE_IDS_FIELD_NUMBER: _ClassVar[int]
    OTHER_FORMS_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[ShardExplain]
    prepare_time: _duration_pb2.Duration
    fan_out_time: _duration_pb2.Duration
    merge_time: _duration_pb2.Duration
    total_time: _duration_pb2.Duration
    ids: _containers.RepeatedCompositeFieldContainer[IdExplain]
    unknown_include_ids: int
    unknown_exclude_ids: int
    other_forms: _containers.ScalarMap[str, str]
    def __init__(self, shards: _Optional[_Iterable[_Union[ShardExplain, _Mapping]]] = ..., prepare_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., fan_out_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., merge_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ids: _Optional[_Iterable[_Union[IdExplain, _Mapping]]] = ..., unknown_include_ids: _Optional[int] = ..., unknown_exclude_ids: _Optional[int] = ..., other_forms: _Optional[_Mapping[str, str]] = ...) -> None: ...

class IdExplain(_message.Message):
    __slots__ = ("id", "verdict", "text", "shard", "rank", "score", "clause", "attribute", "value", "fresh")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CLAUSE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    id: str
    verdict: Verdict
    text: str
    shard: str
    rank: int
    score: float
    clause: str
    attribute: str
    value: AttributeValue
    fresh: bool
    def __init__(self, id: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., text: _Optional[str] = ..., shard: _Optional[str] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ..., clause: _Optional[str] = ..., attribute: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ..., fresh: bool = ...) -> None: ...

class ShardExplain(_message.Message):
    __slots__ = ("shard", "plan", "rows", "eligible", "ef", "scored", "expanded", "filter_time", "search_time", "error", "reason", "asked")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    EXPANDED_FIELD_NUMBER: _ClassVar[int]
    FILTER_TIME_FIELD_NUMBER: _ClassVar[int]
    SEARCH_TIME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    shard: str
    plan: Plan
    rows: int
    eligible: int
    ef: int
    scored: int
    expanded: int
    filter_time: _duration_pb2.Duration
    search_time: _duration_pb2.Duration
    error: str
    reason: str
    asked: int
    def __init__(self, shard: _Optional[str] = ..., plan: _Optional[_Union[Plan, str]] = ..., rows: _Optional[int] = ..., eligible: _Optional[int] = ..., ef: _Optional[int] = ..., scored: _Optional[int] = ..., expanded: _Optional[int] = ..., filter_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., search_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., error: _Optional[str] = ..., reason: _Optional[str] = ..., asked: _Optional[int] = ...) -> None: ...

class BatchRetrieveRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RetrieveRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RetrieveRequest, _Mapping]]] = ...) -> None: ...

class BatchRetrieveResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchRetrieveResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchRetrieveResult, _Mapping]]] = ...) -> None: ...

class BatchRetrieveResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: RetrieveResponse
    error: ItemError
    def __init__(self, response: _Optional[_Union[RetrieveResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "message", "info", "bad_request", "retry", "resource", "request_id")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    BAD_REQUEST_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    info: _error_details_pb2.ErrorInfo
    bad_request: _error_details_pb2.BadRequest
    retry: _error_details_pb2.RetryInfo
    resource: _error_details_pb2.ResourceInfo
    request_id: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., info: _Optional[_Union[_error_details_pb2.ErrorInfo, _Mapping]] = ..., bad_request: _Optional[_Union[_error_details_pb2.BadRequest, _Mapping]] = ..., retry: _Optional[_Union[_error_details_pb2.RetryInfo, _Mapping]] = ..., resource: _Optional[_Union[_error_details_pb2.ResourceInfo, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetEmbeddingsRequest(_message.Message):
    __slots__ = ("tower", "ids", "model_version", "request_id", "request_key", "min_live")
    TOWER_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    MIN_LIVE_FIELD_NUMBER: _ClassVar[int]
    tower: Tower
    ids: _containers.RepeatedScalarFieldContainer[str]
    model_version: str
    request_id: str
    request_key: str
    min_live: LivePosition
    def __init__(self, tower: _Optional[_Union[Tower, str]] = ..., ids: _Optional[_Iterable[str]] = ..., model_version: _Optional[str] = ..., request_id: _Optional[str] = ..., request_key: _Optional[str] = ..., min_live: _Optional[_Union[LivePosition, _Mapping]] = ...) -> None: ...

class GetEmbeddingsResponse(_message.Message):
    __slots__ = ("model", "model_version", "snapshot", "embeddings", "unknown_ids", "request_id", "live", "staleness", "other_forms", "generation", "arm")
    class OtherFormsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_IDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    OTHER_FORMS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    snapshot: str
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    unknown_ids: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    live: LivePosition
    staleness: _duration_pb2.Duration
    other_forms: _containers.ScalarMap[str, str]
    generation: int
    arm: str
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., snapshot: _Optional[str] = ..., embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ..., unknown_ids: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ..., live: _Optional[_Union[LivePosition, _Mapping]] = ..., staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., other_forms: _Optional[_Mapping[str, str]] = ..., generation: _Optional[int] = ..., arm: _Optional[str] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("id", "values")
    ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    id: str
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, id: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...
