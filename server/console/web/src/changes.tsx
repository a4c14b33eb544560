// Changes of what is released, each behind a dialog that shows what it would do.
import { Code, ConnectError } from "@connectrpc/connect";
import { useEffect, useState } from "preact/hooks";
import { releases, troubleOf, type Trouble } from "./api";
import { ago, dateOf, share, shortDigest, words } from "./format";
import { GateState, ReleaseKind, type GateVerdict, type Release, type ReleaseArm, type ReleaseEntry, type ReleasePlan, type Variant } from "./gen/tandem/v1/release_pb";
import { usePoll } from "./poll";
import { href } from "./route";
import { GatesInShort } from "./snapshots";
import { Dialog, Loading, Table, TroubleBox } from "./ui";

export type Change =
  | { kind: "start"; snapshot: string }
  | { kind: "split" }
  | { kind: "promote"; arm: string }
  | { kind: "stop"; arm: string }
  | { kind: "rollback"; to: Release };

/** What was released, and the generation that a change of it names. */
export interface Released {
  now: Release | undefined; // absent where nothing was, or the newest entry cannot be read
  generation: bigint;
}

interface Share {
  name: string;
  snapshot: string;
  modelVersion: string;
  weight: number; // per mille
}

const total = 1000;

/** The weights of arms that give up part of the traffic in proportion, as the server shrinks them. */
function shrink(arms: readonly Share[], part: number): Share[] {
  const parts = arms.map((a, i) => ({ i, whole: Math.floor((a.weight * (total - part)) / total), rest: (a.weight * (total - part)) % total }));
  let left = total - part - parts.reduce((sum, p) => sum + p.whole, 0);
  for (const p of [...parts].sort((a, b) => b.rest - a.rest)) if (left-- > 0) p.whole++;
  return arms.map((a, i) => ({ ...a, weight: parts[i]!.whole }));
}

const shareOf = (a: ReleaseArm): Share => ({ name: a.name, snapshot: a.snapshot, modelVersion: a.modelVersion, weight: a.weight });

interface Inputs {
  weight: number; // of a start, per mille
  arm: string; // of a start; empty: as the server names it
  weights: Record<string, number>; // of a split, per mille
}

/** The arms that a change leaves. */
export function after(change: Change, released: Released, inputs: Inputs): Share[] {
  const arms = released.now?.arms.map(shareOf) ?? [];
  switch (change.kind) {
    case "rollback":
      return change.to.arms.map(shareOf);
    case "promote":
      return arms.filter((a) => a.name === change.arm).map((a) => ({ ...a, name: "control", weight: total }));
    case "stop": {
      const ended = arms.find((a) => a.name === change.arm);
      const others = arms.filter((a) => a !== ended);
      if (!ended) return arms;
      if (others.some((a) => a.name === "control")) return others.map((a) => (a.name === "control" ? { ...a, weight: a.weight + ended.weight } : a));
      const rest = total - ended.weight;
      return rest > 0 ? shrink(others.map((a) => ({ ...a, weight: Math.round((a.weight * total) / rest) })), 0) : others;
    }
    case "split":
      return arms.map((a) => ({ ...a, weight: inputs.weights[a.name] ?? a.weight }));
    case "start": {
      const first = arms.length === 0;
      const begun = { name: inputs.arm || (first ? "control" : "candidate"), snapshot: change.snapshot, modelVersion: "", weight: first ? total : inputs.weight };
      return [...shrink(arms, begun.weight), begun];
    }
  }
}

export const variantKey = (v: Variant): string => `${v.experiment}\0${v.variant}`;
export const variantText = (v: Variant): string => `${v.experiment}, ${v.variant}: ${v.arms.join(" and ")}`;

/** The variants of experiments that a change leaves, each with who answers it. */
export function variantsAfter(change: Change, now: readonly Variant[]): readonly Variant[] {
  switch (change.kind) {
    case "rollback":
      return change.to.variants;
    case "promote":
      return [];
    case "stop":
      return now.filter((v) => !v.arms.includes(change.arm));
    default:
      return now;
  }
}

