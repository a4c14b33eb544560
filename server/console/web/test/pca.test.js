// The plane of the map, beside the axes that rotations in turn find.
import assert from "node:assert/strict";
import { join } from "node:path";
import { before, test } from "node:test";
import { rolldown } from "rolldown";

let project;
before(async () => {
  const bundle = await rolldown({ input: join(import.meta.dirname, "../src/pca.ts") });
  const { output } = await bundle.generate({ format: "esm" });
  ({ project } = await import(`data:text/javascript,${encodeURIComponent(output[0].code)}`));
});

/** Numbers that look random, the same each time. */
function seeded(seed) {
  let a = seed >>> 0;
  return () => ((a = (Math.imul(a, 1664525) + 1013904223) >>> 0) / 2 ** 32) * 2 - 1;
}

/** The spreads of a matrix along its axes, the largest first, by Jacobi's rotations. */
function spreads(m) {
  const d = m.length;
  for (let round = 0; round < 100; round++) {
    for (let p = 0; p < d; p++) {
      for (let q = p + 1; q < d; q++) {
        if (Math.abs(m[p][q]) < 1e-14) continue;
        const angle = 0.5 * Math.atan2(2 * m[p][q], m[q][q] - m[p][p]);
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        for (let k = 0; k < d; k++) [m[k][p], m[k][q]] = [c * m[k][p] - s * m[k][q], s * m[k][p] + c * m[k][q]];
        for (let k = 0; k < d; k++) [m[p][k], m[q][k]] = [c * m[p][k] - s * m[q][k], s * m[p][k] + c * m[q][k]];
      }
    }
  }
  return m.map((row, i) => row[i]).sort((a, b) => b - a);
}

test("the plane has the largest spread that two axes have", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = seeded(seed * 7919);
    const d = 2 + (seed % 7);
    const n = d + 3 + (seed % 30);
    const points = Float32Array.from({ length: n * d }, (_, i) => random() * (1 + (i % d)));
    const weights = Float64Array.from({ length: n }, () => 0.1 + Math.abs(random()));
    const centre = Float64Array.from({ length: d }, () => random());
    const { x, y, shares } = project(points, d, weights, centre);
    const m = Array.from({ length: d }, () => new Array(d).fill(0));
    let total = 0;
    let across = 0;
    let [spreadX, spreadY] = [0, 0];
    for (let i = 0; i < n; i++) {
      spreadX += weights[i] * x[i] ** 2;
      spreadY += weights[i] * y[i] ** 2;
      across += weights[i] * x[i] * y[i];
      for (let j = 0; j < d; j++) {
        const a = points[i * d + j] - centre[j];
        total += weights[i] * a * a;
        for (let k = 0; k < d; k++) m[j][k] += weights[i] * a * (points[i * d + k] - centre[k]);
      }
    }
    const [first, second] = spreads(m);
    // Where two axes are as long to a percent, either is as good.
    assert.ok(spreadX >= 0.99 * first && spreadX <= 1.000001 * first, `${seed}: ${spreadX} of ${first}`);
    assert.ok(spreadX + spreadY >= 0.99 * (first + second) && spreadX + spreadY <= 1.000001 * (first + second), `${seed}: ${spreadY} of ${second}`);
    assert.ok(Math.abs(across) < 0.05 * total, `${seed}: axes that lean by ${across}`);
    assert.ok(Math.abs(shares[0] - first / total) < 0.01, `${seed}: a share of ${shares[0]}`);
  }
});

test("points that are all one, on a line, or of one dimension have a plane", () => {
  const one = project(new Float32Array(30).fill(3), 3, new Float64Array(10).fill(1), Float64Array.of(3, 3, 3));
  assert.deepEqual([...one.x, ...one.y, ...one.shares], new Array(22).fill(0));
  const line = project(Float32Array.from({ length: 20 }, (_, i) => Math.floor(i / 2)), 2, new Float64Array(10).fill(1), Float64Array.of(0, 0));
  assert.ok(line.shares[0] > 0.999999 && line.shares[1] < 1e-6);
  const single = project(Float32Array.of(1, 2, 4), 1, new Float64Array(3).fill(1), Float64Array.of(0));
  assert.deepEqual([...single.x], [1, 2, 4]);
  assert.deepEqual([...single.y], [0, 0, 0]);
});
