// Two pictures with a divider: original, model and baselines, at rates that the model has.

const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8, 12];

function viewerSection() {
  const entries = report.viewer;
  const state = {
    entry: 0,
    row: 0,
    left: 0,
    right: 1,
    split: 50,
    zoom: 1,
    x: 0,
    y: 0,
    swapped: false,
    timer: 0,
    difference: false,
  };

  const layers = ["left", "right"].map((side) => {
    const image = el("img", { alt: "", draggable: "false", decoding: "async" });
    return { image, node: el("div", { class: `layer ${side}` }, image), tag: el("span", { class: `tag ${side}` }) };
  });
  const handle = el("div", { class: "divider", "aria-hidden": "true" }, el("span", {}, "◂ ▸"));
  const stage = el(
    "div",
    { class: "stage", tabindex: "0", role: "group", "aria-roledescription": "picture comparison" },
    layers.map((layer) => layer.node),
    handle,
    layers.map((layer) => layer.tag),
  );
  const slider = el("input", {
    type: "range",
    class: "split",
    min: 0,
    max: 100,
    step: 0.5,
    value: 50,
    "aria-label": "Position of the divider",
    oninput: () => {
      state.split = Number(slider.value);
      place();
    },
  });
  const title = el("h3", {});
  const size = el("p", { class: "muted" });
  const rates = el("div", {});
  const sides = ["Left", "Right"].map((name) => el("div", { class: "side" }));
  const table = el("div", { class: "pair" });
  const buttons = {
    flicker: el("button", { type: "button", "aria-pressed": "false", onclick: flicker }, "Flicker"),
    difference: el("button", { type: "button", "aria-pressed": "false", onclick: toggleDifference }, "Difference"),
    swap: el("button", { type: "button", onclick: swapSides }, "Swap"),
  };
  const zoomText = el("output", { class: "zoom-value" }, "100 %");
  const zoomButtons = el(
    "div",
    { class: "zoom" },
    el("button", { type: "button", "aria-label": "Zoom out", onclick: () => zoomBy(-1) }, "−"),
    zoomText,
    el("button", { type: "button", "aria-label": "Zoom in", onclick: () => zoomBy(1) }, "+"),
    el("button", { type: "button", onclick: resetZoom }, "Fit"),
  );
  const strip = el(
    "div",
    { class: "strip", role: "group", "aria-label": "Pictures" },
    entries.map((entry, index) =>
      el(
        "button",
        { type: "button", title: imageOf(entry).name, onclick: () => go(index) },
        el("img", { src: pictureAddress(`t${index}`), alt: imageOf(entry).name, loading: "lazy" }),
      ),
    ),
  );

  function imageOf(entry) {
    return report.images[entry.image];
  }

  /** What can be shown at the chosen rate: [{title, picture, numbers}]; the original is the first. */
  function choices() {
    const entry = entries[state.entry];
    const original = { title: "Original", short: "Original", picture: entry.original, numbers: null };
    return [
      original,
      ...(entry.rows[state.row] || []).map(({ curve, point, picture }) => {
        const of = curves[curve].points[point];
        const numbers = Object.fromEntries(
          Object.entries(of.images).map(([name, values]) => [name, values[entry.image]]),
        );
        return { title: curves[curve].title, settings: pointText(curves[curve], point), picture, numbers };
      }),
    ];
  }

  function place() {
    stage.style.setProperty("--split", `${state.split}%`);
    slider.value = state.split;
    slider.setAttribute("aria-valuetext", `${Math.round(state.split)} percent from the left`);
    const rect = stage.getBoundingClientRect();
    const limitX = (rect.width * (state.zoom - 1)) / 2,
      limitY = (rect.height * (state.zoom - 1)) / 2;
    state.x = Math.max(-limitX, Math.min(limitX, state.x));
    state.y = Math.max(-limitY, Math.min(limitY, state.y));
    for (const { image } of layers)
      image.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.zoom})`;
    const shown = (rect.width / imageOf(entries[state.entry]).width) * state.zoom;
    stage.classList.toggle("pixels", shown >= 2.5);
    zoomText.textContent = `${Math.round(shown * 100)} %`;
  }

  function show() {
    const entry = entries[state.entry],
      image = imageOf(entry),
      all = choices();
    // A picture may lack what another one has; then the original stands in its place.
    for (const side of ["left", "right"]) if (state[side] >= all.length) state[side] = 0;
    const chosen = [all[state.left], all[state.right]];
    const visible = state.swapped ? [chosen[1], chosen[0]] : chosen;
    stage.style.setProperty("--ratio", image.width / image.height);
    stage.style.setProperty("--width", `${image.width}px`);
    stage.setAttribute("aria-label", `${image.name}: left ${visible[0].title}, right ${visible[1].title}`);
    layers.forEach((layer, side) => {
      const address = pictureAddress(`p${visible[side].picture}`);
      if (layer.image.src !== address) layer.image.src = address;
      layer.tag.textContent = visible[side].title;
    });
    layers[0].image.alt = `${image.name}, ${visible[0].title}`;
    layers[1].image.alt = `${image.name}, ${visible[1].title}`;
    stage.classList.toggle("flipped", state.swapped);
    stage.classList.toggle("difference", state.difference);
    title.textContent = image.name;
    size.textContent = `${image.width} × ${image.height} pixels`;
    showRates(entry);
    sides.forEach((node, side) =>
      fill(
        node,
        labelled(
          ["Left", "Right"][side],
          select(
            `${["Left", "Right"][side]} picture`,
            all.map((one) => one.title),
            side ? state.right : state.left,
            (index) => {
              state[side ? "right" : "left"] = index;
              show();
            },
          ),
        ),
      ),
    );
    fill(table, pairTable(chosen, image));
    [...strip.children].forEach((button, index) => button.setAttribute("aria-current", index === state.entry));
    place();
  }

  /** The rates of a model; where several models are compared, their rates under their names. */
  function showRates(entry) {
    const groups = [];
    entry.rows.forEach((row, index) => {
      const { curve, point } = row[0];
      if (groups.at(-1)?.curve !== curve) groups.push({ curve, rows: [] });
      groups.at(-1).rows.push({ index, bpp: curves[curve].points[point].images.bpp?.[entry.image] });
    });
    fill(
      rates,
      groups.map(({ curve, rows }) =>
        el(
          "div",
          { class: "field" },
          el("span", {}, groups.length > 1 ? modelName(curves[curve]) : "Bits per pixel"),
          segments(
            `Bits per pixel of ${modelName(curves[curve])}`,
            rows.map(({ bpp }) => rateText(bpp)),
            rows.findIndex(({ index }) => index === state.row),
            (at) => {
              state.row = rows[at].index;
              show();
            },
          ),
        ),
      ),
    );
  }

  function pairTable(pair, image) {
    const ours = choices()[1]?.numbers;
    const names = report.metrics.filter(({ name }) => pair.some(({ numbers }) => isNumber(numbers?.[name])));
    const cell = (text, wins, extra) =>
      el("td", { class: wins ? "best" : null }, text, extra && el("small", {}, extra));
    const bytes = ({ numbers }) => {
      if (!numbers) return cell(bytesText(image.width * image.height * 3), false, "raw");
      const more = ours && numbers !== ours ? 100 * (numbers.bytes / ours.bytes - 1) : null;
      return cell(bytesText(numbers.bytes), false, more === null ? "" : `${signed(more, 0)} %`);
    };
    const metricRow = ({ name, title }) => {
      const values = pair.map(({ numbers }) => numbers?.[name]);
      const wins =
        values.every(isNumber) && values[0] !== values[1] ? (better(name, values[0], values[1]) ? 0 : 1) : -1;
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, title),
        values.map((value, side) => cell(metricText(name, value), side === wins)),
      );
    };
    return el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("td", {}),
          pair.map((one) => el("th", { scope: "col" }, one.title, one.settings && el("small", {}, one.settings))),
        ),
      ),
      el(
        "tbody",
        {},
        el("tr", {}, el("th", { scope: "row" }, "Bytes"), pair.map(bytes)),
        el(
          "tr",
          {},
          el("th", { scope: "row" }, "Bits per pixel"),
          pair.map(({ numbers }) => cell(numbers ? rateText(numbers.bpp) : "24")),
        ),
        names.map(metricRow),
      ),
    );
  }

  function go(index, row) {
    state.entry = (index + entries.length) % entries.length;
    if (row !== undefined) state.row = row;
    state.row = Math.min(state.row, Math.max(0, entries[state.entry].rows.length - 1));
    state.zoom = 1;
    show();
    const thumb = strip.children[state.entry];
    strip.scrollTo({ left: thumb.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + thumb.clientWidth / 2 });
  }

  function flicker() {
    clearInterval(state.timer);
    const on = !state.timer;
    buttons.flicker.setAttribute("aria-pressed", on);
    stage.classList.toggle("whole", on);
    state.swapped = false;
    // Slower than three changes in a second, which can harm people.
    state.timer = on ? setInterval(() => hold(!state.swapped), 600) : 0;
    show();
  }

  /** Show the other picture, as while the space bar is held. */
  function hold(on) {
    if (state.swapped !== on) {
      state.swapped = on;
      show();
    }
  }

  function toggleDifference() {
    state.difference = !state.difference;
    buttons.difference.setAttribute("aria-pressed", state.difference);
    show();
  }

  function swapSides() {
    [state.left, state.right] = [state.right, state.left];
    show();
  }

  function zoomBy(steps, event) {
    const at = ZOOMS.reduce(
      (best, zoom, i) => (Math.abs(zoom - state.zoom) < Math.abs(ZOOMS[best] - state.zoom) ? i : best),
      0,
    );
    setZoom(ZOOMS[Math.max(0, Math.min(ZOOMS.length - 1, at + steps))], event);
  }

  /** Zoom so that what is below the pointer stays there. */
  function setZoom(zoom, event) {
    const rect = stage.getBoundingClientRect(),
      next = Math.max(1, Math.min(16, zoom));
    const px = event ? event.clientX - rect.left - rect.width / 2 : 0,
      py = event ? event.clientY - rect.top - rect.height / 2 : 0;
    state.x = px - ((px - state.x) * next) / state.zoom;
    state.y = py - ((py - state.y) * next) / state.zoom;
    state.zoom = next;
    place();
  }

  function resetZoom() {
    Object.assign(state, { zoom: 1, x: 0, y: 0 });
    place();
  }

  drags(stage, handle, state, place, setZoom);
  stage.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && state.zoom === 1 && document.activeElement !== stage) return; // the page scrolls
      event.preventDefault();
      setZoom(state.zoom * Math.exp(-event.deltaY / 300), event);
    },
    { passive: false },
  );
  stage.addEventListener("dblclick", (event) => (state.zoom > 1 ? resetZoom() : setZoom(4, event)));
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pan = event.shiftKey ? 40 : 0,
      move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (move && (pan || move[1])) {
      if (state.zoom === 1) return;
      Object.assign(state, { x: state.x - move[0] * 40, y: state.y - move[1] * 40 });
      place();
    } else if (move) {
      state.split = Math.max(0, Math.min(100, state.split + 2 * move[0]));
      place();
    } else if (/^[1-9]$/.test(event.key)) {
      if (Number(event.key) > entries[state.entry].rows.length) return;
      state.row = Number(event.key) - 1;
      show();
    } else {
      const act = {
        "+": () => zoomBy(1),
        "=": () => zoomBy(1),
        "-": () => zoomBy(-1),
        0: resetZoom,
        f: flicker,
        d: toggleDifference,
        x: swapSides,
        "[": () => go(state.entry - 1),
        "]": () => go(state.entry + 1),
        " ": () => hold(true),
      }[event.key.toLowerCase()];
      if (!act) return;
      act();
    }
    event.preventDefault();
  });
  stage.addEventListener("keyup", (event) => event.key === " " && !state.timer && hold(false));
  new ResizeObserver(place).observe(stage);

  const keys = [
    ["← →", "divider"],
    ["Space", "hold for the other"],
    ["+ −", "zoom"],
    ["Shift ← →", "move"],
    ["[ ]", "picture"],
    ["1 – 9", "rate"],
    ["F", "flicker"],
    ["D", "difference"],
  ];
  const node = section(
    "pictures",
    "Pictures",
    entries.some((entry) => entry.rows.some((row) => row.some(({ curve }) => !report.main.includes(curve))))
      ? `Each other codec is shown by its best file, by ${report.metrics[0].title}, that has at most 10\u00a0% more bytes than that of the model, coded at whatever size; or else by its smallest.`
      : "Move the divider to compare the original with the decoded picture.",
    el(
      "div",
      { class: "viewer" },
      el("div", { class: "view" }, el("div", { class: "frame" }, stage), slider, strip),
      el(
        "div",
        { class: "panel" },
        el("div", {}, title, size),
        rates,
        el("div", { class: "sides" }, sides),
        table,
        el("div", { class: "actions" }, Object.values(buttons), zoomButtons),
        el(
          "p",
          { class: "keys" },
          keys.map(([key, text]) => el("span", {}, el("kbd", {}, key), " ", text)),
        ),
      ),
    ),
  );
  // At first the rate in the middle, beside a picture of the baseline.
  state.row = Math.min(1, Math.max(0, entries[0].rows.length - 1));
  const first = (entries[0].rows[state.row] || []).map(({ curve }) => report.main.includes(curve));
  state.left = first.includes(false) ? first.indexOf(false) + 1 : first.length > 1 ? first.length : 0;
  return {
    node,
    show,
    /** Show a picture beside its original; `row` is its rate, and `at` a place in the row. */
    open: (index, row, at = 0) => {
      state.left = 0;
      state.right = at + 1;
      go(index, row);
      node.scrollIntoView();
      stage.focus({ preventScroll: true });
    },
  };
}
