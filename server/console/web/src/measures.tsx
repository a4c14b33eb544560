// What gates, builds and comparisons have measured, drawn and as tables: of the console's pages, and of
// reports that stand by themselves. Nothing here asks a server.
import { useState } from "preact/hooks";
import { bytes, count, percent, plural } from "./format";
import { Bars, Plot, short, type Bar, type Series } from "./plot";
import { Empty, Table } from "./ui";

export interface Check {
  gate: string;
  subject: string;
  value: number;
  bound: string;
  limit: number;
  passed: boolean;
  state?: string;
  text: string;
}

export interface GateReport {
  previous?: string;
  off?: string[] | null;
  loosened?: string[] | null;
  checks: Check[] | null;
  undecided?: Check[] | null;
}

/** A run of the gates, as tandem gate --json prints it. */
export interface Run {
  snapshot?: string;
  time?: string;
  report?: GateReport | null;
  latency?: Check[] | null;
  filters?: Check[] | null;
  fresh?: Check[] | null;
  undecided?: Check[] | null;
}

/** What a gate came to. */
export interface Row {
  gate: string;
  state: string;
  checks: number;
  why?: string;
}

export interface Recall {
  k: number;
  target: number;
  queries: number;
  recall: number;
  worst?: number | null;
  ef: number[] | null;
}

interface Effort {
  k: number;
  target: number;
  ef: number;
  recall: number;
  scored: number;
}

export interface Manifest {
  tool?: string;
  model: string;
  model_version: string;
  metric: string;
  dim: number;
  apps: {
    rows: number;
    rejected?: number;
    shards: { effort?: Effort[]; size: number }[];
    recall: Recall[] | null;
    segments?: { name: string; expression: string; eligible: number; recall: Recall[] | null }[];
  };
  users: { rows: number; rejected?: number; shards: { size: number }[]; recall: Recall[] | null };
  inputs: { role: string; name: string; size: number; digest: string }[] | null;
  lineage?: { previous: string };
  gates?: GateReport;
}

/** All checks of a run that passed or failed. */
export const checksOf = (r: Run): Check[] => [...(r.report?.checks ?? []), ...(r.filters ?? []), ...(r.fresh ?? []), ...(r.latency ?? [])];

const kinds: Record<string, string> = { passed: "good", failed: "bad", inconclusive: "warn" };
const order = ["failed", "inconclusive", "unknown", "passed", "not run"];

