// How quick the console is: what is asked of it wherever it is looked at.
import assert from "node:assert/strict";
import { explore, open, traced } from "./world.js";

/**
 * Tells what a trace found. It fails by it where CONSOLE_BOUNDS is set: other machines are slower, and what is
 * told there is for whoever looks.
 */
export function told(where, { longest, what, paint, main, seen }) {
  const first = paint === undefined ? "" : `; first contentful paint after ${paint.toFixed(0)} ms of all threads, ${main.toFixed(0)} of the page's own, seen after ${seen.toFixed(0)}`;
  console.log(`${where}: longest task ${longest.toFixed(0)} ms of processor (${what})${first}`);
  if (!process.env.CONSOLE_BOUNDS) return;
  assert.ok(longest < 200, `${longest} ms`);
}

/**
 * Opens the page Now ten times, and then has somebody ask, type a filter, scroll, and go from page to page. A
 * user is one that the server knows.
 */
export async function quick(browser, url, user, where) {
  const paints = [];
  for (let i = 0; i < 10; i++) {
    const { context, page } = await open(browser, "about:blank");
    paints.push(
      await traced(browser, page, async () => {
        await page.goto(url);
        await page.getByText("What it holds").waitFor();
      }),
    );
    await context.close();
  }
  const median = (of) => {
    const list = paints.map(of).sort((a, b) => a - b);
    return (list[4] + list[5]) / 2;
  };
  const { context, page } = await open(browser, "about:blank");
  const found = await traced(browser, page, async () => {
    await page.goto(url + explore({ user, k: "200" }));
    await page.getByText("200 candidates").waitFor();
    await page.locator("#filter").pressSequentially('price_usd < 20.0 && "mac" in platforms', { delay: 15 });
    await page.mouse.wheel(0, 4000);
    for (const name of ["Now", "Explore", "Snapshots", "Releases", "Now"]) await page.getByRole("link", { name, exact: true }).click();
    await page.getByText("What it holds").waitFor();
  });
  const main = median((p) => p.main);
  told(`with ${where}`, { ...found, main, paint: median((p) => p.paint), seen: median((p) => p.seen) });
  // What other threads do is Chromium's own, and grows with how often they are interrupted.
  if (process.env.CONSOLE_BOUNDS) assert.ok(main < 300, `${main} ms`);
  await context.close();
}
