// Tables that are sorted by a press on a heading.

/**
 * A table whose columns are [{title, unit, text: row => words, value: row => number or words, node: row => element}];
 * those of `words` are set to the left. The first column names the row.
 */
function sortedTable(caption, columns, rows) {
  let by = null,
    down = false;
  const body = el("tbody", {});
  const heads = columns.map((column, index) =>
    el(
      "th",
      { scope: "col", "aria-sort": "none", class: column.words ? "words" : null },
      el(
        "button",
        { type: "button", onclick: () => sort(index) },
        column.title,
        column.unit && el("small", {}, ` ${column.unit}`),
      ),
    ),
  );

  function sort(index) {
    down = by === index ? !down : columns[index].downFirst === true;
    by = index;
    heads.forEach((head, at) =>
      head.setAttribute("aria-sort", at !== index ? "none" : down ? "descending" : "ascending"),
    );
    show();
  }

  function show() {
    const value = by === null ? null : columns[by].value;
    const sorted =
      value === null
        ? rows
        : [...rows].sort((a, b) => {
            const [x, y] = [value(a), value(b)];
            if (x === y) return 0;
            if (x === null || x === undefined) return 1; // what was not measured stays below
            if (y === null || y === undefined) return -1;
            const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
            return down ? -order : order;
          });
    fill(
      body,
      sorted.map((row) =>
        el(
          "tr",
          {},
          columns.map((column, index) =>
            el(
              index ? "td" : "th",
              { scope: index ? null : "row", class: column.words ? "words" : null },
              column.node ? column.node(row) : column.text(row),
            ),
          ),
        ),
      ),
    );
  }

  show();
  return el(
    "div",
    { class: "scroller", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      { class: "sorted" },
      el("caption", { class: "unseen" }, `${caption}; press a heading to sort`),
      el("thead", {}, el("tr", {}, heads)),
      body,
    ),
  );
}

/** Columns for rate, metrics and times of rows; those without a number are left out. */
function numberColumns(rows, value) {
  const all = [
    {
      title: "Quality",
      value: (row) => value(row, "quality"),
      text: (row) => fixed(value(row, "quality"), 0),
    },
    { title: "Bits per pixel", value: (row) => value(row, "bpp"), text: (row) => rateText(value(row, "bpp")) },
    ...report.metrics.map(({ name, title, unit, better: side }) => ({
      title,
      unit,
      downFirst: side === "higher",
      value: (row) => value(row, name),
      text: (row) => metricText(name, value(row, name)),
    })),
    ...[
      ["encode_s", "Encode"],
      ["decode_s", "Decode"],
    ].map(([name, title]) => ({
      title,
      unit: "s",
      value: (row) => value(row, name),
      text: (row) => secondsText(value(row, name)),
    })),
  ];
  return all.filter((column) => rows.some((row) => isNumber(column.value(row))));
}

function curveName(curve) {
  return el(
    "span",
    { class: "curve-name" },
    svg("svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" }, marker(curve)),
    curve.title,
  );
}

function tablesSection(open) {
  const points = curves.flatMap((curve) => curve.points.map((point) => ({ curve, point })));
  const all = sortedTable(
    `Means of ${meansOf}`,
    [
      { title: "Curve", value: ({ curve }) => curve.title, node: ({ curve }) => curveName(curve) },
      { title: "Setting", value: ({ point }) => point.label, text: ({ point }) => point.label },
      points.some(({ point }) => lacksPictures(point.mean)) && {
        title: "Pictures",
        value: ({ point }) => point.mean.num_images ?? null,
        text: ({ point }) => ofAllText(point.mean),
      },
      ...numberColumns(points, ({ point }, name) => point.mean[name] ?? null),
    ].filter(Boolean),
    points,
  );

  const first = curves[report.main[0]];
  const state = { curve: first, point: Math.floor(first.points.length / 2) };
  const place = el("div", {}),
    pickers = el("div", { class: "toolbar" });
  const shown = Object.fromEntries(report.viewer.map((entry, index) => [entry.image, index]));
  const withPoints = curves.filter((curve) => curve.points.length);

  function show() {
    const { curve, point } = state,
      of = curve.points[point];
    fill(
      pickers,
      labelled(
        "Curve",
        select(
          "Curve",
          withPoints.map((one) => one.title),
          withPoints.indexOf(curve),
          (index) => {
            Object.assign(state, {
              curve: withPoints[index],
              point: Math.min(point, withPoints[index].points.length - 1),
            });
            show();
          },
        ),
      ),
      labelled(
        "Setting",
        select(
          "Setting",
          curve.points.map((_, index) => pointText(curve, index)),
          point,
          (index) => {
            state.point = index;
            show();
          },
        ),
      ),
    );
    const rows = [...report.images.keys()];
    const at = (index, name) => of.images[name]?.[index] ?? null;
    const isShown = (one) => one.curve === curve.index && one.point === point;
    const openAt = (entry) => {
      const row = report.viewer[entry].rows.findIndex((ones) => ones.some(isShown));
      if (row < 0) open(entry);
      else open(entry, row, report.viewer[entry].rows[row].findIndex(isShown));
    };
    fill(
      place,
      sortedTable(
        `Pictures, ${curve.title}, ${of.label}`,
        [
          {
            title: "Picture",
            value: (index) => report.images[index].name,
            node: (index) =>
              shown[index] === undefined
                ? report.images[index].name
                : el(
                    "button",
                    {
                      type: "button",
                      class: "link",
                      onclick: () => openAt(shown[index]),
                    },
                    report.images[index].name,
                  ),
          },
          {
            title: "Bytes",
            downFirst: true,
            value: (index) => at(index, "bytes"),
            text: (index) => bytesText(at(index, "bytes")),
          },
          ...numberColumns(rows, at),
        ],
        rows,
      ),
    );
  }

  show();
  return section(
    "numbers",
    "Numbers",
    "A press on a heading sorts a table.",
    el("h3", {}, `Means of ${meansOf}`),
    all,
    failures(),
    el("h3", {}, "Every picture"),
    pickers,
    place,
  );
}

