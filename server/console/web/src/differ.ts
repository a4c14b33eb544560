// Which nodes of a cluster differ from the others, and what to do about each.
import { count, secondsOf, span } from "./format";
import { ClusterHeldState, ClusterNodeState, type ClusterHeldShard, type ClusterStatus } from "./gen/tandem/v1/cluster_pb";
import { Tower } from "./gen/tandem/v1/retrieval_pb";

export interface Difference {
  what: string;
  next: string;
}

/** A shard with what all nodes say of it. */
export interface ShardLine {
  snapshot: string;
  tower: Tower;
  number: number;
  ready: number;
  loading: number;
  failed: number;
  positions: string;
  rows: string;
  /** How replicas at one position differ; empty if they do not. */
  differ: string;
}

const numbers = (x: ClusterHeldShard) => `${count(x.rows)} rows, ${count(x.dead)} dead, ${count(x.changed)} changed, ${count(x.fresh)} fresh`;
const name = (tower: Tower, number: number) => `${tower === Tower.USERS ? "users" : "apps"} ${number}`;

/** What most of some say, and of as many the one that comes first in order. */
function usual(votes: Map<string, number>): string {
  return [...votes].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))[0]?.[0] ?? "";
}

/** Counts what is said of each thing. */
class Polls {
  private of = new Map<string, Map<string, number>>();
  private won = new Map<string, string>();

  add(thing: string, said: string): void {
    let votes = this.of.get(thing);
    if (!votes) this.of.set(thing, (votes = new Map()));
    votes.set(said, (votes.get(said) ?? 0) + 1);
  }

  usual(thing: string): string {
    let text = this.won.get(thing);
    if (text === undefined) this.won.set(thing, (text = usual(this.of.get(thing) ?? new Map())));
    return text;
  }

  several(thing: string): boolean {
    return (this.of.get(thing)?.size ?? 0) > 1;
  }
}

/** The nodes that somebody has to look at, by their addresses, with why. */
export function differences(c: ClusterStatus, generation: bigint): Map<string, Difference[]> {
  const out = new Map<string, Difference[]>();
  const note = (address: string, what: string, next: string) => {
    const list = out.get(address);
    if (list) list.push({ what, next });
    else out.set(address, [{ what, next }]);
  };
  const entries = new Polls();
  const shards = new Polls();
  const readAt = (n: { read?: { log: string; sequence: bigint } | undefined }) => (n.read ? `${n.read.log}:${n.read.sequence}` : "");
  const heldAt = (snapshot: string, x: ClusterHeldShard) => `${snapshot}/${x.tower}/${x.number}@${x.position!.log}:${x.position!.sequence}`;
  let newest = generation;
  for (const n of c.nodes) {
    if (n.generation > newest) newest = n.generation;
    if (n.entry && n.read) entries.add(readAt(n), n.entry);
    for (const h of n.held) for (const x of h.shards) if (x.position) shards.add(heldAt(h.snapshot, x), numbers(x));
  }
  for (const n of c.nodes) {
    switch (n.state) {
      case ClusterNodeState.LOST:
        note(n.address, `It says nothing of itself${n.error ? `: ${n.error}` : ""}.`, "look whether the node runs, and at its name, store, token and certificate; take it off --nodes if it is not to come back");
        continue; // of what it holds nothing is known
      case ClusterNodeState.OUT:
        note(n.address, "It failed several times in a row, and is left alone until it answers a probe.", "look in its log what it fails at, and whether its machine has processors and memory to spare");
        break;
      case ClusterNodeState.STARTING:
        note(n.address, `It has not loaded all that it is to hold: ${n.loadingShards} to go.`, "wait while that number falls; if it does not, look in its log whether the store answers");
        break;
      case ClusterNodeState.STOPPING:
        note(n.address, "It is about to stop, or no member any more.", "nothing if somebody stops it; else look who lists the nodes: --nodes");
        break;
    }
    const lag = secondsOf(n.lag);
    if (lag > 0) note(n.address, `It is ${span(lag)} behind in the live log${n.position ? `, at position ${n.position.sequence}` : ""}.`, "look whether the store answers this node, and in its log; the others have read on");
    if (n.generation < newest) note(n.address, `It has read generation ${n.generation}; others ${newest}.`, "look whether the store answers this node, and in its log");
    if (n.replicas > 0 && n.replicas !== c.replicas) note(n.address, `It was told --replicas ${n.replicas}; this router ${c.replicas}.`, "start all with the same --replicas: each loads what is to be its own by that number");
    if (n.entry && n.read && entries.several(readAt(n)) && entries.usual(readAt(n)) !== n.entry) {
      note(n.address, `At position ${n.read.sequence} it has read entry ${n.entry.slice(0, 12)}; most others ${entries.usual(readAt(n)).slice(0, 12)}.`, "it reads another store, or a copy that was written to: compare its --store with that of the others");
    }
    for (const h of n.held) {
      for (const x of h.shards) {
        if (x.state === ClusterHeldState.FAILED) note(n.address, `It could not load ${name(x.tower, x.number)}${x.error ? `: ${x.error}` : ""}.`, "go by what it says: memory, disk or store; it tries again by itself");
        if (x.position && shards.several(heldAt(h.snapshot, x)) && shards.usual(heldAt(h.snapshot, x)) !== numbers(x)) {
          note(n.address, `At position ${x.position.sequence} its ${name(x.tower, x.number)} has ${numbers(x)}; most others ${shards.usual(heldAt(h.snapshot, x))}.`, "start this node anew, so that it lays the live log over its shards again; if it differs still, keep its log and file a defect");
        }
      }
    }
  }
  return out;
}

