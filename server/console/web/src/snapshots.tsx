// Which snapshots there are, what their gates found, and how two differ.
import { useEffect, useMemo, useState } from "preact/hooks";
import { releases, troubleOf, type Trouble } from "./api";
import { ago, bytes, count, dateOf, percent, plural, shortDigest } from "./format";
import { GateState, type GateRow, type GetSnapshotResponse, type ListSnapshotsResponse, type SnapshotSummary } from "./gen/tandem/v1/release_pb";
import { usePoll } from "./poll";
import { href, route } from "./route";
import { may } from "./session";
import { useSignal } from "./signal";
import { Digest, Empty, Loading, Table, TroubleBox } from "./ui";

const decode = (data: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(data));

export function Snapshots() {
  const { query } = useSignal(route);
  const of = query.get("of");
  const beside = query.get("beside");
  if (of && beside) return <Diff key={of + beside} candidate={of} previous={beside} />;
  if (of) return <One key={of} digest={of} />;
  return <List />;
}

const states: Record<GateState, [string, string]> = {
  [GateState.UNSPECIFIED]: ["unknown", ""],
  [GateState.PASSED]: ["passed", "good"],
  [GateState.FAILED]: ["failed", "bad"],
  [GateState.INCONCLUSIVE]: ["inconclusive", "warn"],
  [GateState.NOT_RUN]: ["not run", ""],
};

/** What the gates came to, in a few words. */
export function GatesInShort({ rows }: { rows: GateRow[] | undefined }) {
  if (!rows) return <span class="muted">none were run</span>;
  const failed = rows.filter((r) => r.state === GateState.FAILED);
  const open = rows.filter((r) => r.state !== GateState.PASSED && r.state !== GateState.FAILED);
  return (
    <>
      <span class={`tag ${failed.length ? "bad" : "good"}`}>{failed.length ? `failed: ${failed.map((r) => r.gate).join(", ")}` : "passed"}</span>
      {open.length > 0 && <span class="muted"> {open.length} not run</span>}
    </>
  );
}

function List() {
  // Pages are asked for one after the other; the first again and again.
  const first = usePoll((signal) => releases.listSnapshots({ pageSize: 50 }, { signal, timeoutMs: 30_000 }), 15_000);
  const [more, setMore] = useState<SnapshotSummary[]>([]);
  const [token, setToken] = useState<string | null>(null); // null: that of the first page
  const [trouble, setTrouble] = useState<Trouble | null>(null);
  const next = token ?? first.data?.nextPageToken ?? "";
  const list = useMemo(() => {
    const known = new Set((first.data?.snapshots ?? []).map((s) => s.snapshot));
    return [...(first.data?.snapshots ?? []), ...more.filter((s) => !known.has(s.snapshot))];
  }, [first.data, more]);
  const ask = async () => {
    try {
      const page: ListSnapshotsResponse = await releases.listSnapshots({ pageSize: 50, pageToken: next }, { timeoutMs: 30_000 });
      setMore((was) => [...was, ...page.snapshots]);
      setToken(page.nextPageToken);
      setTrouble(null);
    } catch (e) {
      setTrouble(troubleOf(e));
    }
  };
  return (
    <div class="stack">
      <h1 class="offscreen">Snapshots</h1>
      {first.trouble && <TroubleBox trouble={first.trouble} again={first.again} />}
      {!first.data ? (
        !first.trouble && <Loading what="snapshots" lines={6} />
      ) : list.length === 0 ? (
        <div class="card">
          <Empty title="No snapshot yet">tandem build makes one of two towers.</Empty>
        </div>
      ) : (
        <section class="card flush" aria-label="Snapshots">
          <header class="head">
            <h2>{`${count(list.length)}${next ? " and more" : ""} snapshot${list.length === 1 && !next ? "" : "s"}`}</h2>
            <span class="muted">the one that was published last is first</span>
          </header>
          <Table label="Snapshots as a table">
              <thead>
                <tr>
                  <th scope="col">Model version</th>
                  <th scope="col">Snapshot</th>
                  <th scope="col">Gates</th>
                  <th scope="col">Arm</th>
                  <th scope="col" class="n">Apps</th>
                  <th scope="col" class="n">Users</th>
                  <th scope="col" class="n">Size</th>
                  <th scope="col">Published</th>
                </tr>
              </thead>
              <tbody>
                {list.map((s) => {
                  const published = dateOf(s.published);
                  return (
                    <tr key={s.snapshot}>
                      <th scope="row">
                        <a href={href("snapshots", { of: s.snapshot })}>{s.modelVersion || shortDigest(s.snapshot)}</a> <span class="muted">{s.model}</span>
                      </th>
                      <td>
                        <Digest of={s.snapshot} />
                      </td>
                      <td>{s.error ? <span class="tag bad" title={s.error}>cannot be read</span> : <GatesInShort rows={s.gates?.rows} />}</td>
                      <td>{s.arms.length ? s.arms.map((a) => <span key={a} class="tag good">{a}</span>) : <span class="muted">–</span>}</td>
                      <td class="n">{count(s.apps)}</td>
                      <td class="n">{count(s.users)}</td>
                      <td class="n">{bytes(s.bytes)}</td>
                      <td class="muted" title={published?.toISOString()}>{published ? ago(published) : "not known"}</td>
                    </tr>
                  );
                })}
              </tbody>
            </Table>
          {next && (
            <div class="row pages more">
              <button type="button" onClick={() => void ask()}>More</button>
            </div>
          )}
        </section>
      )}
      {trouble && <TroubleBox trouble={trouble} />}
    </div>
  );
}

