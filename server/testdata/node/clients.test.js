// Asks a server by the clients of gRPC and Connect for Node. Environment: TANDEM_URL, the
// server's, which does little work at a time; TANDEM_DESCRIPTORS, the contract as a file
// descriptor set. The server has 20,000 apps of 16 dimensions, made by tandem generate.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import * as grpc from "@grpc/grpc-js";
import { loadFileDescriptorSetFromBuffer } from "@grpc/proto-loader";
import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { AnySchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";

const url = process.env.TANDEM_URL;
const descriptors = readFileSync(process.env.TANDEM_DESCRIPTORS);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
const ErrorInfo = registry.getMessage("google.rpc.ErrorInfo");
const BadRequest = registry.getMessage("google.rpc.BadRequest");
const ResourceInfo = registry.getMessage("google.rpc.ResourceInfo");
const RetryInfo = registry.getMessage("google.rpc.RetryInfo");
const Violations = registry.getMessage("buf.validate.Violations");

const user = "user-0000042";
const maxErrorBytes = 4096;

// Client of grpc-js, on one channel, as services have it. Its limits are its defaults.
const contract = grpc.loadPackageDefinition(loadFileDescriptorSetFromBuffer(descriptors, { keepCase: true, defaults: true, longs: String }));
const channel = new contract.tandem.v1.RetrievalService(new URL(url).host, grpc.credentials.createInsecure());
after(() => channel.close());

// call calls a method and returns what came of it.
function call(method, request, { deadline = 30_000, metadata = {} } = {}) {
  const headers = new grpc.Metadata();
  for (const [key, value] of Object.entries(metadata)) headers.set(key, value);
  let abort;
  const done = new Promise((resolve) => {
    let initial;
    const running = channel[method](request, headers, { deadline: Date.now() + deadline }, (error, answer) =>
      resolve({ error, answer, header: initial, details: error ? detailsOf(error) : [] }));
    running.on("metadata", (m) => { initial = m; });
    abort = () => running.cancel();
  });
  done.cancel = abort;
  return done;
}

// detailsOf decodes the details of an error of grpc-js.
function detailsOf(error) {
  const [status] = error.metadata.get("grpc-status-details-bin");
  const details = [];
  if (!status) return details;
  const reader = new BinaryReader(status);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field !== 3) {
      reader.skip(type, field);
      continue;
    }
    const any = fromBinary(AnySchema, reader.bytes());
    const name = any.typeUrl.slice(any.typeUrl.lastIndexOf("/") + 1);
    details.push(fromBinary(registry.getMessage(name), any.value));
  }
  return details;
}

const find = (details, schema) => details.find((d) => d.$typeName === schema.typeName);

// trailersSize returns about how many bytes the trailers of an error take.
const trailersSize = (error) => Buffer.byteLength(encodeURIComponent(error.details)) +
  error.metadata.get("grpc-status-details-bin").reduce((n, b) => n + Math.ceil(b.length * 4 / 3), 0);

test("grpc-js: an answer, named by its metadata", async () => {
  const { error, answer, header } = await call("Retrieve", { user_id: user, k: 5 }, { metadata: { "x-request-id": "node-1" } });
  assert.equal(error, null);
  assert.equal(answer.candidates.length, 5);
  assert.equal(answer.request_id, "node-1");
  assert.deepEqual(header.get("x-request-id"), ["node-1"]);
});

test("grpc-js: every class of errors has its details", async () => {
  for (const [request, code, reason, fields] of [
    [{ user_id: user }, grpc.status.INVALID_ARGUMENT, "RULE_BROKEN", ["k"]],
    [{ user_id: user, k: 1, filter: "price <" }, grpc.status.INVALID_ARGUMENT, "FILTER_INVALID", ["filter"]],
    [{ user_id: user, k: 1, attributes: ["prize"] }, grpc.status.INVALID_ARGUMENT, "ATTRIBUTE_INVALID", ["attributes[0]"]],
    [{ vector: [1, 2], k: 1 }, grpc.status.INVALID_ARGUMENT, "VECTOR_INVALID", ["vector"]],
    [{ user_id: user, k: 1, segment: "none" }, grpc.status.INVALID_ARGUMENT, "SEGMENT_INVALID", ["segment"]],
    [{ user_id: "nobody", k: 1 }, grpc.status.NOT_FOUND, "ENTITY_UNKNOWN", undefined],
    [{ user_id: user, k: 1, model_version: "none" }, grpc.status.FAILED_PRECONDITION, "MODEL_VERSION_NOT_SERVED", undefined],
  ]) {
    const { error, details } = await call("Retrieve", request, { metadata: { "x-request-id": "node-2" } });
    assert.equal(error?.code, code, error?.details);
    assert.equal(find(details, ErrorInfo).reason, reason);
    assert.equal(find(details, ErrorInfo).domain, "tandem");
    assert.deepEqual(find(details, BadRequest)?.fieldViolations.map((v) => v.field), fields);
    if (reason === "RULE_BROKEN") assert.equal(find(details, Violations).violations[0].ruleId, "retrieve.k");
  }
});

