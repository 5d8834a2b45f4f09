// Look at pages in Chromium, as people do, and tell what is there.
//
//   node look.cjs FOLDER < wanted.json > seen.json
//
// FOLDER has node_modules. `wanted` is {"browser": path, "profile": path, "looks": [...]}; a look is {"page": path,
// "width": n, "height": n, "scheme": "light" or "dark", "shot": path or null, "whole": whether the shot is of all of it,
// "part": selector of what it is of, or null, "check": whether more than the shot is wanted}. One browser is started for
// all. Nothing here knows what is right: the caller does.
const { createRequire } = require("module");
const { readFileSync } = require("fs");

const load = createRequire(`${process.argv[2]}/`);
const { chromium } = load("playwright-core");
const axe = readFileSync(load.resolve("axe-core/axe.min.js"), "utf8");

const FLAGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  ...["--disable-component-update", "--disable-sync", "--font-render-hinting=none"],
];

// In the page: what it has, without any judgement.
function facts() {
  const shown = (node) => node.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const light = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const contrast = (one, other) => {
    const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  // What can be behind a text: the nearest background, and in a drawing all areas that it overlaps.
  const behind = (element) => {
    const found = [];
    const place = element.getBoundingClientRect();
    const drawing = element.closest("svg.chart");
    for (const area of drawing ? drawing.querySelectorAll("rect, path.area") : []) {
      const other = area.getBoundingClientRect();
      const apart = other.right <= place.left || other.left >= place.right;
      if (!apart && other.bottom > place.top && other.top < place.bottom) found.push(getComputedStyle(area).fill);
    }
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parse(colour).a > 0) return [...found, colour];
    }
    return [...found, "rgb(255, 255, 255)"];
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || ["STYLE", "SCRIPT", "title"].includes(element.tagName) || !shown(element)) continue;
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const ratios = behind(element).filter((each) => each !== "none").map((each) => contrast(parse(colour), parse(each)));
    texts.push({ text: text.slice(0, 60), size: parseFloat(style.fontSize), contrast: Math.min(...ratios) });
  }
  const drawings = [...document.querySelectorAll("svg")].filter((svg) => !svg.parentElement.closest("svg"));
  const number = (node, attribute) => Number(node.getAttribute(attribute));
  const boxes = [...document.querySelectorAll(".treemap > svg")].map((box) => {
    const place = box.querySelector("rect").getBoundingClientRect();
    return { bytes: number(box, "data-bytes"), x: place.x, y: place.y, width: place.width, height: place.height };
  });
  const inner = [...document.querySelectorAll(".chart text")].filter(shown).map((text) => {
    const place = text.getBoundingClientRect();
    const frame = text.closest("svg.chart").getBoundingClientRect();
    return { text: text.textContent, left: place.left - frame.left, right: frame.right - place.right };
  });
  return {
    language: document.documentElement.lang,
    title: document.title,
    paper: getComputedStyle(document.body).backgroundColor,
    width: [document.documentElement.scrollWidth, window.innerWidth],
    headings: [...document.querySelectorAll("h1, h2, h3, h4")].map((h) => [Number(h.tagName[1]), h.textContent]),
    drawings: drawings.map((svg) => ({
      hidden: svg.getAttribute("aria-hidden") === "true",
      role: svg.getAttribute("role"),
      label: svg.getAttribute("aria-label"),
    })),
    tiles: Object.fromEntries(
      [...document.querySelectorAll(".tiles > div")].map((tile) => [
        tile.querySelector("dt").firstChild.textContent,
        [tile.querySelector("data").value, tile.querySelector("dd").textContent],
      ]),
    ),
    texts,
    boxes,
    labels: inner,
    order: [...document.querySelectorAll("a[href], button, summary, [tabindex='0']")].filter(shown).map(called),
    cells: [...document.querySelectorAll("table.sortable td")].map((cell) => cell.textContent),
    strangers: document.querySelectorAll("img, iframe, object, embed, link, script[src], base, form").length,
    scripts: document.scripts.length,
    ran: window.ran ?? null,
  };
}

// In the page, under this name in its window: how to tell one element from another.
function called(element) {
  return `${element.tagName.toLowerCase()} ${element.getAttribute("aria-label") ?? element.textContent}`.slice(0, 80);
}

async function withKeyboard(page, most) {
  const seen = [];
  for (let step = 0; step < most; step += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const element = document.activeElement;
      if (element === document.body) return null;
      const style = getComputedStyle(element);
      return [window.called(element), style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
    });
    if (at === null) break;
    seen.push(at);
  }
  return seen;
}

async function sorted(page, column) {
  const head = page.locator("table.sortable thead th").nth(column);
  const found = [];
  await head.locator("button").focus();
  for (let time = 0; time < 2; time += 1) {
    await page.keyboard.press("Enter");
    const values = await page.evaluate((at) => {
      const rows = [...document.querySelector("table.sortable").tBodies[0].rows];
      return rows.map((row) => Number(row.cells[at].querySelector("data").value));
    }, column);
    found.push([await head.getAttribute("aria-sort"), values]);
  }
  return found;
}

async function look(browser, wanted) {
  const { page: path, width, height, scheme, shot, whole, part, check } = wanted;
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
  const page = await context.newPage();
  const told = [];
  const requests = [];
  page.on("console", (message) => told.push(message.text()));
  page.on("pageerror", (error) => told.push(String(error)));
  page.on("dialog", (dialog) => {
    told.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("request", (request) => requests.push(request.url()));
  await page.addInitScript(`window.called = ${called}`);
  await page.goto(`file://${path}`);
  const place = part ? page.locator(part).first() : page;
  if (shot) await place.screenshot({ path: shot, fullPage: part ? undefined : Boolean(whole) });
  const seen = { scheme, width };
  if (check) {
    Object.assign(seen, await page.evaluate(facts));
    seen.keyboard = await withKeyboard(page, seen.order.length + 5);
    seen.sorted = await sorted(page, 2);
    await page.evaluate(() => document.querySelectorAll("details").forEach((each) => (each.open = true)));
    seen.opened = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    await page.evaluate(axe);
    const { violations } = await page.evaluate("axe.run(document, {resultTypes: ['violations']})");
    seen.violations = violations.map(({ id, nodes }) => [id, nodes.slice(0, 3).map((node) => node.html.slice(0, 200))]);
  }
  await context.close();
  return { ...seen, told, requests };
}

(async () => {
  const { browser: executablePath, profile, looks } = JSON.parse(readFileSync(0, "utf8"));
  const browser = await chromium.launch({ executablePath, args: FLAGS, env: { ...process.env, HOME: profile } });
  try {
    const seen = [];
    for (const wanted of looks) seen.push(await look(browser, wanted));
    console.log(JSON.stringify(seen));
  } finally {
    await browser.close();
  }
})();