interface Check {
  gate: string;
  subject: string;
  value: number;
  bound: string;
  limit: number;
  passed: boolean;
  state?: string;
  text: string;
}

interface Report {
  previous?: string;
  off?: string[];
  loosened?: string[];
  checks: Check[];
  undecided?: Check[];
}

/** A run of the gates, as tandem gate --json prints it. */
interface Run {
  report?: Report | null;
  latency?: Check[] | null;
}

interface Recall {
  k: number;
  target: number;
  queries: number;
  recall: number;
  worst?: number;
  ef: number[];
}

interface Manifest {
  tool?: string;
  metric: string;
  dim: number;
  apps: { rows: number; shards: unknown[]; recall: Recall[]; segments?: { name: string; expression: string; eligible: number; recall: Recall[] | null }[] };
  users: { rows: number; shards: unknown[]; recall: Recall[] };
  inputs: { role: string; name: string; size: number; digest: string }[];
  lineage?: { previous: string };
  gates?: Report;
}

function One({ digest }: { digest: string }) {
  const of = usePoll(async (signal) => {
    const [snapshot, runs] = await Promise.all([
      releases.getSnapshot({ snapshot: digest }, { signal }),
      releases.listGateRuns({ snapshot: digest, pageSize: 5 }, { signal }),
    ]);
    return { snapshot, manifest: decode(snapshot.manifest) as Manifest, runs: runs.runs.map((r) => ({ run: r, report: decode(r.report) as Run })) };
  }, 0, [digest]);
  if (of.trouble) return <TroubleBox trouble={of.trouble} again={of.again} />;
  if (!of.data) return <Loading what="the snapshot" lines={8} />;
  const { snapshot, manifest: m, runs } = of.data;
  const published = dateOf(snapshot.published);
  const previous = m.lineage?.previous ?? m.gates?.previous;
  return (
    <div class="stack">
      <p>
        <a href={href("snapshots")}>All snapshots</a>
      </p>
      <section class="card">
        <header class="head">
          <h1>Snapshot {shortDigest(snapshot.snapshot)}</h1>
          {snapshot.arms.map((a) => <span key={a} class="tag good">{a}</span>)}
          <GatesInShort rows={snapshot.gates?.rows} />
          {may("publish") && snapshot.arms.length === 0 && (
            <a class="button" href={href("releases", { start: snapshot.snapshot })}>
              Give it traffic
            </a>
          )}
          {previous && (
            <a class="button" href={href("snapshots", { of: snapshot.snapshot, beside: previous })}>
              Beside the one before
            </a>
          )}
        </header>
        <dl class="facts wide">
          <div><dt>Digest</dt><dd><code>{snapshot.snapshot}</code></dd></div>
          <div><dt>Published</dt><dd>{published ? `${published.toISOString()}, ${ago(published)}` : "not known"}</dd></div>
          <div><dt>Towers</dt><dd>{`${plural(m.apps.rows, "app")} in ${plural(m.apps.shards.length, "shard")}, ${plural(m.users.rows, "user")} in ${plural(m.users.shards.length, "shard")}; metric ${m.metric}, ${m.dim} dimensions`}</dd></div>
          <div><dt>Lineage</dt><dd>{previous ? <>after <a href={href("snapshots", { of: previous })}><code>{shortDigest(previous)}</code></a></> : "no snapshot came before"}</dd></div>
          <div><dt>Inputs</dt><dd>{m.inputs.map((i) => `${i.role}: ${i.name} (${bytes(i.size)})`).join(", ")}</dd></div>
        </dl>
      </section>
      <Gates snapshot={snapshot} runs={runs.map((r) => r.report)} />
      <RecallTable m={m} />
    </div>
  );
}

