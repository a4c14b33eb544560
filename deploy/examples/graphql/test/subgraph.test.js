// Asks the subgraph, over a client of a real server, by TANDEM_URL: 20,000 apps, 90 users.
import assert from "node:assert/strict";
import { test } from "node:test";
import { buildSchema } from "graphql";
import { createClient } from "@tandem-ann/client/node";
import { createSubgraph } from "../dist/subgraph.js";

const user = "user-0000042";

// over returns what asks a subgraph of a client, which counts the calls that it makes.
function over(t, address = process.env.TANDEM_URL, options = {}) {
  const client = createClient(address, { deadline: 30_000, ...options });
  t.after(() => client.close());
  let calls = 0;
  const batch = client.batchRetrieve.bind(client);
  client.batchRetrieve = (...args) => (calls++, batch(...args));
  const told = [];
  const yoga = createSubgraph(client, (error) => told.push(error.reason));
  const ask = async (query, variables = {}, headers = {}) => {
    const response = await yoga.fetch("http://127.0.0.1/graphql", {
      method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify({ query, variables }),
    });
    return response.json();
  };
  return { ask, told, calls: () => calls };
}

const page = `query($user: ID!, $first: Int!, $after: String) {
  recommendedApps(userId: $user, first: $first, after: $after) {
    edges { cursor score node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}`;

test("pages follow one another, from whichever cursor", async (t) => {
  const { ask } = over(t);
  const whole = (await ask(page, { user, first: 12 })).data.recommendedApps;
  assert.equal(whole.edges.length, 12);
  assert.equal(whole.pageInfo.hasNextPage, true);
  assert.equal(whole.pageInfo.hasPreviousPage, false);
  const ids = whole.edges.map((e) => e.node.id);
  assert.equal(new Set(ids).size, 12);
  assert.deepEqual(whole.edges.map((e) => e.score), whole.edges.map((e) => e.score).sort((a, b) => b - a));

  const got = [];
  for (let after = null; got.length < 12;) {
    const { edges, pageInfo } = (await ask(page, { user, first: 4, after })).data.recommendedApps;
    got.push(...edges.map((e) => e.node.id));
    assert.equal(pageInfo.endCursor, edges.at(-1).cursor);
    assert.equal(pageInfo.startCursor, edges[0].cursor);
    after = pageInfo.endCursor;
  }
  assert.deepEqual(got, ids);

  const second = (await ask(page, { user, first: 4, after: whole.edges[5].cursor })).data.recommendedApps;
  assert.deepEqual(second.edges.map((e) => e.node.id), ids.slice(6, 10), "from within a page");
  const third = (await ask(page, { user, first: 2, after: second.edges[1].cursor })).data.recommendedApps;
  assert.deepEqual(third.edges.map((e) => e.node.id), ids.slice(8, 10), "and from within that");
  assert.equal(third.pageInfo.hasPreviousPage, true);
});

test("fields of one operation are one call, and say what they are based on", async (t) => {
  const { ask, calls } = over(t);
  const fields = Array.from({ length: 20 }, (_, i) => `u${i}: recommendedApps(userId: "user-${String(i + 20).padStart(7, "0")}", first: 3) { edges { node { id } } }`);
  const answer = await ask(`{ ${fields.join("\n")} again: recommendedApps(userId: "user-0000020", first: 3) { edges { node { id } } } }`);
  assert.equal(answer.errors, undefined);
  assert.equal(calls(), 1);
  assert.deepEqual(answer.data.again, answer.data.u0);
  assert.equal(answer.extensions.tandem.length, 21);
  const [first] = answer.extensions.tandem;
  assert.deepEqual(first.path, ["u0"]);
  assert.equal(first.coverage, 1);
  assert.equal(first.shards, first.shardsAnswered);
  assert.equal(first.modelVersion, "v1");
  assert.equal(first.arm, "control");
});

test("a user whom nobody knows is one field's error", async (t) => {
  const { ask } = over(t);
  const { data, errors } = await ask(`{ nobody: recommendedApps(userId: "nobody") { edges { node { id } } }
    known: recommendedApps(userId: "${user}", first: 1) { edges { node { id } } } }`, {}, { "x-request-id": "shop-7" });
  assert.equal(data.nobody, null);
  assert.equal(data.known.edges.length, 1);
  assert.equal(errors.length, 1);
  assert.deepEqual(errors[0].path, ["nobody"]);
  assert.equal(errors[0].extensions.code, "NOT_FOUND");
  assert.equal(errors[0].extensions.reason, "ENTITY_UNKNOWN");
});

test("what is wrong is said, with the field", async (t) => {
  const { ask, calls } = over(t);
  for (const [variables, field] of [[{ first: 0 }, "first"], [{ first: 101 }, "first"], [{ first: 1, after: "a b" }, "after"], [{ first: 1, after: "9999.x" }, "after"]]) {
    const { data, errors } = await ask(page, { user, ...variables });
    assert.equal(data.recommendedApps, null);
    assert.equal(errors[0].extensions.code, "BAD_USER_INPUT");
    assert.equal(errors[0].extensions.fields[0].path, field);
    assert.match(errors[0].message, /accepted: /);
  }
  assert.equal(calls(), 0, "nothing of it is asked of a server");
  const { errors } = await ask(page, { user, first: 1, after: "AAAA" });
  assert.equal(errors[0].extensions.reason, "PAGE_TOKEN_INVALID");

  const many = Array.from({ length: 257 }, (_, i) => `a${i}: recommendedApps(userId: "${user}", first: ${(i % 100) + 1}) { edges { node { id } } }`);
  const refused = await ask(`{ ${many.join("\n")} }`);
  assert.equal(refused.errors.length, 1);
  assert.match(refused.errors[0].message, /more than 256 pages/);
});

test("a server that is not there is no page, and no secret", async (t) => {
  const { ask, told } = over(t, "127.0.0.1:1", { deadline: 200 });
  const { data, errors } = await ask(page, { user, first: 1 });
  assert.equal(data.recommendedApps, null);
  assert.equal(errors[0].extensions.code, "SERVICE_UNAVAILABLE");
  assert.equal(errors[0].extensions.reason, "UNREACHABLE");
  assert.equal(errors[0].message, "there are no recommendations now");
  assert.deepEqual(told, ["UNREACHABLE"]);
});

test("a router composes it", async (t) => {
  const { ask } = over(t);
  const { sdl } = (await ask("{ _service { sdl } }")).data._service;
  assert.match(sdl, /type App @key\(fields: "id", resolvable: false\)/);
  const known = "directive @link(url: String!, import: [String!]) on SCHEMA\ndirective @key(fields: String!, resolvable: Boolean) on OBJECT\ndirective @shareable on OBJECT\n";
  assert.ok(buildSchema(known + sdl, { assumeValidSDL: true }).getType("AppConnection"));
});
