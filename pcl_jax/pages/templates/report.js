"use strict";
// Draws the charts, and answers clicks on the map and headings of tables.

const FEW_ROWS = 25;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Returns the first texts of a list, and how many more there are.
function some(texts, most) {
  const rest = texts.length - most;
  return texts.slice(0, most).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}

function rowsOf(columns) {
  const names = Object.keys(columns);
  return columns[names[0]].map((_, i) =>
    Object.fromEntries(names.map((name) => [name, columns[name][i]])),
  );
}

async function draw(place, spec, data) {
  const filled = data ? { ...spec, data: { values: data } } : spec;
  const options = {
    mode: "vega-lite",
    actions: false,
    renderer: place.dataset.map ? "canvas" : "svg",
  };
  const { view } = await vegaEmbed(place, filled, options);
  return view;
}

// ---------------------------------------------------------------- songs

class Songs {
  constructor(columns) {
    this.columns = columns;
    this.audio = columns.audio;
    // Names are the most frequent first; the first ones have colours.
    this.has = Object.fromEntries(
      Object.entries(columns.has).map(([kind, { names, of }]) => [
        kind,
        of.map((some) => some.map((one) => names[one])),
      ]),
    );
  }

  get length() {
    return this.columns.name.length;
  }

  name(i) {
    return this.columns.name[i];
  }

  // Returns the groups by which a song is coloured, and the colours.
  groups(by) {
    const { has, colours } = this.columns;
    const names = has[by].names.slice(0, colours.groups.length);
    const range = colours.groups.slice(0, names.length);
    const isRest = (mine) => !mine.length || mine[0] >= names.length;
    if (has[by].of.some(isRest)) {
      names.push(colours.rest_name);
      range.push(colours.rest);
    }
    return { domain: names, range };
  }

  // Returns the rows of the map: place, name, what it has, and its groups.
  rows() {
    const { x, y, name, has, colours } = this.columns;
    return name.map((label, i) => {
      const row = { i, x: x[i], y: y[i], name: label };
      const words = [label];
      for (const [kind, { of }] of Object.entries(has)) {
        const all = this.has[kind][i];
        const isRest = !(of[i][0] < colours.groups.length);
        row[kind] = some(all, 3) || "none";
        row[`in ${kind}`] = isRest ? colours.rest_name : all[0];
        words.push(...all);
      }
      row.words = words.join("\n").toLowerCase();
      return row;
    });
  }

  share(kind, i, j) {
    return this.has[kind][i].some((one) => this.has[kind][j].includes(one));
  }
}

class SongMap {
  constructor(place, spec, songs, whenChosen) {
    Object.assign(this, { place, spec, songs, whenChosen });
    this.rows = songs.rows();
    this.chosen = -1;
    this.sought = "";
  }

  async colour(by) {
    const spec = structuredClone(this.spec);
    Object.assign(spec.encoding.color, {
      field: `in ${by}`,
      scale: this.songs.groups(by),
    });
    const before = this.view;
    this.view = await draw(this.place, spec, this.rows);
    before?.finalize();
    this.place.view = this.view; // For who looks into the chart.
    this.view.addEventListener("click", (_, item) => {
      if (item?.datum && "i" in item.datum) this.whenChosen(item.datum.i);
    });
    await this.refresh();
  }

  async refresh() {
    const near = this.chosen < 0 ? [] : this.songs.columns.near[this.chosen];
    await this.view
      .signal("chosen", this.chosen)
      .signal("near", near)
      .signal("sought", this.sought)
      .runAsync();
  }

  async choose(i) {
    this.chosen = i;
    await this.refresh();
  }

  async seek(text) {
    this.sought = text.trim().toLowerCase();
    await this.refresh();
  }
}

// The panel of a song: what is known of it, and its nearest songs.
class Panel {
  constructor(place, songs, choose) {
    Object.assign(this, { place, songs, choose });
    this.player = element("audio", { controls: "", preload: "none" });
    this.said = element("p", { class: "note", role: "status" });
    this.player.addEventListener("error", () => {
      this.said.textContent = `${this.playing} cannot be played: its file is gone or of a kind that this browser does not know.`;
    });
  }

  play(i) {
    this.playing = this.songs.name(i);
    this.said.textContent = `Playing: ${this.playing}`;
    this.player.src = this.songs.audio[i];
    this.player.play().catch(() => {}); // The element says what is wrong.
  }

  button(i) {
    if (!this.songs.audio[i]) return "";
    const label = `Play ${this.songs.name(i)}`;
    return element("button", { type: "button", class: "play", "aria-label": label, title: label, onclick: () => this.play(i) }, "\u25b6\ufe0e");
  }

  neighbour(chosen, i, cosine) {
    const go = element("button", { type: "button", class: "plain", onclick: () => this.choose(i) }, this.songs.name(i));
    const line = element("div", {}, element("span", { class: "who" }, go), element("span", { class: "cosine", title: "cosine" }, (cosine / 1000).toFixed(3)), this.button(i));
    const same = ["artist", "sub-genre"].filter((kind) => this.songs.share(kind, chosen, i));
    const genres = this.songs.has["sub-genre"][i].join(", ");
    const about = element("div", { class: "note" }, genres);
    if (same.length) about.append(element("span", { class: "same" }, `same ${same.join(" and ")}`));
    return element("li", {}, line, about);
  }

