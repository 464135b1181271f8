// One chart as SVG: lines with points, which the pointer and the arrow keys name.

const SHAPES = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
  "M-3.6-3.6h7.2v7.2h-7.2Z",
  "M0-5 4.6 3.4H-4.6Z",
  "M0-5 5 0 0 5-5 0Z",
  "M0 5 4.6-3.4H-4.6Z",
  "M-5-1.4h3.6V-5h2.8v3.6H5v2.8H1.4V5h-2.8V1.4H-5Z",
  "M-2.5-4.6h5L5 0 2.5 4.6h-5L-5 0Z",
  "M0-5 1.4-1.6 5-1.5 2.2.8 3.1 4.4 0 2.4-3.1 4.4-2.2.8-5-1.5-1.4-1.6Z",
];

function marker(curve, attributes) {
  return svg("path", { d: SHAPES[curve.ink % SHAPES.length], class: `mark ink-${curve.ink % 8}`, ...attributes });
}

function lineClass(curve) {
  return `line ink-${curve.ink % 8} dash-${curve.variant % 4}`;
}

/** Line and marker of a curve, for a legend. */
function lineSample(curve) {
  return svg(
    "svg",
    { width: 34, height: 14, viewBox: "-17 -7 34 14", "aria-hidden": "true" },
    svg("path", { class: lineClass(curve), d: "M-16 0H16" }),
    marker(curve),
  );
}

/** Marks of a linear axis, about so many. */
function linearTicks(low, high, count) {
  const rough = (high - low) / count || 1,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
  return ticks.map((value) => [value, value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))]);
}

function logTicks(low, high, width) {
  const decades = Math.log10(high / low),
    factors = decades > 2.2 || width < 320 ? [1, 3] : decades > 1.4 ? [1, 2, 5] : [1, 1.5, 2, 3, 5, 7];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push([value, String(Number(value.toPrecision(3)))]);
    }
  }
  return ticks;
}

/**
 * A chart that redraws itself when its width changes.
 *
 * `draw({series, logX})` shows series [{curve, points: [{x, y, text, label}]}]; the texts name a point, and its label,
 * if it has one, stands beside it.
 */
