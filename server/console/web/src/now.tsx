// What the server does at this moment, and did over the last hours.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { admin, live, troubleOf, type Trouble } from "./api";
import { Chart, type Line } from "./chart";
import { ago, bytes, clock, count, dateOf, moment, percent, plural, secondsOf, share, span, took, words } from "./format";
import { FailureKind, type ServerFailure } from "./gen/tandem/v1/load_pb";
import { Phase, type ArmStatus, type GetStatusResponse } from "./gen/tandem/v1/admin_pb";
import type { Finding, GetHistoryResponse, HistorySample } from "./gen/tandem/v1/history_pb";
import type { GetLiveStatusResponse } from "./gen/tandem/v1/live_pb";
import type { RecallStratum } from "./gen/tandem/v1/recall_pb";
import { usePoll } from "./poll";
import { Choice, Digest, Empty, Icon, Loading, Manual, Prose, Table, TroubleBox } from "./ui";

const every = 5000;

export function Now() {
  const status = usePoll((signal) => admin.getStatus({}, { signal }), every);
  const found = usePoll((signal) => admin.getFindings({}, { signal }), every);
  const log = usePoll((signal) => live.getLiveStatus({}, { signal }), every);
  if (!status.data) return status.trouble ? <TroubleBox trouble={status.trouble} again={status.again} /> : <Loading what="what serves" lines={6} />;
  return (
    <div class={`now ${status.trouble ? "old" : ""}`}>
      <h1 class="offscreen">Now</h1>
      {status.trouble && (
        <TroubleBox trouble={{ ...status.trouble, title: `${status.trouble.title}. What is below is of ${clock(new Date(status.at))}` }} again={status.again} />
      )}
      <Verdict findings={found.data?.findings} at={found.data && dateOf(found.data.time)} trouble={found.trouble} />
      <Serves s={status.data} />
      <History fence={secondsOf(log.data?.fence)} />
      <div class="pair">
        <Facts s={status.data} live={log.data} trouble={log.trouble} />
        <Failures list={status.data.failures} />
      </div>
    </div>
  );
}

function Verdict({ findings, at, trouble }: { findings: Finding[] | undefined; at: Date | undefined; trouble: Trouble | null }) {
  if (!findings) return trouble ? <TroubleBox trouble={trouble} /> : <Loading what="what is not good" lines={1} />;
  return (
    <section class={`verdict ${findings.length ? "bad" : "good"}`} aria-live="polite" aria-label="What is not good">
      <header>
        <span class="seal">
          <Icon name={findings.length ? "bad" : "good"} />
        </span>
        <h2>{findings.length ? `${plural(findings.length, "thing")} not good` : "All is good"}</h2>
        {at && <span class="muted">seen {clock(at)}</span>}
      </header>
      {findings.map((f, i) => (
        <article key={`${f.alert}${i}`}>
          <h3>{f.alert}</h3>
          <p>{f.why}</p>
          <p class="next">
            <span>Next</span>
            <span>
              <Prose text={f.next} /> <span class="muted">(<Manual page={f.runbook} />)</span>
            </span>
          </p>
        </article>
      ))}
    </section>
  );
}

const phases: Record<Phase, string> = {
  [Phase.UNSPECIFIED]: "unknown",
  [Phase.SERVING]: "serving",
  [Phase.LOADING]: "loading",
  [Phase.FAILED]: "failed",
  [Phase.DRAINING]: "draining",
};

/** The colours of arms, in their order. */
export const armColors = ["--arm-0", "--arm-1", "--arm-2", "--arm-3"];
export const armColor = (i: number): string => armColors[i % armColors.length]!;

function Serves({ s }: { s: GetStatusResponse }) {
  const since = dateOf(s.since);
  return (
    <section class="card" aria-label="What serves">
      <header class="head">
        <h2>{s.generation ? `Generation ${s.generation}` : s.arms.length ? "A snapshot without a release" : "Nothing serves"}</h2>
        <span class={`tag ${s.phase === Phase.SERVING ? "good" : s.phase === Phase.FAILED ? "bad" : "warn"}`}>{phases[s.phase]}</span>
        {since && (
          <span class="muted" title={since.toISOString()}>
            since {moment(since)}, {ago(since)}
          </span>
        )}
        {s.targetGeneration !== s.generation && s.targetGeneration > 0n && <span class="tag warn">should serve generation {String(s.targetGeneration)}</span>}
      </header>
      {s.arms.length === 0 ? (
        <Empty title="No arm answers yet">{s.error || "What is released is being loaded, or nothing was released."}</Empty>
      ) : (
        <>
          {s.arms.length > 1 && (
            <div class="shares" role="img" aria-label={s.arms.map((a) => `${a.name} ${share(a.weight)}`).join(", ")}>
              {s.arms.map((a, i) => (
                <Share key={a.name} weight={a.weight} color={armColor(i)} />
              ))}
            </div>
          )}
          <Table label="Arms" class="arms">
              <thead>
                <tr>
                  <th scope="col">Arm</th>
                  <th scope="col" class="n">Share</th>
                  <th scope="col">Model version</th>
                  <th scope="col">Snapshot</th>
                  <th scope="col" class="n">Apps</th>
                  <th scope="col" class="n">Users</th>
                  <th scope="col">Recall of live queries</th>
                  <th scope="col">Published</th>
                </tr>
              </thead>
              <tbody>
                {s.arms.map((a, i) => (
                  <Arm key={a.name} a={a} color={armColor(i)} />
                ))}
              </tbody>
            </Table>
        </>
      )}
    </section>
  );
}

