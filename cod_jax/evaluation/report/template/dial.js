// What several numbers of steps and guidances make of the same files: curves at each rate, and pictures side by side.

const TEXTURE = { name: "texture", title: "Texture", unit: "", better: null };

function dialSection(open) {
  const models = [...new Set(report.dial.map((row) => row.model))];
  const state = { model: models[0], entry: 0, row: null };
  const valueText = (name, value) => (name === TEXTURE.name ? fixed(value, 2) : metricText(name, value));

  /** Lines of the chosen model: [{label, guidance, rows}], one for each rate and guidance, by the number of steps. */
  function linesOf() {
    const own = report.dial.filter((row) => row.model === state.model);
    const unique = (name, rows) => [...new Set(rows.map((row) => row[name]))];
    const guidances = unique(
      "guidance",
      own.filter((row) => row.steps > 1),
    );
    return unique("label", own).flatMap((label, ink) =>
      guidances.map((guidance, variant) => {
        const rows = own.filter((row) => row.label === label && (row.steps === 1 || row.guidance === guidance));
        rows.sort((a, b) => a.steps - b.steps);
        const title = `${rateText(rows[0].bpp)} bits per pixel`;
        const more = guidances.length > 1 ? `, guidance ${anyText(guidance)}` : "";
        return { curve: { title: title + more, ink, variant }, rows };
      }),
    );
  }

  const isMeasured = ({ name }) => report.dial.some((row) => isNumber(row[name]));
  const perceptual = [...report.metrics.filter(({ name }) => PERCEPTUAL.test(name)), TEXTURE].filter(isMeasured);
  const charts = report.metrics
    .filter(({ name }) => ["psnr", "ms_ssim"].includes(name))
    .filter(isMeasured)
    .flatMap((x) =>
      perceptual.map((y) => ({
        x,
        y,
        ...makeChart({
          title: `${y.title} over ${x.title}`,
          note: y.better ? `${y.better} is better` : "1 is as much as in the original",
          xTitle: () => x.title + (x.unit ? ` in ${x.unit}` : ""),
        }),
      })),
    );

  function draw() {
    const lines = linesOf();
    for (const { x, y, draw } of charts) {
      const pointOf = (row) => ({
        x: row[x.name],
        y: row[y.name],
        label: String(row.steps),
        text: [
          ["steps", String(row.steps)],
          ["bits per pixel", rateText(row.bpp)],
          [x.title, valueText(x.name, row[x.name])],
          [y.title, valueText(y.name, row[y.name])],
          ...(lacksPictures(row) ? [["pictures", ofAllText(row)]] : []),
        ],
      });
      const series = lines
        .map(({ curve, rows }) => ({
          curve,
          points: rows.map(pointOf).filter((point) => isNumber(point.x) && isNumber(point.y)),
        }))
        .filter(({ points }) => points.length);
      draw({ series, logX: false });
    }
    fill(
      legend,
      lines.map(({ curve }) =>
        el(
          "span",
          { class: "chip" },
          lineSample(curve),
          curve.title,
        ),
      ),
    );
  }

  /** Rows of the viewer, of the chosen picture, in which the chosen model decodes one file in several ways. */
  function rowsOf() {
    const isOwn = ({ curve }) => curves[curve].about.variant_of === state.model;
    return (report.viewer[state.entry]?.rows || [])
      .map((row, index) => ({ index, ours: row.map((one, at) => ({ ...one, at })).filter(isOwn) }))
      .filter(({ ours }) => ours.length > 1);
  }

  function figureOf(title, picture, words, act) {
    const { width, height } = report.images[report.viewer[state.entry].image];
    return el(
      "button",
      { type: "button", class: "case", onclick: act, "aria-label": `${title}: show in the viewer` },
      el("img", {
        src: pictureAddress(`p${picture}`),
        alt: title,
        class: width >= 320 && height >= 280 ? "exact" : null,
        decoding: "async",
      }),
      el("span", { class: "case-text" }, el("strong", {}, title), el("small", {}, words)),
    );
  }

  function show() {
    const rows = rowsOf(),
      entry = report.viewer[state.entry];
    const chosen = rows.find(({ index }) => index === state.row) ?? rows[Math.floor((rows.length - 1) / 2)];
    state.row = chosen?.index ?? null;
    const pick = (title, options, at, act) =>
      options.length > 1 &&
      labelled(
        title,
        select(title, options, at, (index) => {
          act(index);
          draw();
          show();
        }),
      );
    const rateOf = ({ ours: [{ curve, point }] }) =>
      `${pointText(curves[curve], point)}, ${rateText(curves[curve].points[point].images.bpp?.[entry.image])} bits per pixel`;
    fill(
      toolbar,
      pick("Model", models, models.indexOf(state.model), (index) => {
        state.model = models[index];
      }),
      pick(
        "Picture",
        report.viewer.map(({ image }) => report.images[image].name),
        state.entry,
        (index) => {
          state.entry = index;
        },
      ),
      pick("Rate", rows.map(rateOf), rows.indexOf(chosen), (index) => {
        state.row = rows[index].index;
      }),
    );
    const words = ({ curve, point }) => {
      const of = curves[curve].points[point].images;
      const at = (name) => of[name]?.[entry.image];
      return [report.metrics[0], ...perceptual]
        .filter(({ name }) => isNumber(at(name)))
        .map(({ name, title }) => `${title} ${valueText(name, at(name))}`)
        .join(", ");
    };
    fill(
      strip,
      chosen && [
        figureOf("Original", entry.original, "", () => open(state.entry, chosen.index)),
        chosen.ours.map((one) =>
          figureOf(
            curves[one.curve].title.replace(`${state.model} (`, "").replace(/\)$/, ""),
            one.picture,
            words(one),
            () => open(state.entry, chosen.index, one.at),
          ),
        ),
      ],
    );
  }

  const toolbar = el("div", { class: "toolbar" }),
    strip = el("div", { class: "case-row dial" }),
    legend = el("div", { class: "legend" });
  const node = section(
    "dial",
    "Distortion and perception",
    "The same files, decoded in several ways. The numbers beside the points are steps.",
    toolbar,
    strip,
    legend,
    el(
      "div",
      { class: "charts" },
      charts.map((chart) => chart.figure),
    ),
  );
  show();
  return { node, draw };
}
