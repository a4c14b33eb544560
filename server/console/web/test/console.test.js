// The console in a real browser, against real servers.
//
//   TANDEM=... node --test server/console/web/test/
//
// Screenshots go to the folder that CONSOLE_SCREENSHOTS names, if it does.
import assert from "node:assert/strict";
import { mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { quick } from "./quick.js";
import { browse, explore, faults, hostile, open, renamed, shots, World } from "./world.js";

const world = new World();
let browser, server, asking, writing;

before(async () => {
  if (shots) mkdirSync(shots, { recursive: true });
  world.make();
  [browser, server, asking, writing] = await Promise.all([browse(), world.serve(), world.serve("--tokens", "tokens.yaml"), world.serve("--live-writes", "--release-writes")]);
  for (const userId of ["user-0000001", "user-0000042", "user-0000100"]) {
    await fetch(`http://${server.listen}/tandem.v1.RetrievalService/Retrieve`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ userId, k: 20 }) });
  }
});
after(async () => {
  await browser?.close();
  await world.end();
});

test("every page, at each width, light and dark", { timeout: 900_000 }, async () => {
  const pages = {
    now: ["#/now", "text=What it holds"],
    begin: ["#/explore", "text=Whom do you ask for?"],
    explore: [explore({ user: "user-0000042", why: renamed, filter: "price_usd < user.budget", "user.budget": "5" }), ".why .answer"],
    map: [explore({ user: "user-0000042", map: "1" }), ".map .legend"],
    nodes: ["#/nodes", "text=This server holds all shards itself"],
    snapshots: ["#/snapshots", "text=3 snapshots"],
    refused: [`#/snapshots?of=${world.digests[2]}`, "text=Recall that the build measured"],
    diff: [`#/snapshots?of=${world.digests[1]}&beside=${world.digests[0]}`, "text=Candidates, before and after"],
    releases: ["#/releases", "text=the second"],
    beside: [explore({ user: "user-0000042", arm: "control", beside: "candidate" }), "text=are in both"],
  };
  for (const [width, height] of [[1440, 900], [390, 844]]) {
    for (const colorScheme of ["light", "dark"]) {
      for (const [name, [hash, sign]] of Object.entries(pages)) {
        const { context, page, wrong } = await open(browser, server.url + hash, { viewport: { width, height }, colorScheme });
        await page.locator(sign).first().waitFor();
        if (name === "now") await page.locator(".verdict h2").waitFor();
        if (shots) await page.screenshot({ path: join(shots, `${name}-${width}-${colorScheme}.png`), fullPage: true });
        const [wide, there] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(wide <= there, `${name} is ${wide} wide, of ${there}`);
        assert.deepEqual(await faults(context, page), [], `${name} at ${width}, ${colorScheme}`);
        assert.deepEqual(wrong, [], `${name} at ${width}, ${colorScheme}`);
        await context.close();
      }
    }
  }
});

