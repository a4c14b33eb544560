// A server with as many apps as a catalogue of games has: those of the set steam, if TARGET_DATA names a folder
// that has it, and else as many that are made.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { quick } from "./quick.js";
import { browse, World } from "./world.js";

const apps = 44_428;
const world = new World();
const steam = join(process.env.TARGET_DATA ?? "", "steam");
const isSteam = existsSync(join(steam, "apps.parquet"));
let browser, server, user;

before(async () => {
  let towers = steam;
  user = "user-0000042";
  if (!isSteam) {
    world.run("generate", "--out", "towers", "--apps", String(apps), "--users", "2000", "--dim", "64", "--interactions-per-user", "0");
    towers = "towers";
  }
  const out = world.run("build", "--apps", join(towers, "apps.parquet"), "--users", join(towers, "users.parquet"), "--model", "feed", "--model-version", "monday", "--metric", "dot", "--shards", "2", "--store", "store");
  world.run("release", "start", "--store", "store", out.trim().split("\n").at(-1));
  [browser, server] = await Promise.all([browse(), world.serve()]);
  if (isSteam) user = readFileSync(join(steam, "heldout.csv"), "utf8").split("\n")[1].split(",")[0];
}, { timeout: 1_800_000 });
after(async () => {
  await browser?.close();
  await world.end();
});

test("a large catalogue keeps nobody waiting", { timeout: 1_800_000 }, async () => {
  await quick(browser, server.url, user, `${apps.toLocaleString("en-US")} apps${isSteam ? " of steam" : ", made"}`);
});
