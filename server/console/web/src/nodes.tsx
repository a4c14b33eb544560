// The nodes of a cluster, what each holds, and which differ from the others.
import { Component } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { admin, live } from "./api";
import { differences, shardsOf, type Difference, type ShardLine } from "./differ";
import { bytes, count, plural, secondsOf, shortDigest, span, words } from "./format";
import type { GetStatusResponse } from "./gen/tandem/v1/admin_pb";
import { ClusterHeldState, ClusterNodeState, type ClusterNode, type ClusterStatus } from "./gen/tandem/v1/cluster_pb";
import type { Finding } from "./gen/tandem/v1/history_pb";
import type { GetLiveStatusResponse } from "./gen/tandem/v1/live_pb";
import { Tower } from "./gen/tandem/v1/retrieval_pb";
import { usePoll } from "./poll";
import { replaceQuery, route } from "./route";
import { Choice, Digest, Empty, Loading, Manual, Prose, Table, TroubleBox } from "./ui";

/** How many nodes are asked for: more than a cluster has. */
const most = 10_000;
const every = 10_000;

export const stateText = (s: ClusterNodeState): string => (s === ClusterNodeState.OUT ? "left alone" : words(ClusterNodeState[s]));
const stateKind = (s: ClusterNodeState): string => (s === ClusterNodeState.READY ? "good" : s === ClusterNodeState.LOST || s === ClusterNodeState.OUT ? "bad" : "warn");
export const positionText = (p: { log: string; sequence: bigint } | undefined): string => (p ? `${p.log ? `${p.log}:` : ""}${p.sequence}` : "–");
export const towerText = (t: Tower): string => (t === Tower.USERS ? "users" : "apps");

export function Nodes() {
  const status = usePoll((signal) => admin.getStatus({ nodes: most, held: true }, { signal, timeoutMs: 20_000 }), every);
  const found = usePoll((signal) => admin.getFindings({}, { signal }), every);
  const log = usePoll((signal) => live.getLiveStatus({}, { signal }), every);
  const s = status.data;
  return (
    <div class="stack">
      <h1 class="offscreen">Nodes</h1>
      {status.trouble && <TroubleBox trouble={status.trouble} again={status.again} />}
      {!s ? (
        !status.trouble && <Loading what="the nodes" lines={8} />
      ) : (
        <>
          {found.data && <OfCluster list={found.data.findings} />}
          {s.cluster ? <Cluster s={s} c={s.cluster} /> : <Alone s={s} live={log.data} />}
        </>
      )}
    </div>
  );
}

/** What is not good with nodes, as the page Now has it too. */
function OfCluster({ list }: { list: Finding[] }) {
  const shown = list.filter((f) => /^Tandem(Nodes|Shards|Members)/.test(f.alert));
  if (shown.length === 0) return null;
  return (
    <section class="verdict bad" aria-label="What is not good with the nodes">
      {shown.map((f, i) => (
        <article key={`${f.alert}${i}`}>
          <h2>{f.alert}</h2>
          <p>{f.why}</p>
          <p class="next">
            <span>Next</span>
            <span><Prose text={f.next} /> <span class="muted">(<Manual page={f.runbook} />)</span></span>
          </p>
        </article>
      ))}
    </section>
  );
}

/** A server without nodes: what there is to compare it with another one by. */
function Alone({ s, live }: { s: GetStatusResponse; live: GetLiveStatusResponse | undefined }) {
  return (
    <>
      <section class="card" aria-label="This server">
        <header class="head"><h2>This server holds all shards itself</h2></header>
        <dl class="facts wide">
          <div><dt>Generation</dt><dd>{s.generation ? String(s.generation) : "none"}{s.hash && <> <span class="muted">entry</span> <code>{s.hash.slice(0, 12)}</code></>}</dd></div>
          <div><dt>Live log</dt><dd>{live ? <>position {positionText(live.position)}{live.hash && <> <span class="muted">entry</span> <code>{live.hash.slice(0, 12)}</code></>}</> : "not known"}</dd></div>
          <div><dt>Overlay</dt><dd>{live?.digest ? <>digest <code>{live.digest.slice(0, 12)}</code></> : "not known"}</dd></div>
          <div><dt>Mapped</dt><dd>{bytes(s.mappedBytes)}</dd></div>
        </dl>
        <p class="hint">It is no router, so there are no nodes to tell of. Servers at one position whose overlay has another digest do not have the same: <code>tandem status</code> with several <code>--server</code> compares them.</p>
      </section>
      {live && live.overlays.length > 0 && (
        <section class="card flush" aria-label="What lies over each snapshot">
          <header class="head"><h2>What lies over each snapshot</h2></header>
          <Table label="Overlays">
              <thead><tr><th scope="col">Snapshot</th><th scope="col">Model version</th><th scope="col" class="n">Dead apps</th><th scope="col" class="n">Changed apps</th><th scope="col" class="n">Fresh apps</th><th scope="col" class="n">Fresh users</th><th scope="col" class="n">Do not fit</th></tr></thead>
              <tbody>
                {live.overlays.map((o) => (
                  <tr key={o.snapshot}>
                    <th scope="row"><Digest of={o.snapshot} /></th>
                    <td>{o.modelVersion}</td>
                    <td class="n">{count(o.apps?.deadRows ?? 0n)}</td>
                    <td class="n">{count(o.apps?.changedRows ?? 0n)}</td>
                    <td class="n">{count(o.apps?.freshRows ?? 0n)}</td>
                    <td class="n">{count(o.users?.freshRows ?? 0n)}</td>
                    <td class="n">{count((o.apps?.misfitCount ?? 0n) + (o.users?.misfitCount ?? 0n))}</td>
                  </tr>
                ))}
              </tbody>
            </Table>
        </section>
      )}
    </>
  );
}

