// Which snapshots there are, what their gates found, and how two differ.
import { useMemo, useState } from "preact/hooks";
import { releases, troubleOf, type Trouble } from "./api";
import { ago, bytes, count, dateOf, shortDigest } from "./format";
import { GateState, type GateRow, type GetSnapshotResponse, type ListSnapshotsResponse, type SnapshotSummary } from "./gen/tandem/v1/release_pb";
import { checksOf, DiffView, GateList, GatePlots, inputsText, RecallTable, towersText, type DiffReport, type Manifest, type Run } from "./measures";
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

const states: Record<GateState, string> = {
  [GateState.UNSPECIFIED]: "unknown",
  [GateState.PASSED]: "passed",
  [GateState.FAILED]: "failed",
  [GateState.INCONCLUSIVE]: "inconclusive",
  [GateState.NOT_RUN]: "not run",
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
          <div><dt>Towers</dt><dd>{towersText(m)}</dd></div>
          <div><dt>Lineage</dt><dd>{previous ? <>after <a href={href("snapshots", { of: previous })}><code>{shortDigest(previous)}</code></a></> : "no snapshot came before"}</dd></div>
          <div><dt>Inputs</dt><dd>{inputsText(m)}</dd></div>
        </dl>
      </section>
      <Gates snapshot={snapshot} runs={runs.map((r) => r.report)} />
      <RecallTable m={m} />
    </div>
  );
}

/** The gates, by all runs: of each the newest run that evaluated it decides. */
function Gates({ snapshot, runs }: { snapshot: GetSnapshotResponse; runs: Run[] }) {
  const rows = snapshot.gates?.rows;
  if (!rows) return <section class="card"><h2>Gates</h2><Empty title="None were run">tandem gate runs them.</Empty></section>;
  const of = (gate: string) => runs.map((r) => checksOf(r).filter((c) => c.gate === gate)).find((list) => list.length > 0) ?? [];
  const undecided = runs.flatMap((r) => [...(r.report?.undecided ?? []), ...(r.undecided ?? [])]);
  return (
    <>
      <section class="card" aria-label="Gates">
        <header class="head">
          <h2>Gates</h2>
          {snapshot.gates!.comparedWith.length > 0 && <span class="muted">compared with {shortDigest(snapshot.gates!.comparedWith.at(-1)!)}</span>}
        </header>
        <GateList rows={rows.map((r) => ({ gate: r.gate, state: states[r.state], checks: r.checks, why: r.why }))} checks={of} />
        {snapshot.gates!.loosened.length > 0 && <p class="muted">Limits under which more passed than by default: {snapshot.gates!.loosened.join(", ")}.</p>}
      </section>
      <section class="card" aria-label="What the gates measured">
        <header class="head"><h2>What the gates measured</h2><span class="muted">norms and scores in full are beside the snapshot before</span></header>
        <GatePlots checks={rows.flatMap((r) => of(r.gate))} undecided={undecided} />
      </section>
    </>
  );
}

function Diff({ candidate, previous }: { candidate: string; previous: string }) {
  const of = usePoll(async (signal) => decode((await releases.diffSnapshots({ candidate, previous }, { signal, timeoutMs: 60_000 })).report) as DiffReport, 0, [candidate, previous]);
  return (
    <div class="stack">
      <p>
        <a href={href("snapshots", { of: candidate })}>Snapshot {shortDigest(candidate)}</a> <span class="muted">beside</span> <a href={href("snapshots", { of: previous })}>{shortDigest(previous)}</a>
      </p>
      {of.trouble ? <TroubleBox trouble={of.trouble} again={of.again} /> : !of.data ? <Loading what="how they differ" lines={8} /> : <DiffView key={candidate + previous} d={of.data} />}
    </div>
  );
}
