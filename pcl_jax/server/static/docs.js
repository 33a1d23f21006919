// Shows openapi.json as a page.

function kindOf({ type, items, enum: choices, minimum, maximum }) {
  if (items) return `${kindOf(items)}, several times`;
  if (choices) return choices.join(", ");
  const bounds = [minimum, maximum].filter((one) => one !== undefined);
  return bounds.length ? `${type}, ${bounds.join(" to ")}` : type;
}

function parameters(some, label) {
  const head = ["name", "what", "kind", "default"].map((one) => element("th", { scope: "col" }, one));
  const rows = some.map(({ name, description, required, schema }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", { class: "text" }, description),
      element("td", { class: "text" }, kindOf(schema)),
      element("td", {}, required ? "required" : String(schema.default ?? "")),
    ),
  );
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
}

async function start() {
  const { paths } = await (await fetch("openapi.json")).json();
  const parts = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => {
      const title = `${method.toUpperCase()} ${path}`;
      const about = [element("h2", {}, title), element("p", {}, one.summary)];
      const body = Object.keys(one.requestBody?.content ?? {}).join(", ");
      if (body) about.push(element("p", { class: "note" }, `body: ${body}`));
      if (one.parameters.length) about.push(parameters(one.parameters, `Parameters of ${title}`));
      return element("section", {}, ...about);
    }),
  );
  document.getElementById("addresses").append(...parts);
  document.documentElement.dataset.ready = "yes";
}

start();