const views = [["nodes", "Nodes"], ["shards", "Shards"]] as const;

function Cluster({ s, c }: { s: GetStatusResponse; c: ClusterStatus }) {
  const [view, setView] = useState<"nodes" | "shards">(() => (route.value.query.get("view") === "shards" ? "shards" : "nodes"));
  const [only, setOnly] = useState(() => route.value.query.get("q") ?? "");
  useEffect(() => replaceQuery("nodes", { ...(view === "shards" ? { view } : {}), ...(only ? { q: only } : {}) }), [view, only]);
  const differ = useMemo(() => differences(c, s.targetGeneration), [c, s.targetGeneration]);
  const states = useMemo(() => {
    const of = new Map<ClusterNodeState, number>();
    for (const n of c.nodes) of.set(n.state, (of.get(n.state) ?? 0) + 1);
    return [...of].sort((a, b) => b[0] - a[0]);
  }, [c]);
  const lag = secondsOf(c.lag);
  const r = c.requests;
  return (
    <>
      <section class="card" aria-label="The cluster">
        <header class="head">
          <h2>{plural(c.nodeCount, "node")}</h2>
          {states.map(([state, n]) => <span key={state} class={`tag ${stateKind(state)}`}>{count(n)} {stateText(state)}</span>)}
          <span class={differ.size ? "tag warn" : "tag good"}>{differ.size ? `${plural(differ.size, "node")} to look at` : "none differs from the others"}</span>
        </header>
        <dl class="facts wide">
          <div><dt>Shards</dt><dd>{`${count(c.shardCount)}; ${count(c.shortCount)} with fewer than ${plural(c.replicas, "node")} ready, ${count(c.uncoveredCount)} with none`}</dd></div>
          <div><dt>Asked at</dt><dd>{lag > 0 ? `a position that is ${span(lag)} behind the newest` : "the newest position of the live log"}</dd></div>
          {r && <div><dt>Since it began</dt><dd>{`${count(r.retries)} requests tried again, ${count(r.deniedRetries)} not for want of a budget; ${count(r.hedges)} hedged, ${count(r.hedgesWon)} of them faster; nodes left alone ${count(r.ejections)} times`}</dd></div>}
          {c.membersError && <div><dt>Members</dt><dd class="wrong">{c.membersError}</dd></div>}
        </dl>
        {c.nodes.length < c.nodeCount && <p class="hint">Of {count(c.nodeCount - c.nodes.length)} nodes this server does not tell: it tells of {count(c.nodes.length)}.</p>}
      </section>
      {c.short.length > 0 && <Short c={c} />}
      <section class="card flush" aria-label={view === "nodes" ? "Nodes" : "Shards"}>
        <header class="head">
          <Choice label="Shown are" value={view} options={views} onChange={setView} />
          <label class="inline">
            Only with
            <input type="search" value={only} placeholder={view === "nodes" ? "name, address, zone, state" : "snapshot, tower, number"} onInput={(e) => setOnly(e.currentTarget.value)} />
          </label>
        </header>
        {view === "nodes" ? <NodeTable c={c} differ={differ} only={only} /> : <ShardTable c={c} only={only} />}
      </section>
    </>
  );
}

