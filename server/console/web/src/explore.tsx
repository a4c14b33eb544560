// What a query finds, and why.
import { clone } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { admin, retrieval, troubleOf, type Trouble } from "./api";
import { CopyAs } from "./copyas";
import { FilterEditor, filterError } from "./filter";
import { blank, boundNames, fromQuery, maxShown, requestOf, toQuery, type Form } from "./form";
import { count, percent, plural, score, secondsOf, shortDigest, took, valueTexts, words } from "./format";
import type { ArmStatus } from "./gen/tandem/v1/admin_pb";
import { Plan, RetrieveRequestSchema, Tower, Verdict, type Candidate, type IdExplain, type RetrieveResponse } from "./gen/tandem/v1/retrieval_pb";
import { armColor, Dot } from "./now";
import { PointMap } from "./map";
import { Picker } from "./picker";
import { href, replaceQuery, route } from "./route";
import { nameAttribute, schemaOf, seenIn, type Schema } from "./schema";
import { may } from "./session";
import { Choice, Digest, Empty, Icon, Loading, Table, TroubleBox } from "./ui";

interface Found {
  answer: RetrieveResponse;
  took: number; // as the browser sees it, in seconds
}

export function Explore() {
  const [form, setForm] = useState<Form>(() => fromQuery(route.value.query));
  const change = (part: Partial<Form>) => setForm((f) => ({ ...f, ...part }));
  useEffect(() => route.follow((r) => r.page === "explore" && setForm(fromQuery(r.query))), []);
  useEffect(() => replaceQuery("explore", toQuery(form)), [form]);

  const [arms, setArms] = useState<ArmStatus[]>([]);
  useEffect(() => {
    const ended = new AbortController();
    if (may("live", "publish", "admin")) {
      admin.getStatus({}, { signal: ended.signal }).then((s) => setArms(s.arms)).catch(() => undefined); // arms are a choice that is then not there
    }
    return () => ended.abort();
  }, []);

  const versionOf = (name: string) => arms.find((a) => a.name === name)?.modelVersion ?? "";
  const version = versionOf(form.arm);
  const [tokens, setTokens] = useState<string[]>([]); // of the pages after the first
  const [round, setRound] = useState(0);
  const key = JSON.stringify([{ ...form, why: "", map: false }, version, tokens, round]);
  const one = useAnswer(form, version, tokens.at(-1) ?? "", key);
  const second = arms.find((a) => a.name === form.other && a.name !== form.arm);
  const two = useAnswer(second ? form : null, second?.modelVersion ?? "", "", key);
  useEffect(() => setTokens([]), [JSON.stringify({ ...form, k: 0, why: "", map: false })]);

  const schema = useSchema(one.found?.answer.snapshot, one.found?.answer.candidates);
  const attributes = form.target === "users" ? schema.users : schema.apps;
  const name = nameAttribute(attributes);
  const values = useValues(one.found?.answer.candidates);
  const [copying, setCopying] = useState(false);
  const wrong = one.trouble?.kind === "invalid" ? filterError(one.trouble.text) : null;
  const answer = one.found?.answer;
  const from = tokens.length * form.k;
  // The same view for the same answer: typing draws no table anew.
  const candidates = useMemo(
    () => answer && <Candidates answer={answer} name={name} target={form.target} leaveOut={(id) => setForm((f) => ({ ...f, exclude: [...f.exclude, id] }))} metric={schema.metric} from={from} />,
    [answer, name, schema.metric],
  );
  const request = useMemo(() => (form.id ? requestOf(form, version) : null), [form, version]);

  return (
    <div class={`explore ${form.id ? "" : "blank"}`}>
      <h1 class="offscreen">Explore</h1>
      <form class="card query" aria-label="The query" onSubmit={(e) => { e.preventDefault(); setRound((n) => n + 1); }}>
        <div class="row">
          <Choice label="Asked for" value={form.by} options={[["user", "For a user"], ["app", "Like an app"]] as const} onChange={(by) => change({ by, id: "" })} />
        </div>
        <Picker
          label={form.by === "user" ? "User" : "App"}
          value={form.id}
          tower={form.by === "user" ? Tower.USERS : Tower.APPS}
          name={form.by === "app" ? nameAttribute(schema.apps) : nameAttribute(schema.users)}
          placeholder={form.by === "user" ? "Id of a user" : "Id, or how the name begins"}
          onPick={(p) => change({ id: p.id })}
        />
        <div class="row fields">
          <label>
            Candidates
            <select value={form.target} onChange={(e) => change({ target: e.currentTarget.value as Form["target"], filter: "", segment: "", atMost: [], exclude: [], why: "" })}>
              <option value="apps">apps</option>
              <option value="users">users</option>
            </select>
          </label>
          <label class="narrow">
            At most
            <input type="number" min={1} max={maxShown} value={form.k} onChange={(e) => change({ k: Math.min(Math.max(Math.floor(Number(e.currentTarget.value)) || 1, 1), maxShown) })} />
          </label>
          <label class="broad">
            By
            <select value={form.exact ? "exact" : "usual"} onChange={(e) => change({ exact: e.currentTarget.value === "exact" })}>
              <option value="usual">usual effort</option>
              <option value="exact">exact scan</option>
            </select>
          </label>
        </div>
        <div>
          <label for="filter">Filter</label>
          <FilterEditor value={form.filter} onInput={(filter) => change({ filter })} run={() => setRound((n) => n + 1)} attributes={attributes} values={values} error={wrong} />
          {!schema.whole && attributes.length > 0 && <p class="hint">Attributes are those that answers had: a token with the scope admin or publish sees the whole schema.</p>}
        </div>
        {boundNames(form.filter).length > 0 && (
          <div class="row fields">
            {boundNames(form.filter).map((n) => (
              <label key={n}>
                user.{n}
                <input value={form.bindings[n] ?? ""} placeholder='17, "a text", ["a", "list"]' onInput={(e) => change({ bindings: { ...form.bindings, [n]: e.currentTarget.value } })} />
              </label>
            ))}
          </div>
        )}
        {form.target === "apps" && schema.segments.length > 0 && (
          <label>
            Segment
            <select value={form.segment} onChange={(e) => change({ segment: e.currentTarget.value })}>
              <option value="">none</option>
              {schema.segments.map((s) => (
                <option key={s.name} value={s.name}>
                  {s.name}: {s.expression}
                </option>
              ))}
            </select>
          </label>
        )}
        <AtMost form={form} change={change} attributes={attributes.filter((a) => ["keyword", "keyword_list", "int", "bool"].includes(a.type)).map((a) => a.name)} />
        {form.exclude.length > 0 && (
          <div>
            <span class="label">Left out</span>
            <ul class="chips">
              {form.exclude.map((x) => (
                <li key={x}>
                  <code>{x}</code>
                  <button type="button" aria-label={`Do not leave out ${x}`} onClick={() => change({ exclude: form.exclude.filter((y) => y !== x) })}>
                    <Icon name="close" />
                  </button>
                </li>
              ))}
            </ul>
          </div>
        )}
        {arms.length > 1 && (
          <div class="row fields">
            <label>
              Arm
              <select value={form.arm} onChange={(e) => change({ arm: e.currentTarget.value })}>
                <option value="">as it falls</option>
                {arms.map((a) => (
                  <option key={a.name} value={a.name}>{`${a.name} (${a.modelVersion})`}</option>
                ))}
              </select>
            </label>
            <label>
              Beside
              <select value={form.other} onChange={(e) => change({ other: e.currentTarget.value, arm: form.arm || arms.find((a) => a.name !== e.currentTarget.value)!.name })}>
                <option value="">nothing</option>
                {arms.filter((a) => a.name !== form.arm).map((a) => (
                  <option key={a.name} value={a.name}>{`${a.name} (${a.modelVersion})`}</option>
                ))}
              </select>
            </label>
          </div>
        )}
        <div class="row ends">
          <button type="button" onClick={() => setForm({ ...blank, by: form.by, id: form.id })}>
            Start over
          </button>
          <button type="button" disabled={!request} onClick={() => setCopying(true)}>
            Copy as
          </button>
          <button type="submit" class="main" disabled={!request}>
            Ask
          </button>
        </div>
      </form>
      <div class="results">
        {!form.id ? (
          <Start by={form.by} pick={(id) => change({ id })} />
        ) : (
          <>
            {one.trouble && !wrong && <TroubleBox trouble={one.trouble} again={one.trouble.kind === "invalid" ? undefined : () => setRound((n) => n + 1)} />}
            {one.found ? (
              <div class={one.busy || wrong ? "busy" : ""} aria-busy={one.busy}>
                {wrong && <p class="muted">What is below is the answer before: the filter is to be mended first.</p>}
                <Summary found={one.found} arms={arms} />
                {two.trouble && <TroubleBox trouble={two.trouble} />}
                {second && two.found ? (
                  <Beside one={one.found.answer} two={two.found.answer} name={name} names={[one.found.answer.arm, second.name]} arms={arms} />
                ) : (
                  candidates
                )}
                {!second && (
                  <nav class="row pages" aria-label="Pages of the answer">
                    <button type="button" disabled={tokens.length === 0} onClick={() => setTokens((t) => t.slice(0, -1))}>
                      Page before
                    </button>
                    <span class="muted">page {tokens.length + 1}</span>
                    <button type="button" disabled={!one.found.answer.nextPageToken} onClick={() => setTokens((t) => [...t, one.found!.answer.nextPageToken])}>
                      Next page
                    </button>
                  </nav>
                )}
                <section class="card" aria-label="Map">
                  <header class="head">
                    <h2>Where they lie</h2>
                    <button type="button" aria-expanded={form.map} onClick={() => change({ map: !form.map })}>{form.map ? "Hide the map" : "Show the map"}</button>
                  </header>
                  {form.map && <PointMap key={`${form.by}${form.target}${form.id}`} form={form} answer={one.found.answer} name={name} metric={schema.metric} />}
                </section>
                <Why form={form} change={change} version={version} name={name} />
              </div>
            ) : (
              !one.trouble && <Loading what="candidates" lines={8} />
            )}
          </>
        )}
      </div>
      {request && <CopyAs request={request} open={copying} close={() => setCopying(false)} />}
    </div>
  );
}

