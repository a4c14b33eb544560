import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { CallOptions as RpcOptions, Client as Rpc, Transport } from "@connectrpc/connect";
import { BatchRetrieveRequestSchema, RetrievalService } from "./gen/tandem/v1/retrieval_pb.js";
import type {
  BatchRetrieveResponse, GetEmbeddingsRequestSchema, GetEmbeddingsResponse, RetrieveRequestSchema, RetrieveResponse,
} from "./gen/tandem/v1/retrieval_pb.js";
import { callError, elsewhere, itemError, TandemError } from "./errors.js";

/** How a client asks. Times are in milliseconds. */
export interface Options {
  /** How long a call takes at most that does not say: 1000 by default. */
  deadline?: number;
  /**
   * The fence of the servers, 5000 by default: an answer that may lack takedowns of longer than the fence and the
   * deadline is dropped. 0 takes answers of any age.
   */
  fence?: number;
  /** How many calls may be repeated, as a share of all: 0.1 by default. */
  retries?: number;
  /** The token to send, or what returns it before each call. Without TLS it goes to this machine only. */
  token?: string | (() => string);
  /** Lets a token be sent without TLS, where something else keeps strangers out, as a mesh does. */
  tokenInClear?: boolean;
  /** The priority of calls; that of the token by default. */
  priority?: "live" | "batch" | "audit";
}

/** How one call is made. */
export interface CallOptions {
  /** Milliseconds. */
  deadline?: number;
  signal?: AbortSignal;
  /** What the request is called in the logs of servers: 1 to 128 characters of ASCII. A request may have others, as its requestId. */
  requestId?: string;
  /** Further headers, such as traceparent. */
  headers?: Record<string, string>;
}

/** The outcome of one query of a batch. */
export type Result =
  | { readonly response: RetrieveResponse; readonly error?: undefined }
  | { readonly response?: undefined; readonly error: TandemError };

/** Makes what sends requests to a server, such as createConnectTransport. */
export type Connect = (baseUrl: string) => Transport;

const maxTries = 4, lossesInARow = 3, leaveFirst = 500, leaveMost = 15_000, ramp = 5000;
const budgetMost = 10, budgetPerSecond = 0.5, unknownLatency = 0.2;

type Call = { allowed: number; end: number; start: number; server: string; tries: number };

class Server {
  inFlight = 0;
  latency = 0;
  seen = 0;
  losses = 0;
  left = 0;
  until = 0;
  back = 0; // when it has answered again after it was left alone
  readonly name: string;

  constructor(url: string, readonly rpc: Rpc<typeof RetrievalService>) {
    this.name = url.replace(/^https?:\/\//, "");
  }

  rank(now: number): number {
    if (this.left || (this.back && now - this.back < ramp)) {
      const share = this.left ? 0.05 : Math.max((now - this.back) / ramp, 0.05);
      if (Math.random() > share) return Infinity;
    }
    const latency = Math.max((this.latency || unknownLatency) * 0.5 ** (Math.max(now - this.seen, 0) / 1000), unknownLatency);
    return latency * (1 + this.inFlight) ** 2;
  }

  end(now: number, took: number, how: "answered" | "refused" | "failed" | "dropped"): void {
    this.inFlight--;
    if (how === "dropped") return; // nothing is known of the server
    if (how !== "answered") took = Math.max(took, 4 * Math.max(this.latency, unknownLatency)); // what is quick because it fails must not draw calls
    this.latency = this.latency ? 0.9 * this.latency + 0.1 * took : took;
    this.seen = now;
    if (how !== "failed") {
      if (this.left) this.back = now;
      this.losses = this.left = 0;
      return;
    }
    if (++this.losses >= lossesInARow && now >= this.until) {
      const wait = Math.min(leaveFirst * 2 ** this.left, leaveMost);
      this.until = now + wait * (0.75 + Math.random() / 2);
      this.left++;
      this.losses = lossesInARow - 1;
    }
  }
}

/**
 * Asks Tandem servers. A process needs one, and it may have any number of calls at a time. Package path "/node"
 * makes one for Node; elsewhere give it a transport such as that of connect-web.
 */
export class Client {
  readonly #servers: Server[];
  readonly #options: Required<Pick<Options, "deadline" | "fence" | "retries">> & Options;
  #budget = budgetMost;
  #budgetAt = performance.now();
  #closed = false;
  readonly #end = new AbortController();