export function Share({ weight, color }: { weight: number; color: string }) {
  const ref = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    ref.current!.style.flexGrow = String(Math.max(weight, 4));
    ref.current!.style.background = `var(${color})`;
  }, [weight, color]);
  return <span ref={ref} />;
}

export function Dot({ color }: { color: string }) {
  return <span class={`dot ${color.slice(2)}`} aria-hidden="true" />;
}

function Arm({ a, color }: { a: ArmStatus; color: string }) {
  const published = dateOf(a.published);
  return (
    <tr>
      <th scope="row">
        <Dot color={color} />
        {a.name}
      </th>
      <td class="n">{share(a.weight)}</td>
      <td>
        {a.model} <span class="muted">at</span> {a.modelVersion}
      </td>
      <td>
        <Digest of={a.snapshot} />
        {a.unreadableShards > 0 && <span class="tag bad">{plural(a.unreadableShards, "shard")} lost</span>}
      </td>
      <td class="n">{count(a.apps)}</td>
      <td class="n">{count(a.users)}</td>
      <td>
        <Recall s={a.recall?.all} />
      </td>
      <td class="muted" title={published?.toISOString()}>
        {published ? ago(published) : "not known"}
      </td>
    </tr>
  );
}

/** A mean recall with what it is for sure, on a scale that ends at 1. */
function Recall({ s }: { s: RecallStratum | undefined }) {
  if (!s) return <span class="muted">not measured</span>;
  if (!s.enoughData) return <span class="muted">not enough data: {plural(s.audits, "audit")}</span>;
  return (
    <span class="recall">
      <strong class={s.alarm ? "bad" : ""}>{s.recall.toFixed(4)}</strong>
      <span class="muted">
        {" "}
        for sure {s.low.toFixed(4)} to {s.high.toFixed(4)}, floor {s.floor.toFixed(4)}
      </span>
    </span>
  );
}

const ranges = [
  ["15m", "15 min"],
  ["1h", "1 h"],
  ["6h", "6 h"],
] as const;
const rangeSeconds = { "15m": 900, "1h": 3600, "6h": 21600 };
const step = 10;

