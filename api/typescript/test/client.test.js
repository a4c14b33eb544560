// Asks a real server, by TANDEM_URL, and one that breaks each answer. It has 90 of the 100 users of
// ranker.js, user-0000000 to user-0000099.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { createClient, RetrieveResponseSchema, reasons, TandemError } from "../dist/node.js";
import { ErrorInfoSchema } from "../dist/gen/google/rpc/error_details_pb.js";
import { rank } from "./ranker.js";

const url = process.env.TANDEM_URL;
const user = "user-0000042";

// broken returns the address of a server that answers as it is told, until the test ends.
async function broken(t, answer) {
  const state = { answer, calls: 0, headers: [] };
  const server = createServer((request, response) => {
    state.calls++;
    state.headers.push(request.headers);
    request.resume().on("end", () => state.answer(response, request));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => { server.closeAllConnections(); server.close(); });
  state.address = `127.0.0.1:${server.address().port}`;
  return state;
}

const http = (status, type, body, headers = {}) => (response) => response.writeHead(status, { "content-type": type, ...headers }).end(body);
const proxy = (status, headers) => http(status, "text/html", "<html>a proxy</html>", headers);

function refuse(code, reason, status) {
  const packed = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain: "tandem" }));
  const details = [{ type: "google.rpc.ErrorInfo", value: Buffer.from(packed.value).toString("base64").replace(/=+$/, "") }];
  return http(status, "application/json", JSON.stringify({ code, message: "no", details }), { "x-request-id": "shop%207" });
}

const good = (seconds) => {
  const staleness = { seconds: BigInt(Math.floor(seconds)), nanos: Math.round((seconds % 1) * 1e9) };
  return http(200, "application/proto", toBinary(RetrieveResponseSchema, create(RetrieveResponseSchema, { requestId: "r", staleness })));
};

function client(t, addresses, options = {}) {
  const c = createClient(addresses, { deadline: 30_000, ...options });
  t.after(() => c.close());
  return c;
}

async function fails(promise) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof TandemError, String(error));
    return error;
  }
  assert.fail("it succeeds");
}

test("answers", async (t) => {
  const c = client(t, url);
  const answer = await c.retrieve({ userId: user, k: 3, attributes: ["name"], requestId: "shop é" });
  assert.equal(answer.candidates.length, 3);
  assert.equal(answer.requestId, "shop é");
  assert.equal((await c.retrieve({ userId: user, k: 1 }, { requestId: "shop 7" })).requestId, "shop 7");
  assert.equal((await fails(c.retrieve({ userId: user, k: 1 }, { requestId: "shop é" }))).reason, "HEADER_INVALID");
  const vectors = await c.getEmbeddings({ ids: [answer.candidates[0].id, "nothing"] });
  assert.equal(vectors.embeddings[0].values.length, 16);
  assert.deepEqual(vectors.unknownIds, ["nothing"]);
});

test("the ranker", async () => assert.deepEqual(await rank(url), { ranked: 90, popular: 10 }));

test("errors have the details of the server", async (t) => {
  const c = client(t, url);
  for (const [request, code, reason, fields] of [
    [{ userId: user }, "invalid_argument", "RULE_BROKEN", ["k"]],
    [{ userId: user, k: 1, filter: "price <" }, "invalid_argument", "FILTER_INVALID", ["filter"]],
    [{ vector: [1, 2], k: 1 }, "invalid_argument", "VECTOR_INVALID", ["vector"]],
    [{ userId: "nobody", k: 1 }, "not_found", "ENTITY_UNKNOWN", []],
    [{ userId: user, k: 1, modelVersion: "none" }, "failed_precondition", "MODEL_VERSION_NOT_SERVED", []],
  ]) {
    const call = await fails(c.retrieve(request, { requestId: "shop 7" }));
    const [{ error: item }] = await c.batchRetrieve([request], { requestId: "shop 7" });
    for (const e of [call, item]) {
      assert.deepEqual([e.code, e.reason, e.fields.map((f) => f.path), e.mistake, e.temporary], [code, reason, fields, code !== "not_found", false]);
      assert.equal(e.text, call.text);
      assert.match(e.requestId, /^shop 7/);
    }
    assert.equal(call.tries, 1);
    if (code === "not_found") assert.deepEqual([call.missing, item.missing], Array(2).fill({ type: "user", name: "nobody" }));
  }
});

