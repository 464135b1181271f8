// The part of Markdown that model cards use: headings, paragraphs, lists, tables, code, bold and links.

function markdown(text) {
  const root = el("div", { class: "prose" });
  const lines = String(text).split(/\r?\n/);
  const take = (test) => {
    const taken = [];
    while (lines.length && test(lines[0])) taken.push(lines.shift());
    return taken;
  };
  while (lines.length) {
    const line = lines[0];
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (!line.trim()) lines.shift();
    else if (heading) {
      lines.shift();
      root.append(el(heading[1].length < 3 ? "h4" : "h5", {}, inline(heading[2])));
    } else if (line.startsWith("```")) {
      lines.shift();
      const code = take((one) => !one.startsWith("```"));
      lines.shift();
      root.append(el("pre", { tabindex: "0" }, code.join("\n")));
    } else if (/^\s*\|/.test(line)) root.append(markdownTable(take((one) => /^\s*\|/.test(one))));
    else if (/^\s*[-*]\s/.test(line)) {
      const items = [];
      for (const one of take((next) => next.trim() && (/^\s*[-*]\s/.test(next) || /^\s/.test(next)))) {
        if (/^\s*[-*]\s/.test(one)) items.push(one.replace(/^\s*[-*]\s+/, ""));
        else items[items.length - 1] += " " + one.trim();
      }
      root.append(
        el(
          "ul",
          {},
          items.map((item) => el("li", {}, inline(item))),
        ),
      );
    } else {
      const first = lines.shift(); // whatever it is, so that the loop ends
      root.append(
        el(
          "p",
          {},
          inline([first, ...take((one) => one.trim() && !/^(#{1,6}\s|```|\s*\||\s*[-*]\s)/.test(one))].join(" ")),
        ),
      );
    }
  }
  return root;
}

function markdownTable(lines) {
  const cells = (line) =>
    line
      .trim()
      .replace(/^\||\|$/g, "")
      .split("|")
      .map((cell) => cell.trim());
  const isRule = (row) => row.every((cell) => /^:?-+:?$/.test(cell));
  const all = lines.map(cells),
    numbers = (all.find(isRule) || []).map((cell) => cell.endsWith(":"));
  const [head, ...body] = all.filter((row) => !isRule(row));
  const side = (at) => ({ class: numbers[at] ? null : "words" });
  const named = head && head.some((cell) => cell);
  return el(
    "div",
    { class: "scroller", tabindex: "0", role: "region", "aria-label": "Table" },
    el(
      "table",
      {},
      named &&
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            head.map((cell, at) => el("th", { scope: "col", ...side(at) }, inline(cell))),
          ),
        ),
      el(
        "tbody",
        {},
        body.map((row) =>
          el(
            "tr",
            {},
            row.map((cell, at) => el("td", side(at), inline(cell))),
          ),
        ),
      ),
    ),
  );
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]*\]\([^)\s]*\))/).map((part) => {
    const link = /^\[([^\]]*)\]\(([^)\s]*)\)$/.exec(part);
    if (/^`[^`]+`$/.test(part)) return el("code", {}, part.slice(1, -1));
    if (/^\*\*[^*]+\*\*$/.test(part)) return el("strong", {}, part.slice(2, -2));
    if (!link) return part;
    // Paths of a repository lead nowhere from here.
    return /^https?:\/\//.test(link[2]) ? el("a", { href: link[2], rel: "noreferrer" }, link[1]) : link[1];
  });
}
