import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, ResourceInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { BadRequest, ErrorInfo, ResourceInfo, RetryInfo } from "./gen/google/rpc/error_details_pb.js";
import type { ItemError } from "./gen/tandem/v1/retrieval_pb.js";

/** The domain of the reasons of Tandem's servers. */
export const domain = "tandem";

/** The reasons of servers, by their codes. */
export const reasons = {
  invalid_argument: [
    "RULE_BROKEN", "VECTOR_INVALID", "ID_INVALID", "ATTRIBUTE_INVALID", "FILTER_INVALID", "BINDING_INVALID", "SEGMENT_INVALID",
    "PAGE_TOKEN_INVALID", "ANSWER_TOO_LARGE", "MESSAGE_TOO_LARGE", "MESSAGE_MALFORMED", "HEADER_INVALID", "CONTENT_TYPE_UNKNOWN",
    "EVENT_INVALID", "OUTCOME_INVALID", "SNAPSHOT_AMBIGUOUS",
  ],
  not_found: ["ENTITY_UNKNOWN", "SNAPSHOT_UNKNOWN", "SERVICE_UNKNOWN"],
  failed_precondition: [
    "MODEL_VERSION_NOT_SERVED", "FALLBACK_UNAVAILABLE", "PAGE_TOKEN_GONE", "LIVE_LOG_UNKNOWN", "GATES_FAILED", "CHANGE_REFUSED",
    "NOTHING_RELEASED", "RELEASE_UNREADABLE", "RELEASE_LOG_LOST", "RELEASE_LOG_BROKEN", "DIFF_UNAVAILABLE",
  ],
  already_exists: ["EVENT_CONFLICT"],
  aborted: ["RELEASE_CONFLICT"],
  unauthenticated: ["TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED", "CERTIFICATE_INVALID"],
  permission_denied: ["SCOPE_MISSING", "WRITES_OFF", "OUTCOMES_OFF"],
  unimplemented: ["PATH_UNKNOWN", "METHOD_NOT_ALLOWED", "ENCODING_UNKNOWN"],
  unavailable: [
    "COVERAGE_TOO_LOW", "LIVE_STALE", "LIVE_BEHIND", "LIVE_UNCONFIRMED", "LIVE_LOG_BROKEN", "OUTCOMES_UNCONFIRMED", "RELEASE_UNCONFIRMED",
    "STORE_UNAVAILABLE", "STORE_BUSY", "NOT_READY", "STOPPING",
  ],
  data_loss: ["SHARD_UNREADABLE", "SNAPSHOT_DAMAGED"],
  resource_exhausted: ["OVERLOADED", "QUOTA_EXCEEDED", "FRESH_FULL"],
  deadline_exceeded: ["DEADLINE_EXCEEDED"],
  canceled: ["CALLER_GONE"],
  internal: ["INTERNAL"],
} as const;

/**
 * Why a call failed, for programs. The client's own: UNREACHABLE, no server is known or the connection failed;
 * ANSWER_MALFORMED, what came back is no answer of a Tandem server; ANSWER_STALE, the answer was older than the
 * fence and the deadline; UNEXPLAINED, an error without a reason of Tandem, as proxies make them; CLIENT_CLOSED.
 * A newer server may have others.
 */
export type Reason =
  | (typeof reasons)[keyof typeof reasons][number]
  | "UNREACHABLE" | "ANSWER_MALFORMED" | "ANSWER_STALE" | "UNEXPLAINED" | "CLIENT_CLOSED"
  | (string & {});

/** The name of a code in Connect and gRPC. */
export type CodeName = keyof typeof reasons | "unknown" | "out_of_range";

/** A field of a request that is wrong; path is empty for the request as a whole. */
export interface Field {
  readonly path: string;
  readonly description: string;
}

/** Something that was not found: a user, app, snapshot or service. */
export interface Missing {
  readonly type: string;
  readonly name: string;
}

export interface ErrorParts {
  fields?: readonly Field[];
  missing?: Missing | undefined;
  /** Seconds. */
  retryAfter?: number;
  requestId?: string;
  server?: string;
  tries?: number;
  cause?: unknown;
}

const maxMessage = 4096;

