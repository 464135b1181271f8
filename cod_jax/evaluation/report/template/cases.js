// The pictures on which a model does worst and best, by a metric or by its gain over a baseline.

function casesSection(open) {
  const entries = report.viewer;
  const rows = [
    ...new Map(
      entries.flatMap((entry) =>
        entry.rows
          .flat()
          .filter((one) => report.main.includes(one.curve))
          .map((one) => [`${one.curve}/${one.point}`, one]),
      ),
    ).values(),
  ];
  if (entries.length < 4 || !rows.length) return null;
  const measured = report.metrics.filter(({ name }) =>
    rows.some(({ curve, point }) => curves[curve].points[point].images[name]),
  );
  const baselines = [
    ...new Set(curves.filter((curve) => !report.main.includes(curve.index)).map((curve) => curve.family)),
  ];
  const measures = [
    ...measured.map((metric) => ({ metric, family: null, title: metric.title })),
    ...measured.slice(0, 3).flatMap((metric) =>
      baselines.map((family) => ({
        metric,
        family,
        title: `${metric.title}, gain over ${curves.find((curve) => curve.family === family).title}`,
      })),
    ),
  ];
  const state = { row: rows[Math.floor((rows.length - 1) / 2)], measure: measures[0] };
  const place = el("div", { class: "cases" });

  /** Value of a picture by the chosen measure, larger is better; null where there is none. */
  function score(image) {
    const { metric, family } = state.measure;
    const of = curves[state.row.curve].points[state.row.point].images;
    const sign = metric.better === "higher" ? 1 : -1,
      ours = of[metric.name]?.[image];
    if (!isNumber(ours) || family === null) return isNumber(ours) ? sign * ours : null;
    const rivals = curves
      .filter((curve) => curve.family === family)
      .map((curve) =>
        interpolate(
          curve.points.map((point) => [point.images.bpp?.[image], point.images[metric.name]?.[image]]),
          of.bpp?.[image],
        ),
      )
      .filter(isNumber);
    return rivals.length ? sign * ours - Math.max(...rivals.map((value) => sign * value)) : null;
  }

  function card({ entry, index, value }) {
    const { metric, family } = state.measure;
    const isShown = (one) => one.curve === state.row.curve && one.point === state.row.point;
    const row = entry.rows.findIndex((ones) => ones.some(isShown));
    const at = row < 0 ? 0 : entry.rows[row].findIndex(isShown);
    const number = metric.better === "higher" || family !== null ? value : -value;
    const unit = metric.unit ? ` ${metric.unit}` : "";
    const words = family === null ? withUnit(metric.name, number) : signed(number, digitsOf[metric.name], unit);
    const name = report.images[entry.image].name;
    const images =
      row < 0
        ? []
        : [
            ["Original", entry.original],
            [curves[state.row.curve].title, entry.rows[row][at].picture],
          ];
    return el(
      "button",
      {
        type: "button",
        class: "case",
        onclick: () => open(index, row, at),
        "aria-label": `${name}, ${words}: show in the viewer`,
      },
      el(
        "span",
        { class: "duo" },
        images.map(([title, key]) => el("img", { src: pictureAddress(`p${key}`), alt: title, decoding: "async" })),
      ),
      el("span", { class: "case-text" }, el("span", { class: "case-name" }, name), el("strong", {}, words)),
    );
  }

  function show() {
    const scored = entries
      .map((entry, index) => ({ entry, index, value: score(entry.image) }))
      .filter(({ value }) => value !== null)
      .sort((a, b) => a.value - b.value);
    const count = Math.min(3, Math.floor(scored.length / 2));
    const group = (title, cards) =>
      el("div", {}, el("h3", {}, title), el("div", { class: "case-row" }, cards.map(card)));
    fill(
      place,
      count < 1
        ? el("p", { class: "empty" }, "No picture can be compared at this rate.")
        : [group("Worst", scored.slice(0, count)), group("Best", scored.slice(-count).reverse())],
    );
  }

  const rowText = ({ curve, point }) =>
    `${curves[curve].title}, ${rateText(curves[curve].points[point].mean.bpp)} bits per pixel`;
  const node = section(
    "cases",
    "Worst and best",
    "Original and decoded picture side by side. A gain is the difference to the baseline at the same rate of the same picture, at the best of its scales.",
    el(
      "div",
      { class: "toolbar" },
      labelled(
        "Rate",
        select("Rate", rows.map(rowText), rows.indexOf(state.row), (index) => {
          state.row = rows[index];
          show();
        }),
      ),
      labelled(
        "Measure",
        select(
          "Measure",
          measures.map((one) => one.title),
          0,
          (index) => {
            state.measure = measures[index];
            show();
          },
        ),
      ),
    ),
    place,
  );
  show();
  return node;
}
