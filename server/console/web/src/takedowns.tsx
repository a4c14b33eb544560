// An app by itself: whether it can be returned, taking it down, and restoring it.
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { useEffect, useRef, useState } from "preact/hooks";
import { live, releases, retrieval, troubleOf, type Trouble } from "./api";
import { ago, count, dateOf, plural, secondsOf, shortDigest, span, valueTexts } from "./format";
import { AppState, LiveEventSchema, type ProveResponse } from "./gen/tandem/v1/live_pb";
import { Fallback, Tower, type LivePosition } from "./gen/tandem/v1/retrieval_pb";
import { Picker } from "./picker";
import { usePoll } from "./poll";
import { href } from "./route";
import { nameAttribute, schemaOf } from "./schema";
import { may } from "./session";
import { Dialog, Loading, TroubleBox } from "./ui";

const heads: Record<AppState, [string, "good" | "warn" | "bad"]> = {
  [AppState.UNSPECIFIED]: ["The server does not tell", "warn"],
  [AppState.RETURNABLE]: ["It can be returned", "good"],
  [AppState.TAKEN_DOWN]: ["It is taken down: no query returns it, of any snapshot", "bad"],
  [AppState.NO_SNAPSHOT]: ["Not known: no snapshot is mapped yet", "warn"],
  [AppState.OUTSIDE_WINDOW]: ["It is outside of its window, and not returned now", "warn"],
  [AppState.UNKNOWN]: ["No snapshot that is mapped has it", "warn"],
};

export function Takedowns() {
  const status = usePoll((signal) => live.getLiveStatus({}, { signal }), 5000);
  const [app, setApp] = useState("");
  const [name, setName] = useState("");
  const [attribute, setAttribute] = useState("");
  const [least, setLeast] = useState<LivePosition | undefined>();
  const [doing, setDoing] = useState<"takedown" | "restore" | null>(null);
  const proof = usePoll(async (signal) => (app ? await live.prove({ apps: [app], minLive: least }, { signal }) : undefined), app ? 5000 : 0, [app, least?.log, least?.sequence]);
  useEffect(() => {
    if (!may("publish", "admin") || !may("query")) return;
    const ended = new AbortController();
    // Names are a help: an id does without.
    releases.getSnapshot({}, { signal: ended.signal }).then((s) => schemaOf(s.snapshot, ended.signal)).then((s) => s && setAttribute(nameAttribute(s.apps))).catch(() => undefined);
    return () => ended.abort();
  }, []);
  useEffect(() => {
    setName("");
    if (!app || !attribute) return;
    const ended = new AbortController();
    retrieval.retrieve({ userId: "\u0001console", fallback: Fallback.MEAN_USER, k: 1, includeIds: [app], attributes: [attribute] }, { signal: ended.signal })
      .then((a) => setName(valueTexts(a.candidates[0]?.attributes[attribute])[0] ?? "")).catch(() => undefined);
    return () => ended.abort();
  }, [app, attribute]);
  const of = app && proof.data?.apps[0]?.app === app ? proof.data : undefined;
  const state = of?.apps[0]!.state;
  const writes = may("live");
  return (
    <section class="card takedowns" aria-label="Take an app down">
      <header class="head">
        <h2>Take an app down</h2>
        {status.data && <span class="muted">{status.data.takedowns ? `${plural(status.data.takedowns, "app")} ${status.data.takedowns === 1n ? "is" : "are"} taken down` : "no app is taken down"}</span>}
      </header>
      <Picker
        compact
        label="App to look at"
        value={app}
        tower={Tower.APPS}
        name={attribute}
        placeholder={attribute ? "Id, or how the name begins" : "Id of an app"}
        onPick={(p) => {
          setLeast(undefined);
          setApp(p.id);
        }}
      />
      {app && proof.trouble && <TroubleBox trouble={proof.trouble} again={proof.again} />}
      {app && !of && !proof.trouble && <Loading what="whether it can be returned" lines={2} />}
      {of && state !== undefined && (
        <div class={`proof ${heads[state][1]}`} role="status">
          <p class="subject">
            {name && <strong>{name}</strong>} <code>{app}</code>
          </p>
          <h3>{heads[state][0]}</h3>
          <Proof of={of} />
          {writes && status.data?.writes !== false && (
            <div class="row">
              {!of.apps[0]!.takedown && <button type="button" class="danger" onClick={() => setDoing("takedown")}>Take it down</button>}
              {of.apps[0]!.takedown && <button type="button" onClick={() => setDoing("restore")}>Restore it</button>}
              {may("query") && <a class="button" href={href("explore", { app })}>Like it, in Explore</a>}
            </div>
          )}
        </div>
      )}
      {!writes ? <p class="hint">A token with the scope live takes apps down and restores them.</p> : status.data?.writes === false && <p class="hint">This server takes no writes, as it was not told to with --live-writes. Whoever may write to the store does: tandem live takedown.</p>}
      {doing && of && (
        <Write
          what={doing}
          app={app}
          name={name}
          snapshots={of.apps[0]!.snapshots.filter((s) => s.found).length}
          close={() => setDoing(null)}
          done={(position) => {
            setDoing(null);
            setLeast(position);
            status.again();
          }}
        />
      )}
    </section>
  );
}