/** Why a call, or one query of a batch, has no answer. */
export class TandemError extends Error {
  override readonly name = "TandemError";
  /** The fields of the request that are wrong, if the code is invalid_argument. */
  readonly fields: readonly Field[];
  /** What was not found, if the code is not_found. */
  readonly missing: Missing | undefined;
  /** After how many seconds the server has asked to be tried again; 0 if it has not said. */
  readonly retryAfter: number;
  /** What the server's log calls the request; empty if none has answered. */
  readonly requestId: string;
  /** The server that was asked last, and how many times servers were asked. */
  readonly server: string;
  readonly tries: number;

  constructor(readonly code: CodeName, readonly reason: Reason, readonly text: string, parts: ErrorParts = {}) {
    const short = text.length > maxMessage ? `${text.slice(0, maxMessage)}...` : text;
    const more = [reason, parts.server && `server ${parts.server}`, parts.requestId && `request ${JSON.stringify(parts.requestId)}`,
      (parts.tries ?? 0) > 1 && `${parts.tries} tries`].filter(Boolean);
    super(`${code}: ${short} (${more.join(", ")})`, { cause: parts.cause });
    this.text = short;
    this.fields = parts.fields ?? [];
    this.missing = parts.missing;
    this.retryAfter = parts.retryAfter ?? 0;
    this.requestId = parts.requestId ?? "";
    this.server = parts.server ?? "";
    this.tries = parts.tries ?? 0;
  }

  /** Whether the request is wrong, or not allowed: it fails again until it, or what is served, is changed. */
  get mistake(): boolean {
    return ["invalid_argument", "failed_precondition", "unauthenticated", "permission_denied", "unimplemented"].includes(this.code);
  }

  /** Whether the same request may have an answer later. */
  get temporary(): boolean {
    return ["unavailable", "resource_exhausted", "deadline_exceeded"].includes(this.code);
  }
}

/** What the details of an error say. */
export function said(info?: ErrorInfo, bad?: BadRequest, resource?: ResourceInfo, retry?: RetryInfo): ErrorParts & { reason: Reason } {
  const delay = retry?.retryDelay;
  return {
    reason: info?.domain === domain && info.reason !== "" ? info.reason : "UNEXPLAINED",
    fields: bad?.fieldViolations.map((v) => ({ path: v.field, description: v.description })) ?? [],
    missing: resource && { type: resource.resourceType, name: resource.resourceName },
    retryAfter: delay ? Math.max(Number(delay.seconds) + delay.nanos / 1e9, 0) : 0,
  };
}

/** The name of a code, as the protocol has it. */
export function codeName(code: Code): CodeName {
  return Code[code].replace(/[a-z](?=[A-Z])/g, "$&_").toLowerCase() as CodeName;
}

/** The error of a query of a batch. */
export function itemError(item: ItemError, server: string, tries: number): TandemError {
  const { reason, ...parts } = said(item.info, item.badRequest, item.resource, item.retry);
  return new TandemError((item.code || "unknown") as CodeName, reason, item.message, { ...parts, requestId: item.requestId, server, tries });
}

/** The error of one try, with details if a server of Tandem has sent it. */
export function callError(error: ConnectError, server: string, tries: number): TandemError {
  const { reason, ...parts } = said(
    error.findDetails(ErrorInfoSchema)[0], error.findDetails(BadRequestSchema)[0],
    error.findDetails(ResourceInfoSchema)[0], error.findDetails(RetryInfoSchema)[0],
  );
  const after = error.metadata.get("retry-after") ?? "";
  if (!parts.retryAfter && /^\d{1,5}$/.test(after)) parts.retryAfter = Number(after);
  let requestId = error.metadata.get("x-request-id") ?? "";
  try {
    requestId = decodeURIComponent(requestId);
  } catch {
    // it is as it was sent
  }
  return new TandemError(codeName(error.code), reason, error.rawMessage, { ...parts, requestId, server, tries, cause: error });
}

/** The reasons for which another server may have an answer where one has none. */
export const elsewhere: ReadonlySet<Reason> = new Set<Reason>([
  "UNREACHABLE", "ANSWER_MALFORMED", "ANSWER_STALE", "COVERAGE_TOO_LOW", "LIVE_STALE", "LIVE_LOG_BROKEN", "STORE_UNAVAILABLE",
  "STORE_BUSY", "NOT_READY", "STOPPING", "SHARD_UNREADABLE", "SNAPSHOT_DAMAGED", "OVERLOADED", "QUOTA_EXCEEDED",
]);