test("a session, from sign-in to a token that is taken back", { timeout: 300_000 }, async () => {
  const { context, page, wrong } = await open(browser, asking.url);
  await page.getByLabel("Token").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "sign-in.png") });
  assert.deepEqual(await faults(context, page), []);
  assert.deepEqual(wrong, []);
  await page.getByLabel("Token").fill("tandem_wrong");
  await page.keyboard.press("Enter");
  await page.getByText("the token is not known").waitFor();
  await page.getByLabel("Token").fill(world.tokens.oncall);
  await page.keyboard.press("Enter");
  await page.getByText("Generation 2").waitFor();
  await page.getByText("oncall").waitFor();
  assert.equal(await page.evaluate(() => document.cookie), "", "no script sees the session");
  assert.equal(await page.evaluate(() => JSON.stringify([...Object.entries(localStorage), ...Object.entries(sessionStorage)])), "[]");
  // The documentation is read by the same session, by a link that leads there from elsewhere too.
  const before = wrong.length; // of the token that was refused
  await page.getByRole("link", { name: "Documentation" }).click();
  await page.getByRole("heading", { level: 1 }).waitFor();
  await page.goto(new URL("/docs/gates", asking.url).href);
  await page.getByRole("heading", { name: /What must/ }).waitFor();
  assert.deepEqual(wrong.slice(before), []);
  await page.goto(asking.url);
  await page.getByLabel("Sign out").click();
  assert.equal((await page.request.get(new URL("/docs/gates", asking.url).href)).status(), 401);
  await page.getByLabel("Token").fill(world.tokens.ranker);
  await page.keyboard.press("Enter");
  await page.getByText("This token may not look at this page").waitFor();
  await page.getByRole("link", { name: "Explore" }).click();
  await page.getByRole("combobox", { name: "User" }).last().fill("user-0000042");
  await page.keyboard.press("Enter");
  await page.getByText("20 candidates").waitFor();
  world.run("token", "new", "other", "--scope", "query", "--file", "fresh.yaml");
  renameSync(join(world.dir, "fresh.yaml"), join(world.dir, "tokens.yaml"));
  const over = page.getByText("The session is over: the token is not known.");
  for (let i = 0; i < 60 && !(await over.isVisible()); i++) {
    // The server looks at the file every few seconds.
    await page.getByRole("button", { name: "Ask" }).click({ timeout: 1000 }).catch(() => {});
    await over.waitFor({ timeout: 500 }).catch(() => {});
  }
  await over.waitFor();
  await context.close();
});

test("why a given app is not shown to a given user", { timeout: 300_000 }, async () => {
  const { context, page, wrong } = await open(browser, `${server.url}#/explore`);
  await page.getByRole("combobox", { name: "User" }).last().fill("user-0000042");
  await page.keyboard.press("Enter");
  await page.getByText("20 candidates").waitFor();
  const name = (await page.locator(".candidates tbody th a").nth(2).textContent()) ?? "";
  const id = (await page.locator(".candidates tbody th code").nth(2).textContent()) ?? "";
  await page.locator("#filter").fill("min_age > 100");
  await page.getByText("No candidate").waitFor();
  // By the beginning of its name.
  await page.getByRole("combobox", { name: "App" }).fill(name.slice(0, -1));
  await page.getByRole("option").filter({ hasText: id }).click();
  await page.getByRole("heading", { name: "It is not eligible" }).waitFor();
  const why = await page.locator(".why .answer").textContent();
  assert.match(why ?? "", /min_age > 100/);
  assert.ok(why?.includes(name));
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a filter is completed, and its errors are under the character", { timeout: 300_000 }, async () => {
  const { context, page } = await open(browser, server.url + explore({ user: "user-0000042" }));
  await page.getByText("20 candidates").waitFor();
  await page.locator("#filter").focus();
  await page.keyboard.type("price");
  await page.getByRole("option", { name: /price_usd/ }).waitFor();
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#filter").inputValue(), "price_usd");
  await page.keyboard.press("End");
  await page.keyboard.type(' < 1.0 && "mac" in platform');
  const pre = page.locator(".filter-error pre");
  await pre.waitFor();
  const [text, caret] = ((await pre.textContent()) ?? "").split("\n");
  assert.equal(text.slice(caret.indexOf("^")), "platform");
  await page.keyboard.type("s");
  await pre.waitFor({ state: "detached" });
  await page.locator(".summary").getByText(/eligible/).waitFor();
  await page.locator("#filter").fill("");
  await page.locator("#filter").pressSequentially('"ma');
  await page.getByRole("option", { name: 'mac" in platforms' }).click();
  assert.equal(await page.locator("#filter").inputValue(), '"mac" in platforms');
  await page.locator("#filter").fill("price_usd < user.budget");
  await page.getByLabel("user.budget").fill("3");
  await page.locator(".filter-error").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Copy as" }).click();
  const program = page.locator(".program");
  assert.match((await program.textContent()) ?? "", /curl .*"filter":"price_usd < user\.budget","bindings":\{"budget":3\}/s);
  for (const [language, sign] of [["Go", "structpb.NewNumberValue(3)"], ["TypeScript", "fromJson(RetrieveRequestSchema"], ["Python", '"bindings": {"budget": 3}']]) {
    await page.getByRole("radio", { name: language }).click();
    assert.ok((await program.textContent())?.includes(sign), language);
  }
  await page.keyboard.press("Escape");
  await context.close();
});

