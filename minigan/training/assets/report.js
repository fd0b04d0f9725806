"use strict";
// Two things move on this page: the films of the samples, and the read-out of the curves.

function films() {
  const source = document.getElementById("frames");
  if (!source) return;
  const { steps, names } = JSON.parse(source.textContent);
  const slider = document.getElementById("frame");
  const button = document.getElementById("play");
  const shown = document.getElementById("shown");
  let timer = 0;

  function show(i) {
    slider.value = i;
    shown.textContent = "step " + steps[i].toLocaleString("en");
    for (const [name, images] of Object.entries(names)) {
      let k = i;                                  // a grid that skips this step shows the last one
      while (k > 0 && !images[k]) k -= 1;
      const picture = document.querySelector('[data-film="' + CSS.escape(name) + '"]');
      if (picture && images[k]) picture.src = images[k];
    }
  }
  function stop() { clearInterval(timer); timer = 0; button.textContent = "Play"; }
  function play() {
    if (timer) return stop();
    button.textContent = "Pause";
    if (+slider.value === steps.length - 1) show(0);
    timer = setInterval(() => {
      if (+slider.value === steps.length - 1) return stop();
      show(+slider.value + 1);
    }, Math.max(80, Math.min(400, 9000 / steps.length)));
  }
  slider.addEventListener("input", () => { stop(); show(+slider.value); });
  button.addEventListener("click", play);
  show(steps.length - 1);
}

function readout(figure) {
  const svg = figure.querySelector("svg");
  const { limits: [left, right], series } = JSON.parse(figure.querySelector("script").textContent);
  const cursor = svg.querySelector(".cursor");
  const box = document.createElement("div");
  box.className = "readout";
  figure.append(box);
  const [first, last] = [+svg.dataset.left, +svg.dataset.right];

  function nearest(xs, x) {                       // bisection: xs rises
    let a = 0, b = xs.length - 1;
    while (b - a > 1) { const m = (a + b) >> 1; if (xs[m] <= x) a = m; else b = m; }
    return Math.abs(xs[a] - x) <= Math.abs(xs[b] - x) ? a : b;
  }
  function move(event) {
    const area = svg.getBoundingClientRect();
    const scale = area.width / svg.viewBox.baseVal.width;
    const x = left + (((event.clientX - area.left) / scale - first) / (last - first)) * (right - left);
    const step = series[0].x[nearest(series[0].x, x)];
    const at = first + ((step - left) / (right - left)) * (last - first);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    box.replaceChildren("step " + step.toLocaleString("en"));
    for (const { label, x: xs, y, c } of series) {
      const value = y[nearest(xs, step)];
      const line = document.createElement("div");
      line.style.color = "var(--c" + (c % 6) + ")";
      line.textContent = label + "  " + (value === null ? "–" : value);
      box.append(line);
    }
    box.style.display = "block";
    const frame = figure.getBoundingClientRect();
    const inside = at * scale + area.left - frame.left, width = box.offsetWidth;
    const fits = inside + 14 + width < frame.width;
    box.style.left = (fits ? inside + 14 : inside - width - 14) + "px";
    box.style.top = area.top - frame.top + 8 + "px";
  }
  function leave() {
    box.style.display = "none";
    cursor.setAttribute("x1", -9);
    cursor.setAttribute("x2", -9);
  }
  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerleave", leave);
}

films();
document.querySelectorAll(".chart").forEach(readout);
