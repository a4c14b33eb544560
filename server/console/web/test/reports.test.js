// The pages that commands write with --html, opened as files: with names that are markup, without a request.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { after, before, test } from "node:test";
import { browse, faults, hostile, open, shots, World } from "./world.js";

const world = new World();
let browser;

before(async () => {
  if (shots) mkdirSync(shots, { recursive: true });
  world.run("generate", "--out", "towers", "--apps", "3000", "--users", "800", "--dim", "16");
  world.run("generate", "--out", "other", "--apps", "3000", "--users", "800", "--dim", "16", "--seed", "9", "--interactions-per-user", "0");
  const ids = Array.from({ length: 3000 }, (_, i) => `app-${String(i).padStart(7, "0")}`);
  writeFileSync(join(world.dir, "names.jsonl"), ids.map((id, i) => JSON.stringify({ app_id: id, name: `${hostile} ${i}` })).join("\n"));
  writeFileSync(join(world.dir, "segments.yaml"), "free_to_play: free\nios_teen: '\"ios\" in platforms && min_age < 18'\n");
  const build = (users, version, ...more) => {
    const args = ["build", "--apps", "towers/apps.parquet", "--users", users, "--app-rename-column", "name=plain", "--app-attributes", "names.jsonl", "--segments", "segments.yaml",
      "--model", hostile, "--model-version", version, "--metric", "dot", "--shards", "2", "--store", "store", ...more];
    try {
      return world.run(...args).trim().split("\n").at(-1);
    } catch (e) {
      if (e.status !== 3) throw e; // refused by its gates
      return e.stdout.trim().split("\n").at(-1);
    }
  };
  const first = build("towers/users.parquet", "monday", "--interactions", "towers/interactions.parquet", "--html", "build.html");
  world.run("release", "start", "--store", "store", first);
  const bad = build("other/users.parquet", "</script>tuesday", "--html", "refused.html");
  try {
    world.run("gate", "--store", "store", bad, "--html", "gate.html");
    throw new Error("the gates let it pass");
  } catch (e) {
    if (e.status !== 3) throw e;
  }
  world.run("snapshot", "diff", "--store", "store", bad, first, "--html", "diff.html");
  world.run("bench", "--store", "store", first, "--queries", "100", "--rounds", "1", "--html", "bench.html", "--walk");
  const server = await world.serve("--record-share", "1");
  for (let i = 1; i <= 40; i++) {
    const response = await fetch(`http://${server.listen}/tandem.v1.RetrievalService/Retrieve`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ userId: `user-${String(i).padStart(7, "0")}`, k: 20, segment: i % 2 ? "ios_teen" : "" }),
    });
    assert.equal(response.status, 200, await response.text());
  }
  const gone = new Promise((f) => server.child.once("exit", f));
  server.child.kill("SIGINT");
  await gone;
  world.run("replay", "--store", "store", "--against", bad, "--baseline", first, "--html", "replay.html");
  const today = new Date().toISOString().slice(0, 10);
  world.run("feedback", "join", "--store", "store", "--day", today);
  world.run("feedback", "report", "--store", "store", "--day", today, "--k", "1,10", "--html", "feedback.html");
  browser = await browse();
}, { timeout: 900_000 });
after(async () => {
  await browser?.close();
  await world.end();
});

for (const [name, signs] of Object.entries({
  build: [`Build of ${hostile} at monday`, "Recall@10 by segment", "Alignment: hit rate@10", "control: those of other users", "Recall against work"],
  refused: ["</script>tuesday", "the towers do not belong together"],
  gate: ["Gates of snapshot", "the towers do not belong together", "Norms"],
  diff: ["beside monday", "Norms of apps", "Scores at rank 1", `${hostile} `],
  bench: ["Recall against latency", "k = 10", "recall targets", "exact scan"],
  feedback: ["Feedback of", "Hit rate@10", "segment ios_teen", "Hits by rank", "There are no estimates", "Never shown"],
  replay: ["Recorded queries", "From the recorded answers", "segment ios_teen", "From the baseline's answers"],
})) {
  test(`the page of ${name}`, { timeout: 300_000 }, async () => {
    const file = join(world.dir, `${name}.html`);
    assert.ok(readFileSync(file).length < 2 << 20);
    for (const [width, height] of [[1440, 900], [390, 844]]) {
      for (const colorScheme of ["light", "dark"]) {
        const { context, page, wrong } = await open(browser, pathToFileURL(file).href, { viewport: { width, height }, colorScheme });
        const asked = [];
        page.on("request", (r) => asked.push(r.url()));
        await page.locator("main.stack h1").first().waitFor();
        const text = (await page.locator("main").textContent()) ?? "";
        for (const sign of signs) assert.ok(text.includes(sign), `${sign} is in it`);
        assert.equal(await page.locator("img").count(), 0);
        assert.notEqual(await page.title(), "1", "what is markup in a name is not run");
        const [wide, there] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(wide <= there, `${wide} wide, of ${there}`);
        if (shots) await page.screenshot({ path: join(shots, `report-${name}-${width}-${colorScheme}.png`), fullPage: true });
        assert.deepEqual(await faults(context, page), [], `${width}, ${colorScheme}`);
        assert.deepEqual(wrong, []);
        assert.deepEqual(asked, []);
        await context.close();
      }
    }
  });
}