test("pages, what is left out, at most so many of each, cards", { timeout: 300_000 }, async () => {
  const { context, page, wrong } = await open(browser, server.url + explore({ user: "user-0000042", arm: "control" }));
  const ids = () => page.locator(".candidates tbody th code").allTextContents();
  await page.getByText("20 candidates").waitFor();
  const first = await ids();
  await page.getByRole("button", { name: "Next page" }).click();
  await page.getByText("page 2").waitFor();
  await page.waitForFunction((id) => document.querySelector(".candidates tbody th code")?.textContent !== id, first[0]);
  const second = await ids();
  assert.equal(new Set([...first, ...second]).size, 40);
  await page.getByRole("button", { name: "Page before" }).click();
  await page.waitForFunction((id) => document.querySelector(".candidates tbody th code")?.textContent === id, first[0]);
  await page.locator(".candidates tbody tr").first().getByRole("button").click();
  await page.waitForFunction((id) => document.querySelector(".candidates tbody th code")?.textContent === id, first[1]);
  await page.getByRole("button", { name: `Do not leave out ${first[0]}` }).waitFor();
  await page.getByRole("button", { name: /At most so many/ }).click();
  await page.getByLabel("Attribute").selectOption("min_age");
  await page.waitForFunction(() => document.querySelector(".summary .short")?.textContent?.includes("at_most"));
  await page.getByRole("radio", { name: "Cards" }).click();
  await page.locator(".cards li").first().waitFor();
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a gate report of a refused snapshot, read to its cause", { timeout: 300_000 }, async () => {
  const { context, page, wrong } = await open(browser, `${server.url}#/snapshots`);
  await page.locator("tbody tr").filter({ hasText: "failed:" }).getByRole("link").click();
  const gate = page.locator(".gates > li").filter({ hasText: "axes" });
  assert.match((await gate.locator("summary").textContent()) ?? "", /axes\s*failed/);
  await gate.getByText("the towers do not belong together").last().waitFor();
  assert.ok((await gate.locator(".limit svg circle.bad").count()) > 0, "a check is beyond its limit");
  await page.getByRole("link", { name: "Beside the one before" }).click();
  await page.getByRole("heading", { name: "wednesday beside" }).waitFor();
  await page.locator("tbody .tag").filter({ hasText: "new" }).first().waitFor();
  assert.deepEqual(wrong, []);
  await context.close();
});

