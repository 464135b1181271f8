// The data, and numbers as people read them.

const report = JSON.parse(document.getElementById("data").textContent);
const metricOf = Object.fromEntries(report.metrics.map((metric) => [metric.name, metric]));
const NONE = "–";
const MINUS = "−";

/** Curves that are shown in the colour of their family: [{...curve, index, ink, variant}]. */
const curves = (() => {
  const inks = [],
    variants = {};
  const order = [...report.main, ...report.curves.keys()];
  order.forEach((index) => {
    const family = report.curves[index].family;
    if (!inks.includes(family)) inks.push(family);
  });
  return report.curves.map((curve, index) => {
    variants[curve.family] = (variants[curve.family] ?? -1) + 1;
    return { ...curve, index, ink: inks.indexOf(curve.family), variant: variants[curve.family] };
  });
})();

/** Name of a model without the way in which it decodes. */
function modelName(curve) {
  return curve.about.variant_of ?? curve.title;
}

function isNumber(value) {
  return typeof value === "number";
}

function fixed(value, digits) {
  if (!isNumber(value)) return NONE;
  return value
    .toFixed(digits)
    .replace(/^-(?=.*[1-9])/, MINUS)
    .replace(/^-/, "");
}

/** Digits behind the point that a metric needs: those of its largest mean. */
const digitsOf = Object.fromEntries(
  report.metrics.map(({ name }) => {
    const values = report.curves.flatMap((curve) => curve.points.map((point) => Math.abs(point.mean[name] ?? 0)));
    const largest = Math.max(0, ...values);
    return [name, largest >= 1000 ? 0 : largest >= 10 ? 2 : largest >= 1.5 ? 3 : 4];
  }),
);

function metricText(name, value) {
  return fixed(value, digitsOf[name] ?? 4);
}

function withUnit(name, value) {
  const unit = metricOf[name]?.unit;
  return isNumber(value) && unit ? `${metricText(name, value)} ${unit}` : metricText(name, value);
}

function rateText(value) {
  return fixed(value, isNumber(value) && value < 0.1 ? 4 : 3);
}

function bytesText(value) {
  return isNumber(value) ? Math.round(value).toLocaleString("en").replaceAll(",", "\u202f") : NONE;
}

function secondsText(value) {
  return fixed(value, isNumber(value) && value < 1 ? 3 : 2);
}

function signed(value, digits, unit = "") {
  return isNumber(value) ? (value > 0 ? "+" : "") + fixed(value, digits) + unit : NONE;
}

/** Text of a number or another value of the results. */
function anyText(value) {
  if (value === null || value === undefined) return NONE;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Number.isInteger(value)) return Math.abs(value) >= 10000 ? bytesText(value) : String(value);
  if (isNumber(value)) return String(Number(value.toPrecision(6)));
  return Array.isArray(value) ? value.map(anyText).join(", ") : String(value);
}

/** Whether a mean is of fewer than all pictures, because some failed. */
function lacksPictures(mean) {
  return mean.num_images < report.images.length;
}

function ofAllText(mean) {
  return `${mean.num_images ?? report.images.length} of ${report.images.length}`;
}

/** Of how many pictures the means are, in words. */
const meansOf =
  (curves.some((curve) => curve.points.some((point) => lacksPictures(point.mean))) ? "up to " : "") +
  `${report.images.length} pictures`;

/** Settings of a curve: those that all of its points share, and those in which they differ. */
function settingsOf(curve) {
  const all = curve.points.map((point) => Object.entries(point.settings));
  const isShared = ([name, value]) => curve.points.every((point) => point.settings[name] === value);
  return {
    shared: Object.fromEntries((all[0] || []).filter(isShared)),
    differing: all.map((entries) => Object.fromEntries(entries.filter((entry) => !isShared(entry)))),
  };
}

/** Name of a point: its settings, without those that all points of its curve share. */
function pointText(curve, index) {
  const own = settingsOf(curve).differing[index];
  return settingsText(curve.points.length > 1 ? own : curve.points[index].settings) || curve.points[index].label;
}

function settingsText(settings) {
  return Object.entries(settings)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${anyText(value)}`)
    .join(", ");
}

function better(name, one, other) {
  return metricOf[name].better === "higher" ? one > other : one < other;
}

/** Value at a rate on a curve of [rate, value], linear in the logarithm of the rate; null outside of it. */
function interpolate(points, rate) {
  const sorted = points.filter(([x, y]) => isNumber(x) && isNumber(y) && x > 0).sort((a, b) => a[0] - b[0]);
  for (let i = 1; i < sorted.length; i++) {
    const [[x0, y0], [x1, y1]] = [sorted[i - 1], sorted[i]];
    if (x0 <= rate && rate <= x1) {
      return x1 === x0 ? y1 : y0 + ((y1 - y0) * Math.log(rate / x0)) / Math.log(x1 / x0);
    }
  }
  return null;
}
