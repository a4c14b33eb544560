// A report that stands by itself: one file, with what a command found in it, drawn by the parts that the
// console has. It asks nobody for anything.
import { render, type ComponentChildren } from "preact";
import "./style.css";
import { bytes, count, percent, plural, shortDigest, took } from "./format";
import { checksOf, DiffView, GateList, GatePlots, inputsText, RecallTable, towersText, type DiffReport, type Manifest, type Row, type Run } from "./measures";
import { Bars, Plot, short, type Series } from "./plot";
import "./theme";
import { Empty, Table } from "./ui";

interface Told {
  kind: string;
  title: string;
  made: string;
  tool: string;
  report: unknown;
}

function Facts({ list }: { list: [string, ComponentChildren][] }) {
  return (
    <dl class="facts wide">
      {list.map(([k, v]) => <div key={k}><dt>{k}</dt><dd>{v}</dd></div>)}
    </dl>
  );
}

function GatesOf({ run, rows }: { run: Run; rows: Row[] }) {
  const checks = checksOf(run);
  const failed = checks.filter((c) => !c.passed).length;
  const previous = run.report?.previous;
  return (
    <>
      <section class="card" aria-label="Gates">
        <header class="head">
          <h2>Gates</h2>
          <span class={`tag ${failed ? "bad" : "good"}`}>{failed ? `${count(failed)} of ${plural(checks.length, "check")} failed` : `${plural(checks.length, "check")} passed`}</span>
          <span class="muted">{previous ? `against snapshot ${shortDigest(previous)}` : "without a previous snapshot"}</span>
        </header>
        <GateList rows={rows} checks={(gate) => checks.filter((c) => c.gate === gate)} />
        {(run.report?.loosened ?? []).length > 0 && <p class="muted">Limits under which more passed than by default: {run.report!.loosened!.join(", ")}.</p>}
      </section>
      <section class="card" aria-label="What the gates measured">
        <header class="head"><h2>What the gates measured</h2></header>
        <GatePlots checks={checks} undecided={[...(run.report?.undecided ?? []), ...(run.undecided ?? [])]} />
      </section>
    </>
  );
}

interface Build {
  snapshot: string;
  seconds: number;
  manifest: Manifest;
  gates: Run;
  rows: Row[];
  rejected?: Record<string, { kind: string; count: number; first: string[] | null }[] | null> | null;
}

function BuildReport({ r }: { r: Build }) {
  const rejected = Object.entries(r.rejected ?? {}).flatMap(([tower, list]) => (list ?? []).map((x) => ({ tower, ...x })));
  const m = r.manifest;
  return (
    <>
      <section class="card">
        <header class="head"><h2>{m.model} at {m.model_version}</h2></header>
        <Facts list={[
          ["Snapshot", <code>{r.snapshot}</code>],
          ["Towers", towersText(m)],
          ["Size", bytes([...m.apps.shards, ...m.users.shards].reduce((sum, s) => sum + s.size, 0))],
          ["Built in", took(r.seconds)],
          ["Inputs", inputsText(m)],
        ]} />
      </section>
      {rejected.length > 0 && (
        <section class="card flush" aria-label="Rows that were left out">
          <header class="head"><h2>Rows that were left out</h2></header>
          <Table label="Rows that were left out">
            <thead><tr><th scope="col">Tower</th><th scope="col">Why</th><th scope="col" class="n">Rows</th><th scope="col">The first</th></tr></thead>
            <tbody>{rejected.map((x, i) => <tr key={i}><th scope="row">{x.tower}</th><td>{x.kind}</td><td class="n">{count(x.count)}</td><td class="wrap">{(x.first ?? []).join("; ")}</td></tr>)}</tbody>
          </Table>
        </section>
      )}
      {r.gates && <GatesOf run={r.gates} rows={r.rows} />}
      <RecallTable m={m} />
    </>
  );
}

function GateReport({ r }: { r: { run: Run; rows: Row[] } }) {
  return (
    <>
      <section class="card">
        <Facts list={[["Snapshot", <code>{r.run.snapshot}</code>], ["Run", r.run.time ?? "not known"]]} />
      </section>
      <GatesOf run={r.run} rows={r.rows} />
    </>
  );
}

interface BenchResult {
  k: number;
  setting: string;
  ef?: number;
  target?: number;
  default: boolean;
  recall: number;
  recall_worst: number;
  p50_us: number;
  p99_us: number;
  qps: number;
  speedup: number;
  scored: number;
}

interface Bench {
  model: string;
  model_version: string;
  snapshot: string;
  tower: string;
  metric: string;
  dim: number;
  rows: number;
  shards: number;
  filter?: string;
  segment?: string;
  eligible: number;
  queries: number;
  overlap: number;
  rounds: number;
  processors: number;
  kernel: string;
  go: string;
  platform: string;
  results: BenchResult[] | null;
}

const settingOf = (r: BenchResult): string => (r.setting === "ef" ? `ef ${r.ef}` : r.setting === "target" ? `target ${r.target}` : "exact scan");