function makeChart({ title, note, xTitle }) {
  const tip = el("div", { class: "tip", hidden: true });
  const said = el("p", { class: "unseen", "aria-live": "polite" });
  const plot = el("div", {
    class: "plot",
    tabindex: "0",
    role: "application",
    "aria-roledescription": "chart",
    "aria-label": `${title}. Left and right arrows move along a curve, up and down to another one.`,
  });
  const figure = el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("strong", {}, title), note && el("span", {}, note)),
    plot,
    tip,
    said,
  );
  let state = { series: [], logX: true },
    placed = [],
    at = null;

  function draw(next) {
    state = { ...state, ...next };
    const width = Math.max(240, plot.clientWidth || 480),
      height = Math.round(Math.min(380, Math.max(250, width * 0.62)));
    const box = { left: 48, right: width - 12, top: 10, bottom: height - 38 };
    const all = state.series.flatMap((one) => one.points);
    placed = [];
    at = null;
    tip.hidden = true;
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    fill(plot, all.length ? root : el("p", { class: "empty" }, "No curve with numbers is chosen."));
    if (!all.length) return;

    const xs = all.map((point) => point.x),
      ys = all.map((point) => point.y);
    let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const pad = (y1 - y0) * 0.06 || Math.abs(y1) * 0.05 || 1;
    [y0, y1] = [y0 - pad, y1 + pad];
    const scale = state.logX ? Math.log : (x) => x;
    if (state.logX) [x0, x1] = [x0 / 1.12, x1 * 1.12];
    else {
      const side = (x1 - x0) * 0.04 || 1;
      [x0, x1] = [Math.max(0, x0 - side), x1 + side];
    }
    const toX = (x) => box.left + ((scale(x) - scale(x0)) / (scale(x1) - scale(x0))) * (box.right - box.left);
    const toY = (y) => box.bottom - ((y - y0) / (y1 - y0)) * (box.bottom - box.top);

    for (const [value, text] of linearTicks(y0, y1, height / 42)) {
      root.append(
        svg("line", { class: "grid", x1: box.left, x2: box.right, y1: toY(value), y2: toY(value) }),
        svg("text", { class: "tick end", x: box.left - 8, y: toY(value) + 4 }, text),
      );
    }
    const marks = state.logX ? logTicks(x0, x1, width) : linearTicks(x0, x1, width / 80);
    let last = -Infinity;
    for (const [value, text] of marks) {
      if (toX(value) - last < 38) continue;
      last = toX(value);
      root.append(
        svg("line", { class: "grid", x1: last, x2: last, y1: box.top, y2: box.bottom }),
        svg("text", { class: "tick middle", x: last, y: box.bottom + 17 }, text),
      );
    }
    root.append(
      svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
      svg("text", { class: "axis-title end", x: box.right, y: height - 4 }, xTitle(state.logX)),
    );

    // The models last, on top of the others.
    const layers = [...state.series].sort((a, b) => b.curve.ink - a.curve.ink);
    for (const { curve, points } of layers) {
      const path = points.map((point, i) => `${i ? "L" : "M"}${toX(point.x).toFixed(1)} ${toY(point.y).toFixed(1)}`);
      root.append(svg("path", { class: lineClass(curve), d: path.join("") }));
      placed.push(points.map((point) => ({ x: toX(point.x), y: toY(point.y), curve, text: point.text })));
      points
        .filter((point) => point.label)
        .forEach((point) =>
          root.append(svg("text", { class: "tick", x: toX(point.x) + 7, y: toY(point.y) - 6 }, point.label)),
        );
      placed
        .at(-1)
        .forEach((point) =>
          root.append(marker(curve, { transform: `translate(${point.x.toFixed(1)} ${point.y.toFixed(1)})` })),
        );
    }
    root.append(svg("circle", { class: "halo", r: 9, cx: -99, cy: -99 }));
  }

  function show(line, index, spoken) {
    at = [line, index];
    const { x, y, curve, text } = placed[line][index];
    const halo = plot.querySelector(".halo");
    halo.setAttribute("cx", x);
    halo.setAttribute("cy", y);
    halo.setAttribute("class", `halo ink-${curve.ink % 8}`);
    fill(
      tip,
      el("strong", {}, curve.title),
      text.map(([name, value]) => el("div", {}, el("span", {}, name), value)),
    );
    tip.hidden = false;
    const room = figure.clientWidth - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(4, Math.min(room, x + plot.offsetLeft - tip.offsetWidth / 2))}px`;
    const above = y + plot.offsetTop - tip.offsetHeight - 16;
    tip.style.top = `${above > plot.offsetTop - 24 ? above : y + plot.offsetTop + 16}px`;
    if (spoken) said.textContent = `${curve.title}: ${text.map(([name, value]) => `${name} ${value}`).join(", ")}`;
  }

  function hide() {
    tip.hidden = true;
    at = null;
    plot.querySelector(".halo")?.setAttribute("cx", -99);
  }

  function nearest(event) {
    const area = plot.getBoundingClientRect();
    const x = event.clientX - area.left,
      y = event.clientY - area.top;
    let best = null;
    placed.forEach((line, l) =>
      line.forEach((point, p) => {
        const distance = Math.hypot(point.x - x, point.y - y);
        if (!best || distance < best[0]) best = [distance, l, p];
      }),
    );
    if (best && best[0] < 60) show(best[1], best[2], false);
    else hide();
  }

  plot.addEventListener("pointermove", nearest);
  plot.addEventListener("pointerdown", nearest);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener(
    "focus",
    () => placed.length && plot.matches(":focus-visible") && show(placed.length - 1, 0, true),
  );
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] }[event.key];
    if (event.key === "Escape") hide();
    if (!move || !placed.length) return;
    event.preventDefault();
    let [line, index] = at ? [at[0] + move[0], at[1] + move[1]] : [placed.length - 1, 0];
    line = (line + placed.length) % placed.length;
    index = Math.max(0, Math.min(placed[line].length - 1, index));
    if (move[0] && at) {
      // the point of the other curve that is nearest in rate
      const x = placed[at[0]][at[1]].x;
      index = placed[line].reduce(
        (best, point, p) => (Math.abs(point.x - x) < Math.abs(placed[line][best].x - x) ? p : best),
        0,
      );
    }
    show(line, index, true);
  });
  let drawnWidth = 0;
  new ResizeObserver(() => {
    if (plot.clientWidth !== drawnWidth) {
      drawnWidth = plot.clientWidth;
      draw({});
    }
  }).observe(plot);
  return { figure, draw };
}
