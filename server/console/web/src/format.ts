// How numbers, times and names are written, as the command line has them.
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { AttributeValue } from "./gen/tandem/v1/retrieval_pb";

export const count = (n: number | bigint): string => n.toLocaleString("en-US");
export const plural = (n: number | bigint, noun: string): string => `${count(n)} ${noun}${n == 1 ? "" : "s"}`;

export const secondsOf = (d: Duration | undefined): number => (d ? Number(d.seconds) + d.nanos / 1e9 : NaN);
export const dateOf = (t: Timestamp | undefined): Date | undefined => (t ? new Date(Number(t.seconds) * 1000 + t.nanos / 1e6) : undefined);

/** A duration with three digits: 3.42 ms. */
export function took(seconds: number): string {
  if (!isFinite(seconds)) return "–";
  const [x, unit] = seconds < 1e-3 ? [seconds * 1e6, "µs"] : seconds < 1 ? [seconds * 1e3, "ms"] : [seconds, "s"];
  return `${x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2)} ${unit}`;
}

/** A time span in its two largest units: 3 h 12 min. */
export function span(seconds: number): string {
  if (!isFinite(seconds)) return "–";
  if (seconds > 0 && seconds < 0.995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min${minutes < 10 ? ` ${Math.floor(seconds % 60)} s` : ""}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const ago = (d: Date, now = Date.now()): string => `${span((now - d.getTime()) / 1000)} ago`;

export function bytes(n: bigint | number): string {
  let x = Number(n);
  if (x < 1024) return `${x} B`;
  let unit = -1;
  while (x >= 1023.95 && unit < 5) {
    x /= 1024;
    unit++;
  }
  return `${x.toFixed(1)} ${"KMGTPE"[unit]}iB`;
}

/** A share of traffic: 12.5%. */
export const share = (perMille: number): string => `${(perMille / 10).toFixed(perMille % 10 ? 1 : 0)}%`;
export const percent = (x: number, digits = 1): string => `${(100 * x).toFixed(digits)}%`;
export const shortDigest = (d: string): string => d.slice(0, 12);

export const clock = (d: Date): string => d.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
export const moment = (d: Date): string => `${d.toISOString().slice(0, 10)} ${clock(d)}`;

/** A score, in digits that stand under one another. */
export const score = (x: number): string => (Math.abs(x) < 10 ? x.toFixed(6) : Math.abs(x) < 1000 ? x.toFixed(4) : Math.abs(x) < 1e6 ? x.toFixed(1) : x.toExponential(5));

/** The value of an attribute as text; of lists each of its values. */
export function valueTexts(v: AttributeValue | undefined): string[] {
  const x = v?.value;
  switch (x?.case) {
    case "keyword":
      return [x.value];
    case "keywords":
      return x.value.values;
    case "bool":
      return [x.value ? "yes" : "no"];
    case "int":
      return [x.value.toString()];
    case "float":
      return [String(x.value)];
    case "timestamp":
      return [new Date(Number(x.value.seconds) * 1000).toISOString().replace("T00:00:00.000Z", "").replace(".000Z", "Z")];
  }
  return [];
}

/** The name of a value of an enum as people read it: BELOW_CUT is "below cut". */
export const words = (name: string | undefined): string => (name ?? "unknown").toLowerCase().replaceAll("_", " ");
