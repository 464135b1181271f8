// Returns the texts of a page whose contrast with what is behind them is below that of WCAG 2.2, level AA.
() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

  /** Colours on top of each other, the lowest first, as [r, g, b] from 0 to 255. */
  function mixed(colours) {
    context.fillStyle = "white";
    context.fillRect(0, 0, 1, 1);
    for (const colour of colours) {
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
    }
    return context.getImageData(0, 0, 1, 1).data;
  }

  function luminance(rgb) {
    const [r, g, b] = [...rgb].map((value) => {
      const x = value / 255;
      return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  const found = [];
  let count = 0;
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].filter((child) => child.nodeType === Node.TEXT_NODE).map((child) => child.data).join("").trim();
    if (!text || ["SCRIPT", "NOSCRIPT", "OPTION"].includes(node.tagName) || !node.checkVisibility() || node.closest(".unseen")) continue;
    const style = getComputedStyle(node), behind = [];
    for (let outer = node; outer; outer = outer.parentElement) behind.unshift(getComputedStyle(outer).backgroundColor);
    const ink = node instanceof SVGElement ? style.fill : style.color;
    const [low, high] = [luminance(mixed(behind)), luminance(mixed([...behind, ink]))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05), size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    count += 1;
    if (ratio < (isLarge ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${text.slice(0, 40)} (${node.tagName}.${node.className})`);
  }
  return { count, found };
}
