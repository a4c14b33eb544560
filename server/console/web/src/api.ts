// The procedures of the server, and what their errors mean to a person.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { AdminService } from "./gen/tandem/v1/admin_pb";
import { LiveService } from "./gen/tandem/v1/live_pb";
import { ReleaseService } from "./gen/tandem/v1/release_pb";
import { RetrievalService } from "./gen/tandem/v1/retrieval_pb";
import { sessionOver } from "./session";

const transport = createConnectTransport({
  baseUrl: "api",
  useBinaryFormat: true,
  defaultTimeoutMs: 10_000,
  fetch: (input, init) => fetch(input, { ...init, credentials: "same-origin", redirect: "error", cache: "no-store" }),
  interceptors: [
    (next) => async (request) => {
      try {
        return await next(request);
      } catch (e) {
        const error = ConnectError.from(e);
        if (error.code === Code.Unauthenticated) sessionOver(error.rawMessage);
        throw error;
      }
    },
  ],
});

export const admin = createClient(AdminService, transport);
export const live = createClient(LiveService, transport);
export const releases = createClient(ReleaseService, transport);
export const retrieval = createClient(RetrievalService, transport);

/** What went wrong, in the terms of whoever looks at the page. */
export interface Trouble {
  kind: "away" | "session" | "scope" | "busy" | "invalid" | "other";
  title: string;
  text: string;
  next: string;
}

/** Says what an error means; null if the call was given up by us. */
export function troubleOf(e: unknown): Trouble | null {
  const error = ConnectError.from(e);
  const text = error.rawMessage;
  switch (error.code) {
    case Code.Canceled:
      return null;
    case Code.Unauthenticated:
      return { kind: "session", title: "The session is over", text, next: "Sign in again." };
    case Code.PermissionDenied:
      return { kind: "scope", title: "This token may not", text, next: "Sign in with a token that has one of the scopes that are accepted." };
    case Code.ResourceExhausted:
      return { kind: "busy", title: "The server has too much to do", text, next: "Ask again in a moment: what the console asks is refused before what callers ask." };
    case Code.InvalidArgument:
    case Code.NotFound:
      return { kind: "invalid", title: error.code === Code.NotFound ? "Not found" : "That cannot be asked", text, next: "" };
    case Code.DeadlineExceeded:
      return { kind: "away", title: "No answer in time", text, next: "Look whether the server, and its store, answer: tandem status." };
  }
  // A browser says of a connection that cannot be made nothing but that it has failed.
  if (e instanceof TypeError || error.cause instanceof TypeError) {
    return { kind: "away", title: "The server does not answer", text: "No connection to it can be made from this browser.", next: "Look whether the process runs, and what its log says. The page tries again by itself." };
  }
  return { kind: "other", title: "The server could not answer", text, next: "" };
}
