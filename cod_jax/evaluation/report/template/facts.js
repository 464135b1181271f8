// What was measured, how and where: model cards, protocol, machine, and what was not measured.

function isGroup(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** Facts of a curve: short ones at once, and the many of a configuration behind its name. */
function groupedFacts(values) {
  const entries = Object.entries(values),
    inner = (value) => JSON.stringify(value).length;
  const isLong = ([, value]) => isGroup(value) && inner(value) > 300;
  return [
    facts(Object.fromEntries(entries.filter((entry) => !isLong(entry)))),
    entries
      .filter(isLong)
      .map(([name, value]) => el("details", {}, el("summary", {}, name.replaceAll("_", " ")), facts(value))),
  ];
}

/** Rows of names and values; a value that is an object becomes rows of its own. */
function facts(values) {
  const rows = [];
  const add = (value, path) => {
    if (isGroup(value)) {
      Object.entries(value).forEach(([name, inner]) => add(inner, [...path, name.replaceAll("_", " ")]));
    } else if (Array.isArray(value) && value.some((one) => one !== null && typeof one === "object")) {
      value.forEach((one, index) => add(one, [...path, String(index + 1)]));
    } else rows.push([path.join(" · "), value]);
  };
  add(values, []);
  return el(
    "dl",
    { class: "facts" },
    rows.map(([name, value]) =>
      el(
        "div",
        {},
        el("dt", {}, name),
        el(
          "dd",
          { class: /^[0-9a-f]{40,}$/.test(value) ? "hash" : null },
          /bytes$/.test(name) && isNumber(value) ? `${bytesText(value)}` : anyText(value),
        ),
      ),
    ),
  );
}

function modelsSection() {
  const isFirst = (curve) => curves.find((one) => modelName(one) === modelName(curve)) === curve;
  const models = curves.filter((curve) => curve.kind !== "baseline" && isFirst(curve));
  const baselines = curves.filter((curve) => curve.kind === "baseline");
  if (!models.length && !baselines.length) return null;
  const isOne = models.filter((curve) => !curve.about.levels_of).length === 1;
  return section(
    "models",
    isOne ? "Model card" : "What was compared",
    null,
    models.map((curve) => {
      const { card, ...about } = curve.about;
      return el(
        "article",
        { class: "card" },
        el("h3", {}, curveName({ ...curve, title: modelName(curve) })),
        card && el("details", { open: isOne }, el("summary", {}, "Card"), markdown(card)),
        el(
          "details",
          { open: !card },
          el("summary", {}, "Facts"),
          groupedFacts({ ...(about.variant_of ? {} : settingsOf(curve).shared), ...about }),
        ),
      );
    }),
    baselines.length > 0 &&
      el(
        "article",
        { class: "card" },
        el("h3", {}, "Baselines"),
        sortedTable(
          "Baselines",
          [
            { title: "Codec", value: (curve) => curve.title, node: curveName },
            {
              title: "Settings",
              words: true,
              value: (curve) => curve.points.length,
              text: (curve) => curve.points.map((point) => point.label).join(", "),
            },
            {
              title: "Made by",
              words: true,
              value: (curve) => aboutText(curve.about),
              text: (curve) => aboutText(curve.about),
            },
          ],
          baselines,
        ),
      ),
  );
}

/** What is said of a baseline, on one line. */
function aboutText(values) {
  return Object.entries(values)
    .map(([name, value]) => {
      if (name === "versions" && value) return settingsText(value);
      return value === null || typeof value === "object" ? "" : `${name.replaceAll("_", " ")}: ${anyText(value)}`;
    })
    .filter(Boolean)
    .join("; ");
}

function protocolSection() {
  const { title, psnr_min: least, psnr_mean: mean } = report.storage;
  const stored =
    least === null
      ? `The pictures in this file are exact (${title}).`
      : `The pictures in this file are stored as ${title}: ${fixed(mean, 1)} dB from those that were measured in the mean, ${fixed(least, 1)} dB at least. All numbers were measured on the exact ones.`;
  const some =
    report.viewer.length < report.images.length &&
    el(
      "p",
      {},
      `The viewer holds ${report.viewer.length} of ${report.images.length} pictures, evenly from the worst to the best.`,
    );
  return section(
    "protocol",
    "Protocol",
    "How each number was made.",
    el(
      "div",
      { class: "columns" },
      el(
        "article",
        { class: "card" },
        el("h3", {}, "Metrics"),
        el(
          "dl",
          { class: "facts" },
          report.metrics.map((metric) =>
            el(
              "div",
              {},
              el("dt", {}, metric.title),
              el("dd", {}, [
                metric.protocol || "",
                metric.weights_sha256 && [" Weights: ", el("span", { class: "hash" }, metric.weights_sha256)],
              ]),
            ),
          ),
        ),
      ),
      el(
        "article",
        { class: "card" },
        el("h3", {}, "Rates and pictures"),
        facts(report.protocol),
        el("p", {}, stored),
        some,
      ),
      report.not_measured.length > 0 &&
        el(
          "article",
          { class: "card" },
          el("h3", {}, "Not measured"),
          el(
            "dl",
            { class: "facts" },
            report.not_measured.map((one) => el("div", {}, el("dt", {}, one.title), el("dd", {}, one.reason))),
          ),
        ),
      el("article", { class: "card" }, el("h3", {}, "Hardware"), facts(report.machine)),
      el("article", { class: "card" }, el("h3", {}, "Versions"), facts(report.versions)),
    ),
    report.command && [el("h3", {}, "Command"), el("pre", { tabindex: "0" }, report.command)],
    el(
      "details",
      { class: "card" },
      el("summary", {}, "The pictures and their hashes"),
      sortedTable(
        "Hashes",
        [
          { title: "Picture", value: (image) => image.name, text: (image) => image.name },
          {
            title: "Size",
            value: (image) => image.width * image.height,
            text: (image) => `${image.width} × ${image.height}`,
          },
          {
            title: "SHA-256",
            words: true,
            value: (image) => image.sha256 || "",
            node: (image) => el("span", { class: "hash" }, image.sha256 || NONE),
          },
        ],
        report.images,
      ),
    ),
  );
}
