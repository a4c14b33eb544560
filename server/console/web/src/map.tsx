// Where the candidates of a query lie: a plane through their vectors, among some of the catalogue.
import { create } from "@bufbuild/protobuf";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { retrieval, troubleOf, type Trouble } from "./api";
import type { Form } from "./form";
import { count, percent, plural, score, valueTexts } from "./format";
import { RetrieveRequestSchema, Tower, type Embedding, type RetrieveResponse } from "./gen/tandem/v1/retrieval_pb";
import { project } from "./pca";
import { Loading, narrow, Table, TroubleBox, useMatch } from "./ui";

/** How many of the catalogue are drawn at most, and how many numbers all vectors have together. */
const mostDrawn = 900;
const mostNumbers = 400_000;
/** How many directions the catalogue is asked in, and how far each time. */
const directions = 16;
const depth = 512;

interface Vectors {
  query: Float32Array | null;
  candidates: Map<string, Float32Array>;
  catalogue: Embedding[];
  dim: number;
  /** Why there is none of the catalogue. */
  without: Trouble | null;
}

/** Random numbers that are the same each time. */
function seeded(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const length = (v: ArrayLike<number>) => {
  let square = 0;
  for (let i = 0; i < v.length; i++) square += v[i]! * v[i]!;
  return Math.sqrt(square);
};

/** Of each tower of each snapshot, since it does not change but by events. */
const sampled = new Map<string, Embedding[]>();

/**
 * Some of the catalogue: there is no call for rows at random, so it is asked in random directions, and of
 * each answer rows are taken that are apart in rank. What is drawn so lies somewhat farther out than all. With an
 * effort of their own these queries are no part of what is known of the recall of callers.
 */
async function sample(answer: RetrieveResponse, tower: Tower, dim: number, norm: number, signal: AbortSignal): Promise<Embedding[]> {
  const key = `${answer.snapshot}/${tower}`;
  const had = sampled.get(key);
  if (had) return had;
  const random = seeded(17);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const requests = Array.from({ length: directions }, () => {
    const vector = Array.from({ length: dim }, normal);
    const scale = norm / (length(vector) || 1);
    return create(RetrieveRequestSchema, { vector: vector.map((x) => x * scale), target: tower, k: depth, ef: depth, modelVersion: answer.modelVersion });
  });
  const found = await retrieval.batchRetrieve({ requests }, { signal, timeoutMs: 30_000 });
  const most = Math.min(mostDrawn, Math.floor(mostNumbers / dim));
  const ids = new Set<string>();
  const lists = found.results.flatMap((r) => (r.outcome.case === "response" ? [r.outcome.value.candidates] : []));
  const failed = found.results.find((r) => r.outcome.case === "error");
  if (lists.length === 0 && failed?.outcome.case === "error") throw new Error(failed.outcome.value.message);
  for (const list of lists) {
    const each = Math.ceil(most / lists.length);
    for (let i = 0; i < each; i++) {
      const c = list[Math.floor((i * list.length) / each)];
      if (c) ids.add(c.id);
    }
  }
  const list = [...ids].slice(0, Math.min(most, 1000));
  const of = list.length ? (await retrieval.getEmbeddings({ tower, ids: list, modelVersion: answer.modelVersion }, { signal, timeoutMs: 30_000 })).embeddings : [];
  if (sampled.size > 8) sampled.clear();
  sampled.set(key, of);
  return of;
}

function useVectors(form: Form, answer: RetrieveResponse): { vectors: Vectors | null; trouble: Trouble | null } {
  const [state, set] = useState<{ vectors: Vectors | null; trouble: Trouble | null }>({ vectors: null, trouble: null });
  useEffect(() => {
    const ended = new AbortController();
    const signal = ended.signal;
    const tower = form.target === "users" ? Tower.USERS : Tower.APPS;
    const asked = form.by === "user" ? Tower.USERS : Tower.APPS;
    const get = (t: Tower, ids: string[]) => retrieval.getEmbeddings({ tower: t, ids, modelVersion: answer.modelVersion }, { signal, timeoutMs: 20_000 });
    void (async () => {
      try {
        const ids = answer.candidates.map((c) => c.id);
        const [of, from] = await Promise.all([get(tower, ids), get(asked, [form.id])]);
        const candidates = new Map(of.embeddings.map((e) => [e.id, Float32Array.from(e.values)]));
        const query = from.embeddings[0] ? Float32Array.from(from.embeddings[0].values) : null;
        const dim = of.embeddings[0]?.values.length ?? 0;
        const norm = of.embeddings.reduce((sum, e) => sum + length(e.values), 0) / Math.max(of.embeddings.length, 1);
        let catalogue: Embedding[] = [];
        let without: Trouble | null = null;
        try {
          catalogue = await sample(answer, tower, dim, norm, signal);
        } catch (e) {
          without = troubleOf(e);
        }
        if (!signal.aborted) set({ vectors: { query, candidates, catalogue, dim, without }, trouble: null });
      } catch (e) {
        if (!signal.aborted) set({ vectors: null, trouble: troubleOf(e) });
      }
    })();
    return () => ended.abort();
  }, [answer]);
  return state;
}

interface Point {
  id: string;
  label: string;
  kind: "query" | "candidate";
  rank: number;
  score: number;
}

export function PointMap({ form, answer, name, metric }: { form: Form; answer: RetrieveResponse; name: string; metric: string }) {
  const { vectors, trouble } = useVectors(form, answer);
  if (trouble) return <TroubleBox trouble={trouble} />;
  if (!vectors) return <Loading what="the map" lines={6} />;
  if (vectors.candidates.size === 0) return <p class="muted">There is no candidate whose vector can be read.</p>;
  return <Drawn form={form} answer={answer} vectors={vectors} name={name} metric={metric} />;
}

const wide = { w: 780, h: 440, edge: 18, dot: 2.5 };
const small = { w: 360, h: 340, edge: 14, dot: 2 };

function Drawn({ form, answer, vectors, name, metric }: { form: Form; answer: RetrieveResponse; vectors: Vectors; name: string; metric: string }) {
  const size = useMatch(narrow) ? small : wide;
  const [centre, setCentre] = useState("");
  const [active, setActive] = useState(0);
  const [seen, see] = useState(-1);
  const circles = useRef<(SVGGElement | null)[]>([]);

  const points = useMemo<Point[]>(() => {
    const list: Point[] = answer.candidates
      .filter((c) => vectors.candidates.has(c.id))
      .map((c, i) => ({ id: c.id, label: (name && valueTexts(c.attributes[name])[0]) || c.id, kind: "candidate", rank: i + 1, score: c.score }));
    if (vectors.query) list.unshift({ id: form.id, label: `the query, ${form.by} ${form.id}`, kind: "query", rank: 0, score: NaN });
    return list;
  }, [answer, vectors, name]);

  const drawn = useMemo(() => {
    performance.mark("map-begins");
    const { dim: d } = vectors;
    const known = new Set(points.map((p) => p.id));
    const others = vectors.catalogue.filter((e) => !known.has(e.id));
    const n = points.length + others.length;
    const rows = new Float32Array(n * d);
    points.forEach((p, i) => rows.set(p.kind === "query" ? vectors.query! : vectors.candidates.get(p.id)!, i * d));
    others.forEach((e, i) => rows.set(e.values, (points.length + i) * d));
    const norm = (i: number) => length(rows.subarray(i * d, (i + 1) * d));
    const scale = (i: number, to: number) => {
      const of = norm(i) || 1;
      for (let j = i * d; j < (i + 1) * d; j++) rows[j]! *= to / of;
    };
    if (metric === "cosine") for (let i = 0; i < n; i++) scale(i, 1);
    else if (metric !== "l2" && points[0]?.kind === "query" && form.by === "user") {
      // By the product only its direction says who is near: it is drawn as far out as candidates are.
      let sum = 0;
      for (let i = 1; i < points.length; i++) sum += norm(i);
      if (points.length > 1) scale(0, sum / (points.length - 1));
    }
    // Candidates count for as much as the catalogue, however many there are of each.
    const weights = new Float64Array(n);
    for (let i = 0; i < n; i++) weights[i] = i < points.length ? 1 / points.length : 1 / Math.max(others.length, 1);
    const chosen = points.findIndex((p) => p.id === centre);
    const at = new Float64Array(d);
    let total = 0;
    for (let i = 0; i < n; i++) {
      const w = chosen >= 0 ? Number(i === chosen) : weights[i]!;
      total += w;
      for (let j = 0; j < d; j++) at[j]! += w * rows[i * d + j]!;
    }
    for (let j = 0; j < d; j++) at[j]! /= total;
    const plane = project(rows, d, weights, at);
    const away = points.map((_, i) => {
      let square = 0;
      for (let j = 0; j < d; j++) square += (rows[i * d + j]! - at[j]!) ** 2;
      return Math.sqrt(square);
    });
    performance.measure("map", "map-begins");
    return { plane, away, n, others: others.length, chosen };
  }, [points, vectors, centre, metric]);

  const { plane, others } = drawn;
  const place = useMemo(() => {
    let [farX, farY] = [1e-12, 1e-12];
    for (let i = 0; i < drawn.n; i++) {
      farX = Math.max(farX, Math.abs(plane.x[i]!));
      farY = Math.max(farY, Math.abs(plane.y[i]!));
    }
    const unit = Math.min((size.w / 2 - size.edge) / farX, (size.h / 2 - size.edge) / farY);
    const round = (x: number) => Math.round(x * 10) / 10;
    const x = (i: number) => round(size.w / 2 + unit * plane.x[i]!);
    const y = (i: number) => round(size.h / 2 - unit * plane.y[i]!);
    let path = "";
    for (let i = points.length; i < drawn.n; i++) path += `M${x(i)} ${y(i)}h0`;
    return { x, y, path };
  }, [drawn, size]);

  /** The nearest point in the direction of an arrow. */
  const next = (from: number, dx: number, dy: number): number => {
    let [best, least] = [from, Infinity];
    for (let i = 0; i < points.length; i++) {
      const [x, y] = [place.x(i) - place.x(from), place.y(i) - place.y(from)];
      const ahead = x * dx + y * dy;
      const beside = Math.abs(x * dy) + Math.abs(y * dx);
      if (i === from || ahead <= 0 || beside > 2 * ahead) continue;
      if (ahead + 2 * beside < least) [best, least] = [i, ahead + 2 * beside];
    }
    return best;
  };
  const key = (e: KeyboardEvent, i: number) => {
    const arrows: Record<string, [number, number]> = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    const arrow = arrows[e.key];
    let to = -1;
    if (arrow) to = next(i, ...arrow);
    else if (e.key === "Home") to = 0;
    else if (e.key === "End") to = points.length - 1;
    else if (e.key === "Enter" || e.key === " ") setCentre(points[i]!.id);
    else if (e.key === "Escape") setCentre("");
    else return;
    e.preventDefault();
    if (to >= 0) {
      setActive(to);
      circles.current[to]?.focus();
    }
  };
  const textOf = (i: number) => {
    const p = points[i]!;
    return `${p.kind === "query" ? p.label : `${p.rank}: ${p.label}, score ${score(p.score)}`}, ${drawn.away[i]!.toPrecision(3)} from the centre`;
  };
  const current = Math.min(active, points.length - 1);
  const centreText = drawn.chosen >= 0 ? points[drawn.chosen]!.label : "the middle of what is drawn";
  return (
    <div class="map">
      <svg viewBox={`0 0 ${size.w} ${size.h}`} role="group" aria-label={`Map of ${plural(points.length, "point")} among ${count(others)} of the catalogue. Arrows go from point to point, Enter centres the map on one, Escape on the middle. The table below has the same.`}>
        <path class="axis" d={`M0 ${size.h / 2}H${size.w}M${size.w / 2} 0V${size.h}`} />
        <path class="catalogue" d={place.path} stroke-width={2 * size.dot} />
        {points.map((p, i) => (
          <g
            key={p.id + p.kind}
            ref={(g: SVGGElement | null) => { circles.current[i] = g; }}
            class={`${p.kind} ${i === drawn.chosen ? "chosen" : ""}`}
            role="button"
            tabIndex={i === current ? 0 : -1}
            aria-label={textOf(i)}
            aria-pressed={i === drawn.chosen}
            transform={`translate(${place.x(i)} ${place.y(i)})`}
            onClick={() => { setActive(i); setCentre(p.id === centre ? "" : p.id); }}
            onKeyDown={(e) => key(e, i)}
            onFocus={() => see(i)}
            onBlur={() => see(-1)}
            onMouseEnter={() => see(i)}
            onMouseLeave={() => see(-1)}
          >
            <circle class="reach" r={size.dot * 4.5} />
            {p.kind === "query" ? <path d="M0-8L8 0 0 8-8 0z" /> : <circle r={size.dot * 2} />}
          </g>
        ))}
      </svg>
      <p class="seen" aria-live="polite">{seen >= 0 && points[seen] ? textOf(seen) : <span class="muted">Point at one, or go there with Tab and arrows. A click or Enter centres the map on it.</span>}</p>
      <p class="muted legend">
        <span class="key query" /> the query <span class="key candidate" /> candidates <span class="key catalogue" /> {count(others)} others of the catalogue, as random queries find them. Centred on {centreText}
        {drawn.chosen >= 0 && <> <button type="button" class="quiet" onClick={() => setCentre("")}>Centre on the middle</button></>}; the plane has {percent(plane.shares[0] + plane.shares[1], 0)} of the squared distances from there, of {count(vectors.dim)} dimensions: what is near on the map need not be near.
        {!vectors.query && " The query has no vector of its own here, and is not drawn."}
      </p>
      {vectors.without && <TroubleBox trouble={{ ...vectors.without, title: `The catalogue is not drawn: ${vectors.without.title}` }} />}
      <details>
        <summary>The same as a table</summary>
        <Table label="Points of the map">
          <thead><tr><th scope="col" class="n">#</th><th scope="col">Point</th><th scope="col" class="n">Across</th><th scope="col" class="n">Up</th><th scope="col" class="n">From the centre</th><th scope="col"><span class="offscreen">Centre</span></th></tr></thead>
          <tbody>
            {points.map((p, i) => (
              <tr key={p.id + p.kind}>
                <td class="n muted">{p.rank || "–"}</td>
                <th scope="row">{p.label}</th>
                <td class="n">{plane.x[i]!.toPrecision(3)}</td>
                <td class="n">{plane.y[i]!.toPrecision(3)}</td>
                <td class="n">{drawn.away[i]!.toPrecision(3)}</td>
                <td><button type="button" aria-label={`Centre on ${p.label}`} disabled={i === drawn.chosen} onClick={() => setCentre(p.id)}>Centre</button></td>
              </tr>
            ))}
          </tbody>
        </Table>
      </details>
    </div>
  );
}