  show(i) {
    const { near, cosine, id } = this.songs.columns;
    const facts = Object.entries(this.songs.has)
      .filter(([, all]) => all[i].length)
      .map(([kind, all]) => `${kind}: ${some(all[i], 4)}`);
    this.said.textContent = "";
    const list = element("ol", {}, ...near[i].map((j, k) => this.neighbour(i, j, cosine[i][k])));
    const head = element("div", { class: "controls" }, element("h3", {}, this.songs.name(i)), this.button(i));
    const about = [...facts, `id: ${id[i]}`].map((one) => element("div", { class: "note" }, one));
    const player = this.songs.audio.length ? [this.player, this.said] : [];
    this.place.replaceChildren(head, ...about, ...player, element("p", {}, near[i].length ? "Nearest songs, by cosine:" : "There is no other song."), list);
  }
}

async function startSongs(songs, specs) {
  const place = document.getElementById("song-map");
  let choose;
  const panel = new Panel(document.getElementById("nearest"), songs, (i) => choose(i));
  const map = new SongMap(place, specs[place.dataset.map], songs, (i) => choose(i));
  choose = async (i) => {
    panel.show(i);
    await map.choose(i);
  };
  const field = document.getElementById("song");
  const rowOf = new Map();
  for (let i = songs.length - 1; i >= 0; i--) rowOf.set(songs.name(i), i);
  document.getElementById("songs").append(...[...rowOf.keys()].reverse().map((value) => element("option", { value })));
  field.addEventListener("change", () => {
    const i = rowOf.get(field.value) ?? songs.columns.name.findIndex((one) => one.toLowerCase().includes(field.value.trim().toLowerCase()));
    if (field.value.trim() && i >= 0) choose(i);
  });
  const by = document.getElementById("by");
  by.addEventListener("change", () => map.colour(by.value));
  const sought = document.getElementById("sought");
  sought.addEventListener("input", () => map.seek(sought.value));
  await map.colour(by.value);
  return choose;
}

// ---------------------------------------------------------------- items

class ItemTable {
  constructor(items, songs, choose) {
    Object.assign(this, { items, songs, choose });
    this.table = document.getElementById("item-table");
    this.more = document.getElementById("more");
    this.counted = document.getElementById("counted");
    this.task = document.getElementById("task");
    this.filter = document.getElementById("filter");
    this.more.addEventListener("click", () => this.show(Infinity));
    this.filter.addEventListener("input", () => this.show());
    this.task.addEventListener("change", () => this.start());
  }

  start() {
    this.given = this.items[this.task.value];
    this.sort = { column: -1, down: false };
    this.show();
  }

  label(i) {
    return this.given.song ? this.songs.name(this.given.song[i]) : this.given.label[i];
  }

  order() {
    const { column, down } = this.sort;
    const words = this.filter.value.trim().toLowerCase();
    const count = (this.given.song ?? this.given.label).length;
    const labels = Array.from({ length: count }, (_, i) => this.label(i));
    const rows = labels.map((_, i) => i).filter((i) => labels[i].toLowerCase().includes(words));
    if (column < -1) return rows;
    const values = column < 0 ? labels : this.given.columns[column];
    const sign = down ? -1 : 1;
    return rows.sort((a, b) => {
      const [x, y] = [values[a], values[b]];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (column < 0 ? x.localeCompare(y) : x - y);
    });
  }

  heading(name, column) {
    const isSorted = this.sort.column === column;
    const sort = isSorted ? (this.sort.down ? "descending" : "ascending") : "none";
    const mark = isSorted ? (this.sort.down ? " \u25bc" : " \u25b2") : "";
    const button = element("button", { type: "button", onclick: () => {
      this.sort = { column, down: isSorted ? !this.sort.down : column >= 0 };
      this.show();
      this.table.querySelectorAll("th button")[column + 1].focus();
    } }, name + mark);
    return element("th", { scope: "col", "aria-sort": sort }, button);
  }

  cell(i) {
    const { song } = this.given;
    if (!song) return this.label(i);
    const go = async () => {
      document.getElementById("map").scrollIntoView();
      await this.choose(song[i]);
      document.getElementById("nearest").focus({ preventScroll: true });
    };
    return element("button", { type: "button", class: "plain", onclick: go }, this.label(i));
  }

  show(most = FEW_ROWS) {
    if (!this.given) {
      this.table.replaceChildren();
      this.more.hidden = true;
      this.counted.textContent = "This task has no values of single items.";
      return;
    }
    const { key, names, columns } = this.given;
    const order = this.order();
    const shown = order.slice(0, most);
    const head = element("tr", {}, this.heading(key, -1), ...names.map((name, i) => this.heading(name, i)));
    const body = shown.map((i) => element("tr", {}, element("th", { scope: "row" }, this.cell(i)), ...columns.map((column) => element("td", {}, column[i] === null ? "\u2013" : String(column[i])))));
    this.table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
    this.more.hidden = shown.length === order.length;
    this.counted.textContent = `${shown.length} of ${order.length} rows`;
  }
}

// ---------------------------------------------------------------- page

async function start() {
  const { charts, history, songs: columns, items } = pcl_data;
  const rows = rowsOf(history);
  for (const place of document.querySelectorAll("[data-chart]")) {
    const spec = charts[place.dataset.chart];
    await draw(place, spec, spec.data.name === "history" ? rows : null);
  }
  const songs = columns && new Songs(columns);
  const choose = songs ? await startSongs(songs, charts) : () => {};
  if (document.getElementById("item-table")) new ItemTable(items, songs, choose).start();
  document.documentElement.dataset.ready = "yes";
}

start();