test("grpc-js: long errors are short, and other calls of the channel go on", async () => {
  const long = "x".repeat(16_000);
  const others = Array.from({ length: 20 }, () => call("Retrieve", { user_id: user, k: 1 }));
  for (const request of [
    { user_id: user, k: 1, filter: `"${long}" == nothing` },
    { user_id: user, k: 1, filter: `"${"é%".repeat(5000)}" == nothing` },
    { user_id: user, k: 1, attributes: Array(256).fill(long) },
    { user_id: user, at_most: Array(8).fill({ attribute: long, n: 0 }), model_version: long, segment: long },
    { user_id: user, k: 1, vectors: Array(50_000).fill({}) },
  ]) {
    const { error } = await call("Retrieve", request, { deadline: 10_000 });
    assert.equal(error?.code, grpc.status.INVALID_ARGUMENT, error?.details.slice(0, 200));
    assert.ok(trailersSize(error) <= maxErrorBytes, `${trailersSize(error)} bytes: ${error.details.slice(0, 200)}`);
  }
  for (const { error } of await Promise.all(others)) {
    assert.ok(error === null || error.code === grpc.status.RESOURCE_EXHAUSTED, error?.details);
  }
  assert.equal((await call("Retrieve", { user_id: user, k: 1 })).error, null);
});

test("grpc-js: the items of a batch fail one by one, with details", async () => {
  const { error, answer } = await call("BatchRetrieve", { requests: [{ user_id: user, k: 1 }, { user_id: user }, { user_id: "nobody", k: 1 }] });
  assert.equal(error, null);
  const [first, second, third] = answer.results;
  assert.equal(first.response.candidates.length, 1);
  assert.equal(second.error.code, "invalid_argument");
  assert.equal(second.error.info.reason, "RULE_BROKEN");
  assert.equal(second.error.bad_request.field_violations[0].field, "k");
  assert.equal(third.error.info.reason, "ENTITY_UNKNOWN");
  assert.equal(third.error.resource.resource_type, "user");
  assert.equal(third.error.resource.resource_name, "nobody");
});

test("grpc-js: deadlines and cancellation end a call alone", async () => {
  const heavy = { requests: Array(64).fill({ user_id: user, k: 200, recall_target: 1 }) };
  const late = await call("BatchRetrieve", heavy, { deadline: 5 });
  assert.ok([grpc.status.DEADLINE_EXCEEDED, grpc.status.RESOURCE_EXHAUSTED].includes(late.error?.code), late.error?.details);
  const running = call("BatchRetrieve", heavy);
  setTimeout(running.cancel, 5);
  assert.ok([grpc.status.CANCELLED, grpc.status.RESOURCE_EXHAUSTED].includes((await running).error?.code));
  assert.equal((await call("Retrieve", { user_id: user, k: 1 })).error, null);
});

test("grpc-js: an overloaded server says when to retry", async () => {
  const heavy = { requests: Array(64).fill({ user_id: user, k: 200, recall_target: 1 }) };
  const all = await Promise.all(Array.from({ length: 40 }, () => call("BatchRetrieve", heavy)));
  const refused = all.filter(({ error }) => error !== null);
  assert.ok(refused.length > 0 && refused.length < all.length, `${refused.length} of ${all.length} were refused`);
  for (const { error, details } of refused) {
    assert.equal(error.code, grpc.status.RESOURCE_EXHAUSTED, error.details);
    assert.equal(find(details, ErrorInfo).reason, "OVERLOADED");
    assert.equal(find(details, RetryInfo).retryDelay.seconds, 1n);
    assert.match(error.details, /retry in 1s$/);
    assert.deepEqual(error.metadata.get("retry-after"), ["1"]);
  }
});

