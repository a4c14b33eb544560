import { createSchema, createYoga } from "graphql-yoga";
import type { Plugin, YogaInitialContext } from "graphql-yoga";
import type { ExecutionResult, GraphQLResolveInfo } from "graphql";
import type { CallOptions, Client, TandemError } from "@tandem-ann/client";
import { Recommender } from "./recommended.js";

const types = `
  type Query {
    "The best apps for a user, in the order of their scores."
    recommendedApps(userId: ID!, first: Int! = 20, after: String): AppConnection
  }
  type AppConnection { edges: [AppEdge!]! pageInfo: PageInfo! }
  type AppEdge { cursor: String! score: Float! node: App! }
  type PageInfo { hasNextPage: Boolean! hasPreviousPage: Boolean! startCursor: String endCursor: String }
`;

/** What a router composes: another subgraph has the fields of an app. */
const federated = `extend schema @link(url: "https://specs.apollo.dev/federation/v2.3", import: ["@key", "@shareable"])
${types.replace("type PageInfo", "type PageInfo @shareable")}
  type App @key(fields: "id", resolvable: false) { id: ID! }
`;

type Context = YogaInitialContext & { recommender: Recommender };

function path(info: GraphQLResolveInfo): (string | number)[] {
  const list: (string | number)[] = [];
  for (let at: GraphQLResolveInfo["path"] | undefined = info.path; at; at = at.prev) list.unshift(at.key);
  return list;
}

/** Adds what answers are based on to the extensions of each response. */
const basis: Plugin<Context> = {
  onExecute({ args }) {
    return {
      onExecuteDone({ result, setResult }) {
        const { bases } = (args.contextValue as Context).recommender;
        if (Symbol.asyncIterator in result || bases.length === 0) return;
        const done = result as ExecutionResult;
        setResult({ ...done, extensions: { ...done.extensions, tandem: bases } });
      },
    };
  },
};

/** A handler of GraphQL over HTTP that asks Tandem by a client, and tells of failures that are nobody's mistake. */
export function createSubgraph(client: Client, tell: (error: TandemError) => void = console.error) {
  return createYoga<object, { recommender: Recommender }>({
    landingPage: false,
    graphiql: false,
    plugins: [basis],
    schema: createSchema<Context>({
      typeDefs: `${types}
        type App { id: ID! }
        type _Service { sdl: String! }
        extend type Query { _service: _Service! }`,
      resolvers: {
        Query: {
          _service: () => ({ sdl: federated }),
          recommendedApps: (_, { userId, first, after }: { userId: string; first: number; after?: string | null }, { recommender }, info) =>
            recommender.page(userId, first, after, path(info)),
        },
      },
    }),
    context: ({ request }) => ({ recommender: new Recommender(client, tell, options(request)) }),
  });
}

/** The request's own name, trace and end go on to Tandem. */
function options(request: Request): CallOptions {
  const out: CallOptions = { signal: request.signal, headers: {} };
  const id = request.headers.get("x-request-id"), trace = request.headers.get("traceparent");
  if (id && /^[\x20-\x7e]{1,128}$/.test(id)) out.requestId = id;
  if (trace) out.headers = { traceparent: trace };
  return out;
}
