// Reads a report page as a person would: node THIS PAGE CHROMIUM [FOLDER]
// prints what the page shows, and what the browser says of it, as json. It
// leaves pictures in FOLDER: wide.png, narrow.png, and the map as map.png.

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

try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const said = [];
  const asked = [];
  page.on("console", (one) => {
    if (["error", "warning"].includes(one.type())) said.push(one.text());
  });
  page.on("pageerror", (error) => said.push(String(error)));
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(url);
  await page.waitForSelector("html[data-ready=yes]");
  const result = { said, asked };
  const shoot = async (name) => {
    if (folder) await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
  };
  result.charts = await page.locator(".chart svg, .chart canvas").count();
  result.places = await page.locator(".chart").count();
  await shoot("wide");
  if (await page.locator("#song-map").count()) {
    result.dots = await inPage(page, "dots(map).length");
    await page.locator("#song-map").scrollIntoViewIfNeeded();
    const where = await inPage(page, "placeOf(map, 1)");
    await page.mouse.click(where.x, where.y);
    const nearest = page.locator("#nearest");
    await nearest.locator("h3").waitFor();
    result.clicked = await nearest.locator("h3").textContent();
    result.neighbours = await nearest.locator("li").count();
    result.cosines = await nearest.locator(".cosine").allTextContents();
    if (folder) await page.locator("#map").screenshot({ path: `${folder}/map.png` });
    // By the keyboard alone: a name, then the first of its neighbours.
    await page.getByLabel("Song", { exact: true }).focus();
    const names = await page.evaluate(() => pcl_data.songs.name);
    await page.keyboard.type(names[2]);
    await page.keyboard.press("Enter");
    await page.waitForFunction(
      (name) => document.querySelector("#nearest h3").textContent === name,
      names[2],
    );
    const first = nearest.locator("li button.plain").first();
    const wanted = await first.textContent();
    await first.focus();
    await page.keyboard.press("Enter");
    await page.waitForFunction(
      (name) => document.querySelector("#nearest h3").textContent === name,
      wanted,
    );
    result.followed = [wanted, await nearest.locator("h3").textContent()];
    if (await nearest.locator("button.play").count()) {
      await nearest.locator("button.play").first().click();
      await page.waitForFunction(() => {
        const audio = document.querySelector("#nearest audio");
        return audio.currentTime > 0 || audio.error;
      });
      result.played = await page.evaluate(() => {
        const audio = document.querySelector("#nearest audio");
        return audio.error ? audio.error.message : audio.duration;
      });
    }
    for (const by of ["artist", "split", "playlist"]) {
      await page.getByLabel("Colour by").selectOption(by);
    }
    await page.getByLabel("Show only").first().fill(names[0]);
    await page.getByLabel("Show only").first().fill("");
  }
  if (await page.locator("#item-table").count()) {
    const column = page.locator("#item-table thead th").nth(1);
    await column.getByRole("button").click();
    result.sorted = await page.locator("#item-table tbody td:nth-child(2)").allTextContents();
    result.order = await column.getAttribute("aria-sort");
  }
  await page.setViewportSize({ width: 390, height: 844 });
  // Wider than its window, a page would have to be moved sideways.
  const fits = () => document.documentElement.scrollWidth <= innerWidth;
  await page.waitForFunction(fits, null, { timeout: 10_000 }).catch(() => {});
  result.overhang = await page.evaluate(
    () => document.documentElement.scrollWidth - innerWidth,
  );
  await shoot("narrow");
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
  await page.addScriptTag({ content: await fs.readFile(require.resolve("axe-core/axe.min.js"), "utf8") });
  const { violations } = await page.evaluate(() => axe.run());
  result.violations = violations.map(
    (one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 150)).slice(0, 4).join(" | ")}`,
  );
  console.log(JSON.stringify(result));
} finally {
  await browser.close();
}
