import DataLoader from "dataloader";
import { GraphQLError } from "graphql";
import type { CallOptions, Client, RetrieveResponse } from "@tandem-ann/client";
import { TandemError } from "@tandem-ann/client";

/** How many queries one operation may ask: one batch. */
export const mostQueries = 256;
/** How many apps a page may have. */
export const mostApps = 100;

type Ask = { userId: string; k: number; pageToken: string };

/** What an answer is based on, for the extensions of a response. */
export interface Basis {
  path: readonly (string | number)[];
  coverage: number;
  modelVersion: string;
  arm: string;
  requestId: string;
}

/** The queries of one operation: those of fields that are resolved together are one call. */
export class Recommender {
  readonly bases: Basis[] = [];
  readonly #loader: DataLoader<Ask, RetrieveResponse, string>;
  #asked = 0;

  constructor(client: Client, options: CallOptions = {}) {
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
      throw explained(error);
    }
    this.bases.push({ path, coverage: answer.coverage, modelVersion: answer.modelVersion, arm: answer.arm, requestId: answer.requestId });
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
}

/**
 * The cursor of the last app of a page is the token of the next page. That of another app is how many apps of its page
 * are before the next one, and the token of its page: 3.TOKEN.
 */
function parse(cursor: string): { token: string; skip: number } {
  const parts = /^(?:([0-9]{1,3})\.)?([A-Za-z0-9_-]{0,1000})$/.exec(cursor);
  const skip = Number(parts?.[1] ?? 0);
  if (!parts || skip > 2 * mostApps) throw wrong("after", `after is ${JSON.stringify(cursor.slice(0, 100))}; accepted: a cursor of an earlier answer`);
  return { token: parts[2]!, skip };
}

function wrong(field: string, text: string): GraphQLError {
  return new GraphQLError(text, { extensions: { code: "BAD_USER_INPUT", fields: field ? [{ path: field, description: text }] : [] } });
}

/** What programs need of an error. The text of a mistake is for whoever asks; that of other failures is for our log. */
function explained(error: unknown): GraphQLError {
  if (!(error instanceof TandemError)) throw error;
  const extensions = {
    code: error.mistake ? "BAD_USER_INPUT" : error.temporary ? "SERVICE_UNAVAILABLE" : "INTERNAL_SERVER_ERROR",
    reason: error.reason, retryAfter: error.retryAfter, requestId: error.requestId, fields: error.fields,
  };
  if (error.reason === "ENTITY_UNKNOWN") extensions.code = "NOT_FOUND";
  return new GraphQLError(error.mistake ? error.message : "there are no recommendations now", { extensions, originalError: error });
}