test("two arms side by side", { timeout: 300_000 }, async () => {
  const { context, page, wrong } = await open(browser, server.url + explore({ user: "user-0000042" }));
  await page.getByText("20 candidates").waitFor();
  await page.getByLabel("Beside").selectOption("candidate");
  await page.getByRole("heading", { name: /are in both/ }).waitFor();
  const heads = await page.locator(".beside thead th").allTextContents();
  assert.deepEqual(heads.map((h) => h.trim()), ["#", "control monday", "candidate tuesday"]);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("the map: by keyboard from point to point, centred on one, and the same as a table", { timeout: 300_000 }, async () => {
  const { context, page, wrong } = await open(browser, server.url + explore({ user: "user-0000042" }));
  await page.getByRole("button", { name: "Show the map" }).click();
  const points = page.locator(".map svg [role=button]");
  await points.first().waitFor();
  assert.equal(await points.count(), 21);
  assert.match((await page.locator(".map .legend").textContent()) ?? "", /\d{3} others of the catalogue.*Centred on the middle/);
  const dots = ((await page.locator(".map path.catalogue").getAttribute("d")) ?? "").split("M").length - 1;
  assert.ok(dots > 200, `${dots} of the catalogue`);
  await points.first().focus();
  const seen = page.locator(".map .seen");
  assert.match((await seen.textContent()) ?? "", /the query, user user-0000042/);
  const reached = new Set();
  for (const key of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End", "Home"]) {
    await page.keyboard.press(key);
    reached.add(await seen.textContent());
  }
  assert.ok(reached.size > 2, [...reached].join("; "));
  await page.keyboard.press("End");
  await page.keyboard.press("Enter");
  await page.locator(".map .chosen").waitFor();
  assert.match((await seen.textContent()) ?? "", /^20: .*, 0\.00 from the centre/);
  // The point that the map is centred on is in its middle.
  assert.equal(await page.locator(".map .chosen").getAttribute("transform"), "translate(390 220)");
  await page.getByText("The same as a table").click();
  assert.equal(await page.getByRole("region", { name: "Points of the map" }).locator("tbody tr").count(), 21);
  await page.keyboard.press("Tab");
  await page.getByRole("button", { name: "Centre on the middle" }).click();
  assert.equal(await page.locator(".map .chosen").count(), 0);
  const took = await page.evaluate(() => performance.getEntriesByName("map").map((e) => e.duration));
  console.log(`the plane of some 900 points: ${took.map((x) => x.toFixed(0)).join(", ")} ms`);
  assert.match(page.url(), /map=1/);
  assert.deepEqual(await faults(context, page), []);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a name that is markup is text", { timeout: 300_000 }, async () => {
  const { context, page, wrong } = await open(browser, server.url + explore({ app: renamed }));
  await page.locator(".summary").waitFor();
  await page.goto(server.url + explore({ user: "user-0000042", k: "5", filter: `name == ${JSON.stringify(hostile)}`, why: renamed }));
  await page.locator(".candidates, .cards").getByText(hostile).waitFor();
  await page.locator(".why .answer").getByText(hostile).waitFor();
  await page.getByRole("radio", { name: "Cards" }).click();
  await page.locator(".cards").getByText(hostile).waitFor();
  await page.getByRole("combobox", { name: "App" }).fill("<img");
  await page.getByRole("option").getByText(hostile).waitFor();
  if (shots) await page.screenshot({ path: join(shots, "markup.png"), fullPage: true });
  assert.equal(await page.locator("img").count(), 0);
  assert.match(await page.title(), /Explore/);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a server that is gone, and comes back to whom it had", { timeout: 300_000 }, async () => {
  const lost = await world.serve("--snapshot", world.digests[0]);
  const { context, page } = await open(browser, lost.url);
  await page.getByRole("heading", { name: "1 thing not good" }).waitFor();
  await page.getByText("TandemNoRelease", { exact: true }).waitFor();
  if (shots) await page.screenshot({ path: join(shots, "not-good.png"), fullPage: true });
  assert.deepEqual(await faults(context, page), []);
  const gone = new Promise((f) => lost.child.once("exit", f));
  lost.child.kill();
  await gone;
  await page.getByText(/The server does not answer/).first().waitFor();
  if (shots) await page.screenshot({ path: join(shots, "away.png"), fullPage: true });
  await context.close();
});

test("it is quick: first paint, and no task is long while one types and goes from page to page", { timeout: 900_000 }, async () => {
  await quick(browser, server.url, "user-0000042", "2,000 apps");
});

/** The dialog of a change, filled in and looked at. */
async function decide(context, page, shot, reason) {
  const dialog = page.locator("dialog[open]");
  await dialog.locator("td .tag").first().waitFor();
  await dialog.getByLabel("Reason").fill(reason);
  if (shots) await page.screenshot({ path: join(shots, `${shot}.png`) });
  assert.deepEqual(await faults(context, page), [], shot);
  return dialog;
}

test("a bad model is rolled back, after a look at what that changes", { timeout: 300_000 }, async () => {
  const { context, page, wrong } = await open(browser, `${writing.url}#/releases`);
  await page.getByRole("heading", { name: "Generation 2" }).waitFor();
  await page.getByRole("button", { name: "Promote candidate" }).click();
  let dialog = await decide(context, page, "promote", "it looks good");
  assert.match((await dialog.locator("tbody tr").filter({ hasText: "tuesday" }).textContent()) ?? "", /candidate 10%control 100%/);
  assert.match((await dialog.locator("tbody tr").filter({ hasText: "monday" }).textContent()) ?? "", /control 90%nothing/);
  await dialog.getByRole("button", { name: "Promote", exact: true }).click();
  await page.getByText("done, as generation 3").waitFor();
  await page.getByRole("heading", { name: "Generation 3" }).waitFor();

  await page.getByRole("button", { name: "Roll back", exact: true }).click();
  await page.getByRole("heading", { name: "Roll back to generation 1" }).waitFor();
  dialog = await decide(context, page, "rollback", "tuesday is bad");
  assert.match((await dialog.locator("tbody tr").filter({ hasText: "tuesday" }).textContent()) ?? "", /control 100%nothing/);
  assert.match((await dialog.locator("tbody tr").filter({ hasText: "monday" }).textContent()) ?? "", /nothingcontrol 100%/);
  await dialog.getByText("Made to generation 3").waitFor();
  await dialog.getByRole("button", { name: "Roll back", exact: true }).click();
  await page.getByText("done, as generation 4").waitFor();
  await page.getByRole("heading", { name: "Generation 4" }).waitFor();
  const newest = page.locator(".history tbody tr").first();
  await newest.getByText("tuesday is bad").waitFor();
  assert.match((await newest.textContent()) ?? "", /rolled back to 1/);
  assert.ok(world.run("release", "history", "--store", "store").includes("tuesday is bad"), "the command line tells the same");
  assert.equal(await page.getByRole("button", { name: "Roll back", exact: true }).count(), 0, "what a rollback took off is offered in the history alone");
  assert.deepEqual(wrong, []);
  await context.close();
});

test("of two changes one is made, and the other is told", { timeout: 300_000 }, async () => {
  const { context, page } = await open(browser, `${writing.url}#/releases`);
  await page.getByRole("heading", { name: "Generation 4" }).waitFor();
  await page.getByRole("button", { name: "Roll back to generation 2" }).click();
  const dialog = page.locator("dialog[open]");
  await dialog.getByLabel("Reason").fill("both again");
  world.run("release", "rollback", "--store", "store", "--to", "2", "--reason", "somebody else was first");
  await dialog.getByRole("button", { name: "Roll back", exact: true }).click({ timeout: 2000 }).catch(() => {}); // the page may know already
  await dialog.getByText("Another change was first").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "conflict.png") });
  await dialog.getByRole("button", { name: "Leave it" }).click();
  await page.getByRole("heading", { name: "Generation 5" }).waitFor();
  await page.getByRole("button", { name: "Divide anew" }).click();
  await dialog.getByLabel("candidate, %").fill("0");
  await dialog.getByLabel("Reason").fill("nobody for now");
  await dialog.getByRole("button", { name: "Divide", exact: true }).click();
  await page.getByText("done, as generation 6").waitFor();
  await page.getByRole("button", { name: "Stop candidate" }).click();
  await dialog.getByLabel("Reason").fill("it ends");
  await dialog.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByText("done, as generation 7").waitFor();
  await page.goto(`${writing.url}#/releases?start=${world.digests[2]}`);
  await page.getByRole("button", { name: "Start it" }).click();
  await dialog.locator("td .tag").getByText("failed:").waitFor();
  await dialog.getByLabel("Reason").fill("it is tried");
  await dialog.getByRole("button", { name: "Start it" }).click();
  await dialog.getByText("That is refused").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "refused-by-gates.png") });
  assert.deepEqual(await faults(context, page), []);
  await context.close();
});

