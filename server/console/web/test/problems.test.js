// A server with three things wrong with it, found by the console alone, each with what to do next: a
// snapshot that its gates refuse, an arm whose recall is low, and a node that is behind.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, openSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { browse, faults, open, shots, World } from "./world.js";

const world = new World();
const patience = 600_000;
let browser, url, refused, cut;

/** A port that nobody has at the moment. */
const freePort = () =>
  new Promise((f) => {
    const s = createServer().listen(0, "127.0.0.1", () => {
      const { port } = s.address();
      s.close(() => f(port));
    });
  });

before(async () => {
  if (shots) mkdirSync(shots, { recursive: true });
  world.run("generate", "--out", "towers", "--apps", "6000", "--users", "2000", "--dim", "16", "--interactions-per-user", "0");
  world.run("generate", "--out", "other", "--apps", "6000", "--users", "2000", "--dim", "16", "--seed", "9", "--interactions-per-user", "0");
  const build = (users, version) => ["build", "--apps", "towers/apps.parquet", "--users", users, "--model", "feed", "--model-version", version, "--metric", "dot", "--shards", "2", "--store", "store"];
  const good = world.run(...build("towers/users.parquet", "monday")).trim().split("\n").at(-1);
  world.run("release", "start", "--store", "store", good, "--reason", "the first");
  try {
    world.run(...build("other/users.parquet", "tuesday"));
    throw new Error("the gates let it pass");
  } catch (e) {
    if (!e.stdout) throw e;
    refused = e.stdout.trim().split("\n").at(-1);
  }
  // An arm whose graph lacks links, with checksums that are right.
  cut = execFileSync(process.env.CONSOLE_CUT, ["-test.run", "^TestCutOf$", "-cut-store", join(world.dir, "store"), "-cut-snapshot", good], { encoding: "utf8" }).match(/cut=([0-9a-f]{64})/)[1];
  world.run("release", "start", "--store", "store", cut, "--weight", "500", "--override", "it lacks links", "--reason", "half of the users");

  // A cluster of three nodes, of which one looks at the store by a name that is taken away.
  symlinkSync("store", join(world.dir, "seen"));
  const ports = await Promise.all([freePort(), freePort(), freePort()]);
  const nodes = ports.map((p) => `127.0.0.1:${p}`).join(",");
  const begin = (name, ...flags) => {
    const log = join(world.dir, `${name}.log`);
    const child = spawn(process.env.TANDEM, ["serve", "--nodes", nodes, "--replicas", "3", "--drain-delay", "0s", ...flags], { cwd: world.dir, stdio: ["ignore", "ignore", openSync(log, "w")] });
    world.servers.push(child);
    return log;
  };
  ports.forEach((p, i) => begin(`node${i}`, "--role", "shard", "--audit-cpu", "1", "--live-fence", "10m", "--store", i === 2 ? "seen" : "store", "--cache", `cache${i}`, "--listen", `127.0.0.1:${p}`));
  const log = begin("router", "--role", "router", "--store", "store", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--live-writes", "--live-fence", "10m", "--audit-cpu", "1");
  let listen;
  for (let i = 0; ; i++) {
    const text = readFileSync(log, "utf8");
    url = /msg=console url=(\S+)/.exec(text)?.[1];
    listen = /msg=listening address=(\S+)/.exec(text)?.[1];
    if (url && listen && (await fetch(`http://${listen}/readyz`).catch(() => ({}))).status === 200) break;
    if (i > 3000) throw new Error(text);
    await new Promise((f) => setTimeout(f, 100));
  }
  renameSync(join(world.dir, "seen"), join(world.dir, "gone"));
  world.run("live", "takedown", "--store", "store", "app-0000007", "--reason", "malware");
  writeFileSync(join(world.dir, "asked"), "");
  // Queries until audits are sure of the arm.
  world.asking = true;
  world.asked = (async () => {
    for (let i = 0; world.asking; i++) {
      await fetch(`http://${listen}/tandem.v1.RetrievalService/Retrieve`, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ userId: `user-${String(1 + (i % 2000)).padStart(7, "0")}`, k: 10 }),
      }).then((r) => r.arrayBuffer()).catch(() => undefined);
      await new Promise((f) => setTimeout(f, 5));
    }
  })();
  browser = await browse();
}, { timeout: patience });
after(async () => {
  world.asking = false;
  await world.asked;
  await browser?.close();
  await world.end();
});

test("three problems are found by the console alone, each with its next step", { timeout: patience }, async () => {
  const { context, page, wrong } = await open(browser, url);
  page.setDefaultTimeout(patience);
  // The page Now has what is wrong while it serves: it is looked at until both are known.
  const verdict = page.locator(".verdict");
  // Of recall there is one for the arm, and perhaps one for each of its plans.
  const article = (alert) => verdict.locator("article").filter({ has: page.getByRole("heading", { name: alert }) }).first();
  for (const [alert, why, next] of [
    ["TandemNodesBehind", /127\.0\.0\.1:\d+ by /, /look whether the store answers those nodes/],
    ["TandemRecallLow", /candidate/, /roll/],
  ]) {
    await article(alert).waitFor();
    const text = (await article(alert).textContent()) ?? "";
    assert.match(text, why);
    assert.match(text, next);
    assert.match(text, /docs\/runbook\.md/);
  }
  if (shots) await page.screenshot({ path: join(shots, "problems-now.png"), fullPage: true });
  assert.deepEqual(await faults(context, page), []);

  // Which node it is, and what to do with it.
  await page.getByRole("link", { name: "Nodes", exact: true }).click();
  await page.getByRole("heading", { name: "3 nodes" }).waitFor();
  const first = page.locator("table.nodes tbody tr");
  await page.locator(".why-differs").getByText(/behind in the live log/).waitFor();
  assert.match((await first.nth(0).textContent()) ?? "", /127\.0\.0\.1:\d+/);
  assert.match((await first.nth(1).textContent()) ?? "", /Next: look whether the store answers this node/);
  assert.equal(await page.locator("tr.differs").count(), 1);
  if (shots) await page.screenshot({ path: join(shots, "problems-nodes.png"), fullPage: true });
  assert.deepEqual(await faults(context, page), []);

  // The snapshot that is refused, and by what.
  await page.getByRole("link", { name: "Snapshots", exact: true }).click();
  await page.locator("tbody tr").filter({ hasText: "failed:" }).getByRole("link").click();
  await page.locator(".gates > li").filter({ hasText: "axes" }).getByText("the towers do not belong together").last().waitFor();
  assert.match(page.url(), new RegExp(refused));
  assert.deepEqual(wrong, []);
  await context.close();
});
