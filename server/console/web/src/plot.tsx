// Points and lines over two axes, drawn once: what a report found.
import type { ComponentChildren } from "preact";

export interface Series {
  label: string;
  /** The number of its colour: 0 to 3. */
  color: number;
  points: { x: number; y: number; label?: string; low?: number; high?: number; bad?: boolean }[];
  line?: boolean;
  /** Whether it is drawn broadly, to be seen below another one that is the same. */
  below?: boolean;
}

interface Props {
  title: string;
  x: string;
  y: string;
  series: Series[];
  /** Whether the distance on the axis across is of ratios. */
  logX?: boolean;
  rangeY?: [number, number];
  /** A line across, with its name. */
  bound?: { at: number; label: string };
  formatX?: (x: number) => string;
  formatY?: (y: number) => string;
}

const [width, height] = [560, 260];
const edge = { left: 72, right: 16, top: 12, bottom: 40 };

export const short = (x: number): string => {
  const a = Math.abs(x);
  if (a >= 1e6 || (a > 0 && a < 1e-3)) return x.toExponential(1);
  return String(Number(x.toPrecision(3)));
};

/** Some round numbers between two. */
function ticks(from: number, to: number, some: number): number[] {
  const span = to - from;
  if (!(span > 0)) return [from];
  const step = 10 ** Math.floor(Math.log10(span / some));
  const by = [1, 2, 5, 10].map((m) => m * step).find((s) => span / s <= some) ?? 10 * step;
  const list: number[] = [];
  for (let i = Math.ceil(from / by - 1e-9); i * by <= to + by * 1e-9; i++) list.push(Number((i * by).toPrecision(12)));
  return list;
}

export function Plot({ title, x, y, series, logX, rangeY, bound, formatX = short, formatY = short }: Props) {
  const all = series.flatMap((s) => s.points).filter((p) => isFinite(p.x) && isFinite(p.y) && (!logX || p.x > 0));
  if (all.length === 0) return null;
  const ys = [...all.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]), ...(bound ? [bound.at] : [])];
  const scaleX = logX ? Math.log10 : (v: number) => v;
  let [x0, x1] = [Math.min(...all.map((p) => scaleX(p.x))), Math.max(...all.map((p) => scaleX(p.x)))];
  let [y0, y1] = rangeY ?? [Math.min(...ys), Math.max(...ys)];
  if (x1 - x0 < 1e-9) [x0, x1] = [x0 - 0.5, x1 + 0.5];
  else [x0, x1] = [x0 - 0.03 * (x1 - x0), x1 + 0.03 * (x1 - x0)];
  if (!rangeY) [y0, y1] = y1 - y0 < 1e-9 ? [y0 - Math.max(Math.abs(y0) * 0.1, 1e-6), y1 + Math.max(Math.abs(y1) * 0.1, 1e-6)] : [y0 - 0.06 * (y1 - y0), y1 + 0.06 * (y1 - y0)];
  const round = (v: number) => Math.round(v * 10) / 10;
  const px = (v: number) => round(edge.left + ((scaleX(v) - x0) / (x1 - x0)) * (width - edge.left - edge.right));
  const py = (v: number) => round(height - edge.bottom - ((Math.min(Math.max(v, y0), y1) - y0) / (y1 - y0)) * (height - edge.top - edge.bottom));
  const across = logX ? decades(x0, x1) : ticks(x0, x1, 6);
  const up = ticks(y0, y1, 5);
  return (
    <figure class="plot">
      <figcaption>
        <strong>{title}</strong>
        {series.length > 1 && (
          <span class="legend">
            {series.map((s) => <span key={s.label}><span class={`dot arm-${s.color % 4}`} aria-hidden="true" />{s.label}</span>)}
          </span>
        )}
      </figcaption>
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={`${title}: ${y} by ${x}. ${series.map((s) => `${s.label}: ${s.points.slice(0, 12).map((p) => `${p.label ? `${p.label} ` : ""}${formatX(p.x)}, ${formatY(p.y)}`).join("; ")}`).join(". ")}`}>
        {up.map((v) => (
          <g key={`y${v}`}>
            <path class="grid" d={`M${edge.left} ${py(v)}H${width - edge.right}`} />
            <text x={edge.left - 8} y={py(v) + 4} text-anchor="end">{formatY(v)}</text>
          </g>
        ))}
        {across.map((v) => <text key={`x${v}`} x={px(v)} y={height - edge.bottom + 16} text-anchor="middle">{formatX(v)}</text>)}
        <text class="of" x={(edge.left + width - edge.right) / 2} y={height - 6} text-anchor="middle">{x}</text>
        <text class="of" transform={`translate(12 ${(height - edge.bottom + edge.top) / 2}) rotate(-90)`} text-anchor="middle">{y}</text>
        {bound && (
          <g>
            <path class="bound" d={`M${edge.left} ${py(bound.at)}H${width - edge.right}`} />
            <text class="bound" x={width - edge.right} y={py(bound.at) - 4} text-anchor="end">{bound.label}</text>
          </g>
        )}
        {series.map((s) => {
          const shown = s.points.filter((p) => isFinite(p.x) && isFinite(p.y) && (!logX || p.x > 0));
          return (
            <g key={s.label} class={`series arm-${s.color % 4} ${s.below ? "below" : ""}`}>
              {s.line && shown.length > 1 && <path class="line" d={`M${shown.map((p) => `${px(p.x)} ${py(p.y)}`).join("L")}`} />}
              {shown.map((p, i) => (
                <g key={i} class={p.bad ? "bad" : ""}>
                  {p.low !== undefined && p.high !== undefined && <path class="line" d={`M${px(p.x)} ${py(p.low)}V${py(p.high)}`} />}
                  <circle cx={px(p.x)} cy={py(p.y)} r="3.5">
                    <title>{`${s.label}${p.label ? `, ${p.label}` : ""}: ${formatX(p.x)}, ${formatY(p.y)}`}</title>
                  </circle>
                </g>
              ))}
            </g>
          );
        })}
      </svg>
    </figure>
  );
}

