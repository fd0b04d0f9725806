// The canvas that is painted on: shows the labels in their colours, and turns pointer and keys into
// changes of the map.

import { line, rectangle, flood, tip, History } from "./labels.js";

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

export function colourTable(classes) {           // one 32-bit number per class, as ImageData has it
  const bytes = new Uint8ClampedArray(4 * classes.length);
  classes.forEach(({ colour }, k) => bytes.set([...rgb(colour), 255], 4 * k));
  return new Uint32Array(bytes.buffer);
}

export function draw(canvas, labels, table) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(labels.width, labels.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[labels.data[i]];
  context.putImageData(image, 0, 0);
}

export class Board {
  // changed(inTheMiddle) after every change; picked(label) by the eyedropper; under(label or null)
  constructor({ map, aim, labels, table, changed, picked, under }) {
    Object.assign(this, { map, aim, labels, table, changed, picked, under });
    for (const canvas of [map, aim]) {
      canvas.width = labels.width;
      canvas.height = labels.height;
    }
    this.history = new History(labels);
    this.tool = "brush";
    this.label = 0;
    this.size = 4;
    this.square = false;
    this.start = null;                           // where the stroke began
    this.last = null;
    this.place = null;                           // where the pointer or the cursor is
    this.listen();
    this.redraw();
  }

  get brush() { return tip(this.size, this.square); }
  get drawing() { return this.start !== null; }

  redraw() {
    draw(this.map, this.labels, this.table);
    this.showAim();
  }

  // A stroke --------------------------------------------------------------------------------------

  begin(place, pick = this.tool === "pick") {
    this.place = place;
    if (pick) {
      if (this.labels.has(...place)) this.picked(this.labels.at(...place));
      return;
    }
    if (this.tool === "fill") {
      this.labels.put(flood(this.labels, place), this.label);
      return this.finish();
    }
    this.start = this.last = place;
    this.move(place);
  }

  move(place) {
    if (!this.drawing) return this.showAim(place);
    if (this.tool === "brush") {
      this.labels.put(line(this.labels, this.last, place, this.brush), this.label);
    } else {
      this.labels.data.set(this.history.before);
      this.labels.put(this.shape(place), this.label);
    }
    this.last = this.place = place;
    this.redraw();
    this.changed(true);
  }

  shape(place) {
    return this.tool === "rect"
      ? rectangle(this.labels, this.start, place)
      : line(this.labels, this.start, place, this.brush);
  }

  finish() {
    this.start = null;
    const changed = this.history.commit();
    this.redraw();
    if (changed) this.changed(false);
  }

  cancel() {
    this.labels.data.set(this.history.before);
    this.start = null;
    this.redraw();
    this.changed(false);
  }

  replace(bytes) {                               // a whole new map, as one step of the history
    this.start = null;
    this.history.begin();
    this.labels.data.set(bytes);
    this.finish();
  }

  fillAll() { this.replace(new Uint8Array(this.labels.data.length).fill(this.label)); }

  step(which) {
    if (this.drawing || !this.history[which]()) return;
    this.redraw();
    this.changed(false);
  }

  // What would be painted -------------------------------------------------------------------------

  showAim(place = this.place) {
    this.place = place;
    const context = this.aim.getContext("2d");
    context.clearRect(0, 0, this.aim.width, this.aim.height);
    const inside = place && this.labels.has(...place);
    this.under(inside ? this.labels.at(...place) : null);
    if (!place || this.drawing) return;
    const small = this.tool === "fill" || this.tool === "pick" || this.tool === "rect";
    const pixels = line(this.labels, place, place, small ? [[0, 0]] : this.brush);
    const image = context.createImageData(this.labels.width, this.labels.height);
    for (const i of pixels) {
      const wanted = new Uint8ClampedArray(this.table.buffer, 4 * this.label, 4);
      const light = wanted[0] * 0.3 + wanted[1] * 0.6 + wanted[2] * 0.1 > 140;
      const same = this.labels.data[i] === this.label;      // else it could not be seen
      image.data.set(same ? (light ? [0, 0, 0, 70] : [255, 255, 255, 90]) : [...wanted.subarray(0, 3), 200], 4 * i);
    }
    context.putImageData(image, 0, 0);
  }

  // Pointer and keys ------------------------------------------------------------------------------

  where(event) {
    const box = this.map.getBoundingClientRect();
    return [
      Math.floor(((event.clientX - box.left) / box.width) * this.labels.width),
      Math.floor(((event.clientY - box.top) / box.height) * this.labels.height),
    ];
  }

  listen() {
    const { map } = this;
    map.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.drawing) return;
      this.pointer = event.pointerId;
      map.setPointerCapture(event.pointerId);
      this.begin(this.where(event), this.tool === "pick" || event.altKey);
      event.preventDefault();
      map.focus({ preventScroll: true });
    });
    map.addEventListener("pointermove", (event) => {
      if (this.drawing && event.pointerId !== this.pointer) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of this.drawing && events.length ? events : [event]) this.move(this.where(each));
    });
    map.addEventListener("pointerup", (event) => {
      if (this.drawing && event.pointerId === this.pointer) this.finish();
    });
    map.addEventListener("pointercancel", () => { if (this.drawing) this.cancel(); });
    map.addEventListener("pointerleave", () => { if (!this.drawing) this.showAim(null); });
    map.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const step = event.shiftKey ? 8 : 1;
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [0, 0];
    const { width, height } = this.labels;
    const [x, y] = this.place ?? [width >> 1, height >> 1];
    if (dx || dy) {
      this.move([Math.min(width - 1, Math.max(0, x + dx)), Math.min(height - 1, Math.max(0, y + dy))]);
    } else if (event.key === " ") {
      if (this.drawing) this.finish();
      else this.begin([x, y]);
      if (this.drawing && this.tool === "brush") this.finish();
    } else if (event.key === "Escape" && this.drawing) {
      this.cancel();
    } else return;
    event.preventDefault();
  }
}