/** Each gate with what it came to, and its checks with how far they are from their limits. */
function Gates({ snapshot, runs }: { snapshot: GetSnapshotResponse; runs: Run[] }) {
  const rows = snapshot.gates?.rows;
  if (!rows) return <section class="card"><h2>Gates</h2><Empty title="None were run">tandem gate runs them.</Empty></section>;
  // Of each gate the newest run that evaluated it decides.
  const checksOf = (gate: string) => runs.map((r) => [...(r.report?.checks ?? []), ...(r.latency ?? [])].filter((c) => c.gate === gate)).find((list) => list.length > 0) ?? [];
  const order = [GateState.FAILED, GateState.INCONCLUSIVE, GateState.UNSPECIFIED, GateState.PASSED, GateState.NOT_RUN];
  const sorted = [...rows].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
  return (
    <section class="card" aria-label="Gates">
      <header class="head">
        <h2>Gates</h2>
        {snapshot.gates!.comparedWith.length > 0 && <span class="muted">compared with {shortDigest(snapshot.gates!.comparedWith.at(-1)!)}</span>}
      </header>
      <ul class="gates">
        {sorted.map((r) => {
          const [text, kind] = states[r.state];
          const checks = checksOf(r.gate);
          return (
            <li key={r.gate}>
              <details open={r.state === GateState.FAILED}>
                <summary>
                  <strong>{r.gate}</strong>
                  <span class={`tag ${kind}`}>{text}</span>
                  <span class="muted">{r.state === GateState.PASSED ? plural(r.checks, "check") : r.why}</span>
                </summary>
                {checks.length === 0 ? (
                  <p class="muted checks">{r.why || "It has made no check."}</p>
                ) : (
                  <ul class="checks">
                    {checks.map((c, i) => (
                      <li key={i}>
                        <span class={c.passed ? "" : "wrong"}>{c.subject}</span>
                        <Limit c={c} />
                        <span class="muted">{c.text}</span>
                      </li>
                    ))}
                  </ul>
                )}
              </details>
            </li>
          );
        })}
      </ul>
      {snapshot.gates!.loosened.length > 0 && <p class="muted">Limits under which more passed than by default: {snapshot.gates!.loosened.join(", ")}.</p>}
    </section>
  );
}

/** A value beside its limit: the side on which it may be is filled. */
function Limit({ c }: { c: Check }) {
  const least = Math.min(0, c.value, c.limit);
  const most = Math.max(c.value, c.limit, c.bound === "min" && c.limit <= 1 && c.value <= 1 ? 1 : 0) || 1;
  const at = (x: number) => 5 + (110 * (x - least)) / (most - least || 1);
  const [from, to] = c.bound === "max" ? [1, at(c.limit)] : [at(c.limit), 119];
  return (
    <span class="limit">
      <svg viewBox="0 0 120 12" role="img" aria-label={`${c.value}, ${c.bound === "max" ? "at most" : "at least"} ${c.limit}`}>
        <rect class="track" x="1" y="4" width="118" height="4" rx="2" />
        <rect class="may" x={from} y="4" width={Math.max(to - from, 1)} height="4" rx="2" />
        <circle class={c.passed ? "good" : "bad"} cx={at(c.value)} cy="6" r="4" />
      </svg>
      <span class="n">{Number(c.value.toPrecision(4))}</span>
      <span class="muted">{c.bound === "max" ? "≤" : "≥"} {Number(c.limit.toPrecision(4))}</span>
    </span>
  );
}

function RecallTable({ m }: { m: Manifest }) {
  const rows = [
    ...m.apps.recall.map((r) => ({ of: "all apps", eligible: m.apps.rows, r })),
    ...(m.apps.segments ?? []).flatMap((s) => (s.recall ?? []).map((r) => ({ of: s.name, eligible: s.eligible, r }))),
  ];
  return (
    <section class="card flush" aria-label="Recall that the build measured">
      <header class="head">
        <h2>Recall that the build measured</h2>
        <span class="muted">on users that it held out</span>
      </header>
      <Table label="Recall as a table">
          <thead>
            <tr>
              <th scope="col">Apps</th>
              <th scope="col" class="n">Eligible</th>
              <th scope="col" class="n">k</th>
              <th scope="col" class="n">Target</th>
              <th scope="col" class="n">Recall</th>
              <th scope="col" class="n">Worst 1%</th>
              <th scope="col" class="n">Queries</th>
              <th scope="col">ef in each shard</th>
            </tr>
          </thead>
          <tbody>
            {rows.map(({ of, eligible, r }, i) => (
              <tr key={i}>
                <th scope="row">{of}</th>
                <td class="n">{count(eligible)}</td>
                <td class="n">{r.k}</td>
                <td class="n">{r.target}</td>
                <td class="n">
                  <span class={r.recall < r.target ? "tag warn" : ""}>{r.recall.toFixed(4)}</span>
                </td>
                <td class="n">{r.worst?.toFixed(3) ?? "–"}</td>
                <td class="n">{count(r.queries)}</td>
                <td>{r.ef.every((e) => e === 0) ? "exact scan" : r.ef.join(", ")}</td>
              </tr>
            ))}
          </tbody>
        </Table>
    </section>
  );
}