function decades(from: number, to: number): number[] {
  const list: number[] = [];
  for (let e = Math.floor(from); e <= to + 1; e++) for (const m of to - from > 2.5 ? [1] : to - from > 1 ? [1, 3] : to - from > 0.6 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]) {
    const v = Math.log10(m) + e;
    if (v >= from && v <= to) list.push(Number((m * 10 ** e).toPrecision(3)));
  }
  return list.length > 1 ? list : [10 ** from, 10 ** to].map((v) => Number(v.toPrecision(2)));
}

/** Values beside one another by their names, each beside what it may be. */
export interface Bar {
  label: string;
  value: number;
  low?: number;
  high?: number;
  limit?: number;
  bad?: boolean;
}

/** Values in a row below one another: of a few segments or ranks, each with its name. */
export function Bars({ title, bars, format = short, from, to, note }: { title: string; bars: Bar[]; format?: (x: number) => string; from?: number; to?: number; note?: ComponentChildren }) {
  if (bars.length === 0) return null;
  const values = bars.flatMap((b) => [b.value, b.low ?? b.value, b.high ?? b.value, b.limit ?? b.value]);
  const least = from ?? Math.min(0, ...values);
  const most = to ?? Math.max(...values);
  const at = (x: number) => Math.round(1000 * Math.min(Math.max((x - least) / (most - least || 1), 0), 1)) / 10;
  return (
    <figure class="bars">
      <figcaption><strong>{title}</strong>{note && <span class="muted">{note}</span>}</figcaption>
      <ul>
        {bars.map((b) => (
          <li key={b.label}>
            <span class="of">{b.label}</span>
            <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">
              <rect class="track" width="100" height="10" rx="1" />
              <rect class={b.bad ? "bad" : "value"} width={at(b.value)} height="10" rx="1" />
              {b.low !== undefined && b.high !== undefined && <rect class="sure" x={at(b.low)} width={Math.max(at(b.high) - at(b.low), 0.4)} y="4" height="2" />}
              {b.limit !== undefined && <rect class="limit-at" x={Math.min(at(b.limit), 99.5)} width="0.6" height="10" />}
            </svg>
            <span class={`n ${b.bad ? "wrong" : ""}`}>{format(b.value)}{b.limit !== undefined && <span class="muted"> / {format(b.limit)}</span>}</span>
          </li>
        ))}
      </ul>
    </figure>
  );
}
