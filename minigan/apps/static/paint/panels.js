// Palette, styles and examples.

import { ask, post } from "./client.js";
import { Labels } from "./labels.js";
import { draw } from "./board.js";

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function keyOf(k) {                       // the key of class k: 1 ... 9, 0, then with Shift
  if (k >= 20) return "";
  return (k >= 10 ? "\u21e7" : "") + ((k + 1) % 10);
}

// A group of buttons of which one is chosen; arrow keys move between them.
function choice(box, chosen) {
  const buttons = () => [...box.querySelectorAll("[role=radio]")];
  const mark = (wanted) => {
    for (const button of buttons()) {
      button.setAttribute("aria-checked", button === wanted);
      button.tabIndex = button === wanted ? 0 : -1;
    }
  };
  box.addEventListener("click", (event) => {
    const button = event.target.closest("[role=radio]");
    if (button) chosen(button);
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const all = buttons(), now = all.indexOf(document.activeElement);
    if (!step || now < 0) return;
    event.preventDefault();
    const next = all[(now + step + all.length) % all.length];
    next.focus();
    chosen(next);
  });
  return mark;
}

export function palette(classes, chosen) {
  const box = byId("palette");
  const buttons = classes.map(({ name, colour }, k) => {
    const swatch = make("i");
    swatch.style.background = colour;
    const button = make("button", { type: "button", role: "radio", title: name, "data-label": k },
      swatch, make("span", {}, name));
    if (keyOf(k)) button.append(make("kbd", { "aria-hidden": "true" }, keyOf(k)));
    return button;
  });
  box.append(...buttons);
  const mark = choice(box, (button) => chosen(+button.dataset.label));
  return (k) => mark(buttons[k]);
}

// Styles: that of the seed alone, those that are offered, those of pictures that were shown ---------

export class Styles {
  constructor(model, changed, failed) {
    this.box = byId("styles");
    this.changed = changed;
    this.failed = failed;
    this.chosen = null;                          // key of a style, or null for the seed alone
    this.behind = null;                          // the button after which the next style goes
    this.mark = choice(this.box, (button) => this.choose(button.dataset.style || null));
    byId("mix-field").hidden = this.box.hidden = !model.takes_styles;
    byId("seed-group").hidden = byId("seed-key").hidden = !model.seeded;
    byId("style").hidden = !model.seeded && !model.takes_styles;
    this.add(null, "seed only", make("span", { class: "none", "aria-hidden": "true" }, "\u2684"));
    if (!model.takes_styles) return;
    const plus = make("button", { type: "button", id: "show-style", title: "Take the style of a picture; dropping it on the page works too" },
      make("span", { class: "none", "aria-hidden": "true" }, "+"), make("span", { class: "name" }, "picture"));
    plus.addEventListener("click", () => byId("style-file").click());
    byId("style-file").addEventListener("change", (event) => this.show(event.target.files[0]));
    this.box.append(plus);
    this.behind = plus;
    for (const { id, name } of model.styles) this.offer(id, name);
    this.choose(null, false);
  }

  get id() { return this.chosen?.split(" ").pop() ?? null; }     // as the server knows it

  async offer(id, name) {
    const image = make("img", { alt: "" });
    this.add(id, name, image);
    image.src = URL.createObjectURL(await (await ask(`api/style/${id}`)).blob());
  }

  add(key, name, picture) {
    const button = make("button", { type: "button", role: "radio", title: `style: ${name}`, "aria-checked": "false", "data-style": key ?? "" },
      picture, make("span", { class: "name" }, name));
    if (key === null) return this.box.append(button);
    this.behind.after(button);
    this.behind = button;
  }

  choose(key, tell = true) {
    this.chosen = key;
    this.mark(this.box.querySelector(`[data-style="${key ?? ""}"]`));
    byId("mix").disabled = key === null;
    if (tell) this.changed();
  }

  async show(file) {                             // a picture of the user
    byId("style-file").value = "";
    if (!file) return;
    try {
      const blob = await smaller(file);
      const { id } = await (await post("api/style", blob, blob.type)).json();
      const key = `own ${id}`;                   // its style may be one that is offered as well
      const old = this.box.querySelector(`[data-style="${key}"]`);
      if (!old) this.add(key, file.name.replace(/\.\w+$/, ""), make("img", { alt: "", src: URL.createObjectURL(blob) }));
      this.choose(key);
      this.box.querySelector(`[data-style="${key}"]`).scrollIntoView({ block: "nearest", inline: "nearest" });
    } catch (error) {
      this.failed(error);
    }
  }
}

async function smaller(file, side = 512) {       // as PNG, at most `side` pixels wide and high
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is no picture that this browser can read`);
  }
  const scale = Math.min(1, side / Math.max(image.width, image.height));
  const canvas = make("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// Examples ------------------------------------------------------------------------------------------

export function examples(model, table, chosen) { // resolves to the bytes of each example
  byId("example-section").hidden = !model.examples.length;
  return Promise.all(model.examples.map(async (name, number) => {
    const canvas = make("canvas", { width: model.width, height: model.height });
    const button = make("button", { type: "button", title: `scene: ${name}` }, canvas, make("span", { class: "name" }, name));
    byId("examples").append(button);
    const labels = new Labels(model.width, model.height);
    labels.data.set(new Uint8Array(await (await ask(`api/example/${number}`)).arrayBuffer()));
    draw(canvas, labels, table);
    button.addEventListener("click", () => chosen(labels.data));
    return labels.data;
  }));
}
