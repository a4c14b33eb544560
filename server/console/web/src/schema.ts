// What the towers of a snapshot have: attributes with their types, segments, and which attribute
// is the name that people know an app by.
import { releases } from "./api";
import type { Candidate } from "./gen/tandem/v1/retrieval_pb";
import { may } from "./session";



export interface Attribute {
  name: string;
  type: string;
}

export interface Schema {
  snapshot: string;
  apps: Attribute[];
  users: Attribute[];
  segments: { name: string; expression: string; eligible?: number }[];
  metric: string;
  dim: number;
  /** Whether this is all, or what answers happened to have: who may not look at snapshots gets that. */
  whole: boolean;
}

interface Manifest {
  metric: string;
  dim: number;
  apps: { schema: Attribute[]; segments?: { name: string; expression: string; eligible?: number }[] };
  users: { schema: Attribute[] };
}

const known = new Map<string, Schema>();

export async function schemaOf(snapshot: string, signal?: AbortSignal): Promise<Schema | null> {
  const had = known.get(snapshot);
  if (had) return had;
  if (!may("publish", "admin")) return null;
  const answer = await releases.getSnapshot({ snapshot }, { signal });
  const m = JSON.parse(new TextDecoder().decode(answer.manifest)) as Manifest;
  const schema: Schema = {
    snapshot, metric: m.metric, dim: m.dim, whole: true,
    apps: m.apps.schema ?? [], users: m.users.schema ?? [], segments: m.apps.segments ?? [],
  };
  known.set(snapshot, schema);
  return schema;
}

const typeOf: Record<string, string> = { keyword: "keyword", keywords: "keyword_list", bool: "bool", int: "int", float: "float", timestamp: "timestamp" };

/** The attributes that some candidates have. */
export function seenIn(candidates: Candidate[]): Attribute[] {
  const types = new Map<string, string>();
  for (const c of candidates) {
    for (const [name, v] of Object.entries(c.attributes)) if (v.value.case) types.set(name, typeOf[v.value.case] ?? v.value.case);
  }
  return [...types].map(([name, type]) => ({ name, type })).sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The attribute that has the name of an app, by what it is called; empty if none is. */
export function nameAttribute(attributes: Attribute[]): string {
  for (const wanted of ["name", "title"]) {
    if (attributes.some((a) => a.name === wanted && a.type === "keyword")) return wanted;
  }
  return "";
}
