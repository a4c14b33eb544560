// What is released, what was, and apps that are taken down: with changes of all of it.
import { useMemo, useState } from "preact/hooks";
import { releases, troubleOf, type Trouble } from "./api";
import { Confirm, kindText, title, variantKey, variantText, type Change, type Released } from "./changes";
import { ago, count, dateOf, moment, plural, share, shortDigest } from "./format";
import type { ListReleasesResponse, Release, ReleaseArm, ReleaseEntry, ReleasePlan } from "./gen/tandem/v1/release_pb";
import { armColor, Dot, Share } from "./now";
import { usePoll } from "./poll";
import { href, route } from "./route";
import { may } from "./session";
import { useSignal } from "./signal";
import { Takedowns } from "./takedowns";
import { Digest, Empty, Icon, Loading, Table, TroubleBox } from "./ui";

const keyOf = (e: ReleaseEntry) => `${e.release?.generation ?? e.fault?.generation}-${e.release?.hash ?? e.fault?.hash ?? e.fault?.text}`;

export function Releases() {
  return (
    <div class="stack">
      <h1 class="offscreen">Releases</h1>
      {may("publish", "admin") && <Log />}
      {may("live", "admin") && <Takedowns />}
    </div>
  );
}

interface Done {
  what: string;
  entry: ReleaseEntry | undefined;
  plan: ReleasePlan | undefined;
}

function Log() {
  const { query } = useSignal(route);
  // Pages are asked for one after the other; the first again and again.
  const first = usePoll((signal) => releases.listReleases({ pageSize: 20 }, { signal, timeoutMs: 30_000 }), 5000);
  const [more, setMore] = useState<ReleaseEntry[]>([]);
  const [token, setToken] = useState<string | null>(null); // null: that of the first page
  const [trouble, setTrouble] = useState<Trouble | null>(null);
  const next = token ?? first.data?.nextPageToken ?? "";
  const list = useMemo(() => {
    const known = new Set((first.data?.entries ?? []).map(keyOf));
    return [...(first.data?.entries ?? []), ...more.filter((e) => !known.has(keyOf(e)))];
  }, [first.data, more]);
  const [change, setChange] = useState<{ change: Change; released: Released } | null>(null);
  const [done, setDone] = useState<Done | null>(null);
  const released: Released = { now: first.data?.entries[0]?.release, generation: first.data?.generation ?? 0n };
  const writes = may("publish");
  const begin = (c: Change) => {
    setDone(null);
    setChange({ change: c, released });
  };
  const ask = async () => {
    try {
      const page: ListReleasesResponse = await releases.listReleases({ pageSize: 50, pageToken: next }, { timeoutMs: 30_000 });
      setMore((was) => [...was, ...page.entries]);
      setToken(page.nextPageToken);
      setTrouble(null);
    } catch (e) {
      setTrouble(troubleOf(e));
    }
  };
  if (!first.data) return first.trouble ? <TroubleBox trouble={first.trouble} again={first.again} /> : <Loading what="what is released" lines={8} />;
  const wanted = query.get("start") ?? "";
  const back = goBackTo(released.now, list);
  return (
    <>
      {first.trouble && <TroubleBox trouble={first.trouble} again={first.again} />}
      {done && <Outcome done={done} close={() => setDone(null)} />}
      {writes && wanted && !released.now?.arms.some((a) => a.snapshot === wanted) && (
        <div class="card row">
          <span>
            Snapshot <code>{shortDigest(wanted)}</code> is to be given traffic.
          </span>
          <button type="button" class="main" onClick={() => begin({ kind: "start", snapshot: wanted })}>Start it</button>
        </div>
      )}
      <section class="card" aria-label="What is released">
        <header class="head">
          <h2>{released.generation ? `Generation ${released.generation}` : "Nothing is released"}</h2>
          {released.now && <span class="muted">{kindText(released.now)}, {ago(dateOf(released.now.time)!)} by {released.now.author}</span>}
          {writes && (
            <span class="row acts">
              {released.now && released.now.arms.length > 1 && <button type="button" onClick={() => begin({ kind: "split" })}>Divide anew</button>}
              {back && <button type="button" onClick={() => begin({ kind: "rollback", to: back })}>Roll back</button>}
            </span>
          )}
        </header>
        {released.now ? (
          <>
            <Arms arms={released.now.arms} act={writes ? begin : undefined} />
            <Variants of={released.now} />
          </>
        ) : released.generation ? (
          <Empty title="The newest entry of the log cannot be read">{first.data.entries[0]?.fault?.text} Servers keep what they have. A rollback to a generation below brings it back.</Empty>
        ) : (
          <Empty title="Nothing was released yet">A snapshot is started on the page <a href={href("snapshots")}>Snapshots</a>, or by tandem release start.</Empty>
        )}
        {!writes && <p class="hint">A token with the scope publish changes what is released.</p>}
      </section>
      <section class="card flush" aria-label="History">
        <header class="head">
          <h2>History</h2>
          <span class="muted">newest first</span>
        </header>
        {list.length > 0 && (
          <Table label="History as a table" class="history">
              <thead>
                <tr>
                  <th scope="col" class="n">Generation</th>
                  <th scope="col">What</th>
                  <th scope="col">Arms</th>
                  <th scope="col">When</th>
                  <th scope="col">Who, and why</th>
                  {writes && <th scope="col"><span class="offscreen">Roll back to it</span></th>}
                </tr>
              </thead>
              <tbody>
                {list.map((e, i) => (
                  <Entry key={keyOf(e)} e={e} back={writes && i > 0 && e.release ? () => begin({ kind: "rollback", to: e.release! }) : undefined} columns={writes ? 6 : 5} />
                ))}
              </tbody>
            </Table>
        )}
        {next && (
          <div class="row pages more">
            <button type="button" onClick={() => void ask()}>Earlier</button>
          </div>
        )}
      </section>
      {trouble && <TroubleBox trouble={trouble} />}
      {change && (
        <Confirm
          change={change.change}
          released={change.released}
          newest={released}
          close={() => setChange(null)}
          done={(entry, plan) => {
            setDone({ what: title(change.change), entry, plan });
            setChange(null);
            first.again();
          }}
        />
      )}
    </>
  );
}

