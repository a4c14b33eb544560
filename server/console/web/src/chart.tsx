// Lines over time.
import uPlot from "uplot";
import { useEffect, useRef } from "preact/hooks";
import { dark } from "./theme";
import { useSignal } from "./signal";
import { clock } from "./format";

export interface Line {
  label: string;
  values: (number | null)[];
  /** The name of a custom property that is its colour. */
  color: string;
  dash?: boolean;
  /** The least and the most it may be, drawn as a band. */
  band?: [low: (number | null)[], high: (number | null)[]];
}

interface Props {
  title: string;
  times: number[]; // seconds, ascending
  lines: Line[];
  format: (x: number) => string;
  /** The most and the least that are shown at least, as shares and ages have them. */
  range?: (least: number, most: number) => [number, number];
  from: number;
  to: number;
}

const property = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function Chart({ title, times, lines, format, range, from, to }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const isDark = useSignal(dark);
  const shape = lines.map((l) => l.label + l.color + Boolean(l.band)).join("|");
  const bounds = useRef({ from, to, range });
  bounds.current = { from, to, range };

  const data: uPlot.AlignedData = [times];
  for (const l of lines) {
    data.push(l.values);
    if (l.band) data.push(l.band[0], l.band[1]);
  }

  useEffect(() => {
    const series: uPlot.Series[] = [{}];
    const bands: uPlot.Band[] = [];
    for (const l of lines) {
      const color = property(l.color);
      series.push({ label: l.label, stroke: color, width: l.dash ? 1 : 1.75, dash: l.dash ? [4, 4] : undefined, points: { show: true, size: 4, stroke: color, fill: color, filter: (u, i) => alone(u.data[i]!) }, spanGaps: false });
      if (l.band) {
        const at = series.length;
        series.push({ label: "", stroke: "transparent", points: { show: false } }, { label: "", stroke: "transparent", points: { show: false } });
        bands.push({ series: [at + 1, at], fill: color + "22" });
      }
    }
    const grid = property("--line");
    const axis: uPlot.Axis = { stroke: property("--muted"), font: "11px system-ui, sans-serif", grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    const made = new uPlot(
      {
        width: place.current!.clientWidth || 300,
        height: 132,
        padding: [8, 8, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: {
          x: { time: true, range: () => [bounds.current.from, bounds.current.to] },
          y: {
            range: (_, least, most) => {
              const [a, b] = least == null ? [0, 1] : [least, most];
              if (bounds.current.range) return bounds.current.range(a, b);
              return [0, b > 0 ? b * 1.15 : 1];
            },
          },
        },
        axes: [
          { ...axis, grid: { show: false }, size: 24, space: 70, values: (_, list) => list.map((t) => clock(new Date(t * 1000)).slice(0, 5)) },
          { ...axis, size: 52, space: 36, values: (_, list) => list.map((x) => format(x)) },
        ],
        series,
        bands,
        hooks: {
          setCursor: [
            (u) => {
              const tip = place.current?.querySelector<HTMLElement>(".tip");
              const i = u.cursor.idx;
              if (!tip) return;
              const shown = i != null && (u.cursor.left ?? -1) >= 0;
              tip.hidden = !shown;
              if (!shown) return;
              const rows = [clock(new Date((u.data[0][i] as number) * 1000))];
              u.series.forEach((s, k) => {
                const x = u.data[k]?.[i];
                if (k > 0 && s.label && x != null) rows.push(`${s.label as string} ${format(x)}`);
              });
              tip.replaceChildren(...rows.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
              const half = u.over.clientWidth / 2;
              tip.classList.toggle("left", (u.cursor.left ?? 0) > half);
            },
          ],
        },
      },
      data,
      place.current!,
    );
    plot.current = made;
    const sized = new ResizeObserver(() => {
      const width = place.current?.clientWidth ?? 0;
      if (width > 0 && width !== made.width) made.setSize({ width, height: 132 });
    });
    sized.observe(place.current!);
    return () => {
      sized.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, isDark]);

  useEffect(() => {
    plot.current?.setData(data);
  });

  return (
    <div class="chart" ref={place} role="img" aria-label={describe(title, lines, format)}>
      <div class="tip" hidden />
    </div>
  );
}

/** The places of values that have none beside them: no line goes through these. */
function alone(values: ArrayLike<number | null | undefined>): number[] {
  const list: number[] = [];
  for (let i = 0; i < values.length; i++) if (values[i] != null && values[i - 1] == null && values[i + 1] == null) list.push(i);
  return list;
}

/** What a chart shows, for whom does not see it. */
function describe(title: string, lines: Line[], format: (x: number) => string): string {
  const parts = lines
    .filter((l) => !l.dash)
    .map((l) => {
      const known = l.values.filter((x): x is number => x != null);
      if (known.length === 0) return `${l.label}: nothing yet`;
      return `${l.label}: now ${format(known.at(-1)!)}, lowest ${format(Math.min(...known))}, highest ${format(Math.max(...known))}`;
    });
  return `${title} over time. ${parts.join("; ")}`;
}