/** Samples, asked for once and then only those that are new. */
function useSamples(): { samples: HistorySample[]; processors: number; trouble: Trouble | null; asked: boolean } {
  const [state, set] = useState({ samples: [] as HistorySample[], processors: 0, trouble: null as Trouble | null, asked: false });
  const all = useRef<HistorySample[]>([]);
  useEffect(() => {
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const ask = async () => {
      try {
        const answer: GetHistoryResponse = await admin.getHistory({ after: all.current.at(-1)?.time }, { signal: ended.signal });
        const first = Date.now() / 1000 - rangeSeconds["6h"];
        // A server that began anew has none of what was before; what is here stays true.
        all.current = [...all.current, ...answer.samples].filter((s) => Number(s.time!.seconds) >= first);
        set({ samples: all.current, processors: answer.processors, trouble: null, asked: true });
      } catch (e) {
        const trouble = ended.signal.aborted ? null : troubleOf(e);
        if (trouble) set((was) => ({ ...was, trouble, asked: true }));
      }
      if (!ended.signal.aborted) timer = setTimeout(() => void ask(), every);
    };
    void ask();
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, []);
  return state;
}

function History({ fence }: { fence: number }) {
  const { samples, processors, trouble, asked } = useSamples();
  const [range, setRange] = useState<keyof typeof rangeSeconds>("15m");
  const to = Date.now() / 1000;
  const from = to - rangeSeconds[range];
  const shown = useMemo(() => samples.filter((s) => Number(s.time!.seconds) >= from - step), [samples, range]);
  const columns = useMemo(() => columnsOf(shown), [shown]);
  const { times, of } = columns;
  const last = shown.at(-1);
  const armNames = useMemo(() => [...new Set(shown.flatMap((s) => s.arms.map((a) => a.name)))], [shown]);
  const common = { times, from, to };

  const perSecond = (x: number) => (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2).replace(/\.?0+$/, ""));
  const recall: Line[] = [];
  const floors = new Set<number>();
  armNames.forEach((name, i) => {
    const arm = of((s) => s.arms.find((a) => a.name === name));
    const known = (f: (a: NonNullable<(typeof arm)[number]>) => number | undefined) => arm.map((a) => (a?.recall != null ? (f(a) ?? null) : null));
    recall.push({ label: name, color: armColor(i), values: known((a) => a.recall), band: [known((a) => a.low), known((a) => a.high)] });
    const floor = last?.arms.find((a) => a.name === name)?.floor;
    if (floor) floors.add(floor);
  });
  for (const f of floors) recall.push({ label: "floor", color: "--bad", dash: true, values: times.map(() => f) });
  const lowestKnown = Math.min(...recall.flatMap((l) => l.values.concat(l.band?.[0] ?? [])).filter((x): x is number => x != null && x > 0), 1);
  const now = last?.arms.filter((a) => a.recall != null);

  return (
    <section aria-label="The last hours">
      <header class="head">
        <h2>The last hours</h2>
        <Choice label="How far back" value={range} options={ranges} onChange={setRange} />
      </header>
      {trouble && trouble.kind !== "away" && <TroubleBox trouble={trouble} />}
      {!last ? (
        asked ? <Empty title="No sample yet">The server takes one every 10 seconds, and has begun just now.</Empty> : <Loading what="samples" lines={4} />
      ) : (
        <div class="charts">
          <Panel title="Recall" value={now?.length ? now.map((a) => a.recall!.toFixed(4)).join(" / ") : "–"} note={now?.length ? "mean of audited live queries, and what it is for sure" : "too few audits to say"}>
            <Chart {...common} title="Recall" lines={recall} format={(x) => x.toFixed(3)} range={() => [Math.min(lowestKnown - 0.005, 0.97), 1]} />
          </Panel>
          <Panel title="Latency" value={took(secondsOf(last.p99))} note="99 of 100 within; half within the lower line">
            <Chart
              {...common}
              title="Latency"
              lines={[
                { label: "99 of 100", color: "--arm-0", values: of((s) => (s.p99 ? secondsOf(s.p99) : null)) },
                { label: "half", color: "--arm-3", values: of((s) => (s.p50 ? secondsOf(s.p50) : null)) },
              ]}
              format={(x) => took(x).replace(/\.0+ /, " ")}
            />
          </Panel>
          <Panel title="Queries" value={`${perSecond(Number(last.answered) / step)}/s`} note={refusedText(last)}>
            <Chart
              {...common}
              title="Queries in a second"
              lines={[
                { label: "answered", color: "--arm-0", values: of((s) => Number(s.answered) / step) },
                { label: "refused", color: "--warn", values: of((s) => Number(s.refused) / step) },
                { label: "failed", color: "--bad", values: of((s) => Number(s.failed) / step) },
              ]}
              format={perSecond}
            />
          </Panel>
          <Panel title="Load" value={`${last.cpu.toFixed(2)} of ${processors}`} note={`processors in use; ${plural(last.requests, "request")} under way`}>
            <Chart
              {...common}
              title="Processors in use"
              lines={[
                { label: "in use", color: "--arm-0", values: of((s) => s.cpu) },
                { label: "there are", color: "--muted", dash: true, values: times.map(() => processors) },
              ]}
              format={(x) => x.toFixed(1)}
            />
          </Panel>
          <Panel title="Coverage" value={last.coverage != null ? percent(last.coverage, last.coverage === 1 ? 0 : 2) : "–"} note={last.lowestCoverage != null && last.lowestCoverage < 1 ? `the lowest answer ${percent(last.lowestCoverage)}` : "share of shards and rows that answers are based on"}>
            <Chart
              {...common}
              title="Coverage"
              lines={[
                { label: "mean", color: "--arm-0", values: of((s) => s.coverage ?? null) },
                { label: "lowest", color: "--warn", values: of((s) => s.lowestCoverage ?? null) },
              ]}
              format={(x) => percent(x, 0)}
              range={(least) => [Math.min(least, 0.9) - 0.02, 1.01]}
            />
          </Panel>
          <Panel title="Staleness" value={last.liveStaleness ? span(secondsOf(last.liveStaleness)) : "–"} note={`of the live log; queries are refused beyond ${isFinite(fence) ? span(fence) : "the fence"}`}>
            <Chart
              {...common}
              title="Staleness"
              lines={[
                { label: "live log", color: "--arm-0", values: of((s) => (s.liveStaleness ? secondsOf(s.liveStaleness) : null)) },
                { label: "releases", color: "--arm-3", values: of((s) => (s.staleness ? secondsOf(s.staleness) : null)) },
                ...(isFinite(fence) ? [{ label: "fence", color: "--bad", dash: true, values: times.map(() => fence) }] : []),
              ]}
              format={(x) => span(x)}
            />
          </Panel>
        </div>
      )}
    </section>
  );
}

