import DataLoader from "dataloader";
import { GraphQLError } from "graphql";
import type { CallOptions, Client, RetrieveResponse } from "@tandem-ann/client";
import { TandemError } from "@tandem-ann/client";

/** How many queries one operation may ask: one batch. */
export const mostQueries = 256;
/** How many apps a page may have, and all pages of a user: more no server gives. */
export const mostApps = 100, mostOfUser = 10_000;

type Ask = { userId: string; k: number; pageToken: string };

/** What an answer is based on, for the extensions of a response. */
export interface Basis {
  path: readonly (string | number)[];
  /** The share of eligible apps, 0 to 1, and of how many shards how many answered. */
  coverage: number;
  shards: number;
  shardsAnswered: number;
  modelVersion: string;
  arm: string;
  requestId: string;
}

/** The queries of one operation: those of fields that are resolved together are one call. */
export class Recommender {
  readonly bases: Basis[] = [];
  readonly #loader: DataLoader<Ask, RetrieveResponse, string>;
  readonly #tell: (error: TandemError) => void;
  #asked = 0;

  /** Failures that are nobody's mistake are told; who asks gets no text of them. */
  constructor(client: Client, tell: (error: TandemError) => void, options: CallOptions = {}) {
    this.#tell = tell;
    this.#loader = new DataLoader<Ask, RetrieveResponse, string>(async (asks) => {
      const results = await client.batchRetrieve(asks, options);
      return results.map(({ response, error }) => response ?? error);
    }, { maxBatchSize: mostQueries, cacheKeyFn: (ask) => JSON.stringify([ask.userId, ask.k, ask.pageToken]) });
  }

  /** A page of a user's apps, as a connection of Relay. */
  async page(userId: string, first: number, after: string | null | undefined, path: readonly (string | number)[]) {
    if (!(first >= 1 && first <= mostApps)) throw wrong("first", `first is ${first}; accepted: 1 to ${mostApps}`);
    if (++this.#asked > mostQueries) throw wrong("", `the operation asks for more than ${mostQueries} pages; accepted: up to that`);
    const begin = parse(after ?? "");
    let answer: RetrieveResponse;
    try {
      answer = await this.#loader.load({ userId, k: begin.skip + first, pageToken: begin.token });
    } catch (error) {
      throw this.#explained(error);
    }
    const { eligibleShare: coverage = 0, shards = 0, shardsAnswered = 0 } = answer.coverage ?? {};
    this.bases.push({ path, coverage, shards, shardsAnswered, modelVersion: answer.modelVersion, arm: answer.arm, requestId: answer.requestId });
    const last = answer.candidates.length - 1;
    const edges = answer.candidates.slice(begin.skip).map((candidate, i) => {
      const at = begin.skip + i;
      const cursor = at === last && answer.nextPageToken ? answer.nextPageToken : `${at + 1}.${begin.token}`;
      return { cursor, score: candidate.score, node: { id: candidate.id } };
    });
    return {
      edges,
      pageInfo: {
        hasNextPage: answer.nextPageToken !== "",
        hasPreviousPage: begin.token !== "" || begin.skip > 0,
        startCursor: edges[0]?.cursor ?? null,
        endCursor: edges.at(-1)?.cursor ?? null,
      },
    };
  }

  /** What programs need of an error. */
  #explained(error: unknown): unknown {
    if (!(error instanceof TandemError)) return error;
    const { reason, retryAfter, requestId, fields } = error;
    let code = "INTERNAL_SERVER_ERROR", text = "there are no recommendations now";
    if (reason === "ENTITY_UNKNOWN") [code, text] = ["NOT_FOUND", "there is no such user"];
    else if (error.mistake) [code, text] = ["BAD_USER_INPUT", error.message];
    else {
      if (error.temporary) code = "SERVICE_UNAVAILABLE";
      this.#tell(error);
    }
    return new GraphQLError(text, { extensions: { code, reason, retryAfter, requestId, fields } });
  }
}

/**
 * The cursor of the last app of a page is the token of the next page. That of another app is how many apps of its page
 * are before the next one, and the token of its page: 3.TOKEN.
 */
function parse(cursor: string): { token: string; skip: number } {
  const parts = /^(?:([0-9]{1,4})\.)?([A-Za-z0-9_-]{0,1000})$/.exec(cursor);
  const skip = Number(parts?.[1] ?? 0);
  if (!parts || skip > mostOfUser - mostApps) throw wrong("after", `after is ${JSON.stringify(cursor.slice(0, 100))}; accepted: a cursor of an earlier answer`);
  return { token: parts[2]!, skip };
}

function wrong(field: string, text: string): GraphQLError {
  return new GraphQLError(text, { extensions: { code: "BAD_USER_INPUT", fields: field ? [{ path: field, description: text }] : [] } });
}