test("an app is taken down, is gone in Explore, and comes back", { timeout: 300_000 }, async () => {
  const { context, page, wrong } = await open(browser, writing.url + explore({ user: "user-0000042" }));
  const top = page.locator(".candidates tbody th code").first();
  await top.waitFor();
  const id = (await top.textContent()) ?? "";
  await page.goto(`${writing.url}#/releases`);
  await page.getByRole("combobox", { name: "App to look at" }).fill(id);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "It can be returned" }).waitFor();
  await page.getByRole("button", { name: "Take it down" }).click();
  const dialog = page.locator("dialog[open]");
  assert.ok(await dialog.getByRole("button", { name: "Take it down" }).isDisabled(), "a reason is asked for");
  await dialog.getByLabel("Reason").fill("malware");
  if (shots) await page.screenshot({ path: join(shots, "takedown.png") });
  assert.deepEqual(await faults(context, page), []);
  await dialog.getByRole("button", { name: "Take it down" }).click();
  await page.getByRole("heading", { name: "It is taken down" }).waitFor();
  await page.locator(".proof").getByText(/malware/).waitFor();
  if (shots) await page.screenshot({ path: join(shots, "taken-down.png"), fullPage: true });
  assert.deepEqual(await faults(context, page), []);
  await page.goto(writing.url + explore({ user: "user-0000042", why: id }));
  await page.getByRole("heading", { name: "It was taken down" }).waitFor();
  assert.ok(!(await page.locator(".candidates tbody th code").allTextContents()).includes(id));
  await page.goto(`${writing.url}#/releases`);
  await page.getByRole("combobox", { name: "App to look at" }).fill(id);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Restore it" }).click();
  await dialog.getByLabel("Reason").fill("a mistake");
  await dialog.getByRole("button", { name: "Restore it" }).click();
  await page.getByRole("heading", { name: "It can be returned" }).waitFor();
  await page.goto(writing.url + explore({ user: "user-0000042" }));
  await page.locator(".candidates tbody th code").getByText(id, { exact: true }).waitFor();
  assert.deepEqual(wrong, []);
  await context.close();
});