/** Some users or apps to begin with. */
function Start({ by, pick }: { by: Form["by"]; pick: (id: string) => void }) {
  return (
    <div class="card start">
      <h2>Whom do you ask for?</h2>
      <p class="muted">
        {by === "user"
          ? "Choose a user, by an id: candidates are those that users of the model with such a vector get. Without an id at hand, open the list: it has users that are like most."
          : "Choose an app, by its id or by how its name begins: candidates are those whose vectors are like its own."}
      </p>
      <Picker label={by === "user" ? "User" : "App"} value="" tower={by === "user" ? Tower.USERS : Tower.APPS} name={by === "app" ? "name" : ""} placeholder={by === "user" ? "Id of a user" : "Id, or how the name begins"} onPick={(p) => pick(p.id)} />
    </div>
  );
}

/** The answer to the form, asked for once nothing was typed for a while. */
function useAnswer(form: Form | null, version: string, token: string, key: string) {
  const [state, set] = useState<{ found?: Found; trouble: Trouble | null; busy: boolean }>({ trouble: null, busy: false });
  const had = useRef("");
  useEffect(() => {
    if (!form?.id) {
      set({ trouble: null, busy: false });
      had.current = "";
      return;
    }
    const ended = new AbortController();
    set((was) => ({ ...was, busy: true }));
    const request = requestOf(form, version);
    request.pageToken = token;
    const timer = setTimeout(
      async () => {
        const begun = performance.now();
        try {
          const answer = await retrieval.retrieve(request, { signal: ended.signal });
          if (!ended.signal.aborted) set({ found: { answer, took: (performance.now() - begun) / 1000 }, trouble: null, busy: false });
        } catch (e) {
          if (ended.signal.aborted) return;
          // What is half typed leaves the last answer where it is.
          set((was) => ({ found: ConnectError.from(e).rawMessage.startsWith("filter:") ? was.found : undefined, trouble: troubleOf(e), busy: false }));
        }
      },
      had.current === form.id ? 300 : 0,
    );
    had.current = form.id;
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, [key, form === null]);
  return state;
}

const none: Candidate[] = [];

function useSchema(snapshot: string | undefined, candidates: Candidate[] = none): Schema {
  const [whole, setWhole] = useState<Schema | null>(null);
  const seen = useRef(new Map<string, string>());
  useEffect(() => {
    const ended = new AbortController();
    if (may("publish", "admin")) schemaOf(snapshot ?? "", ended.signal).then(setWhole).catch(() => undefined); // then it is what answers had
    return () => ended.abort();
  }, [snapshot]);
  return useMemo(() => {
    if (whole) return whole;
    for (const a of seenIn(candidates)) seen.current.set(a.name, a.type);
    const list = [...seen.current].map(([name, type]) => ({ name, type }));
    return { snapshot: "", apps: list, users: [], segments: [], metric: "", dim: 0, whole: false };
  }, [whole, candidates]);
}

/** Values that attributes of answers had, most often first. */
function useValues(candidates: Candidate[] = none): Map<string, string[]> {
  const seen = useRef(new Map<string, Set<string>>());
  return useMemo(() => {
    for (const c of candidates) {
      for (const [name, v] of Object.entries(c.attributes)) {
        if (v.value.case !== "keyword" && v.value.case !== "keywords") continue;
        let set = seen.current.get(name);
        if (!set) seen.current.set(name, (set = new Set()));
        for (const text of valueTexts(v)) if (set.size < 500) set.add(text);
      }
    }
    return new Map([...seen.current].map(([name, set]) => [name, [...set].sort()]));
  }, [candidates]);
}

function AtMost({ form, change, attributes }: { form: Form; change: (p: Partial<Form>) => void; attributes: string[] }) {
  if (attributes.length === 0) return null;
  const free = attributes.find((a) => !form.atMost.some((x) => x.attribute === a));
  const set = (i: number, part: Partial<Form["atMost"][number]>) => change({ atMost: form.atMost.map((x, j) => (i === j ? { ...x, ...part } : x)) });
  return (
    <div class="at-most">
      {form.atMost.map((x, i) => (
        <div class="row" key={i}>
          <span>At most</span>
          <input type="number" min={1} max={10000} aria-label={`How many of each ${x.attribute}`} value={x.n} onChange={(e) => set(i, { n: Math.max(1, Math.floor(Number(e.currentTarget.value)) || 1) })} />
          <span>of each</span>
          <select aria-label="Attribute" value={x.attribute} onChange={(e) => set(i, { attribute: e.currentTarget.value })}>
            {attributes.map((a) => (
              <option key={a}>{a}</option>
            ))}
          </select>
          <button type="button" class="quiet" aria-label={`Without a bound on ${x.attribute}`} onClick={() => change({ atMost: form.atMost.filter((_, j) => j !== i) })}>
            <Icon name="close" />
          </button>
        </div>
      ))}
      {free && form.atMost.length < 8 && (
        <button type="button" class="add" onClick={() => change({ atMost: [...form.atMost, { attribute: free, n: 2 }] })}>
          <Icon name="add" /> At most so many of each
        </button>
      )}
    </div>
  );
}

function Summary({ found, arms }: { found: Found; arms: ArmStatus[] }) {
  const a = found.answer;
  const i = arms.findIndex((x) => x.name === a.arm);
  return (
    <div class="summary">
      {a.arm && (
        <span>
          {i >= 0 && <Dot color={armColor(i)} />}
          arm <strong>{a.arm}</strong>
        </span>
      )}
      <span>
        {a.model} at <strong>{a.modelVersion}</strong>
      </span>
      <Digest of={a.snapshot} />
      <span>{plural(a.eligible, "eligible candidate").replace("eligible candidates", "eligible").replace("eligible candidate", "eligible")}</span>
      <span>{words(Plan[a.plan])}</span>
      <span class={a.coverage && a.coverage.eligibleShare < 1 ? "tag warn" : ""}>coverage {a.coverage ? percent(a.coverage.eligibleShare, a.coverage.eligibleShare < 1 ? 2 : 0) : "not told"}</span>
      <span class="muted">{took(found.took)} for this browser</span>
      {a.staleness && secondsOf(a.staleness) > 5 && <span class="tag warn">{took(secondsOf(a.staleness))} stale</span>}
      {a.fallbackUsed !== 0 && <span class="tag warn">by the mean user</span>}
      {a.shortReasonText && <p class="short">{a.shortReasonText}</p>}
    </div>
  );
}

/** The score of a candidate, as a bar within those of the answer. */
function Bar({ of, least, most }: { of: number; least: number; most: number }) {
  const x = most > least ? (of - least) / (most - least) : 1;
  return (
    <svg class="bar-of" viewBox="0 0 60 4" preserveAspectRatio="none" aria-hidden="true" focusable="false">
      <rect width="60" height="4" rx="2" />
      <rect class="on" width={Math.max(2, 60 * (0.08 + 0.92 * x))} height="4" rx="2" />
    </svg>
  );
}

function Values({ texts, most = 4 }: { texts: string[]; most?: number }) {
  if (texts.length === 0) return <span class="muted">–</span>;
  return (
    <span class="values" title={texts.join(", ")}>
      {texts.slice(0, most).join(", ")}
      {texts.length > most && <span class="muted"> +{texts.length - most}</span>}
    </span>
  );
}

/** A list that is drawn some at a time, so that none of it keeps the page from answering. */
function useGrowing<T>(list: T[], some: number): T[] {
  const [state, set] = useState({ list, n: some });
  const n = state.list === list ? state.n : some;
  useEffect(() => {
    if (n >= list.length) return;
    const timer = setTimeout(() => set({ list, n: n + some }));
    return () => clearTimeout(timer);
  }, [list, n]);
  return n >= list.length ? list : list.slice(0, n);
}

function Candidates({ answer, name, target, leaveOut, metric, from }: { answer: RetrieveResponse; name: string; target: Form["target"]; leaveOut: (id: string) => void; metric: string; from: number }) {
  const [view, setView] = useState<"table" | "cards">(() => (matchMedia("(max-width: 700px)").matches ? "cards" : "table"));
  const list = answer.candidates;
  const drawn = useGrowing(list, 40);
  const columns = useMemo(() => seenIn(list).filter((a) => a.name !== name), [list, name]);
  const numeric = (type: string) => type === "int" || type === "float" || type === "float32";
  const better = metric === "l2" ? -1 : 1; // a squared distance is better where it is less
  const scores = list.map((c) => better * c.score);
  const [least, most] = [Math.min(...scores), Math.max(...scores)];
  if (list.length === 0) return <Empty title="No candidate">{answer.shortReasonText || "Nothing that is eligible is left on this page."}</Empty>;
  const link = (c: Candidate) => href("explore", target === "apps" ? { app: c.id } : { user: c.id });
  const nameOf = (c: Candidate) => (name ? valueTexts(c.attributes[name])[0] : undefined);
  return (
    <section aria-label="Candidates" class="card flush">
      <header class="head">
        <h2>{plural(list.length, "candidate")}</h2>
        <Choice label="Shown as" value={view} options={[["table", "Table"], ["cards", "Cards"]] as const} onChange={setView} />
      </header>
      {view === "table" ? (
        <Table label="Candidates as a table" class="candidates">
            <thead>
              <tr>
                <th scope="col" class="n">#</th>
                <th scope="col">{name ? "Name" : "Id"}</th>
                <th scope="col" class="n">Score</th>
                {columns.map((a) => (
                  <th key={a.name} scope="col" class={numeric(a.type) ? "n" : ""}>
                    {a.name}
                  </th>
                ))}
                <th scope="col"><span class="offscreen">Leave out</span></th>
              </tr>
            </thead>
            <tbody>
              {drawn.map((c, i) => (
                <tr key={c.id}>
                  <td class="n muted">{from + i + 1}</td>
                  <th scope="row">
                    <a href={link(c)}>{nameOf(c) ?? c.id}</a>
                    {nameOf(c) !== undefined && <code class="muted">{c.id}</code>}
                  </th>
                  <td class="n score">
                    {score(c.score)}
                    <Bar of={better * c.score} least={least} most={most} />
                  </td>
                  {columns.map((a) => (
                    <td key={a.name} class={numeric(a.type) ? "n" : ""}>
                      <Values texts={valueTexts(c.attributes[a.name])} />
                    </td>
                  ))}
                  <td>
                    <button type="button" class="quiet" aria-label={`Leave ${nameOf(c) ?? c.id} out`} title="Leave out" onClick={() => leaveOut(c.id)}>
                      <Icon name="close" />
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </Table>
      ) : (
        <ol class="cards" start={from + 1}>
          {drawn.map((c, i) => (
            <li key={c.id}>
              <header>
                <span class="rank">{from + i + 1}</span>
                <div>
                  <a href={link(c)}>{nameOf(c) ?? c.id}</a>
                  {nameOf(c) !== undefined && <code class="muted">{c.id}</code>}
                </div>
                <button type="button" class="quiet" aria-label={`Leave ${nameOf(c) ?? c.id} out`} title="Leave out" onClick={() => leaveOut(c.id)}>
                  <Icon name="close" />
                </button>
              </header>
              <p class="score">
                {score(c.score)}
                <Bar of={better * c.score} least={least} most={most} />
              </p>
              <Attributes of={c} names={columns.map((a) => a.name)} />
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

/** The attributes of a card: the first few, and the others when they are asked for. */
function Attributes({ of, names }: { of: Candidate; names: string[] }) {
  const there = names.filter((n) => valueTexts(of.attributes[n]).length > 0);
  const shown = 4;
  const list = (some: string[]) => (
    <dl>
      {some.map((n) => (
        <div key={n}>
          <dt>{n}</dt>
          <dd>
            <Values texts={valueTexts(of.attributes[n])} most={12} />
          </dd>
        </div>
      ))}
    </dl>
  );
  return (
    <div>
      {list(there.slice(0, shown))}
      {there.length > shown && (
        <details>
          <summary>{there.length - shown} more</summary>
          {list(there.slice(shown))}
        </details>
      )}
    </div>
  );
}

/** Two answers to one query, rank by rank. */
function Beside({ one, two, name, names, arms }: { one: RetrieveResponse; two: RetrieveResponse; name: string; names: [string, string]; arms: ArmStatus[] }) {
  const ranks = (a: RetrieveResponse) => new Map(a.candidates.map((c, i) => [c.id, i + 1]));
  const [of1, of2] = [ranks(one), ranks(two)];
  const both = one.candidates.filter((c) => of2.has(c.id)).length;
  const color = (arm: string) => armColor(Math.max(arms.findIndex((a) => a.name === arm), 0));
  const cell = (c: Candidate | undefined, others: Map<string, number>, at: number, change: boolean) => {
    if (!c) return <td class="muted">–</td>;
    const was = others.get(c.id);
    const moved = was === undefined ? (change ? "new" : "gone") : change && was !== at ? (was > at ? `▲ ${was - at}` : `▼ ${at - was}`) : "";
    return (
      <td>
        <span class="pairing">
          <span>
            <a href={href("explore", { app: c.id })}>{(name && valueTexts(c.attributes[name])[0]) || c.id}</a>
            <code class="muted">{c.id}</code>
          </span>
          <span class="n muted">{score(c.score)}</span>
          <span class={`moved ${moved === "new" ? "good" : moved === "gone" ? "warn" : "muted"}`}>{moved}</span>
        </span>
      </td>
    );
  };
  const most = Math.max(one.candidates.length, two.candidates.length);
  return (
    <section aria-label="Two arms side by side" class="card flush">
      <header class="head">
        <h2>
          {both} of {most} are in both
        </h2>
        {one.snapshot === two.snapshot && <span class="tag warn">both answers are by snapshot {shortDigest(one.snapshot)}: the arms have one model version</span>}
      </header>
      <Table label="Two arms as a table" class="beside">
          <thead>
            <tr>
              <th scope="col" class="n">#</th>
              {names.map((n, i) => (
                <th key={n} scope="col">
                  <Dot color={color(n)} />
                  {n} <span class="muted">{i ? two.modelVersion : one.modelVersion}</span>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {Array.from({ length: most }, (_, i) => (
              <tr key={i}>
                <th scope="row" class="n muted">{i + 1}</th>
                {cell(one.candidates[i], of2, i + 1, false)}
                {cell(two.candidates[i], of1, i + 1, true)}
              </tr>
            ))}
          </tbody>
        </Table>
    </section>
  );
}

const heads: Record<Verdict, string> = {
  [Verdict.UNSPECIFIED]: "It could not be explained in time",
  [Verdict.SHARD_MISSING]: "Nothing is known of it: its shard did not answer",
  [Verdict.UNKNOWN]: "There is no such id here",
  [Verdict.QUERY]: "It is what was asked with",
  [Verdict.EXCLUDED]: "It was left out by the query",
  [Verdict.NOT_INCLUDED]: "It is none of the only ids that may come back",
  [Verdict.NOT_ELIGIBLE]: "It is not eligible",
  [Verdict.RETURNED]: "It is here",
  [Verdict.CAPPED]: "Too many like it rank before it",
  [Verdict.BELOW_CUT]: "It ranks below the last candidate",
  [Verdict.NOT_VISITED]: "The walk did not come by it",
  [Verdict.TAKEN_DOWN]: "It was taken down",
  [Verdict.OUTSIDE_WINDOW]: "It is outside of its window",
  [Verdict.EARLIER_PAGE]: "It belongs to an earlier page",
};

const nexts: Partial<Record<Verdict, string>> = {
  [Verdict.SHARD_MISSING]: "Look at the page Now, which says why shards do not answer.",
  [Verdict.UNKNOWN]: "Look whether the towers of the last build had it, and whether the id is written as they have it.",
  [Verdict.EXCLUDED]: "Take it out of what is left out, above.",
  [Verdict.NOT_ELIGIBLE]: "Change what is false for it: the filter or segment of callers, or its attributes, by tandem live set.",
  [Verdict.CAPPED]: "Let more of each through, or fewer of those before it.",
  [Verdict.BELOW_CUT]: "Ask for more candidates. If it should rank higher, that is the model's to say.",
  [Verdict.NOT_VISITED]: "Ask with a higher recall target; by the exact scan it is found.",
  [Verdict.TAKEN_DOWN]: "If that is over: tandem live restore.",
  [Verdict.OUTSIDE_WINDOW]: "It comes back by itself once its window contains the time of a request.",
};

function Why({ form, change, version, name }: { form: Form; change: (p: Partial<Form>) => void; version: string; name: string }) {
  const [state, set] = useState<{ id: IdExplain | null; name: string; trouble: Trouble | null }>({ id: null, name: "", trouble: null });
  const key = JSON.stringify([form, version]);
  const entity = form.target === "users" ? "user" : "app";
  useEffect(() => {
    if (!form.why) return set({ id: null, name: "", trouble: null });
    const ended = new AbortController();
    const request = requestOf(form, version);
    request.explainIds = [form.why];
    const named = clone(RetrieveRequestSchema, request);
    named.filter = named.segment = named.modelVersion = "";
    named.bindings = {};
    named.atMost = [];
    named.excludeIds = named.explainIds = [];
    named.includeIds = [form.why];
    named.k = 1;
    const timer = setTimeout(async () => {
      try {
        const [answer, of] = await Promise.all([retrieval.retrieve(request, { signal: ended.signal }), retrieval.retrieve(named, { signal: ended.signal })]);
        set({ id: answer.explain?.ids[0] ?? null, name: (name && valueTexts(of.candidates[0]?.attributes[name])[0]) || "", trouble: null });
      } catch (e) {
        if (!ended.signal.aborted) set({ id: null, name: "", trouble: troubleOf(e) });
      }
    }, 200);
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, [key, name]);
  const x = state.id;
  return (
    <section class="card why" aria-label={`Why is an ${entity} not here?`}>
      <h2>Why is {entity === "app" ? "an app" : "a user"} not here?</h2>
      <Picker compact label={entity === "app" ? "App" : "User"} value={form.why} tower={form.target === "users" ? Tower.USERS : Tower.APPS} name={name} placeholder={name ? "Id, or how the name begins" : "Id"} onPick={(p) => change({ why: p.id })} />
      {state.trouble && <p class="muted">{state.trouble.text}</p>}
      {x && (
        <div class={`answer ${x.verdict === Verdict.RETURNED ? "good" : "warn"}`} role="status">
          <p class="subject">
            {state.name && <strong>{state.name}</strong>} <code>{x.id}</code>
            {x.score !== undefined && <span class="muted">score {score(x.score)}</span>}
            {x.rank > 0 && <span class="muted">rank {count(x.rank)}</span>}
            {x.fresh && <span class="tag">upserted since the build</span>}
          </p>
          <h3>{heads[x.verdict]}</h3>
          <p>{x.text}</p>
          {x.clause && (
            <p>
              False for it: <code>{x.clause}</code>
            </p>
          )}
          {nexts[x.verdict] && <p class="muted">{nexts[x.verdict]}</p>}
        </div>
      )}
    </section>
  );
}
