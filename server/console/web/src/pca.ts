// The plane in which points lie most apart, found by power iteration.

export interface Plane {
  /** Where each point is in the plane, the centre at 0, 0. */
  x: Float64Array;
  y: Float64Array;
  /** The share of the squared distances from the centre that each axis has. */
  shares: [number, number];
}

const rounds = 100;
const still = 1e-9;

/**
 * The two directions along which points lie farthest from a centre, in squares and by their weights, and
 * where the points are along them. Points are rows of d numbers, one after the other. The same points give
 * the same plane; each axis points to where its largest component is positive.
 */
export function project(points: Float32Array, d: number, weights: Float64Array, centre: Float64Array): Plane {
  const n = weights.length;
  const from = new Float64Array(n * d);
  let total = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < d; j++) {
      const x = points[i * d + j]! - centre[j]!;
      from[i * d + j] = x;
      total += weights[i]! * x * x;
    }
  }
  const first = axis(from, d, weights, null);
  const second = axis(from, d, weights, first.of);
  const share = (x: number) => (total > 0 ? Math.min(Math.max(x / total, 0), 1) : 0);
  return { x: along(from, d, n, first.of), y: along(from, d, n, second.of), shares: [share(first.spread), share(second.spread)] };
}

function along(from: Float64Array, d: number, n: number, axis: Float64Array): Float64Array {
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let j = 0; j < d; j++) sum += from[i * d + j]! * axis[j]!;
    out[i] = sum;
  }
  return out;
}

/** The direction of the largest spread, at right angles to another one if there is one. */
function axis(from: Float64Array, d: number, weights: Float64Array, other: Float64Array | null): { of: Float64Array; spread: number } {
  const n = weights.length;
  let of = new Float64Array(d);
  // Not at right angles to what is looked for, for any points that somebody has.
  for (let j = 0; j < d; j++) of[j] = 1 + ((j * 7919) % 13) / 13;
  if (!unit(of, other)) return { of, spread: 0 };
  let spread = 0;
  for (let round = 0; round < rounds; round++) {
    const next = new Float64Array(d);
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let j = 0; j < d; j++) sum += from[i * d + j]! * of[j]!;
      sum *= weights[i]!;
      for (let j = 0; j < d; j++) next[j]! += sum * from[i * d + j]!;
    }
    const length = unit(next, other);
    if (!length) return { of, spread: 0 }; // nothing is left in this direction
    let moved = 0;
    for (let j = 0; j < d; j++) moved += (next[j]! - of[j]!) ** 2;
    of = next;
    spread = length;
    if (moved < still) break;
  }
  let largest = 0;
  for (let j = 1; j < d; j++) if (Math.abs(of[j]!) > Math.abs(of[largest]!) + 1e-12) largest = j;
  if (of[largest]! < 0) for (let j = 0; j < d; j++) of[j] = -of[j]!;
  return { of, spread };
}

/** Takes out of a vector what lies along another one, makes it of length 1, and returns how long it was. */
function unit(v: Float64Array, other: Float64Array | null): number {
  if (other) {
    let dot = 0;
    for (let j = 0; j < v.length; j++) dot += v[j]! * other[j]!;
    for (let j = 0; j < v.length; j++) v[j]! -= dot * other[j]!;
  }
  let square = 0;
  for (const x of v) square += x * x;
  const length = Math.sqrt(square);
  if (!(length > 1e-150)) return 0;
  for (let j = 0; j < v.length; j++) v[j]! /= length;
  return length;
}