/** What becomes of variants of experiments, where anything does. */
function VariantsThen({ now, then }: { now: readonly Variant[]; then: readonly Variant[] }) {
  const before = new Set(now.map(variantText));
  const later = new Set(then.map(variantText));
  const ends = now.filter((v) => !later.has(variantText(v)));
  const begins = then.filter((v) => !before.has(variantText(v)));
  return (
    <>
      {ends.length > 0 && <p class="warning">Not answered so any more: {ends.map(variantText).join("; ")}.</p>}
      {begins.length > 0 && <p class="warning">Variants of experiments that are answered from then on: {begins.map(variantText).join("; ")}.</p>}
    </>
  );
}

/** Why a change was not made, in the terms of whoever made it. */
export function refused(e: unknown): Trouble | null {
  const error = ConnectError.from(e);
  const text = error.rawMessage;
  switch (error.code) {
    case Code.Aborted:
      return { kind: "other", title: "Another change was first", text, next: "Nothing was written. Close this, look at what is released now, and decide anew." };
    case Code.FailedPrecondition:
      return { kind: "other", title: "That is refused", text, next: "Nothing was written." };
    case Code.PermissionDenied:
      return { kind: "scope", title: "That is not allowed here", text, next: "Nothing was written." };
    case Code.Unavailable:
    case Code.DeadlineExceeded:
    case Code.Unknown:
      return { kind: "away", title: "Whether it was made is not known, or it was not", text, next: "Close this and look at the history first. Made again with the generation above it is made once at most." };
  }
  return troubleOf(e);
}

const titles: Record<Change["kind"], string> = { start: "Start a snapshot", split: "Divide the traffic anew", promote: "Promote an arm", stop: "Stop an arm", rollback: "Roll back" };
const verbs: Record<Change["kind"], string> = { start: "Start it", split: "Divide", promote: "Promote", stop: "Stop", rollback: "Roll back" };

export function title(c: Change): string {
  switch (c.kind) {
    case "rollback":
      return `Roll back to generation ${c.to.generation}`;
    case "promote":
      return `Promote the arm ${c.arm}`;
    case "stop":
      return `Stop the arm ${c.arm}`;
    case "start":
      return `Start snapshot ${shortDigest(c.snapshot)}`;
    default:
      return titles[c.kind];
  }
}

interface Props {
  change: Change;
  /** As it was when the dialog was opened: what is shown is what the change is made to. */
  released: Released;
  newest: Released;
  close: () => void;
  done: (entry: ReleaseEntry | undefined, plan: ReleasePlan | undefined) => void;
}