function Short({ c }: { c: ClusterStatus }) {
  return (
    <section class="card flush" aria-label="Shards with too few nodes">
      <header class="head"><h2>Shards with too few nodes</h2><span class="muted">those with the fewest first</span></header>
      <Table label="Shards with too few nodes, as a table">
          <thead><tr><th scope="col">Shard</th><th scope="col">Snapshot</th><th scope="col" class="n">Ready</th><th scope="col">Why</th></tr></thead>
          <tbody>
            {c.short.map((x) => (
              <tr key={`${x.snapshot}${x.tower}${x.number}`}>
                <th scope="row">{towerText(x.tower)} {x.number}</th>
                <td><Digest of={x.snapshot} /></td>
                <td class="n"><span class={`tag ${x.ready ? "warn" : "bad"}`}>{x.ready} of {c.replicas}</span></td>
                <td class="wrap">{x.why || "No node is to hold it: add nodes, or memory to those that there are."}</td>
              </tr>
            ))}
          </tbody>
        </Table>
      {c.short.length < c.shortCount && <p class="hint inset">And {count(c.shortCount - c.short.length)} more.</p>}
    </section>
  );
}

/**
 * How many rows are drawn: those that somebody sees or is about to. What comes after them is a button,
 * which draws more as soon as it is near the window. Of another key it begins anew, of one that was there before too.
 */
function useDrawn(length: number, key: string): [number, preact.ComponentChildren] {
  const drawn = useRef({ key, n: some });
  if (drawn.current.key !== key) drawn.current = { key, n: some };
  const { n } = drawn.current;
  const [, redraw] = useState(0);
  const set = (to: number) => {
    drawn.current = { key, n: to };
    redraw((times) => times + 1);
  };
  const ref = useRef<HTMLButtonElement>(null);
  const left = length - n;
  useEffect(() => {
    if (left <= 0) return;
    const watch = new IntersectionObserver((seen) => seen.some((e) => e.isIntersecting) && set(n + some), { rootMargin: "600px" });
    watch.observe(ref.current!);
    return () => watch.disconnect();
  }, [left, key]);
  const more = left > 0 && (
    <div class="row pages more">
      <button type="button" ref={ref} onClick={() => set(n + some)}>{count(left)} more</button>
    </div>
  );
  return [Math.min(n, length), more];
}

const some = 60;

function NodeTable({ c, differ, only }: { c: ClusterStatus; differ: Map<string, Difference[]>; only: string }) {
  const list = useMemo(() => {
    const words = only.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (n: ClusterNode) => `${n.name} ${n.address} ${n.zone} ${stateText(n.state)} ${(differ.get(n.address) ?? []).map((d) => d.what).join(" ")}`.toLowerCase();
    const kept = words.length ? c.nodes.filter((n) => { const t = text(n); return words.every((w) => t.includes(w)); }) : c.nodes;
    // Those that somebody has to look at come first; sort keeps the order of the others.
    return [...kept].sort((a, b) => Number(differ.has(b.address)) - Number(differ.has(a.address)));
  }, [c, differ, only]);
  const [drawn, more] = useDrawn(list.length, only);
  const [open, setOpen] = useState("");
  const toggle = useCallback((address: string) => setOpen((was) => (was === address ? "" : address)), []);
  const zones = c.nodes.some((n) => n.zone);
  if (list.length === 0) return <Empty title={only ? "No node has that" : "No node is known"}>{only ? "" : "Who lists the nodes names none: look at --nodes of this server."}</Empty>;
  return (
    <>
    <Table label="Nodes as a table" class="nodes">
        <thead>
          <tr>
            <th scope="col">Node</th>
            {zones && <th scope="col">Zone</th>}
            <th scope="col">State</th>
            <th scope="col" class="n">Shards ready</th>
            <th scope="col" class="n">Generation</th>
            <th scope="col" class="n">Position</th>
            <th scope="col">Log entry</th>
            <th scope="col" class="n">Mapped</th>
            <th scope="col" class="n">Requests</th>
            <th scope="col"><span class="offscreen">What it holds</span></th>
          </tr>
        </thead>
        <tbody>
          {list.slice(0, drawn).map((n) => (
            <NodeRow key={n.address} n={n} zones={zones} differ={differ.get(n.address)} open={open === n.address} toggle={toggle} />
          ))}
        </tbody>
    </Table>
    {more}
    </>
  );
}

interface RowProps {
  n: ClusterNode;
  zones: boolean;
  differ: Difference[] | undefined;
  open: boolean;
  toggle: (address: string) => void;
}

/** Is drawn anew only for other words of its node: more rows leave those that there are alone. */
class NodeRow extends Component<RowProps> {
  shouldComponentUpdate(next: RowProps) {
    const now = this.props;
    return now.n !== next.n || now.zones !== next.zones || now.differ !== next.differ || now.open !== next.open;
  }

  render() {
    return <NodeCells {...this.props} />;
  }
}