  /** Addresses are URLs, or HOST:PORT, which means http. An error names the option or the address. */
  constructor(addresses: string | readonly string[], connect: Connect, options: Options = {}) {
    const o = this.#options = { deadline: 1000, fence: 5000, retries: 0.1, ...options };
    if (!(o.deadline > 0)) throw new RangeError(`deadline is ${o.deadline}; accepted: more than 0 ms`);
    if (!(o.fence >= 0)) throw new RangeError(`fence is ${o.fence}; accepted: more than 0 ms, or 0 for none`);
    if (!(o.retries >= 0 && o.retries <= 1)) throw new RangeError(`retries is ${o.retries}; accepted: 0 to 1`);
    if (o.priority !== undefined && !["live", "batch", "audit"].includes(o.priority)) throw new RangeError(`priority is ${JSON.stringify(o.priority).slice(0, 200)}; accepted: live, batch, audit`);
    if (typeof o.token === "string" && !isToken(o.token)) throw new RangeError("the token is not one; accepted: visible characters of ASCII, without spaces");
    const list = typeof addresses === "string" ? [addresses] : [...addresses];
    if (list.length === 0) throw new RangeError("addresses: there are none; accepted: URLs or HOST:PORT");
    const urls = new Set(list.map((text, i) => parse(text, i, o.token !== undefined && !o.tokenInClear)));
    this.#servers = [...urls].map((url) => new Server(url, createClient(RetrievalService, connect(url))));
  }

  /** Ends calls that are under way; further ones fail with CLIENT_CLOSED. */
  close(): void {
    this.#closed = true;
    this.#end.abort();
  }

  /** The best candidates for one query. Rejects with a TandemError. */
  retrieve(request: MessageInitShape<typeof RetrieveRequestSchema>, options: CallOptions = {}): Promise<RetrieveResponse> {
    return this.#do(options, async (rpc, o, call) => this.#fresh(await rpc.retrieve(request, o), call));
  }

  /** Answers up to 256 queries in one call: a result for each, in their order. Rejects with a TandemError if all fail as one. */
  batchRetrieve(requests: readonly MessageInitShape<typeof RetrieveRequestSchema>[], options: CallOptions = {}): Promise<Result[]> {
    const message = create(BatchRetrieveRequestSchema, { requests: [...requests] });
    return this.#do(options, async (rpc, o, call) => this.#results(await rpc.batchRetrieve(message, o), message.requests.length, call));
  }

  /** Vectors of one tower by id. Rejects with a TandemError. */
  getEmbeddings(request: MessageInitShape<typeof GetEmbeddingsRequestSchema>, options: CallOptions = {}): Promise<GetEmbeddingsResponse> {
    return this.#do(options, async (rpc, o, call) => this.#fresh(await rpc.getEmbeddings(request, o), call));
  }

  #results(answer: BatchRetrieveResponse, n: number, call: Call): Result[] {
    if (answer.results.length !== n) throw malformed(`the answer has ${answer.results.length} results for ${n} requests`, call);
    let stale: TandemError | undefined, fresh = 0;
    const list = answer.results.map((r, i): Result => {
      switch (r.outcome.case) {
        case "response":
          try {
            const response = this.#fresh(r.outcome.value, call);
            fresh++;
            return { response };
          } catch (error) {
            return { error: (stale = error as TandemError) };
          }
        case "error":
          fresh++;
          return { error: itemError(r.outcome.value, call.server, call.tries) };
        default:
          throw malformed(`the result of requests[${i}] has neither an answer nor an error`, call);
      }
    });
    if (stale && fresh === 0) throw stale;
    return list;
  }