export function Confirm({ change, released, newest, close, done }: Props) {
  const arms = released.now?.arms ?? [];
  const [inputs, set] = useState<Inputs>({ weight: 10, arm: "", weights: Object.fromEntries(arms.map((a) => [a.name, a.weight])) });
  const [reason, setReason] = useState("");
  const [override, setOverride] = useState("");
  const [trouble, setTrouble] = useState<Trouble | null>(null);
  const [gatesRefuse, setGatesRefuse] = useState(false);
  const [busy, setBusy] = useState(false);
  const then = after(change, released, inputs);
  const served = then.map((a) => a.snapshot);
  const known = usePoll(
    async (signal) =>
      new Map(
        await Promise.all(
          [...new Set(served)].map(async (snapshot) => {
            const s = await releases.getSnapshot({ snapshot }, { signal, timeoutMs: 30_000 });
            const version = (JSON.parse(new TextDecoder().decode(s.manifest)) as { model_version?: string }).model_version ?? "";
            return [snapshot, { gates: s.gates, version }] as const;
          }),
        ),
      ),
    0,
    [served.join()],
  );
  const sum = then.reduce((n, a) => n + a.weight, 0);
  const gains = then.filter((a) => a.weight > arms.filter((b) => b.snapshot === a.snapshot).reduce((n, b) => n + b.weight, 0));
  const fails = (v: GateVerdict | undefined) => !v || v.rows.some((r) => r.state === GateState.FAILED);
  const judged = change.kind === "start" || change.kind === "split" || change.kind === "promote";
  const unfit = known.data ? gains.filter((a) => fails(known.data!.get(a.snapshot)?.gates)) : [];
  const overtaken = newest.generation !== released.generation;
  const same = change.kind === "split" && arms.every((a) => inputs.weights[a.name] === a.weight);
  const ready = reason.trim() !== "" && sum === total && !same && !overtaken && !busy;

  const make = async (e: Event) => {
    e.preventDefault();
    if (!ready) return;
    setBusy(true);
    const said = { generation: released.generation, author: "console", reason: reason.trim() };
    const options = { timeoutMs: 30_000 };
    try {
      switch (change.kind) {
        case "rollback": {
          const r = await releases.rollback({ change: said, to: change.to.generation }, options);
          return done(r.release, r.plan);
        }
        case "stop": {
          const r = await releases.stop({ change: said, arm: change.arm }, options);
          return done(r.release, r.plan);
        }
        case "promote":
          return done((await releases.promote({ change: said, arm: change.arm, override: override.trim() }, options)).release, undefined);
        case "start":
          return done((await releases.start({ change: said, snapshot: change.snapshot, arm: inputs.arm, weight: inputs.weight, override: override.trim() }, options)).release, undefined);
        case "split":
          return done((await releases.split({ change: said, weights: inputs.weights, override: override.trim() }, options)).release, undefined);
      }
    } catch (e) {
      setTrouble(refused(e));
      setGatesRefuse(judged && ConnectError.from(e).code === Code.FailedPrecondition);
      setBusy(false);
    }
  };

  const rows = [...new Map([...arms, ...then].map((a) => [a.snapshot, a])).values()];
  const line = (list: readonly Share[], snapshot: string) => {
    const mine = list.filter((a) => a.snapshot === snapshot);
    return mine.length ? mine.map((a) => <div key={a.name}>{a.name} <strong>{share(a.weight)}</strong></div>) : <span class="muted">nothing</span>;
  };
  return (
    <Dialog title={title(change)} open close={close} wide>
      <form class="change" onSubmit={(e) => void make(e)}>
        {change.kind === "rollback" && (
          <p class="muted">
            What generation {String(change.to.generation)} was comes back as a new generation. {change.to.reason && <>It said: “{change.to.reason}”.</>}
          </p>
        )}
        {change.kind === "promote" && <p class="muted">The arm gets all traffic and is named control; the others end.</p>}
        {change.kind === "stop" && <p class="muted">The control takes its traffic. A rollback does not bring its snapshot back, unless it names a generation.</p>}
        {change.kind === "start" && arms.length > 0 && (
          <div class="row fields">
            <Percent label="Share of traffic" value={inputs.weight} set={(weight) => set({ ...inputs, weight })} />
            <label>
              Arm
              <input value={inputs.arm} placeholder="candidate" pattern="[a-z0-9_\-]{1,64}" onInput={(e) => set({ ...inputs, arm: e.currentTarget.value })} />
            </label>
          </div>
        )}
        {change.kind === "split" && (
          <div class="row fields">
            {arms.map((a) => (
              <Percent key={a.name} label={a.name} value={inputs.weights[a.name] ?? a.weight} set={(w) => set({ ...inputs, weights: { ...inputs.weights, [a.name]: w, ...(arms.length === 2 ? { [arms.find((b) => b !== a)!.name]: total - w } : {}) } })} />
            ))}
          </div>
        )}
        {sum !== total && <p class="wrong" role="alert">The shares add up to {share(sum)}; accepted: 100%.</p>}
        <Table label="What changes">
            <thead>
              <tr>
                <th scope="col">Snapshot</th>
                <th scope="col">Now</th>
                <th scope="col">Then</th>
                <th scope="col">Gates</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((a) => (
                <tr key={a.snapshot}>
                  <th scope="row">
                    <a href={href("snapshots", { of: a.snapshot })}>{a.modelVersion || known.data?.get(a.snapshot)?.version || shortDigest(a.snapshot)}</a> <code class="muted">{shortDigest(a.snapshot)}</code>
                  </th>
                  <td>{line(arms, a.snapshot)}</td>
                  <td>{line(then, a.snapshot)}</td>
                  <td>{!served.includes(a.snapshot) ? "" : known.data ? <GatesInShort rows={known.data.get(a.snapshot)?.gates?.rows} /> : known.trouble ? <span class="wrong">{known.trouble.text}</span> : <Loading what="its gates" lines={1} />}</td>
                </tr>
              ))}
            </tbody>
          </Table>
        <VariantsThen now={released.now?.variants ?? []} then={variantsAfter(change, released.now?.variants ?? [])} />
        {unfit.length > 0 && <p class="warning">{judged ? "Gates keep a snapshot from getting this traffic, unless you say why it is to have it all the same." : "Its gates do not let it pass. That keeps nobody from going back."}</p>}
        <label>
          Reason
          <input value={reason} maxLength={1000} required autoFocus placeholder="For those who read the history" onInput={(e) => setReason(e.currentTarget.value)} />
        </label>
        {judged && (unfit.length > 0 || gatesRefuse) && (
          <label>
            Why in spite of the gates
            <input value={override} maxLength={1000} placeholder="It is recorded" onInput={(e) => setOverride(e.currentTarget.value)} />
          </label>
        )}
        {overtaken && !busy && !trouble && (
          <TroubleBox
            trouble={{
              kind: "other", title: "Another change was first",
              text: newest.now ? `Generation ${newest.generation} was made ${ago(dateOf(newest.now.time)!)} by ${newest.now.author}: ${kindText(newest.now)}${newest.now.reason && `, “${newest.now.reason}”`}.` : `Generation ${newest.generation} is there now.`,
              next: "Nothing was written. Close this, look at what is released now, and decide anew.",
            }}
          />
        )}
        {trouble && <TroubleBox trouble={trouble} />}
        <footer>
          <span class="muted">{released.generation > 0n ? `Made to generation ${released.generation}: if another is first, nothing is written.` : "The first release."}</span>
          <button type="button" onClick={close}>Leave it</button>
          <button type="submit" class="main" disabled={!ready}>{busy ? "Waiting for the store" : verbs[change.kind]}</button>
        </footer>
      </form>
    </Dialog>
  );
}

function Percent({ label, value, set }: { label: string; value: number; set: (perMille: number) => void }) {
  const [text, setText] = useState(String(value / 10));
  useEffect(() => {
    if (Math.round(Number(text) * 10) !== value) setText(String(value / 10));
  }, [value]);
  return (
    <label>
      {label}, %
      <input
        type="number"
        min={0}
        max={100}
        step={0.1}
        value={text}
        onInput={(e) => {
          setText(e.currentTarget.value);
          const n = Math.round(Number(e.currentTarget.value) * 10);
          if (e.currentTarget.value !== "" && n >= 0 && n <= total) set(n);
        }}
      />
    </label>
  );
}

/** What a release did. */
export function kindText(r: Release): string {
  if (r.stopped) return `stopped ${r.stopped}`;
  switch (r.kind) {
    case ReleaseKind.ROLLBACK:
      return `rolled back to ${r.of}`;
    case ReleaseKind.START:
      return r.arms.length > 1 ? `started ${r.arms.at(-1)!.name}` : "first release";
    case ReleaseKind.SPLIT:
      return "divided anew";
    case ReleaseKind.PROMOTE:
      return "promoted";
  }
  return words(ReleaseKind[r.kind]);
}
