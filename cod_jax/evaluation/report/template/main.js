// Puts the page together.

function main() {
  const viewer = report.viewer.length ? viewerSection() : null;
  const open = viewer ? viewer.open : () => {};
  const charts = curvesSection();
  const dial = report.dial.length ? dialSection(open) : null;
  const sections = [
    viewer?.node,
    charts.node,
    dial?.node,
    savingsSection(),
    casesSection(open),
    tablesSection(open),
    modelsSection(),
    protocolSection(),
  ].filter(Boolean);
  masthead(document.querySelector(".masthead"));
  document.querySelector("main").append(...sections);
  document.querySelector("nav").append(
    el(
      "ul",
      {},
      sections.map((one) => el("li", {}, el("a", { href: `#${one.id}` }, one.querySelector("h2").textContent))),
    ),
    themeButton(),
  );
  document.querySelector(".foot").append(el("p", {}, "Written by cod_jax. This file needs no network."));
  viewer?.show();
  charts.draw();
  dial?.draw();
  document.documentElement.classList.add("ready");
  addEventListener("beforeprint", () =>
    document.querySelectorAll("details").forEach((one) => {
      one.open = true;
    }),
  );
}

function masthead(node) {
  const mains = report.main.map((index) => curves[index]).filter((curve) => curve.points.length);
  const rates = mains.flatMap((curve) => curve.points.map((point) => point.mean.bpp)).filter(isNumber);
  const date = report.created && new Date(report.created);
  const said = [
    `${report.images.length} ${report.images.length === 1 ? "picture" : "pictures"}`,
    rates.length && `${rateText(Math.min(...rates))} to ${rateText(Math.max(...rates))} bits per pixel`,
    date &&
      !isNaN(date) &&
      date.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" }),
    report.versions.cod_jax && `cod_jax ${report.versions.cod_jax}`,
  ].filter(Boolean);
  fill(
    node,
    el("p", { class: "kicker" }, "Evaluation"),
    el("h1", {}, report.title),
    el("p", { class: "lede" }, said.join(" · ")),
    el("div", { class: "headlines" }, headlines(mains[0])),
    report.notes.map((note) => el("p", { class: "note" }, note)),
  );
}

/** The first model's bytes at equal quality against each codec, at that of its sizes which takes the fewest. */
function headlines(model) {
  if (!model) return [];
  const others = curves.filter((curve) => !report.main.includes(curve.index));
  const found = [];
  for (const family of new Set(others.map((curve) => curve.family))) {
    const rivals = others
      .filter((curve) => curve.family === family)
      .map((curve) => [report.bd.find((bd) => bd.curve === model.name && bd.against === curve.name), curve])
      .filter(([one]) => isNumber(one?.rate_percent));
    if (rivals.length) found.push(rivals.reduce((a, b) => (b[0].rate_percent > a[0].rate_percent ? b : a)));
  }
  return found
    .slice(0, 4)
    .map(([one, curve]) =>
      el(
        "div",
        { class: "headline" },
        el("strong", {}, `${signed(one.rate_percent, 0)}\u202f%`),
        el("span", {}, `bytes against ${curve.title} at equal ${metricOf[one.metric]?.title ?? one.metric}`),
      ),
    );
}

function themeButton() {
  const names = ["auto", "light", "dark"];
  let at = 0;
  const button = el(
    "button",
    {
      type: "button",
      class: "theme",
      onclick: () => {
        at = (at + 1) % names.length;
        document.documentElement.dataset.theme = names[at];
        button.textContent = `Theme: ${names[at]}`;
      },
    },
    "Theme: auto",
  );
  return button;
}
