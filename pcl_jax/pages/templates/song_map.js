"use strict";
// Draws charts, and a map of songs whose dots can be clicked.

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

async function draw(place, spec, data) {
  const filled = data ? { ...spec, data: { values: data } } : spec;
  const options = {
    mode: "vega-lite",
    actions: false,
    renderer: place.dataset.map ? "canvas" : "svg",
    ast: "interpreted" in place.dataset, // Where a page may not compile text.
  };
  const { view } = await vegaEmbed(place, filled, options);
  return view;
}

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
    this.near = [];
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
    await this.view
      .signal("chosen", this.chosen)
      .signal("near", this.near)
      .signal("sought", this.sought)
      .runAsync();
  }

  // Marks a song, and those that are near it.
  async choose(i, near) {
    this.chosen = i;
    this.near = near;
    await this.refresh();
  }

  async seek(text) {
    this.sought = text.trim().toLowerCase();
    await this.refresh();
  }
}
