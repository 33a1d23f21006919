// Uses examples/browser as a person would: node THIS URL CHROMIUM ENCODER SONG
// prints the JSON that the page offers, and what it says.

import fs from "node:fs/promises";
import { createRequire } from "node:module";

const [url, executablePath, encoder, song] = process.argv.slice(2);
const { chromium } = createRequire(process.cwd() + "/")("playwright-core");
const browser = await chromium.launch({ executablePath });
try {
  const page = await browser.newPage();
  await page.goto(url);
  await page.getByLabel("Encoder").setInputFiles(encoder);
  await page.getByLabel("Song").setInputFiles(song);
  await page.getByRole("button", { name: "Embed" }).click();
  await page.waitForFunction(
    () => !document.querySelector("button").disabled,
    null,
    { timeout: 240_000 },
  );
  const said = await page.getByRole("status").textContent();
  let table = null;
  if (await page.getByRole("heading", { name: "Embedding" }).isVisible()) {
    const begun = page.waitForEvent("download");
    await page.getByRole("link", { name: "JSON" }).click();
    const path = await (await begun).path();
    table = JSON.parse(await fs.readFile(path, "utf8"));
  }
  if (process.env.SCREENSHOT) {
    await page.screenshot({ path: process.env.SCREENSHOT, fullPage: true });
  }
  console.log(JSON.stringify({ said, table }));
} finally {
  await browser.close();
}