/** Each gate with what it came to, and its checks with how far they are from their limits. */
export function GateList({ rows, checks }: { rows: Row[]; checks: (gate: string) => Check[] }) {
  const sorted = [...rows].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
  return (
    <ul class="gates">
      {sorted.map((r) => {
        const list = checks(r.gate);
        return (
          <li key={r.gate}>
            <details open={r.state === "failed"}>
              <summary>
                <strong>{r.gate}</strong>
                <span class={`tag ${kinds[r.state] ?? ""}`}>{r.state}</span>
                <span class="muted">{r.state === "passed" ? plural(r.checks, "check") : r.why}</span>
              </summary>
              {list.length === 0 ? (
                <p class="muted checks">{r.why || "It has made no check."}</p>
              ) : (
                <ul class="checks">
                  {list.map((c, i) => (
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

const barOf = (c: Check, label = c.subject): Bar => ({ label, value: c.value, limit: c.limit, bad: !c.passed });

/**
 * The measures of the gates, drawn, and which there are none of, with why.
 */
export function GatePlots({ checks, undecided }: { checks: Check[]; undecided: Check[] }) {
  const of = (gate: string) => checks.filter((c) => c.gate === gate);
  const why = (gate: string) => undecided.find((c) => c.gate === gate)?.text ?? "this gate was not run";
  const recalls = of("recall").flatMap((c) => {
    const m = /^recall@(\d+)(?: in segment (.+))?$/.exec(c.subject);
    return m ? [{ c, k: Number(m[1]), segment: m[2] ?? "all apps" }] : [];
  });
  const ks = [...new Set(recalls.map((r) => r.k))].sort((a, b) => a - b);
  const alignment = of("alignment").flatMap((c) => {
    const m = /^hit-rate@(\d+) against chance$/.exec(c.subject);
    const shares = /vectors find ([\d.]+)% .*?those of other users ([\d.]+)%.*? up to ([\d.]+)%/.exec(c.text);
    if (!m) return [];
    return [{ k: m[1]!, c, shares: shares ? shares.slice(1).map((x) => Number(x) / 100) : null }];
  });
  const norms = of("norms");
  const overlap = of("overlap");
  const latency = of("latency");
  const missing: [string, string][] = [];
  if (recalls.length === 0) missing.push(["Recall", why("recall")]);
  if (norms.length === 0) missing.push(["Norms beside those of the snapshot before", why("norms")]);
  if (overlap.length === 0) missing.push(["Candidates that both have", why("overlap")]);
  if (alignment.length === 0) missing.push(["Alignment beside its control", why("alignment")]);
  if (latency.length === 0) missing.push(["Latency", why("latency")]);
  const toOne = recalls.length ? Math.min(0.9, ...recalls.map((r) => Math.min(r.c.value, r.c.limit))) : 0;
  return (
    <>
      <div class="plots">
        {ks.map((k) => (
          <Bars
            key={k}
            title={`Recall@${k} by segment`}
            note={`for sure, beside what is required; from ${short(Math.floor(toOne * 20) / 20)} on`}
            from={Math.floor(toOne * 20) / 20}
            to={1}
            format={(x) => x.toFixed(4)}
            bars={recalls.filter((r) => r.k === k).map((r) => barOf(r.c, r.segment))}
          />
        ))}
        {alignment.map((a) => (
          a.shares ? (
            <Bars
              key={a.k}
              title={`Alignment: hit rate@${a.k}`}
              note={`what users find of what they did; ${short(a.c.value)} times the control, ${short(a.c.limit)} required`}
              format={(x) => percent(x)}
              bars={[
                { label: "with their own vectors", value: a.shares[0]!, bad: !a.c.passed },
                { label: "control: those of other users", value: a.shares[1]! },
                { label: "control: a space turned at random", value: a.shares[2]! },
              ]}
            />
          ) : (
            <Bars key={a.k} title={`Alignment: hit rate@${a.k} against its control`} note="1 is chance" bars={[barOf(a.c)]} />
          )
        ))}
        {of("axes").length > 0 && <Bars title="Axes of both towers" note="beside what is required" bars={of("axes").map((c) => barOf(c))} />}
        {norms.length > 0 && <Bars title="Norms" note="beside the snapshot before, as factors; the most that is accepted" bars={norms.map((c) => barOf(c))} />}
        {overlap.length > 0 && <Bars title="Candidates that both snapshots have" note="as a share, beside what is required" to={1} bars={overlap.map((c) => barOf(c))} />}
        {latency.length > 0 && <Bars title="Latency" note="beside the most that is accepted" bars={latency.map((c) => barOf(c))} />}
      </div>
      {missing.length > 0 && (
        <ul class="missing">
          {missing.map(([what, reason]) => <li key={what}><strong>{what}</strong> is not here: {reason}.</li>)}
        </ul>
      )}
    </>
  );
}

/** Recall against the work of a query, as the build has calibrated it. */
export function EffortPlot({ m }: { m: Manifest }) {
  const recalls = m.apps.recall ?? [];
  const shards = m.apps.shards;
  const series: Series[] = [...new Set(recalls.map((r) => r.k))].map((k, i) => ({
    label: `k = ${k}`,
    color: i,
    line: true,
    points: recalls
      .filter((r) => r.k === k)
      .flatMap((r) => {
        const efforts = shards.map((s) => s.effort?.find((e) => e.k === k && Math.abs(e.target - r.target) < 1e-6));
        if (efforts.some((e) => !e || e.ef === 0)) return []; // where a shard scans there is no effort
        return [{ x: efforts.reduce((sum, e) => sum + e!.scored, 0), y: r.recall, label: `target ${r.target}`, bad: r.recall < r.target }];
      })
      .sort((a, b) => a.x - b.x),
  }));
  const drawn = series.filter((s) => s.points.length > 0);
  if (drawn.length === 0) {
    return <p class="muted">Recall against work is not here: {recalls.length === 0 ? "the snapshot does not say what recall its build measured" : "its shards are scanned, or do not say what their calibration found"}.</p>;
  }
  return <Plot title="Recall against work" x="distances computed for a query, in all shards" y="recall that the build measured" series={drawn} logX formatX={(x) => count(Math.round(x))} formatY={(y) => y.toFixed(y > 0.99 ? 4 : 3)} />;
}

export function RecallTable({ m }: { m: Manifest }) {
  const rows = [
    ...(m.apps.recall ?? []).map((r) => ({ of: "all apps", eligible: m.apps.rows, r })),
    ...(m.apps.segments ?? []).flatMap((s) => (s.recall ?? []).map((r) => ({ of: s.name, eligible: s.eligible, r }))),
  ];
  return (
    <section class="card flush" aria-label="Recall that the build measured">
      <header class="head">
        <h2>Recall that the build measured</h2>
        <span class="muted">on users that it held out</span>
      </header>
      <div class="inset"><EffortPlot m={m} /></div>
      <p class="hint inset">Latency is not part of a snapshot, since it is a machine's: <code>tandem bench</code> measures recall against latency, and <code>--html</code> draws it.</p>
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
              <td>{(r.ef ?? []).every((e) => e === 0) ? "exact scan" : (r.ef ?? []).join(", ")}</td>
            </tr>
          ))}
        </tbody>
      </Table>
    </section>
  );
}

export const towersText = (m: Manifest): string =>
  `${plural(m.apps.rows, "app")} in ${plural(m.apps.shards.length, "shard")}, ${plural(m.users.rows, "user")} in ${plural(m.users.shards.length, "shard")}; metric ${m.metric}, ${m.dim} dimensions`;
export const inputsText = (m: Manifest): string => (m.inputs ?? []).map((i) => `${i.role}: ${i.name} (${bytes(i.size)})`).join(", ");

interface Quantile {
  share: number;
  candidate: number;
  previous: number;
}

interface TowerDiff {
  rows: number;
  previous_rows: number;
  added: number;
  removed: number;
  kept: number;
  norms?: Quantile[] | null;
}

interface Given {
  id: string;
  name?: string;
  both: boolean;
}

interface Side {
  snapshot: string;
  model: string;
  model_version: string;
}

export interface DiffReport {
  candidate: Side;
  previous: Side;
  apps: TowerDiff;
  users: TowerDiff;
  scores?: { rank: number; quantiles: Quantile[] | null }[] | null;
  overlap?: { k: number; users: number; mean: number }[] | null;
  segments?: { name: string; eligible: number; previous_eligible: number; overlap?: { k: number; mean: number }[] | null }[] | null;
  examples?: { user: string; given: Given[] | null; previous: Given[] | null }[] | null;
}

const quantiles = (d: DiffReport, list: Quantile[]): Series[] => [
  { label: d.previous.model_version || "before", color: 1, line: true, below: true, points: list.map((q) => ({ x: q.share, y: q.previous })) },
  { label: d.candidate.model_version || "after", color: 0, line: true, points: list.map((q) => ({ x: q.share, y: q.candidate })) },
];

/** How two snapshots differ. */
export function DiffView({ d }: { d: DiffReport }) {
  const [shown, show] = useState(0);
  const examples = d.examples ?? [];
  const example = examples[Math.min(shown, examples.length - 1)];
  const [given, previous] = [example?.given ?? [], example?.previous ?? []];
  const norms = ([["apps", d.apps], ["users", d.users]] as const).filter(([, t]) => t.norms?.length);
  const scores = (d.scores ?? []).filter((s) => s.quantiles?.length);
  const segments = d.segments ?? [];
  return (
    <>
      <section class="card flush" aria-label="Rows of both">
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
      <section class="card" aria-label="Norms and scores">
        <header class="head"><h2>Norms and scores</h2><span class="muted">a share of the values is no larger than this</span></header>
        {norms.length + scores.length === 0 ? (
          <Empty title="Neither were compared" />
        ) : (
          <div class="plots">
            {norms.map(([name, t]) => <Plot key={name} title={`Norms of ${name}`} x="share of rows" y="norm" series={quantiles(d, t.norms!)} formatX={(x) => percent(x, 0)} />)}
            {scores.map((s) => <Plot key={s.rank} title={`Scores at rank ${s.rank}`} x="share of users" y="score" series={quantiles(d, s.quantiles!)} formatX={(x) => percent(x, 0)} />)}
          </div>
        )}
      </section>
      <section class="card flush" aria-label="What the same users are given">
        <header class="head"><h2>What the same users are given</h2><span class="muted">the share of candidates that both have</span></header>
        <Table label="Overlap">
          <thead>
            <tr><th scope="col">Apps</th><th scope="col" class="n">Eligible</th><th scope="col" class="n">Before</th><th scope="col" class="n">Overlap@10</th><th scope="col" class="n">Overlap@100</th></tr>
          </thead>
          <tbody>
            {[{ name: "all apps", eligible: d.apps.rows, previous_eligible: d.apps.previous_rows, overlap: d.overlap }, ...segments].map((s) => (
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
                {examples.map((x, i) => <option key={x.user} value={i}>{x.user}</option>)}
              </select>
            </label>
          </header>
          <Table label="Candidates">
            <thead><tr><th scope="col" class="n">#</th><th scope="col">Before: {d.previous.model_version}</th><th scope="col">After: {d.candidate.model_version}</th></tr></thead>
            <tbody>
              {Array.from({ length: Math.max(given.length, previous.length) }, (_, i) => (
                <tr key={i}>
                  <th scope="row" class="n muted">{i + 1}</th>
                  {[previous[i], given[i]].map((g, j) => (
                    <td key={j}>{g ? <>{g.name || g.id} {g.name && <code class="muted">{g.id}</code>} {!g.both && <span class={`tag ${j ? "good" : "warn"}`}>{j ? "new" : "gone"}</span>}</> : "–"}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </Table>
        </section>
      )}
    </>
  );
}