  /** Throws for an answer that is too old; the age of its proof counts from when the try began. */
  #fresh<T extends { staleness?: Duration | undefined; requestId: string }>(answer: T, call: Call): T {
    const { fence } = this.#options;
    if (fence === 0 || !answer.staleness) return answer;
    const age = Number(answer.staleness.seconds) * 1000 + answer.staleness.nanos / 1e6 + performance.now() - call.start;
    if (age <= fence + call.allowed) return answer;
    throw new TandemError("unavailable", "ANSWER_STALE",
      `the answer may lack takedowns of the last ${age.toFixed(0)} ms; accepted: up to the fence of ${fence} ms and the ${call.allowed} ms that the call had`,
      { requestId: answer.requestId, server: call.server, tries: call.tries });
  }

  async #do<T>(options: CallOptions, send: (rpc: Rpc<typeof RetrievalService>, o: RpcOptions, call: Call) => Promise<T>): Promise<T> {
    const allowed = options.deadline ?? this.#options.deadline;
    const now = performance.now();
    const call: Call = { allowed, end: now + allowed, start: now, server: "", tries: 0 };
    if (this.#closed) throw new TandemError("canceled", "CLIENT_CLOSED", "the client is closed");
    if (options.requestId !== undefined && !/^[\x20-\x7e]{1,128}$/.test(options.requestId))
      throw new TandemError("invalid_argument", "HEADER_INVALID", `requestId is ${JSON.stringify(options.requestId).slice(0, 200)}; accepted: 1 to 128 printable characters of ASCII`);
    this.#budget = Math.min(this.#budget + this.#options.retries, budgetMost);
    const asked = new Map<Server, number>(); // when a server may be asked again
    let last: TandemError | undefined;
    for (;;) {
      const [server, wait] = this.#pick(asked);
      if (last) {
        if (performance.now() + wait >= call.end || !this.#spend()) throw last;
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
        if (options.signal?.aborted || this.#closed) throw last;
      }
      try {
        return await this.#one(server, options, call, send);
      } catch (error) {
        last = error as TandemError;
        if (call.tries >= maxTries || !again(last)) throw last;
        const back = last.retryAfter ? last.retryAfter * 1000 * (1 + Math.random() / 10) : 5 * 2 ** (call.tries - 1) * (0.5 + Math.random());
        asked.set(server, performance.now() + back);
      }
    }
  }

  #pick(asked: ReadonlyMap<Server, number>): [Server, number] {
    const now = performance.now();
    const fresh = this.#servers.filter((s) => !asked.has(s));
    const well = fresh.filter((s) => now >= s.until);
    if (well.length > 0) {
      const [a, b] = [draw(well), draw(well)];
      return [b.rank(now) < a.rank(now) ? b : a, 0];
    }
    if (fresh.length > 0) return [fresh.reduce((a, b) => (b.until < a.until ? b : a)), 0];
    const next = this.#servers.reduce((a, b) => (asked.get(b)! < asked.get(a)! ? b : a));
    return [next, Math.max(asked.get(next)! - now, 0)];
  }

  #spend(): boolean {
    if (this.#options.retries === 0) return false;
    const now = performance.now();
    this.#budget = Math.min(this.#budget + (budgetPerSecond * (now - this.#budgetAt)) / 1000, budgetMost);
    this.#budgetAt = now;
    if (this.#budget < 1) return false;
    this.#budget--;
    return true;
  }

  async #one<T>(server: Server, options: CallOptions, call: Call, send: (rpc: Rpc<typeof RetrievalService>, o: RpcOptions, call: Call) => Promise<T>): Promise<T> {
    call.tries++;
    call.server = server.name;
    call.start = performance.now();
    const { token, priority } = this.#options;
    const headers = new Headers(options.headers);
    if (token !== undefined) headers.set("Authorization", `Bearer ${typeof token === "string" ? token : token()}`);
    if (priority !== undefined) headers.set("Tandem-Priority", priority);
    if (options.requestId !== undefined) headers.set("X-Request-Id", options.requestId);
    const signal = options.signal ? AbortSignal.any([options.signal, this.#end.signal]) : this.#end.signal;
    server.inFlight++;
    let how: "answered" | "refused" | "failed" | "dropped" = "failed";
    try {
      const answer = await send(server.rpc, { headers, signal, timeoutMs: Math.max(Math.ceil(call.end - call.start), 1) }, call);
      how = "answered";
      return answer;
    } catch (error) {
      const e = error instanceof TandemError ? error : this.#error(error, call, signal);
      if (e.reason === "CALLER_GONE" || e.reason === "CLIENT_CLOSED") how = "dropped";
      else if (e.code === "resource_exhausted") how = "refused";
      else if (e.reason === "DEADLINE_EXCEEDED" && e.requestId === "") how = call.allowed >= 500 ? "failed" : "dropped"; // it stands still, or had little time
      else if (!elsewhere.has(e.reason) && !(e.reason === "UNEXPLAINED" && e.code === "unavailable")) how = "answered";
      throw e;
    } finally {
      server.end(performance.now(), performance.now() - call.start, how);
    }
  }

  /** The error of one try. What the library says of an answer must not be taken for what a server says of the request. */
  #error(error: unknown, call: Call, signal: AbortSignal): TandemError {
    const at = { server: call.server, tries: call.tries, cause: error };
    const of = ConnectError.from(error);
    const e = callError(of, call.server, call.tries);
    const foreign = /^HTTP (\d{3})$/.exec(of.rawMessage); // what the library says of an answer without details
    if (foreign)
      return new TandemError(foreignCode(Number(foreign[1])), "UNEXPLAINED", `the answer is ${of.rawMessage}, and not of a Tandem server`, { retryAfter: e.retryAfter, ...at });
    if (e.reason !== "UNEXPLAINED") return e;
    if (this.#closed) return new TandemError("canceled", "CLIENT_CLOSED", "the client was closed before there was an answer", at);
    if (of.code === Code.Canceled || signal.aborted) return new TandemError("canceled", "CALLER_GONE", "the call was aborted before there was an answer", at);
    if (of.code === Code.DeadlineExceeded) return new TandemError("deadline_exceeded", "DEADLINE_EXCEEDED", "the deadline passed before there was an answer", at);
    if (of.code === Code.Unavailable || of.code === Code.Aborted || isNetwork(of.cause)) return new TandemError("unavailable", "UNREACHABLE", of.rawMessage, at);
    return new TandemError("unavailable", "ANSWER_MALFORMED", of.rawMessage, at);
  }
}

function foreignCode(status: number): "resource_exhausted" | "unavailable" | "unauthenticated" | "permission_denied" | "unimplemented" | "unknown" {
  switch (status) {
    case 429: return "resource_exhausted";
    case 502: case 503: case 504: return "unavailable";
    case 401: return "unauthenticated";
    case 403: return "permission_denied";
    case 404: case 405: return "unimplemented";
    default: return "unknown";
  }
}

function again(e: TandemError): boolean {
  return elsewhere.has(e.reason) || (e.reason === "UNEXPLAINED" && (e.code === "unavailable" || e.code === "resource_exhausted"));
}

function malformed(text: string, call: Call): TandemError {
  return new TandemError("unavailable", "ANSWER_MALFORMED", text, { server: call.server, tries: call.tries });
}

function draw<T>(list: readonly T[]): T {
  return list[Math.floor(Math.random() * list.length)]!;
}

function isNetwork(cause: unknown): boolean {
  return cause instanceof Error && ("code" in cause || /aborted|reset|hang up|premature|ECONN/i.test(cause.message));
}

function isToken(text: string): boolean {
  return /^[\x21-\x7e]+$/.test(text);
}

function parse(text: string, i: number, tls: boolean): string {
  const shown = text.includes("@") ? `...${text.slice(text.lastIndexOf("@"))}` : text; // what is before may be a password
  let u: URL;
  try {
    u = new URL(text.includes("://") ? text : `http://${text}`);
  } catch {
    throw new RangeError(`addresses[${i}] is ${JSON.stringify(shown.slice(0, 200))}; accepted: http://HOST:PORT, https://HOST:PORT or HOST:PORT`);
  }
  if ((u.protocol !== "http:" && u.protocol !== "https:") || u.username || u.password || u.search || u.hash || u.hostname === "")
    throw new RangeError(`addresses[${i}] is ${JSON.stringify(shown.slice(0, 200))}; accepted: http://HOST:PORT, https://HOST:PORT or HOST:PORT`);
  if (tls && u.protocol === "http:" && !/^(localhost|127\.[\d.]+|\[::1\])$/.test(u.hostname))
    throw new RangeError(`addresses[${i}] is ${JSON.stringify(shown.slice(0, 200))}, where a token would be sent in clear text; accepted: https://, this machine, or tokenInClear`);
  return u.href.replace(/\/$/, "");
}