test("variants of experiments stand below their arms, and a change says which it ends", { timeout: 300_000 }, async () => {
  world.run("release", "start", "--store", "store", world.digests[1], "--weight", "100", "--override", "a test of the console", "--reason", "once more");
  world.run("release", "split", "--store", "store", "--variant", "ranker-7:<b>treatment</b>=candidate", "--override", "a test of the console", "--reason", "an experiment");
  const { context, page, wrong } = await open(browser, `${writing.url}#/releases`);
  const row = page.getByRole("region", { name: "Variants of experiments" }).locator("tbody tr");
  await row.first().waitFor();
  assert.match((await row.textContent()) ?? "", /ranker-7<b>treatment<\/b>candidate/);
  await page.locator(".history tbody tr").first().getByText("1 variant of experiments").waitFor();
  await page.getByRole("button", { name: "Stop candidate" }).click();
  const dialog = page.locator("dialog[open]");
  await dialog.getByText("Not answered so any more: ranker-7, <b>treatment</b>: candidate.").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "variants.png"), fullPage: true });
  assert.deepEqual(await faults(context, page), []);
  await dialog.getByLabel("Reason").fill("the experiment is over");
  await dialog.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByText(/done, as generation/).waitFor();
  await row.first().waitFor({ state: "detached" });
  await page.getByRole("button", { name: /Roll back to generation/ }).first().click();
  await dialog.getByText("are answered from then on: ranker-7, <b>treatment</b>: candidate.").waitFor();
  assert.deepEqual(wrong, []);
  await context.close();
});

test("who may not change what is released is not asked to, and is refused", { timeout: 300_000 }, async () => {
  const guarded = await world.serve("--tokens", "callers.yaml");
  const { context, page } = await open(browser, guarded.url);
  await page.getByLabel("Token").fill(world.tokens.oncall);
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "Releases" }).click();
  await page.getByText("A token with the scope publish changes what is released.").waitFor();
  await page.getByText("A token with the scope live takes apps down and restores them.").waitFor();
  assert.equal(await page.getByRole("button", { name: /Roll back|Promote|Stop|Take it down/ }).count(), 0);
  await page.getByLabel("Sign out").click();
  await page.getByLabel("Token").fill(world.tokens.scraper);
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "Releases" }).click();
  await page.getByText("This server takes no writes").waitFor();
  assert.equal(await page.getByText("History").count(), 0);
  await context.close();
});