interface TowerDiff {
  rows: number;
  previous_rows: number;
  added: number;
  removed: number;
  kept: number;
}

interface Given {
  id: string;
  name?: string;
  both: boolean;
}

interface DiffReport {
  candidate: { snapshot: string; model: string; model_version: string };
  previous: { snapshot: string; model: string; model_version: string };
  apps: TowerDiff;
  users: TowerDiff;
  overlap?: { k: number; users: number; mean: number }[];
  segments?: { name: string; eligible: number; previous_eligible: number; overlap?: { k: number; mean: number }[] }[];
  examples?: { user: string; given: Given[]; previous: Given[] }[];
}

function Diff({ candidate, previous }: { candidate: string; previous: string }) {
  const of = usePoll(async (signal) => decode((await releases.diffSnapshots({ candidate, previous }, { signal, timeoutMs: 60_000 })).report) as DiffReport, 0, [candidate, previous]);
  const d = of.data;
  const [shown, show] = useState(0);
  useEffect(() => show(0), [d]);
  const example = d?.examples?.[shown];
  return (
    <div class="stack">
      <p>
        <a href={href("snapshots", { of: candidate })}>Snapshot {shortDigest(candidate)}</a> <span class="muted">beside</span> <a href={href("snapshots", { of: previous })}>{shortDigest(previous)}</a>
      </p>
      {of.trouble ? (
        <TroubleBox trouble={of.trouble} again={of.again} />
      ) : !d ? (
        <Loading what="how they differ" lines={8} />
      ) : (
        <>
          <section class="card flush">
            <header class="head">
              <h1>{d.candidate.model_version} beside {d.previous.model_version}</h1>
            </header>
            <Table label="Rows">
                <thead>
                  <tr><th scope="col">Tower</th><th scope="col" class="n">Rows</th><th scope="col" class="n">Before</th><th scope="col" class="n">Added</th><th scope="col" class="n">Removed</th><th scope="col" class="n">Kept</th></tr>
                </thead>
                <tbody>
                  {([["apps", d.apps], ["users", d.users]] as const).map(([name, t]) => (
                    <tr key={name}><th scope="row">{name}</th><td class="n">{count(t.rows)}</td><td class="n">{count(t.previous_rows)}</td><td class="n">{count(t.added)}</td><td class="n">{count(t.removed)}</td><td class="n">{count(t.kept)}</td></tr>
                  ))}
                </tbody>
              </Table>
          </section>
          <section class="card flush">
            <header class="head"><h2>What the same users are given</h2><span class="muted">the share of candidates that both have</span></header>
            <Table label="Overlap">
                <thead>
                  <tr><th scope="col">Apps</th><th scope="col" class="n">Eligible</th><th scope="col" class="n">Before</th><th scope="col" class="n">Overlap@10</th><th scope="col" class="n">Overlap@100</th></tr>
                </thead>
                <tbody>
                  {[{ name: "all apps", eligible: d.apps.rows, previous_eligible: d.apps.previous_rows, overlap: d.overlap }, ...(d.segments ?? [])].map((s) => (
                    <tr key={s.name}><th scope="row">{s.name}</th><td class="n">{count(s.eligible)}</td><td class="n">{count(s.previous_eligible)}</td>
                      {[10, 100].map((k) => { const o = s.overlap?.find((x) => x.k === k); return <td key={k} class="n">{o ? percent(o.mean, 2) : "–"}</td>; })}
                    </tr>
                  ))}
                </tbody>
              </Table>
          </section>
          {example && (
            <section class="card flush" aria-label="Candidates of a user, before and after">
              <header class="head">
                <h2>Candidates, before and after</h2>
                <label class="inline">
                  User
                  <select value={shown} onChange={(e) => show(Number(e.currentTarget.value))}>
                    {d.examples!.map((x, i) => <option key={x.user} value={i}>{x.user}</option>)}
                  </select>
                </label>
              </header>
              <Table label="Candidates">
                  <thead><tr><th scope="col" class="n">#</th><th scope="col">Before: {d.previous.model_version}</th><th scope="col">After: {d.candidate.model_version}</th></tr></thead>
                  <tbody>
                    {Array.from({ length: Math.max(example.given.length, example.previous.length) }, (_, i) => (
                      <tr key={i}>
                        <th scope="row" class="n muted">{i + 1}</th>
                        {[example.previous[i], example.given[i]].map((g, j) => (
                          <td key={j}>{g ? <>{g.name || g.id} {g.name && <code class="muted">{g.id}</code>} {!g.both && <span class={`tag ${j ? "good" : "warn"}`}>{j ? "new" : "gone"}</span>}</> : "–"}</td>
                        ))}
                      </tr>
                    ))}
                  </tbody>
                </Table>
            </section>
          )}
        </>
      )}
    </div>
  );
}
