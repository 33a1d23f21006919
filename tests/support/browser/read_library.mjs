// Uses the page of a library as a person would: node THIS PAGE CHROMIUM [FOLDER]
// prints what the page shows, and what the browser says of it, as json. It
// leaves pictures in FOLDER: wide.png and narrow.png.

import fs from "node:fs/promises";
import { createRequire } from "node:module";

import { dots, placeOf } from "./map_dots.mjs";

const [url, executablePath, folder] = process.argv.slice(2);
const require = createRequire(process.cwd() + "/");
const { chromium } = require("playwright-core");
const browser = await chromium.launch({
  executablePath,
  args: ["--autoplay-policy=no-user-gesture-required"],
});

// Returns what an expression gives in the page, where `map` is the map's place.
function inPage(page, expression) {
  const found = `const map = document.getElementById("song-map");`;
  return page.evaluate(`(() => { ${dots} ${placeOf} ${found} return ${expression}; })()`);
}

async function violations(page) {
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
  await page.evaluate(await fs.readFile(require.resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate(() => axe.run());
  return violations.map(
    (one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 150)).slice(0, 4).join(" | ")}`,
  );
}

const heard = (page) =>
  page.waitForFunction(() => {
    const audio = document.getElementById("audio");
    return audio.currentTime > 0 || audio.error;
  });

try {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, bypassCSP: false });
  const page = await context.newPage();
  const said = [];
  const asked = [];
  page.on("console", (one) => {
    if (["error", "warning"].includes(one.type())) said.push(one.text());
  });
  page.on("pageerror", (error) => said.push(String(error)));
  page.on("dialog", (one) => said.push(`dialog: ${one.message()}`) && one.dismiss());
  page.on("request", (request) => asked.push(new URL(request.url()).origin));
  await page.goto(url);
  await page.waitForSelector("html[data-ready=yes]");
  const result = {};
  const title = page.locator("#chosen h3");
  const near = page.locator("#near li");
  const shows = (name) =>
    page.waitForFunction((wanted) => document.querySelector("#chosen h3")?.textContent === wanted, name);
  result.dots = await inPage(page, "dots(map).length");
  // A click on a dot.
  await page.locator("#song-map").scrollIntoViewIfNeeded();
  const where = await inPage(page, "placeOf(map, 5)");
  await page.mouse.click(where.x, where.y);
  await title.waitFor();
  await near.first().waitFor();
  result.clicked = await title.textContent();
  result.neighbours = await near.count();
  result.cosines = await near.locator(".cosine").allTextContents();
  result.marked = await inPage(page, "[map.view.signal('chosen'), map.view.signal('near').length]");
  // A neighbour is played.
  await near.first().getByRole("button", { name: /^Play / }).click();
  await heard(page);
  result.played = await page.evaluate(() => {
    const audio = document.getElementById("audio");
    return audio.error ? audio.error.message : audio.duration;
  });
  // By the keyboard alone: words, the first song found, the first neighbour.
  await page.getByLabel("Song", { exact: true }).focus();
  const first = page.locator("#found li button.plain").first();
  const before = await first.textContent();
  await page.keyboard.type("song 7");
  await page.waitForFunction((name) => document.querySelector("#found button.plain")?.textContent !== name, before);
  const wanted = await first.textContent();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  await shows(wanted);
  await page.waitForFunction((name) => !document.querySelector("#near").textContent.includes(name), wanted);
  const next = await near.first().locator("button.plain").textContent();
  await near.first().locator("button.plain").focus();
  await page.keyboard.press("Enter");
  await shows(next);
  result.typed = wanted;
  // A path, and a playlist of it.
  await page.getByRole("button", { name: "Path from here" }).click();
  await near.last().locator("button.plain").click();
  await page.waitForFunction((name) => document.querySelector("#chosen h3").textContent !== name, next);
  await page.getByRole("button", { name: "Path to here" }).click();
  await page.locator("#way li .song").first().waitFor();
  result.path = await page.locator("#way li .song button.plain").allTextContents();
  await page.getByRole("button", { name: "Add the path to the playlist" }).click();
  result.kept = await page.locator("#mine li").count();
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  result.saved = await fs.readFile(await (await download).path(), "utf8");
  await page.getByLabel("Colour by").selectOption("artist");
  // Names are text, whatever is in them.
  await page.getByLabel("Song", { exact: true }).fill("onclick");
  await page.waitForFunction(() => document.querySelectorAll("#found li").length === 1);
  await first.click();
  await page.locator("#chosen").getByText("onclick=alert").waitFor();
  result.injected = await page.locator("main [onclick], main i, main u").count();
  // What is refused is said.
  await page.getByLabel("Most minutes").evaluate((one) => (one.closest("details").open = true));
  await page.getByLabel("Most minutes").fill("1");
  await page.waitForFunction(() => !document.getElementById("said").hidden);
  result.refused = await page.locator("#said").textContent();
  result.said = said.filter((one) => !one.includes("status of 400")); // Of it.
  await page.getByLabel("Most minutes").fill("");
  await page.waitForFunction(() => document.getElementById("said").hidden);
  // Of two answers the one to the newer question stays, whichever comes last.
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await page.route(/api\/similar.*[?&]k=3&/, async (route) => {
    await held;
    await route.continue();
  });
  const older = page.waitForRequest(/api\/similar.*[?&]k=3&/);
  const late = page.waitForResponse(/api\/similar.*[?&]k=3&/);
  await page.locator("#shape [name=k]").fill("3");
  await older;
  await page.locator("#shape [name=k]").fill("4");
  await page.waitForFunction(() => document.querySelectorAll("#near li").length === 4);
  release();
  await (await late).finished();
  await page.evaluate(() => fetch("api/health").then((one) => one.text()));
  result.newest = await near.count();
  if (folder) await page.screenshot({ path: `${folder}/wide.png`, fullPage: true });
  await page.setViewportSize({ width: 390, height: 844 });
  // Wider than its window, a page would have to be moved sideways.
  const fits = () => document.documentElement.scrollWidth <= innerWidth;
  await page.waitForFunction(fits, null, { timeout: 10_000 }).catch(() => {});
  result.overhang = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (folder) await page.screenshot({ path: `${folder}/narrow.png`, fullPage: true });
  result.violations = await violations(page);
  // Without audio nothing offers to play it.
  await page.route("**/api/library?*", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ json: { ...(await answer.json()), audio: false } });
  });
  await page.goto(url);
  await page.waitForSelector("html[data-ready=yes]");
  result.plays = await page.getByRole("button", { name: "Play", exact: true }).count();
  await page.goto(`${url}api/docs`);
  await page.waitForSelector("html[data-ready=yes]");
  result.addresses = await page.locator("main h2").allTextContents();
  if (folder) await page.screenshot({ path: `${folder}/docs.png`, fullPage: true });
  result.violations.push(...(await violations(page)));
  result.origins = [...new Set(asked)];
  console.log(JSON.stringify(result));
} finally {
  await browser.close();
}