function refusedText(s: HistorySample): string {
  const parts = [];
  if (s.refused) parts.push(`${count(s.refused)} refused`);
  if (s.failed) parts.push(`${count(s.failed)} failed`);
  return parts.length ? `${parts.join(", ")} in 10 s` : "none refused, none failed";
}

function Panel({ title, value, note, children }: { title: string; value: string; note: string; children: preact.ComponentChildren }) {
  return (
    <div class="card panel">
      <h3>{title}</h3>
      <p class="value">{value}</p>
      <p class="muted note">{note}</p>
      {children}
    </div>
  );
}

/** The samples as columns, with a gap wherever some are missing. */
function columnsOf(samples: HistorySample[]) {
  const rows: { t: number; s: HistorySample | null }[] = [];
  for (const s of samples) {
    const t = Number(s.time!.seconds) + s.time!.nanos / 1e9;
    const last = rows.at(-1);
    if (last && t - last.t > 2.5 * step) rows.push({ t: last.t + step, s: null });
    rows.push({ t, s });
  }
  return {
    times: rows.map((r) => r.t),
    of: <T,>(f: (s: HistorySample) => T): (T | null)[] => rows.map((r) => (r.s ? (f(r.s) ?? null) : null)),
  };
}

function Facts({ s, live, trouble }: { s: GetStatusResponse; live: GetLiveStatusResponse | undefined; trouble: Trouble | null }) {
  const load = s.load;
  const noLimit = s.memoryLimit >= 2n ** 63n - 1n;
  const rows: [string, string][] = [];
  if (load) {
    rows.push(["Requests", `${count(load.requests)} of ${count(load.requestsLimit)} under way, ${bytes(load.requestMemory)} of ${bytes(load.requestMemoryLimit)}`]);
    rows.push(["Connections", `${count(load.connections)} of ${count(load.connectionsLimit)}`]);
  }
  rows.push(["Memory", `${bytes(s.mappedBytes)} mapped${noLimit ? "" : ` of ${bytes(s.memoryLimit)}`}, ${plural(s.keptSnapshots.length, "snapshot")} kept for a rollback`]);
  rows.push(["Releases", s.staleness ? `seen ${span(secondsOf(s.staleness))} ago${s.logError ? `; the last look failed: ${s.logError}` : ""}` : "follows none"]);
  if (live) {
    rows.push(["Live log", `position ${live.position?.log ? `${live.position.log}:` : ""}${live.position?.sequence ?? 0n}, proved ${live.staleness ? `${span(secondsOf(live.staleness))} ago` : "not yet"}`]);
    rows.push(["Taken down", plural(live.takedowns, "app")]);
    rows.push(["Upserted", `${bytes(live.freshBytes)} of ${bytes(live.freshBytesLimit)}`]);
    rows.push(["Writes", live.writes ? "taken by this server" : "not taken by this server"]);
  }
  return (
    <section class="card" aria-label="What it holds">
      <h2>What it holds</h2>
      <dl class="facts">
        {rows.map(([k, v]) => (
          <div key={k}>
            <dt>{k}</dt>
            <dd>{v}</dd>
          </div>
        ))}
      </dl>
      {trouble && <p class="muted">Of the live log it says nothing: {trouble.text}</p>}
    </section>
  );
}

function Failures({ list }: { list: ServerFailure[] }) {
  return (
    <section class="card" aria-label="Last failures">
      <h2>Last failures</h2>
      {list.length === 0 ? (
        <Empty title="None since it began" />
      ) : (
        <ol class="failures">
          {list.map((f, i) => {
            const time = dateOf(f.time);
            return (
              <li key={i}>
                <span class="muted" title={time?.toISOString()}>
                  {time ? ago(time) : ""}
                  {f.times > 1n && `, ${count(f.times)} times`}
                </span>
                <span class="tag">{words(FailureKind[f.kind])}</span>
                <span>{f.text}</span>
              </li>
            );
          })}
        </ol>
      )}
    </section>
  );
}