function BenchReport({ r }: { r: Bench }) {
  const results = r.results ?? [];
  const ks = [...new Set(results.map((x) => x.k))];
  return (
    <>
      <section class="card">
        <header class="head"><h2>{r.model} at {r.model_version}</h2></header>
        <Facts list={[
          ["Snapshot", <code>{r.snapshot}</code>],
          ["Tower", `${r.tower}: ${count(r.rows)} rows in ${plural(r.shards, "shard")}, metric ${r.metric}, ${r.dim} dimensions`],
          ...(r.filter || r.segment ? [["Only", `${[r.filter, r.segment && `segment ${r.segment}`].filter(Boolean).join(" in ")}: ${count(r.eligible)} are eligible`] as [string, string]] : []),
          ["Queries", `${count(r.queries)} real ones, one at a time, ${plural(r.rounds, "round")}${r.overlap ? `; ${count(r.overlap)} of them may have calibrated the build, which flatters recall` : ""}`],
          ["Machine", `${r.platform}, ${r.kernel} kernel, ${r.go}, ${plural(r.processors, "processor")}`],
        ]} />
      </section>
      <section class="card" aria-label="Recall against latency">
        <header class="head"><h2>Recall against latency</h2></header>
        <div class="plots">
          {ks.map((k) => {
            const of = results.filter((x) => x.k === k);
            const line = (name: string, setting: string, color: number): Series => ({
              label: name, color, line: setting !== "exact",
              points: of.filter((x) => x.setting === setting).map((x) => ({ x: x.p50_us, y: x.recall, label: settingOf(x) + (x.default ? ", the default" : "") })).sort((a, b) => a.x - b.x),
            });
            return (
              <Plot
                key={k} title={`k = ${k}`} x="p50 of a query" y={`recall@${k}`} logX formatX={(x) => took(x / 1e6)} formatY={(y) => y.toFixed(3)}
                series={[line("efforts", "ef", 0), line("recall targets", "target", 1), line("exact scan", "exact", 2)].filter((s) => s.points.length)}
              />
            );
          })}
        </div>
      </section>
      <section class="card flush" aria-label="Results">
        <Table label="Results">
          <thead><tr><th scope="col">Setting</th><th scope="col" class="n">k</th><th scope="col" class="n">Recall</th><th scope="col" class="n">Worst 1%</th><th scope="col" class="n">p50</th><th scope="col" class="n">p99</th><th scope="col" class="n">In a second</th><th scope="col" class="n">Of the scan</th><th scope="col" class="n">Distances</th></tr></thead>
          <tbody>
            {results.map((x, i) => (
              <tr key={i}>
                <th scope="row">{settingOf(x)} {x.default && <span class="tag good">default</span>}</th>
                <td class="n">{x.k}</td><td class="n">{x.recall.toFixed(4)}</td><td class="n">{x.recall_worst.toFixed(3)}</td>
                <td class="n">{took(x.p50_us / 1e6)}</td><td class="n">{took(x.p99_us / 1e6)}</td><td class="n">{count(Math.round(x.qps))}</td><td class="n">{x.speedup.toFixed(1)}x</td><td class="n">{count(Math.round(x.scored))}</td>
              </tr>
            ))}
          </tbody>
        </Table>
      </section>
    </>
  );
}

interface Change {
  queries: number;
  overlap: number;
  overlap_p1: number;
  rank_change: number;
  top_changed: number;
  score_shift: number;
  intervals?: { overlap?: { lower: number; upper: number } | null } | null;
}

interface Times {
  mean_us: number;
  p50_us: number;
  p99_us: number;
}

interface Group extends Change {
  name?: string;
  failed: number;
  recorded: Times;
  replayed: Times;
  baseline?: (Change & { latency_ratio: number; latency: Times; replayed: Times }) | null;
}

interface Replayed {
  digest: string;
  model: string;
  model_version: string;
}

interface Replay {
  log: string;
  read: number;
  first: string;
  last: string;
  left_out?: Record<string, number> | null;
  against: Replayed;
  baseline?: Replayed | null;
  failures?: { code: string; queries: number; example: string }[] | null;
  overall: Group;
  segments?: Group[] | null;
  arms?: Group[] | null;
  broken?: string[] | null;
  kernel: string;
  go: string;
  platform: string;
}

