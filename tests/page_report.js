// Says what is wrong with the page that is open, check by check.
() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const name = (e) => {
    const text = (e.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40);
    return `<${e.tagName.toLowerCase()} class="${e.getAttribute("class") || ""}"> ${text}`;
  };
  const shown = (e) => e.checkVisibility({ visibilityProperty: true });
  const article = document.querySelector("article") || document.body;

  // ---- colour: every text of the article, against what lies behind it
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const remembered = (f, known = new Map()) => (x) => (known.has(x) || known.set(x, f(x)), known.get(x));
  const rgba = remembered((text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  });
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const ground = remembered((e) => (e ? over(rgba(getComputedStyle(e).backgroundColor), ground(e.parentElement)) : [255, 255, 255]));
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const faint = [];
  const written = new Set();
  for (const root of [article, ...all(".bd-header-announcement")]) {
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) if (texts.currentNode.data.trim()) written.add(texts.currentNode.parentElement);
  }
  for (const e of written) {
    if (e.closest("svg, mjx-container, .headerlink, button, script, style") || !shown(e)) continue;
    const back = ground(e);
    const ratio = contrast(over(rgba(getComputedStyle(e).color), back), back);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)}: ${name(e)}`);
  }

  // ---- width
  const wide = [];
  if (document.documentElement.scrollWidth > innerWidth + 1) wide.push(`the page is ${document.documentElement.scrollWidth} px wide`);
  for (const e of all("*:not(svg *, mjx-container *)", article)) {
    const box = e.getBoundingClientRect();
    if (box.width === 0 || box.right <= innerWidth + 1 || !shown(e)) continue;
    let clipped = false;
    for (let at = e; at && at !== article; at = at.parentElement) {
      if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(at).overflowX) && at.getBoundingClientRect().right <= innerWidth + 1) clipped = true;
    }
    if (!clipped) wide.push(name(e));
  }

  const edge = article.getBoundingClientRect().left;
  for (const e of all("mjx-container", article)) {
    if (shown(e) && e.getBoundingClientRect().left < edge - 1) wide.push(`begins on the left of the text: ${e.innerText || name(e)}`);
  }
  for (const e of innerWidth > 1000 ? all("div.math", article).filter(shown) : []) { // on a phone it scrolls
    if (Math.max(...[e, ...e.children].map((box) => box.scrollWidth - box.clientWidth)) > 1) wide.push(`a formula wider than its column: ${e.innerText || name(e)}`);
  }

  // ---- overlap: blocks that follow each other, and texts of one figure
  const overlap = [];
  const area = (a, b) => {
    const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    return x > 1.5 && y > 1.5 ? x * y : 0;
  };
  for (const parent of [article, ...all("section, .cell, .cell_output, .lnlib-card, .lnlib-board, .lnlib-claims, .lnlib-claims > li, .lnlib-verdict, .lnlib-run", article)]) {
    const blocks = [...parent.children].filter((e) => shown(e) && !["absolute", "fixed"].includes(getComputedStyle(e).position) && getComputedStyle(e).display !== "inline");
    for (let i = 0; i < blocks.length; i++) {
      for (let j = i + 1; j < blocks.length; j++) {
        if (area(blocks[i].getBoundingClientRect(), blocks[j].getBoundingClientRect())) overlap.push(`${name(blocks[i])} / ${name(blocks[j])}`);
      }
    }
  }
  const frames = all(".lnlib-frame[hidden]"); // of sliders: each must be right
  for (const frame of frames) frame.hidden = false;
  for (const figure of all(".lnlib-figure svg").filter(shown)) {
    const texts = all("g[id*='text_']", figure).filter((g) => !g.querySelector("g[id*='text_']"));
    for (let i = 0; i < texts.length; i++) {
      for (let j = i + 1; j < texts.length; j++) {
        const [a, b] = [texts[i], texts[j]].map((g) => g.getBoundingClientRect());
        if (area(a, b) > 0.05 * Math.min(a.width * a.height, b.width * b.height)) overlap.push(`${texts[i].id} / ${texts[j].id} in ${figure.getAttribute("aria-label")}`);
      }
    }
  }
  for (const frame of frames) frame.hidden = true;

  // ---- words for those who cannot see
  const unlabelled = all("img").filter((e) => !(e.alt || "").trim() || /\.(png|svg|jpg)$/.test(e.alt)).map((e) => `img ${e.getAttribute("src")}`);
  for (const figure of all(".lnlib-figure")) {
    const labels = all("svg", figure).map((svg) => (svg.getAttribute("role") === "img" ? svg.getAttribute("aria-label") || "" : "").trim());
    const caption = ((figure.querySelector("figcaption") || {}).textContent || "").trim();
    if (!labels.length || !caption || labels.some((label) => label.length < 20 || label === caption)) unlabelled.push(name(figure));
  }
  for (const box of all("[role=region]")) if (!box.getAttribute("aria-label")) unlabelled.push(name(box));

  // ---- mathematics
  const raw = all(".math").filter((e) => !e.querySelector("mjx-container")).map(name);
  raw.push(...all("mjx-merror, [data-mjx-error]").map((e) => `error: ${name(e)}`));
  if (/\\\(|\$\$|\\frac|\\mathrm|\{cite|\{term/.test(all("p, li, td, dd, figcaption", article).map((e) => (e.closest("pre, code") ? "" : e.innerText)).join("\n"))) raw.push("markup in the text");
  const printed = /(?<![\w.])\d(\.\d+)?e[+-]?\d+(?!\w)|(?<![\w.])[-−]0(\.0+)?(?!\.?\d)/;
  for (const e of written) {
    if (e.closest("code, pre, svg, mjx-container, script, style, .highlight")) continue;
    for (const part of e.childNodes) if (part.nodeType === Node.TEXT_NODE && printed.test(part.data)) raw.push(`as a program prints it: ${part.data.trim()}`);
  }

  // ---- headings and ids
  const order = [];
  const levels = all("h1, h2, h3, h4, h5, h6", article).map((e) => Number(e.tagName[1]));
  if (levels.filter((l) => l === 1).length !== 1) order.push(`${levels.filter((l) => l === 1).length} headings of level 1`);
  levels.forEach((l, i) => i && l > levels[i - 1] + 1 && order.push(`level ${l} follows level ${levels[i - 1]}`));
  const ids = all("[id]").filter((e) => !e.closest("mjx-container, head")).map((e) => e.id);
  const twice = [...new Set(ids.filter((id, i) => ids.indexOf(id) !== i))];
  order.push(...twice.map((id) => `id ${id} stands twice`));

  // ---- keyboard
  const stuck = [];
  for (const e of all("summary, .toggle-button, .lnlib-scroll, input", article)) {
    if (!shown(e)) continue;
    e.focus();
    if (document.activeElement !== e) stuck.push(`no focus: ${name(e)}`);
  }
  for (const e of all(".admonition.dropdown", article)) if (!e.querySelector(".toggle-button")) stuck.push(`no button: ${name(e)}`);

  // ---- the quick tier's mark
  const mark = document.querySelector(".bd-header-announcement");
  const unmarked = mark && shown(mark) && /quick tier/i.test(mark.innerText) ? [] : ["no watermark"];

  return { faint, wide, overlap, unlabelled, raw, order, stuck, unmarked };
}