test("grpc-js: an answer of nearly 4 MiB arrives, a longer one is refused before any work", async () => {
  const { answer, error } = await call("Retrieve", { user_id: user, k: 10_000, attributes: ["*"] });
  if (error) {
    assert.equal(error.code, grpc.status.INVALID_ARGUMENT, error.details);
    assert.equal(find(detailsOf(error), ErrorInfo).reason, "ANSWER_TOO_LARGE");
  } else {
    assert.equal(answer.candidates.length, 10_000);
  }
  const item = { user_id: user, k: 10_000, recall_target: 1 };
  const batch = await call("BatchRetrieve", { requests: Array(40).fill(item) });
  assert.equal(batch.error, null, batch.error?.details);
  const answered = batch.answer.results.filter((r) => r.response);
  assert.ok(answered.length > 1 && answered.length < 40, `${answered.length} of 40 fit`);
  const candidates = answered.flatMap((r) => r.response.candidates);
  const bytes = candidates.reduce((n, c) => n + c.id.length + 9, 0); // with its score, and what is before each
  assert.ok(bytes > 3.5 * 2 ** 20 && bytes < 4 * 2 ** 20, `${bytes} bytes`);
  assert.equal(batch.answer.results.at(-1).error.info.reason, "ANSWER_TOO_LARGE");
  const embeddings = await call("GetEmbeddings", { ids: candidates.slice(0, 1000).map((c) => c.id) });
  assert.equal(embeddings.error, null, embeddings.error?.details);
  assert.equal(embeddings.answer.embeddings.length, 1000);
});

for (const [name, transport] of [
  ["Connect, JSON", createConnectTransport({ baseUrl: url, httpVersion: "1.1", useBinaryFormat: false })],
  ["Connect, binary, HTTP/2", createConnectTransport({ baseUrl: url, httpVersion: "2" })],
  ["Connect, GET", createConnectTransport({ baseUrl: url, httpVersion: "1.1", useHttpGet: true })],
  ["gRPC", createGrpcTransport({ baseUrl: url })],
  ["gRPC-Web", createGrpcWebTransport({ baseUrl: url, httpVersion: "1.1" })],
]) {
  test(`connect-es by ${name}`, async () => {
    const client = createClient(registry.getService("tandem.v1.RetrievalService"), transport);
    const fails = async (request, options) => {
      try {
        await client.retrieve(request, options);
      } catch (error) {
        return ConnectError.from(error);
      }
      assert.fail("it succeeds");
    };
    let header;
    const answer = await client.retrieve({ userId: user, k: 3 }, { headers: { "x-request-id": "es-1" }, onHeader: (h) => { header = h; } });
    assert.equal(answer.candidates.length, 3);
    assert.equal(answer.requestId, "es-1");
    assert.equal(header.get("x-request-id"), "es-1");

    let error = await fails({ userId: user }, { headers: { "x-request-id": "es-2" } });
    assert.equal(error.code, Code.InvalidArgument);
    assert.equal(error.metadata.get("x-request-id"), "es-2");
    assert.equal(error.findDetails(ErrorInfo)[0].reason, "RULE_BROKEN");
    assert.equal(error.findDetails(BadRequest)[0].fieldViolations[0].field, "k");
    error = await fails({ userId: "nobody", k: 1 });
    assert.equal(error.code, Code.NotFound);
    assert.equal(error.findDetails(ErrorInfo)[0].reason, "ENTITY_UNKNOWN");
    assert.equal(error.findDetails(ResourceInfo)[0].resourceName, "nobody");
    error = await fails({ userId: user, k: 1, filter: "x".repeat(16_000) });
    assert.equal(error.findDetails(ErrorInfo)[0].reason, "FILTER_INVALID");
    assert.ok(error.rawMessage.length < maxErrorBytes);
    error = await fails({ userId: user, k: 1, vectors: [create(registry.getMessage("tandem.v1.Vector"))] }, { signal: AbortSignal.abort() });
    assert.equal(error.code, Code.Canceled);

    const batch = await client.batchRetrieve({ requests: [{ userId: user, k: 1 }, { userId: user }] });
    assert.equal(batch.results[1].outcome.value.info.reason, "RULE_BROKEN");
    assert.equal(batch.results[1].outcome.value.badRequest.fieldViolations[0].field, "k");
  });
}
