// Rate-distortion and distortion-perception curves, of the mean and of single pictures.

// Of the metrics, those that say how natural a picture looks or how far it is from the original for an eye.
const PERCEPTUAL = /fid|wasserstein|lpips|dists|niqe/;

function curvesSection() {
  const state = { picture: -1, logX: true, hidden: new Set(hiddenAtFirst()) };

  /** Points of a curve for two values, x and y, each "bpp" or a metric. */
  function pointsOf(curve, x, y) {
    return curve.points
      .map((point, index) => {
        const value = (name) => (state.picture < 0 ? point.mean[name] : point.images[name]?.[state.picture]);
        const text = [
          ["", pointText(curve, index)],
          ["bits per pixel", rateText(value("bpp"))],
          ...[...new Set([x, y])]
            .filter((name) => name !== "bpp")
            .map((name) => [metricOf[name].title, withUnit(name, value(name))]),
          ...(state.picture < 0 && lacksPictures(point.mean) ? [["pictures", ofAllText(point.mean)]] : []),
        ];
        return { x: value(x), y: value(y), text: text.filter(([name, words]) => name || words) };
      })
      .filter((point) => isNumber(point.x) && isNumber(point.y) && (x !== "bpp" || point.x > 0))
      .sort((a, b) => a.x - b.x);
  }

  const measured = report.metrics.filter(({ name }) =>
    curves.some((curve) => curve.points.some((p) => isNumber(p.mean[name]))),
  );
  const charts = measured.map((metric) => ({
    x: "bpp",
    y: metric.name,
    ...makeChart({
      title: metric.title + (metric.unit ? ` in ${metric.unit}` : ""),
      note: `${metric.better} is better`,
      xTitle: (log) => "bits per pixel" + (log ? ", log scale" : ""),
    }),
  }));
  // Distortion against perception, at whatever rate.
  const distortion = measured[0];
  const tradeoffs = measured
    .filter(({ name }) => PERCEPTUAL.test(name) && name !== distortion.name)
    .map((metric) => ({
      x: distortion.name,
      y: metric.name,
      ...makeChart({
        title: `${metric.title} over ${distortion.title}`,
        note: `${metric.better} is better, and ${distortion.better} ${distortion.title}`,
        xTitle: () => distortion.title + (distortion.unit ? ` in ${distortion.unit}` : ""),
      }),
    }));

  function draw() {
    for (const chart of [...charts, ...tradeoffs]) {
      const series = curves
        .filter((curve) => !state.hidden.has(curve.index))
        .map((curve) => ({ curve, points: pointsOf(curve, chart.x, chart.y) }))
        .filter(({ points }) => points.length);
      chart.figure.hidden = state.picture >= 0 && !series.length; // a number of the set only
      chart.draw({ series, logX: chart.x === "bpp" && state.logX });
    }
    chips.forEach((chip, index) => chip.setAttribute("aria-pressed", !state.hidden.has(index)));
  }

  const chips = curves.map((curve) =>
    el(
      "button",
      {
        type: "button",
        class: "chip",
        onclick: () => {
          if (!state.hidden.delete(curve.index)) state.hidden.add(curve.index);
          draw();
        },
      },
      lineSample(curve),
      curve.title,
    ),
  );
  const legend = el(
    "div",
    { class: "legend", role: "group", "aria-label": "Curves that are shown" },
    chips,
    state.hidden.size > 0 &&
      el(
        "button",
        {
          type: "button",
          class: "quiet",
          onclick: () => {
            state.hidden.clear();
            draw();
          },
        },
        "Show all",
      ),
  );
  const names = [`Mean of ${meansOf}`, ...report.images.map((image) => image.name)];
  const node = section(
    "curves",
    "Rate and quality",
    "Point at a curve, or focus a chart and use the arrow keys. The legend hides and shows curves.",
    el(
      "div",
      { class: "toolbar" },
      labelled(
        "Picture",
        select("Picture", names, 0, (index) => {
          state.picture = index - 1;
          draw();
        }),
      ),
      el(
        "div",
        { class: "field" },
        el("span", {}, "Rate"),
        segments("Scale of the rate", ["Logarithmic", "Linear"], 0, (index) => {
          state.logX = index === 0;
          draw();
        }),
      ),
    ),
    legend,
    el(
      "div",
      { class: "charts" },
      charts.map((chart) => chart.figure),
    ),
    tradeoffs.length > 0 && [
      el("h3", {}, "Perception over distortion"),
      el(
        "div",
        { class: "charts" },
        tradeoffs.map((chart) => chart.figure),
      ),
    ],
  );
  return { node, draw };
}

/** Codecs at less than full size are many; where there are more than eight curves they are shown on demand. */
function hiddenAtFirst() {
  return curves.length <= 8
    ? []
    : curves.filter((curve) => curve.variant > 0 && !report.main.includes(curve.index)).map((curve) => curve.index);
}
