// What is asked on the page Explore, as its form, as its address, and as a request.
import { create } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { ValueSchema, type Value } from "@bufbuild/protobuf/wkt";
import { fromJson } from "@bufbuild/protobuf";
import { RetrieveRequestSchema, Tower, type RetrieveRequest } from "./gen/tandem/v1/retrieval_pb";

export interface Form {
  by: "user" | "app";
  id: string;
  target: "apps" | "users";
  k: number;
  filter: string;
  bindings: Record<string, string>;
  segment: string;
  atMost: { attribute: string; n: number }[];
  exclude: string[];
  exact: boolean;
  arm: string;
  other: string;
  why: string;
  map: boolean;
}

export const blank: Form = { by: "user", id: "", target: "apps", k: 20, filter: "", bindings: {}, segment: "", atMost: [], exclude: [], exact: false, arm: "", other: "", why: "", map: false };
export const maxShown = 200;

export function fromQuery(q: URLSearchParams): Form {
  const k = Number(q.get("k"));
  return {
    by: q.has("app") ? "app" : "user",
    id: q.get("app") ?? q.get("user") ?? "",
    target: q.get("target") === "users" ? "users" : "apps",
    k: k >= 1 && k <= maxShown ? Math.floor(k) : blank.k,
    filter: q.get("filter") ?? "",
    bindings: Object.fromEntries([...q].filter(([n]) => n.startsWith("user.")).map(([n, v]) => [n.slice(5), v])),
    segment: q.get("segment") ?? "",
    atMost: (q.get("at_most") ?? "").split(",").filter(Boolean).map((p) => ({ attribute: p.split(":")[0]!, n: Math.max(1, Number(p.split(":")[1]) || 1) })),
    exclude: (q.get("exclude") ?? "").split("\n").filter(Boolean),
    exact: q.get("exact") === "1",
    arm: q.get("arm") ?? "",
    other: q.get("beside") ?? "",
    why: q.get("why") ?? "",
    map: q.get("map") === "1",
  };
}

export function toQuery(f: Form): Record<string, string> {
  const q: Record<string, string> = {};
  if (f.id) q[f.by] = f.id;
  if (f.target === "users") q["target"] = "users";
  if (f.k !== blank.k) q["k"] = String(f.k);
  if (f.filter) q["filter"] = f.filter;
  for (const name of boundNames(f.filter)) if (f.bindings[name]) q[`user.${name}`] = f.bindings[name]!;
  if (f.segment) q["segment"] = f.segment;
  if (f.atMost.length) q["at_most"] = f.atMost.map((a) => `${a.attribute}:${a.n}`).join(",");
  if (f.exclude.length) q["exclude"] = f.exclude.join("\n");
  if (f.exact) q["exact"] = "1";
  if (f.arm) q["arm"] = f.arm;
  if (f.other) q["beside"] = f.other;
  if (f.why) q["why"] = f.why;
  if (f.map) q["map"] = "1";
  return q;
}

/** The names that a filter reads of the user, texts left out. */
export function boundNames(filter: string): string[] {
  const bare = filter.replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/g, '""');
  return [...new Set([...bare.matchAll(/\buser\.([A-Za-z_]\w*)/g)].map((m) => m[1]!))];
}

/** A binding as it is typed: JSON if it is that, else a text. */
function binding(text: string): Value {
  let v: JsonValue = text;
  try {
    const parsed = JSON.parse(text) as JsonValue;
    // A number that a double does not hold goes as its digits.
    v = typeof parsed === "number" && !Number.isSafeInteger(parsed) && Number.isInteger(parsed) ? text : parsed;
  } catch {
    // a text
  }
  return fromJson(ValueSchema, v);
}

export function requestOf(f: Form, modelVersion: string): RetrieveRequest {
  const bindings: Record<string, Value> = {};
  for (const name of boundNames(f.filter)) if (f.bindings[name]) bindings[name] = binding(f.bindings[name]!);
  return create(RetrieveRequestSchema, {
    userId: f.by === "user" ? f.id : "",
    appId: f.by === "app" ? f.id : "",
    target: f.target === "users" ? Tower.USERS : Tower.UNSPECIFIED,
    k: f.k,
    filter: f.filter,
    bindings,
    segment: f.target === "apps" ? f.segment : "",
    atMost: f.atMost,
    excludeIds: f.exclude,
    recallTarget: f.exact ? 1 : undefined,
    modelVersion,
    attributes: ["*"],
  });
}
