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

interface Sure {
  lower: number;
  upper: number;
}

interface Exposed {
  by: string;
  name: string;
  exposures: number;
  users: number;
  hits: number;
  rate: number;
  interval?: Sure | null;
  play_time: number;
  play_time_interval?: Sure | null;
}

interface Estimate {
  value: number;
  interval?: Sure | null;
}

interface Policy {
  policy: string;
  arm: string;
  all_arms: boolean;
  exposures: number;
  share_not_evaluable: number;
  effective_exposures: number;
  logged?: Estimate | null;
  ips?: Estimate | null;
  snips?: Estimate | null;
  dr?: Estimate | null;
}

interface Feedback {
  days: { day: string; generation: number; exposures: number; apps_shown: number; gini: number }[] | null;
  hits: string[];
  requests: number;
  empty_requests: number;
  exposures: number;
  users: number;
  hit_rates: { by: string; name: string; k: number; requests: number; hits: number; rate: number; interval?: Sure | null }[] | null;
  groups: Exposed[] | null;
  snapshots: { snapshot: string; exposures: number; apps_shown: number; apps?: number | null; apps_never_shown?: number | null; coverage?: number | null }[] | null;
  interleaving: { arms: [string, string]; requests: number; users: number; credits: [number, number]; users_prefer: [number, number]; users_tied: number; p: number; share_of_second?: number; interval?: Sure | null }[] | null;
  off_policy: {
    refused?: string;
    requests: number;
    explored_requests: number;
    requests_without_propensities: number;
    requests_not_in_target: number;
    target_answers_not_used: number;
    generations_left_out?: { generation: number; requests: number; why: string }[] | null;
    policies: Policy[] | null;
  };
}

const of = (by: string, name: string): string => (by === "all" ? "all" : name ? `${by} ${name}` : `no ${by}`);
const between = (i: Sure | null | undefined, format: (x: number) => string): string => (i ? `${format(i.lower)} to ${format(i.upper)}` : "");
/** How many segments, arms or ranks a plot has: a table has all. */
const plotted = 20;

function PoliciesOf({ o }: { o: Feedback["off_policy"] }) {
  if (o.refused) {
    return (
      <section class="card" aria-label="Other policies">
        <header class="head"><h2>Other policies</h2></header>
        <Empty title="There are no estimates">{o.refused}</Empty>
      </section>
    );
  }
  const list = o.policies ?? [];
  const name = (p: Policy) => `${p.policy}${p.all_arms ? "" : `, ${of("arm", p.arm)}`}`;
  const rate = (x: number) => percent(x, 2);
  const cell = (e: Estimate | null | undefined) => (e ? <>{rate(e.value)} <span class="muted">{between(e.interval, rate)}</span></> : "none");
  return (
    <section class="card flush" aria-label="Other policies">
      <header class="head">
        <h2>Other policies</h2>
        <span class="muted">{count(o.requests)} requests have propensities, {count(o.explored_requests)} of them were explored; {count(o.requests_without_propensities)} have none</span>
      </header>
      {(o.generations_left_out ?? []).map((g) => <p key={g.generation} class="inset muted">{count(g.requests)} requests of generation {g.generation} are left out: {g.why}</p>)}
      {o.requests_not_in_target + o.target_answers_not_used > 0 && <p class="inset muted">{count(o.requests_not_in_target)} requests are not in the target, and {count(o.target_answers_not_used)} answers of it are not used.</p>}
      <div class="inset plots">
        <Bars title="Hits of an exposure, doubly robust" note="the line is what it is with 95% confidence, by user" format={rate} from={0} bars={list.flatMap((p) => (p.dr ? [{ label: name(p), value: p.dr.value, low: p.dr.interval?.lower, high: p.dr.interval?.upper }] : []))} />
        <Bars title="Places that cannot be evaluated" note="what the policy has there could not have been served" format={(x) => percent(x)} from={0} to={1} bars={list.map((p) => ({ label: name(p), value: p.share_not_evaluable }))} />
      </div>
      <Table label="Other policies">
        <thead><tr><th scope="col">Policy</th><th scope="col" class="n">Exposures</th><th scope="col" class="n">Not evaluable</th><th scope="col" class="n">Effective</th><th scope="col" class="n">Served</th><th scope="col" class="n">IPS</th><th scope="col" class="n">SNIPS</th><th scope="col" class="n">DR</th></tr></thead>
        <tbody>
          {list.map((p) => (
            <tr key={name(p)}><th scope="row">{name(p)}</th><td class="n">{count(p.exposures)}</td><td class="n">{percent(p.share_not_evaluable)}</td><td class="n">{count(Math.round(p.effective_exposures))}</td><td class="n">{cell(p.logged)}</td><td class="n">{cell(p.ips)}</td><td class="n">{cell(p.snips)}</td><td class="n">{cell(p.dr)}</td></tr>
          ))}
        </tbody>
      </Table>
    </section>
  );
}