function Changes({ title, groups, of }: { title: string; groups: Group[]; of: (g: Group) => Change | null | undefined }) {
  const list = groups.flatMap((g) => { const c = of(g); return c ? [{ name: g.name || "without one", c }] : []; });
  if (list.length === 0) return null;
  return (
    <section class="card flush" aria-label={title}>
      <header class="head"><h2>{title}</h2></header>
      <div class="inset plots">
        <Bars title="Overlap" note="the share of candidates that both answers have, as a mean; the line is what it is for sure" from={0} to={1} format={(x) => percent(x)} bars={list.map(({ name, c }) => ({ label: name, value: c.overlap, low: c.intervals?.overlap?.lower, high: c.intervals?.overlap?.upper }))} />
        <Bars title="Shift of scores" note="of an id that both answers have, as a share" format={(x) => percent(x, 2)} bars={list.map(({ name, c }) => ({ label: name, value: c.score_shift }))} />
      </div>
      <Table label={title}>
        <thead><tr><th scope="col">Queries</th><th scope="col" class="n">Answered</th><th scope="col" class="n">Overlap</th><th scope="col" class="n">1% are below</th><th scope="col" class="n">Another first</th><th scope="col" class="n">Ranks moved</th><th scope="col" class="n">Scores moved</th></tr></thead>
        <tbody>
          {list.map(({ name, c }) => (
            <tr key={name}><th scope="row">{name}</th><td class="n">{count(c.queries)}</td><td class="n">{percent(c.overlap, 2)}</td><td class="n">{percent(c.overlap_p1)}</td><td class="n">{percent(c.top_changed)}</td><td class="n">{short(c.rank_change)}</td><td class="n">{percent(c.score_shift, 2)}</td></tr>
          ))}
        </tbody>
      </Table>
    </section>
  );
}

function ReplayReport({ r }: { r: Replay }) {
  const groups = [{ ...r.overall, name: "all" }, ...(r.segments ?? []).map((g) => ({ ...g, name: `segment ${g.name || "none"}` })), ...(r.arms ?? []).map((g) => ({ ...g, name: `arm ${g.name || "none"}` }))];
  const named = (s: Replayed) => <>{s.model} at {s.model_version}, <code>{shortDigest(s.digest)}</code></>;
  const leftOut = Object.entries(r.left_out ?? {});
  return (
    <>
      {(r.broken ?? []).length > 0 && (
        <section class="verdict bad" aria-label="Thresholds that are broken">
          {r.broken!.map((text) => <article key={text}><h2>{text}</h2></article>)}
        </section>
      )}
      <section class="card">
        <Facts list={[
          ["Against", named(r.against)],
          ...(r.baseline ? [["Baseline", named(r.baseline)] as [string, ComponentChildren]] : []),
          ["Log", `${r.log}: ${count(r.read)} queries from ${r.first} to ${r.last}; ${count(r.overall.queries)} were asked, ${count(r.overall.failed)} failed`],
          ...(leftOut.length ? [["Left out", leftOut.map(([why, n]) => `${count(n)} ${why}`).join(", ")] as [string, string]] : []),
          ["Machine", `${r.platform}, ${r.kernel} kernel, ${r.go}`],
        ]} />
      </section>
      <Changes title="From the recorded answers" groups={groups} of={(g) => g} />
      <Changes title="From the baseline's answers" groups={groups} of={(g) => g.baseline} />
      <section class="card" aria-label="Latency">
        <header class="head"><h2>Latency</h2><span class="muted">what is recorded depends on the server's machine and load</span></header>
        <div class="plots">
          {([["p50", "p50_us"], ["p99", "p99_us"]] as const).map(([name, field]) => (
            <Bars key={name} title={name} format={(x) => took(x / 1e6)} bars={[{ label: "recorded", value: r.overall.recorded[field] }, { label: "replayed", value: r.overall.replayed[field] }, ...(r.overall.baseline ? [{ label: "of the baseline", value: r.overall.baseline.latency[field] }] : [])]} />
          ))}
        </div>
      </section>
      {(r.failures ?? []).length > 0 && (
        <section class="card flush" aria-label="Failures">
          <header class="head"><h2>Failures</h2></header>
          <Table label="Failures">
            <thead><tr><th scope="col">Code</th><th scope="col" class="n">Queries</th><th scope="col">The first</th></tr></thead>
            <tbody>{r.failures!.map((f) => <tr key={f.code}><th scope="row">{f.code}</th><td class="n">{count(f.queries)}</td><td class="wrap">{f.example}</td></tr>)}</tbody>
          </Table>
        </section>
      )}
    </>
  );
}

function Page({ told }: { told: Told }) {
  const r = told.report;
  return (
    <main class="stack">
      <header class="of-report">
        <h1>{told.title}</h1>
        <p class="muted">made {told.made} by {told.tool}; this page has all that it shows, and asks nobody</p>
      </header>
      {told.kind === "build" ? <BuildReport r={r as Build} />
        : told.kind === "gate" ? <GateReport r={r as { run: Run; rows: Row[] }} />
        : told.kind === "diff" ? <DiffView d={r as DiffReport} />
        : told.kind === "replay" ? <ReplayReport r={r as Replay} />
        : told.kind === "bench" ? <BenchReport r={r as Bench} />
        : <Empty title={`This page does not know reports of the kind ${told.kind}`} />}
      <details class="card">
        <summary>The report as JSON</summary>
        <pre class="program" tabIndex={0}>{JSON.stringify(r, null, 2)}</pre>
      </details>
    </main>
  );
}

const told = JSON.parse(document.getElementById("report")!.textContent!) as Told;
render(<Page told={told} />, document.getElementById("page")!);
