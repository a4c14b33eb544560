// Real servers over a small store that is made here, and a browser to look at them with.
import { spawn, execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const tandem = process.env.TANDEM ?? "tandem";
/** A folder of files to show in place of those that servers have: of a page that somebody works on. */
const dist = process.env.CONSOLE_DIST ?? "";
export const shots = process.env.CONSOLE_SCREENSHOTS ?? "";

/** A name as somebody writes it who wants it to be markup. */
export const hostile = '<img src=x onerror="document.title=1">';
export const renamed = "app-0000001";

export class World {
  dir = mkdtempSync(join(tmpdir(), "tandem-console-"));
  servers = [];

  run(...args) {
    return execFileSync(tandem, args, { cwd: this.dir, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  }

  /** A store with two model versions, both released, and an app whose name is markup. */
  make() {
    writeFileSync(join(this.dir, "segments.yaml"), "free_to_play: free\nios_teen: '\"ios\" in platforms && min_age < 18'\n");
    this.digests = ["monday", "tuesday"].map((version, i) => {
      this.run("generate", "--out", version, "--apps", "2000", "--users", String(500 + 20 * i), "--dim", "16", "--interactions-per-user", "0");
      const out = this.run("build", "--apps", `${version}/apps.parquet`, "--users", `${version}/users.parquet`, "--segments", "segments.yaml",
        "--model", "feed", "--model-version", version, "--metric", "dot", "--shards", "2", "--store", "store");
      return out.trim().split("\n").at(-1);
    });
    // One whose towers do not belong together, which the gates refuse.
    this.run("generate", "--out", "other", "--apps", "2000", "--users", "500", "--dim", "16", "--seed", "9", "--interactions-per-user", "0");
    this.run("release", "start", "--store", "store", this.digests[0], "--reason", "the first");
    this.run("release", "start", "--store", "store", this.digests[1], "--weight", "100", "--override", "a test of the console", "--reason", "the second");
    try {
      this.run("build", "--apps", "monday/apps.parquet", "--users", "other/users.parquet", "--segments", "segments.yaml", "--model", "feed", "--model-version", "wednesday",
        "--metric", "dot", "--shards", "2", "--store", "store");
      throw new Error("the gates let it pass");
    } catch (e) {
      if (!e.stdout) throw e;
      this.digests.push(e.stdout.trim().split("\n").at(-1));
    }
    this.run("live", "set", "--store", "store", "--app", renamed, "--attribute", `name=${hostile}`);
    this.tokens = {};
    for (const [name, scopes] of [["oncall", "admin,query"], ["ranker", "query"], ["scraper", "live"]]) {
      this.tokens[name] = this.run("token", "new", name, "--scope", scopes, "--file", "tokens.yaml").trim();
    }
    copyFileSync(join(this.dir, "tokens.yaml"), join(this.dir, "callers.yaml")); // of which none is taken back
  }

  /** The address of the console of a server that begins now. */
  async serve(...flags) {
    const log = join(this.dir, `serve-${this.servers.length}.log`);
    const child = spawn(tandem, ["serve", "--store", "store", "--state", `state-${this.servers.length}`, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain-delay", "0s", ...flags],
      { cwd: this.dir, stdio: ["ignore", "ignore", openSync(log, "w")] });
    this.servers.push(child);
    for (let i = 0; i < 1200; i++) {
      const text = existsSync(log) ? readFileSync(log, "utf8") : "";
      const url = /msg=console url=(\S+)/.exec(text)?.[1];
      if (url && /msg=(serving|ready)/.test(text)) return { url, child, listen: /msg=listening address=(\S+)/.exec(text)[1] };
      if (child.exitCode !== null) throw new Error(text);
      await new Promise((f) => setTimeout(f, 100));
    }
    throw new Error("the server is not ready");
  }

  async end() {
    for (const s of this.servers) {
      if (s.exitCode !== null || s.signalCode !== null) continue;
      const gone = new Promise((f) => s.once("exit", f));
      s.kill();
      await gone;
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export const browse = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });

/** A page, with what went wrong on it: errors, and requests to anybody else. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && wrong.push(`${m.type()}: ${m.text()}`));
  page.on("pageerror", (e) => wrong.push(e.stack ?? e.message));
  page.on("request", (r) => r.url() !== url && !r.url().startsWith("data:") && (url.startsWith("file:") || new URL(r.url()).origin !== new URL(url).origin) && wrong.push(`asks ${r.url()}`));
  page.setDefaultTimeout(120_000);
  if (dist) {
    await page.route(/\/console\/([\w.-]*|assets\/.*)$/, async (route) => {
      const name = new URL(route.request().url()).pathname.replace(/^\/console\//, "") || "index.html";
      if (!existsSync(join(dist, name))) return route.continue();
      const had = await route.fetch();
      const kinds = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8", svg: "image/svg+xml" };
      await route.fulfill({ status: 200, headers: { ...had.headers(), "content-type": kinds[name.split(".").at(-1)], "content-encoding": "" }, path: join(dist, name) });
    });
  }
  await page.goto(url);
  return { context, page, wrong };
}

/** What axe finds that is serious. Its script goes in past the page's policy, as a person's tool does. */
export async function faults(context, page) {
  const client = await context.newCDPSession(page);
  await client.send("Page.setBypassCSP", { enabled: true });
  await client.send("Runtime.evaluate", { expression: axe });
  const { result } = await client.send("Runtime.evaluate", {
    expression: `axe.run(document).then((r) => JSON.stringify(r.passes.length < 10 ? ["axe has looked at nothing"] : r.violations.filter((v) => ["serious", "critical"].includes(v.impact)).map((v) => v.id + ": " + v.nodes.map((n) => n.target + " " + n.failureSummary).join("; "))))`,
    awaitPromise: true,
  });
  return JSON.parse(result.value);
}

/** The address of the page Explore with what is asked on it. */
export const explore = (query) => `#/explore?${new URLSearchParams(query)}`;

/** The categories of a trace that say what threads ran, and when something was seen first. */
const categories = ["toplevel", "loading", "blink.user_timing", "devtools.timeline"];

const ms = (us) => us / 1000;

/**
 * What Chromium did while act was done, by a trace of it. All but `seen` is milliseconds of processor: on a
 * machine that does something else meanwhile everything waits longer, and takes little more of that.
 *
 * - longest: the longest task of a page's main thread, which is for how long it answers nobody. What a test asks
 *   of the page is none: so keys and clicks are measured, and not what sets a value by a script.
 * - paint: what all threads of all processes did from the beginning of a navigation to the first contentful
 *   paint, one after the other; main: what of it the page's main thread did.
 * - seen: the time that passed until that paint.
 */
export async function traced(browser, page, act) {
  await browser.startTracing(page, { categories });
  let events;
  try {
    await act();
  } finally {
    events = JSON.parse((await browser.stopTracing()).toString("utf8")).traceEvents;
  }
  const mains = new Set(events.filter((e) => e.name === "thread_name" && e.args.name === "CrRendererMain").map((e) => `${e.pid} ${e.tid}`));
  const tasks = events.filter((e) => e.ph === "X" && /RunTask$/.test(e.name) && e.tdur !== undefined);
  const own = tasks.filter((e) => mains.has(`${e.pid} ${e.tid}`));
  assert.ok(own.length > 10, `a trace with ${own.length} tasks of pages`);
  const asked = events.filter((e) => e.ph === "X" && /DevTools/.test(e.args.chrome_mojo_event_info?.mojo_interface_tag ?? ""));
  const ofTest = (e) => asked.some((a) => a.pid === e.pid && a.tid === e.tid && a.ts >= e.ts && a.ts <= e.ts + e.dur);
  const longest = own.filter((e) => e.tdur > 20_000 && !ofTest(e)).reduce((a, b) => (b.tdur > a.tdur ? b : a), { tdur: 0, args: {} });
  const out = { longest: ms(longest.tdur), what: longest.args.src_func ?? "" };
  const paint = events.findLast((e) => e.name === "firstContentfulPaint");
  const begun = paint && events.findLast((e) => e.name === "navigationStart" && e.pid === paint.pid && e.ts < paint.ts && e.args.data?.documentLoaderURL);
  if (begun) {
    const until = (list) => ms(list.filter((e) => e.ts >= begun.ts && e.ts < paint.ts).reduce((sum, e) => sum + e.tdur, 0));
    Object.assign(out, { paint: until(tasks), main: until(own), seen: ms(paint.ts - begun.ts) });
  }
  return out;
}