function FeedbackReport({ r }: { r: Feedback }) {
  const rates = r.hit_rates ?? [];
  const groups = r.groups ?? [];
  const ks = [...new Set(rates.map((h) => h.k))];
  const rate = (x: number) => percent(x, 2);
  const ranks = groups.filter((g) => g.by === "rank");
  const others = groups.filter((g) => g.by !== "rank");
  const point = (y: number, i: Sure | null | undefined) => ({ y, low: i?.lower, high: i?.upper });
  return (
    <>
      <section class="card">
        <Facts list={[
          ["Days", (r.days ?? []).map((d) => d.day).join(", ")],
          ["Requests", `${count(r.requests)} of ${plural(r.users, "user")}, ${count(r.empty_requests)} without a candidate`],
          ["Exposures", count(r.exposures)],
          ["A hit is", `an exposure with ${r.hits.join(", ")}`],
        ]} />
      </section>
      <section class="card flush" aria-label="Hit rates">
        <header class="head"><h2>Hit rates</h2><span class="muted">requests with a hit among the first k; 95% by user</span></header>
        <div class="inset plots">
          {ks.map((k) => (
            <Bars key={k} title={`Hit rate@${k}`} format={rate} from={0} bars={rates.filter((h) => h.k === k).slice(0, plotted).map((h) => ({ label: of(h.by, h.name), value: h.rate, low: h.interval?.lower, high: h.interval?.upper }))} />
          ))}
        </div>
        <Table label="Hit rates">
          <thead><tr><th scope="col">Requests</th><th scope="col" class="n">k</th><th scope="col" class="n">Number</th><th scope="col" class="n">Hits</th><th scope="col" class="n">Rate</th><th scope="col" class="n">95% by user</th></tr></thead>
          <tbody>{rates.map((h) => <tr key={`${h.by} ${h.name} ${h.k}`}><th scope="row">{of(h.by, h.name)}</th><td class="n">{h.k}</td><td class="n">{count(h.requests)}</td><td class="n">{count(h.hits)}</td><td class="n">{rate(h.rate)}</td><td class="n">{between(h.interval, rate)}</td></tr>)}</tbody>
        </Table>
      </section>
      <section class="card flush" aria-label="Exposures">
        <header class="head"><h2>Exposures</h2></header>
        <div class="inset plots">
          <Plot title="Hits by rank" x="rank" y="hits of an exposure" formatY={rate} series={[{ label: "hits", color: 0, line: true, points: ranks.map((g) => ({ x: Number(g.name), ...point(g.rate, g.interval) })) }]} />
          <Plot title="Play time by rank" x="rank" y="seconds of an exposure" series={[{ label: "seconds", color: 1, line: true, points: ranks.map((g) => ({ x: Number(g.name), ...point(g.play_time, g.play_time_interval) })) }]} />
        </div>
        <Table label="Exposures">
          <thead><tr><th scope="col">Exposures</th><th scope="col" class="n">Number</th><th scope="col" class="n">Users</th><th scope="col" class="n">Hits</th><th scope="col" class="n">Rate</th><th scope="col" class="n">95% by user</th><th scope="col" class="n">Seconds</th><th scope="col" class="n">95% by user</th></tr></thead>
          <tbody>
            {[...others, ...ranks.slice(0, plotted)].map((g) => (
              <tr key={`${g.by} ${g.name}`}><th scope="row">{of(g.by, g.name)}</th><td class="n">{count(g.exposures)}</td><td class="n">{count(g.users)}</td><td class="n">{count(g.hits)}</td><td class="n">{rate(g.rate)}</td><td class="n">{between(g.interval, rate)}</td><td class="n">{short(g.play_time)}</td><td class="n">{between(g.play_time_interval, short)}</td></tr>
            ))}
          </tbody>
        </Table>
      </section>
      {(r.interleaving ?? []).map((v) => (
        <section class="card flush" key={v.arms.join(" ")} aria-label="Interleaving">
          <header class="head">
            <h2>{v.arms[0]} and {v.arms[1]}, interleaved</h2>
            <span class={`tag ${v.p <= 0.05 ? "good" : ""}`}>{v.p <= 0.05 ? `users prefer ${v.users_prefer[1] > v.users_prefer[0] ? v.arms[1] : v.arms[0]}` : "no preference is found"}</span>
            <span class="muted">p {short(v.p)}, of {plural(v.users, "user")} and {plural(v.requests, "request")}</span>
          </header>
          <Table label="Interleaving">
            <thead><tr><th scope="col">Arm</th><th scope="col" class="n">Hits</th><th scope="col" class="n">Users prefer it</th><th scope="col" class="n">Share of hits</th><th scope="col" class="n">95% by user</th></tr></thead>
            <tbody>
              {v.arms.map((arm, i) => (
                <tr key={arm}><th scope="row">{arm}</th><td class="n">{count(v.credits[i]!)}</td><td class="n">{count(v.users_prefer[i]!)}</td><td class="n">{v.share_of_second === undefined ? "none" : percent(i ? v.share_of_second : 1 - v.share_of_second, 2)}</td><td class="n">{i ? between(v.interval, rate) : ""}</td></tr>
              ))}
            </tbody>
          </Table>
        </section>
      ))}
      <PoliciesOf o={r.off_policy} />
      <section class="card flush" aria-label="Catalogue">
        <header class="head"><h2>Catalogue</h2></header>
        <div class="inset plots">
          <Plot title="How uneven exposures are" x="day" y="Gini of apps that were shown" rangeY={[0, 1]} formatX={(x) => r.days?.[Math.round(x)]?.day.slice(5) ?? ""} series={[{ label: "Gini", color: 2, line: true, points: (r.days ?? []).map((d, x) => ({ x, y: d.gini, label: d.day })) }]} />
          <Bars title="Coverage" note="the share of the apps of a snapshot that were shown" format={(x) => percent(x)} from={0} to={1} bars={(r.snapshots ?? []).flatMap((s) => (s.coverage == null ? [] : [{ label: shortDigest(s.snapshot), value: s.coverage }]))} />
        </div>
        <Table label="Catalogue">
          <thead><tr><th scope="col">Snapshot</th><th scope="col" class="n">Exposures</th><th scope="col" class="n">Apps shown</th><th scope="col" class="n">Apps</th><th scope="col" class="n">Never shown</th></tr></thead>
          <tbody>{(r.snapshots ?? []).map((s) => <tr key={s.snapshot}><th scope="row"><code>{shortDigest(s.snapshot)}</code></th><td class="n">{count(s.exposures)}</td><td class="n">{count(s.apps_shown)}</td><td class="n">{s.apps == null ? "not known" : count(s.apps)}</td><td class="n">{s.apps_never_shown == null ? "not known" : count(s.apps_never_shown)}</td></tr>)}</tbody>
        </Table>
      </section>
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
        : told.kind === "feedback" ? <FeedbackReport r={r as Feedback} />
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