function NodeCells({ n, zones, differ, open, toggle }: RowProps) {
  const silent = n.state === ClusterNodeState.LOST;
  const shards = `${count(n.readyShards)}${n.loadingShards ? `, ${count(n.loadingShards)} loading` : ""}${n.failedShards ? `, ${count(n.failedShards)} failed` : ""}`;
  return (
    <>
      <tr class={differ ? "differs" : ""}>
        <th scope="row">{n.name}{n.name !== n.address && <code class="muted">{n.address}</code>}</th>
        {zones && <td>{n.zone || "–"}</td>}
        <td><span class={`tag ${stateKind(n.state)}`}>{stateText(n.state)}</span></td>
        <td class="n">{silent ? "–" : shards}</td>
        <td class="n">{silent ? "–" : String(n.generation)}</td>
        <td class="n">{positionText(n.position)}</td>
        <td>{n.entry ? <code>{n.entry.slice(0, 12)}</code> : "–"}</td>
        <td class="n">{silent ? "–" : `${bytes(n.mappedBytes)} of ${bytes(n.memoryLimit)}`}</td>
        <td class="n">{silent ? "–" : count(n.inFlight)}</td>
        <td class="act">
          {n.held.length > 0 && (
            <button type="button" class="quiet" aria-expanded={open} onClick={() => toggle(n.address)}>
              Shards<span class="offscreen"> of {n.name}</span>
            </button>
          )}
        </td>
      </tr>
      {differ && (
        <tr class="why-differs">
          <td colSpan={10}>
            {differ.map((d, i) => (
              <p key={i}>
                <strong>{d.what}</strong> <span class="muted">Next: <Prose text={d.next} /></span>
              </p>
            ))}
          </td>
        </tr>
      )}
      {open && (
        <tr class="why-differs">
          <td colSpan={10}><Held n={n} /></td>
        </tr>
      )}
    </>
  );
}

const heldText = (s: ClusterHeldState): string => words(ClusterHeldState[s]);

function Held({ n }: { n: ClusterNode }) {
  return (
    <ul class="held">
      {n.held.map((h) => (
        <li key={h.snapshot}>
          <span class="muted">snapshot</span> <code>{shortDigest(h.snapshot)}</code>
          <ul class="chips">
            {h.shards.map((x) => (
              <li key={`${x.tower}${x.number}`} title={x.error || `${count(x.rows)} rows, ${count(x.dead)} dead, ${count(x.changed)} changed, ${count(x.fresh)} fresh`}>
                <span class={`tag ${x.state === ClusterHeldState.READY ? "" : x.state === ClusterHeldState.FAILED ? "bad" : "warn"}`}>
                  {towerText(x.tower)} {x.number}: {x.state === ClusterHeldState.READY ? `${count(x.rows)} rows at ${positionText(x.position)}` : `${heldText(x.state)}${x.error ? `, ${x.error}` : ""}`}
                </span>
              </li>
            ))}
          </ul>
        </li>
      ))}
    </ul>
  );
}

function ShardTable({ c, only }: { c: ClusterStatus; only: string }) {
  const all = useMemo(() => shardsOf(c), [c]);
  const list = useMemo(() => {
    const words = only.toLowerCase().split(/\s+/).filter(Boolean);
    return all.filter((x) => { const t = `${x.snapshot} ${towerText(x.tower)} ${x.number} ${x.differ}`; return words.every((w) => t.includes(w)); });
  }, [all, only]);
  const [drawn, more] = useDrawn(list.length, only);
  if (list.length === 0) return <Empty title={only ? "No shard has that" : "No node says what it holds"} />;
  return (
    <>
    <Table label="Shards as a table">
        <thead>
          <tr>
            <th scope="col">Shard</th>
            <th scope="col">Snapshot</th>
            <th scope="col" class="n">Ready</th>
            <th scope="col" class="n">Loading</th>
            <th scope="col" class="n">Failed</th>
            <th scope="col" class="n">Positions</th>
            <th scope="col" class="n">Rows</th>
            <th scope="col">Replicas</th>
          </tr>
        </thead>
        <tbody>
          {list.slice(0, drawn).map((x: ShardLine) => (
            <tr key={`${x.snapshot}${x.tower}${x.number}`}>
              <th scope="row">{towerText(x.tower)} {x.number}</th>
              <td><code>{shortDigest(x.snapshot)}</code></td>
              <td class="n"><span class={x.ready < c.replicas ? `tag ${x.ready ? "warn" : "bad"}` : ""}>{x.ready} of {c.replicas}</span></td>
              <td class="n">{x.loading}</td>
              <td class="n">{x.failed}</td>
              <td class="n">{x.positions}</td>
              <td class="n">{x.rows}</td>
              <td>{x.differ ? <span class="tag bad">{x.differ}</span> : <span class="muted">the same</span>}</td>
            </tr>
          ))}
        </tbody>
      </Table>
    {more}
    </>
  );
}
