// Making elements. Texts become text nodes, never HTML, so names of files and words of cards can hold anything.

const SVG = "http://www.w3.org/2000/svg";

/** Give an element other children; lists are flattened, and what is null, false or empty is left out. */
function fill(node, ...children) {
  node.replaceChildren(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false && child !== ""),
  );
}

function setUp(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  fill(node, ...children);
  return node;
}

function el(tag, attributes, ...children) {
  return setUp(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return setUp(document.createElementNS(SVG, tag), attributes, children);
}

/** A section with its heading and a sentence below it. */
function section(id, heading, lead, ...children) {
  return el(
    "section",
    { id, "aria-labelledby": id + "-heading" },
    el(
      "div",
      { class: "heading" },
      el("h2", { id: id + "-heading" }, heading),
      lead && el("p", { class: "lead" }, lead),
    ),
    ...children,
  );
}

/** A choice among options [value, label]; `node.value` is the index of the chosen one. */
function select(label, options, chosen, onchange) {
  const node = el(
    "select",
    { "aria-label": label, onchange: () => onchange(Number(node.value)) },
    options.map((text, index) => el("option", { value: index, selected: index === chosen }, text)),
  );
  return node;
}

function labelled(label, control) {
  return el("label", { class: "field" }, el("span", {}, label), control);
}

/** Buttons of which one is pressed. `node.choose(index)` presses another one. */
function segments(label, options, chosen, onchange) {
  const buttons = options.map((text, index) =>
    el(
      "button",
      {
        type: "button",
        onclick: () => {
          node.choose(index);
          onchange(index);
        },
      },
      text,
    ),
  );
  const node = el("div", { class: "segments", role: "group", "aria-label": label }, buttons);
  node.choose = (index) => buttons.forEach((button, at) => button.setAttribute("aria-pressed", at === index));
  node.choose(chosen);
  return node;
}

/** Address of a picture in this file. */
function pictureAddress(key) {
  return "data:" + document.getElementById(key).textContent;
}