/**
 * What a rollback is offered to first: the last generation on the path behind what serves in which
 * another snapshot had all traffic. It is shown and named before anything is done; history has the others.
 */
export function goBackTo(now: Release | undefined, list: readonly ReleaseEntry[]): Release | undefined {
  if (!now) return undefined;
  const traffic = (r: Release) => r.arms.filter((a) => a.weight > 0);
  const serving = traffic(now);
  const off = serving.length === 1 ? serving[0]!.snapshot : now.arms.at(-1)!.snapshot;
  // What a rollback took off does not come back that way.
  const taken = new Set<string>();
  let at = now.generation;
  for (const [i, { release: r }] of list.entries()) {
    if (!r || r.generation > at) continue;
    const arms = traffic(r);
    if (r !== now && arms.length === 1 && arms[0]!.snapshot !== off && !taken.has(arms[0]!.snapshot)) return r;
    if (!r.of) {
      at = r.generation - 1n;
      continue;
    }
    list[i + 1]?.release?.arms.forEach((a) => r.arms.some((b) => b.snapshot === a.snapshot) || taken.add(a.snapshot));
    at = r.of;
  }
  return undefined;
}

function Arms({ arms, act }: { arms: ReleaseArm[]; act?: (c: Change) => void }) {
  return (
    <>
      {arms.length > 1 && (
        <div class="shares" role="img" aria-label={arms.map((a) => `${a.name} ${share(a.weight)}`).join(", ")}>
          {arms.map((a, i) => (
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
              <th scope="col">Gates</th>
              {act && arms.length > 1 && <th scope="col"><span class="offscreen">Changes</span></th>}
            </tr>
          </thead>
          <tbody>
            {arms.map((a, i) => (
              <tr key={a.name}>
                <th scope="row">
                  <Dot color={armColor(i)} />
                  {a.name}
                </th>
                <td class="n">{share(a.weight)}{a.pins > 0 && <span class="muted"> and {count(a.pins)} pinned</span>}</td>
                <td><a href={href("snapshots", { of: a.snapshot })}>{a.modelVersion}</a></td>
                <td><Digest of={a.snapshot} /></td>
                <td class="broad">{a.override ? <><span class="tag warn">passed over{a.gatesFailed.length > 0 && `: ${a.gatesFailed.join(", ")}`}</span> <span class="muted">{a.override}</span></> : <><span class="tag good">passed</span>{a.gatesUndecided.length > 0 && <span class="muted"> {count(a.gatesUndecided.length)} not run</span>}</>}</td>
                {act && arms.length > 1 && (
                  <td>
                    <span class="row acts">
                      <button type="button" onClick={() => act({ kind: "promote", arm: a.name })} aria-label={`Promote ${a.name}`}>Promote</button>
                      {a.name !== "control" && <button type="button" onClick={() => act({ kind: "stop", arm: a.name })} aria-label={`Stop ${a.name}`}>Stop</button>}
                    </span>
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </Table>
    </>
  );
}

/** Which arm answers requests that name a variant of an experiment, whatever bucket they fall into. */
function Variants({ of }: { of: Release }) {
  if (of.variants.length === 0) return null;
  const color = (name: string) => armColor(of.arms.findIndex((a) => a.name === name));
  return (
    <>
      <h3>Variants of experiments</h3>
      <p class="muted">Requests that name one are answered so, whatever share of the traffic the arm has.</p>
      <Table label="Variants of experiments" class="variants">
        <thead>
          <tr>
            <th scope="col">Experiment</th>
            <th scope="col">Variant</th>
            <th scope="col">Answered by</th>
          </tr>
        </thead>
        <tbody>
          {of.variants.map((v) => (
            <tr key={variantKey(v)}>
              <th scope="row">{v.experiment}</th>
              <td>{v.variant}</td>
              <td>
                {v.arms.map((name) => (
                  <span key={name} class="arm-line">
                    <Dot color={color(name)} />
                    {name}{" "}
                  </span>
                ))}
                {v.arms.length > 1 && <span class="tag">interleaved</span>}
              </td>
            </tr>
          ))}
        </tbody>
      </Table>
    </>
  );
}

function Entry({ e, back, columns }: { e: ReleaseEntry; back?: () => void; columns: number }) {
  const r = e.release;
  if (!r) {
    const f = e.fault!;
    return (
      <tr>
        <th scope="row" class="n">{String(f.generation)}</th>
        <td colSpan={columns - 1}>
          <span class={`tag ${f.accepted ? "warn" : "bad"}`}>{f.broken ? "the log does not hang together" : "cannot be read"}</span> {f.text} {f.accepted && <span class="muted">A person has accepted it since.</span>}
        </td>
      </tr>
    );
  }
  const time = dateOf(r.time)!;
  return (
    <tr>
      <th scope="row" class="n">{String(r.generation)}</th>
      <td>{kindText(r)}{r.override && <div><span class="tag warn" title={r.override}>gates passed over</span></div>}</td>
      <td>
        {r.arms.map((a, i) => (
          <div key={a.name} class="arm-line">
            <Dot color={armColor(i)} />
            {a.name} <span class="n">{share(a.weight)}</span> <a href={href("snapshots", { of: a.snapshot })}>{a.modelVersion}</a>
          </div>
        ))}
        {r.variants.length > 0 && <div class="muted" title={r.variants.map(variantText).join("\n")}>{plural(r.variants.length, "variant")} of experiments</div>}
      </td>
      <td class="muted" title={time.toISOString()}>{moment(time)}<div>{ago(time)}</div></td>
      <td class="broad">{r.author}{r.reason && <div class="muted">{r.reason}</div>}</td>
      {(back || columns === 6) && (
        <td>{back && <button type="button" onClick={back} aria-label={`Roll back to generation ${r.generation}`}>Roll back</button>}</td>
      )}
    </tr>
  );
}

/** What a change has done. */
function Outcome({ done, close }: { done: Done; close: () => void }) {
  const r = done.entry?.release;
  return (
    <div class="outcome" role="status">
      <Icon name="good" />
      <div>
        <strong>{done.what}: done{r && `, as generation ${r.generation}`}.</strong>
        <p>Servers follow within moments; the page <a href={href("now")}>Now</a> tells when this one does.</p>
        {done.plan && done.plan.off.length > 0 && <p class="muted">Without traffic from now on: {done.plan.off.map(shortDigest).join(", ")}.</p>}
        {done.plan?.unfit.map((u) => <p key={u} class="warning">{u}</p>)}
      </div>
      <button type="button" class="quiet" aria-label="Close" onClick={close}>
        <Icon name="close" />
      </button>
    </div>
  );
}