/** What failed, by picture, curve and setting; null where nothing did. */
function failures() {
  const rows = [
    ...Object.entries(report.failed).map(([name, reason]) => ({ name, curve: "all", setting: "all", reason })),
    ...curves.flatMap((curve) =>
      curve.points.flatMap((point, index) =>
        Object.entries(point.failed).map(([name, reason]) => ({
          name,
          curve: curve.title,
          setting: pointText(curve, index),
          reason,
        })),
      ),
    ),
  ];
  if (!rows.length) return null;
  const columns = [
    ["Failed", "name"],
    ["Curve", "curve"],
    ["Setting", "setting"],
    ["Reason", "reason"],
  ].map(([title, name]) => ({
    title,
    words: true,
    value: (row) => String(row[name]),
    text: (row) => String(row[name]),
  }));
  return el(
    "details",
    { class: "card", open: true },
    el("summary", {}, `What failed and is in no mean: ${rows.length}`),
    sortedTable("What failed", columns, rows),
  );
}

/** Range of a metric that two curves share; the results have it in the scale in which curves are integrated. */
function overlapText({ name, better: side }, overlap) {
  const back = name === "ms_ssim" ? (value) => 1 - 10 ** (-value / 10) : (value) => (side === "lower" ? -value : value);
  const [low, high] = overlap.map(back).sort((a, b) => a - b);
  return `${metricText(name, low)} to ${metricText(name, high)}`;
}

function savingsSection() {
  if (!report.bd.length) return null;
  const titles = Object.fromEntries(curves.map((curve) => [curve.name, curve]));
  const pairs = new Map(),
    notes = [];
  for (const one of report.bd) {
    const key = JSON.stringify([one.curve, one.against]);
    pairs.set(key, { ...pairs.get(key), curve: one.curve, against: one.against, [one.metric]: one });
  }
  const metrics = report.metrics.filter(({ name }) => report.bd.some((one) => one.metric === name));
  const noteOf = (reason) => {
    if (!notes.includes(reason)) notes.push(reason);
    return el("sup", {}, String(notes.indexOf(reason) + 1));
  };
  const title = (name) => (titles[name] ? curveName(titles[name]) : name);
  const rows = [...pairs.values()];
  const known = rows.filter((row) => metrics.some(({ name }) => isNumber(row[name]?.rate_percent)));
  const without = rows.filter((row) => !known.includes(row));
  const table = sortedTable(
    "BD-rate",
    [
      { title: "Curve", value: ({ curve }) => curve, node: ({ curve }) => title(curve) },
      { title: "Against", words: true, value: ({ against }) => against, node: ({ against }) => title(against) },
      ...metrics.map((metric) => ({
        title: metric.title,
        unit: "%",
        value: (row) => row[metric.name]?.rate_percent ?? null,
        node: (row) => {
          const one = row[metric.name];
          if (!one) return NONE;
          if (!isNumber(one.rate_percent)) return el("span", {}, NONE, one.reason && noteOf(one.reason));
          const words = el("span", { class: one.rate_percent < 0 ? "saves" : "costs" }, signed(one.rate_percent, 1));
          return el(
            "span",
            {},
            words,
            Array.isArray(one.overlap) &&
              one.overlap.every(isNumber) &&
              el("small", {}, ` ${overlapText(metric, one.overlap)}`),
          );
        },
      })),
    ],
    known,
  );
  const reasons = new Map();
  for (const row of without) {
    const pair = `${titles[row.curve]?.title ?? row.curve} against ${titles[row.against]?.title ?? row.against}`;
    const reason = metrics.map(({ name }) => row[name]?.reason).find(Boolean) ?? "there are no numbers";
    reasons.set(reason, [...(reasons.get(reason) ?? []), pair]);
  }
  return section(
    "savings",
    "BD-rate",
    "Bytes more or less at equal quality, averaged over the qualities that both curves reach, which are given in small print. Negative is better.",
    known.length > 0 ? table : el("p", { class: "empty" }, "No two curves can be compared."),
    notes.length > 0 &&
      el(
        "details",
        { class: "notes", open: notes.length < 4 },
        el("summary", {}, "Why some are missing"),
        el(
          "ol",
          {},
          notes.map((text) => el("li", {}, text)),
        ),
      ),
    reasons.size > 0 &&
      el(
        "details",
        { class: "notes" },
        el("summary", {}, `Pairs of curves without any number: ${without.length}`),
        el(
          "ul",
          {},
          [...reasons].map(([reason, names]) => el("li", {}, `${names.join("; ")}: ${reason}`)),
        ),
      ),
  );
}