function Proof({ of }: { of: ProveResponse }) {
  const a = of.apps[0]!;
  const t = a.takedown;
  const time = dateOf(t?.time);
  return (
    <>
      {t && (
        <p>
          By {t.author}{time && <>, <span title={time.toISOString()}>{ago(time)}</span></>}: {t.reason}
        </p>
      )}
      {of.refuses && <p class="warning">The server refuses all queries now: it has had no proof of the log's end for longer than its fence.</p>}
      <p class="muted">
        This server knows the log up to position {count(of.position?.sequence ?? 0n)}, proved {span(secondsOf(of.staleness))} ago.{" "}
        {a.snapshots.length > 0 && `Snapshots: ${a.snapshots.map((s) => `${shortDigest(s.snapshot)} ${s.rowsUnknown ? "does not tell whether it has it" : s.inSnapshot || s.fresh ? "has it" : "has it not"}, a query ${s.found ? "finds it" : "does not find it"}`).join("; ")}.`}
      </p>
    </>
  );
}

function Write({ what, app, name, snapshots, close, done }: { what: "takedown" | "restore"; app: string; name: string; snapshots: number; close: () => void; done: (at: LivePosition | undefined) => void }) {
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState<Trouble | null>(null);
  // The same event however often it is sent: it counts once.
  const id = useRef("");
  id.current ||= `console-${Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("")}`;
  const down = what === "takedown";
  const send = async (e: Event) => {
    e.preventDefault();
    if (!reason.trim() || busy) return;
    setBusy(true);
    try {
      const change = { case: what, value: { app, reason: reason.trim() } } as { case: "takedown"; value: { app: string; reason: string } };
      const answer = await live.write({ events: [create(LiveEventSchema, { eventId: id.current, change })], author: "console" }, { timeoutMs: 30_000 });
      done(answer.position);
    } catch (e) {
      const error = ConnectError.from(e);
      const unknown = [Code.Unavailable, Code.DeadlineExceeded, Code.Unknown].includes(error.code);
      const refused = error.code === Code.PermissionDenied;
      setTrouble(
        unknown
          ? { kind: "away", title: "Whether it counts is not known", text: error.rawMessage, next: "Send it again: it is the same event, and counts once." }
          : refused
            ? { kind: "scope", title: "That is not allowed here", text: error.rawMessage, next: "Nothing was written." }
            : troubleOf(e),
      );
      if (error.code === Code.AlreadyExists) id.current = "";
      setBusy(false);
    }
  };
  return (
    <Dialog title={down ? "Take an app down" : "Restore an app"} open close={close}>
      <form class="change" onSubmit={(e) => void send(e)}>
        <p class="subject">
          {name && <strong>{name}</strong>} <code>{app}</code>
        </p>
        <p class="muted">
          {down
            ? `No query returns it from the moment a server has read this, on any server of the store, in every snapshot that serves or will, until it is restored. ${snapshots ? `It is found in ${plural(snapshots, "snapshot")} now.` : ""}`
            : "Queries may return it again, where a snapshot has it and its filter and window allow."}
        </p>
        <label>
          Reason
          <input value={reason} maxLength={1000} required autoFocus placeholder={down ? "It stays on record with the app" : "For those who read the log"} onInput={(e) => setReason(e.currentTarget.value)} />
        </label>
        {trouble && <TroubleBox trouble={trouble} />}
        <footer>
          <span />
          <button type="button" onClick={close}>Leave it</button>
          <button type="submit" class={down ? "danger" : "main"} disabled={busy || !reason.trim()}>
            {busy ? "Waiting for the store" : down ? "Take it down" : "Restore it"}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