test("faults are typed, and another server answers", async (t) => {
  for (const [name, fault, code, reason] of [
    ["503", proxy(503), "unavailable", "UNEXPLAINED"],
    ["429", proxy(429, { "retry-after": "7" }), "resource_exhausted", "UNEXPLAINED"],
    ["reset", (response) => response.socket.destroy(), "unavailable", "UNREACHABLE"],
    ["cut", (response) => { response.writeHead(200, { "content-type": "application/proto", "content-length": "1000" }).write("abc", () => response.socket.destroy()); }, "unavailable", "UNREACHABLE"],
    ["wrong bytes", http(200, "application/proto", Buffer.from([255, 255, 255])), "unavailable", "ANSWER_MALFORMED"],
    ["another type", proxy(200), "unavailable", "ANSWER_MALFORMED"],
    ["overloaded", refuse("resource_exhausted", "OVERLOADED", 429), "resource_exhausted", "OVERLOADED"],
    ["stale server", refuse("unavailable", "LIVE_STALE", 503), "unavailable", "LIVE_STALE"],
  ]) {
    await t.test(name, async (t) => {
      const server = await broken(t, fault);
      const e = await fails(client(t, server.address, { retries: 0 }).retrieve({ userId: user, k: 1 }));
      assert.deepEqual([e.code, e.reason, e.tries], [code, reason, 1], String(e));
      if (name === "429") assert.equal(e.retryAfter, 7);
      const both = client(t, [server.address, url], { retries: 1 });
      for (let i = 0; i < 10; i++) await both.retrieve({ userId: user, k: 1 });
      assert.ok(server.calls < 11, `${server.calls} calls`);
    });
  }
});

test("what cannot help is not repeated, and what can within the budget", async (t) => {
  const server = await broken(t, refuse("internal", "INTERNAL", 500));
  const e = await fails(client(t, server.address).retrieve({ userId: user, k: 1 }));
  assert.deepEqual([e.reason, e.requestId, server.calls], ["INTERNAL", "shop 7", 1]);
  server.answer = refuse("unavailable", "STOPPING", 503);
  server.calls = 0;
  const c = client(t, server.address), start = performance.now();
  for (let i = 0; i < 50; i++) await fails(c.retrieve({ userId: user, k: 1 }));
  assert.ok(server.calls > 55 && server.calls <= 65 + (performance.now() - start) / 2000, `${server.calls} calls`);
});

test("stale answers are dropped", async (t) => {
  const server = await broken(t, good(5.9));
  const c = client(t, server.address, { deadline: 1000, retries: 0 });
  await c.retrieve({ userId: user, k: 1 });
  server.answer = good(6.1);
  assert.equal((await fails(c.retrieve({ userId: user, k: 1 }))).reason, "ANSWER_STALE");
  await c.retrieve({ userId: user, k: 1 }, { deadline: 3000 });
  await client(t, server.address, { fence: 0 }).retrieve({ userId: user, k: 1 });
});

test("deadlines, signals and closing end calls", async (t) => {
  const server = await broken(t, () => {});
  const c = client(t, server.address);
  assert.equal((await fails(c.retrieve({ userId: user, k: 1 }, { deadline: 50 }))).reason, "DEADLINE_EXCEEDED");
  assert.equal((await fails(c.retrieve({ userId: user, k: 1 }, { signal: AbortSignal.timeout(50) }))).reason, "CALLER_GONE");
  const running = fails(c.retrieve({ userId: user, k: 1 }));
  c.close();
  assert.equal((await running).reason, "CLIENT_CLOSED");
  assert.equal((await fails(c.retrieve({ userId: user, k: 1 }))).reason, "CLIENT_CLOSED");
  assert.equal((await fails(client(t, "127.0.0.1:1", { retries: 0 }).retrieve({ userId: user, k: 1 }))).reason, "UNREACHABLE");
});

test("headers", async (t) => {
  const server = await broken(t, good(0));
  let token = "first";
  const c = client(t, server.address, { token: () => token, priority: "batch" });
  await c.retrieve({ userId: user, k: 1 }, { headers: { traceparent: "00-1" } });
  token = "second";
  await c.retrieve({ userId: user, k: 1 });
  assert.deepEqual(server.headers.map((h) => h.authorization), ["Bearer first", "Bearer second"]);
  assert.equal(server.headers[0]["tandem-priority"], "batch");
  assert.equal(server.headers[0].traceparent, "00-1");
});

test("options that cannot be are named", () => {
  for (const [addresses, options, want] of [
    [[], {}, /there are none/],
    [["a:1", "ftp://a"], {}, /addresses\[1\] is "ftp:\/\/a"; accepted/],
    [["http://user:secret@a"], {}, /accepted: http:\/\/HOST:PORT/],
    [["10.0.0.1:80"], { token: "t" }, /in clear text/],
    [["a:1"], { token: "two words" }, /the token is not one/],
    [["a:1"], { deadline: 0 }, /deadline is 0; accepted/],
    [["a:1"], { retries: NaN }, /retries is NaN/],
    [["a:1"], { priority: "high" }, /accepted: live, batch, audit/],
    [["a:1"], { connections: 0 }, /connections is 0/],
  ]) {
    assert.throws(() => createClient(addresses, options), (e) => want.test(e.message) && !e.message.includes("secret"));
  }
});

test("the reasons are those of the page", () => {
  const page = readFileSync(new URL("../../../docs/errors.md", import.meta.url), "utf8");
  const listed = Object.fromEntries([...page.matchAll(/^\| `([a-z_]+)` \| (.*) \|$/gm)].map(([, code, row]) => [code, [...row.matchAll(/`([A-Z_]+)`/g)].map((m) => m[1])]));
  for (const code of Object.keys(reasons)) assert.deepEqual([...reasons[code]].sort(), listed[code].sort(), code);
  assert.deepEqual(Object.keys(listed).sort(), Object.keys(reasons).sort());
});
