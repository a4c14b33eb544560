// The page Nodes: of a server with a thousand nodes, whose answers are made by TestManyNodes of
// server/console, which CONSOLE_MANY is built of.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { told } from "./quick.js";
import { browse, faults, hostile, open, shots, traced } from "./world.js";

let browser, many, url;

before(async () => {
  if (shots) mkdirSync(shots, { recursive: true });
  browser = await browse();
  many = spawn(process.env.CONSOLE_MANY, ["-test.run", "^TestManyNodes$", "-listen", "127.0.0.1:0"], { stdio: ["pipe", "pipe", "inherit"] });
  url = await new Promise((found, failed) => {
    let text = "";
    many.stdout.on("data", (d) => {
      text += d;
      const of = /msg=console url=(\S+)/.exec(text)?.[1];
      if (of) found(of);
    });
    many.once("exit", () => failed(new Error(text)));
  });
});
after(async () => {
  await browser?.close();
  const gone = new Promise((f) => many.once("exit", f));
  many.stdin.end();
  await gone;
});

test("of a thousand nodes those that differ come first, each with what to do", { timeout: 300_000 }, async () => {
  for (const [width, height] of [[1440, 900], [390, 844]]) {
    for (const colorScheme of ["light", "dark"]) {
      const { context, page, wrong } = await open(browser, `${url}#/nodes`, { viewport: { width, height }, colorScheme });
      await page.getByRole("heading", { name: "1,000 nodes" }).waitFor();
      const rows = page.locator("table.nodes tbody tr");
      const text = async (i) => (await rows.nth(i).textContent()) ?? "";
      assert.match(await text(0), /tandem-node-321/);
      assert.match(await text(1), /17 s behind in the live log.*Next: look whether the store answers this node/);
      assert.match(await text(2), /tandem-node-654/);
      assert.match(await text(3), /4 dead.*most others .* 0 dead|dead.*most others/);
      assert.match(await text(4), /tandem-node-987/);
      assert.ok((await text(5)).includes(hostile), "what a node says is text");
      assert.match(await text(5), /Next: look whether the node runs/);
      assert.match(await text(6), /tandem-node-0/);
      await page.getByText("3 nodes to look at").waitFor();
      if (shots) await page.screenshot({ path: join(shots, `nodes-${width}-${colorScheme}.png`) });
      await page.getByLabel("Only with").fill("node-42 ready");
      await page.waitForFunction(() => document.querySelectorAll("table.nodes tbody th").length === 11);
      await page.getByRole("button", { name: "Shards of tandem-node-42", exact: true }).click();
      await page.locator(".held").getByText(/apps 42: 80,042 rows at 90210/).waitFor();
      assert.deepEqual(await faults(context, page), []);
      await page.getByRole("radio", { name: "Shards" }).click();
      await page.getByLabel("Only with").fill("differ");
      await page.getByText("differ at position 90210").waitFor();
      const wide = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(wide[0] <= wide[1], `${wide[0]} wide, of ${wide[1]}`);
      assert.equal(await page.locator("img").count(), 0);
      assert.deepEqual(await faults(context, page), []);
      assert.deepEqual(wrong, []);
      await context.close();
    }
  }
});

test("a thousand nodes keep nobody waiting", { timeout: 900_000 }, async () => {
  const { context, page } = await open(browser, "about:blank");
  const found = await traced(browser, page, async () => {
    await page.goto(`${url}#/nodes`);
    await page.locator("table.nodes tbody th").first().waitFor();
    for (let drawn = 0; drawn < 1000; ) {
      await page.mouse.wheel(0, 20_000);
      await page.waitForFunction((n) => document.querySelectorAll("table.nodes tbody th").length > n, drawn);
      drawn = await page.locator("table.nodes tbody th").count();
    }
    await page.getByLabel("Only with").pressSequentially("node-42 ready", { delay: 15 });
    await page.keyboard.press("Control+A");
    await page.keyboard.press("Delete");
    for (const name of ["Now", "Nodes", "Now", "Nodes"]) await page.getByRole("link", { name, exact: true }).click();
    await page.locator("table.nodes tbody th").first().waitFor();
  });
  told("with 1,000 nodes", found);
  await context.close();
});