/** Each shard with what nodes say of it, in the order of snapshots, towers and numbers. */
export function shardsOf(c: ClusterStatus): ShardLine[] {
  interface Line extends ShardLine {
    at: Map<bigint, Set<string>>;
    counts: Set<bigint>;
  }
  const of = new Map<string, Line>();
  for (const n of c.nodes) {
    // Whom the router does not ask does not count as ready.
    const asked = n.state === ClusterNodeState.READY || n.state === ClusterNodeState.STARTING;
    for (const h of n.held) {
      for (const x of h.shards) {
        const key = `${h.snapshot}/${x.tower}/${x.number}`;
        let line = of.get(key);
        if (!line) of.set(key, (line = { snapshot: h.snapshot, tower: x.tower, number: x.number, ready: 0, loading: 0, failed: 0, positions: "", rows: "", differ: "", at: new Map(), counts: new Set() }));
        if (x.state === ClusterHeldState.FAILED) line.failed++;
        else if (x.state !== ClusterHeldState.READY) line.loading++;
        else if (asked) line.ready++;
        if (!x.position) continue;
        line.counts.add(x.rows);
        const said = line.at.get(x.position.sequence);
        if (said) said.add(numbers(x));
        else line.at.set(x.position.sequence, new Set([numbers(x)]));
      }
    }
  }
  const between = (list: bigint[], f: (x: bigint) => string) => (list.length === 0 ? "–" : list.length === 1 || list[0] === list.at(-1) ? f(list[0]!) : `${f(list[0]!)} to ${f(list.at(-1)!)}`);
  const ascending = (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0);
  const lines = [...of.values()];
  for (const l of lines) {
    l.positions = between([...l.at.keys()].sort(ascending), String);
    l.rows = between([...l.counts].sort(ascending), count);
    const apart = [...l.at].filter(([, said]) => said.size > 1);
    l.differ = apart.length ? `differ at position ${apart[0]![0]}` : "";
  }
  return lines.sort((a, b) => (a.snapshot < b.snapshot ? -1 : a.snapshot > b.snapshot ? 1 : a.tower - b.tower || a.number - b.number));
}

