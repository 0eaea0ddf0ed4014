"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const figures = read("figures");
  const themes = read("themes");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const theme = document.getElementById("theme");
  const runs = all("#runs input");
  const views = new Map();
  let drawing = Promise.resolve();

  const shownRuns = () => runs.filter((box) => box.checked).map((box) => box.value);
  const isDark = () => (theme.value ? theme.value === "dark" : prefersDark.matches);

  // Figures are drawn when one of their runs is selected, and again for another theme; selecting runs sets a parameter.
  const shownIn = (name, shown) => figures[name].runs.filter((run) => shown.includes(run));

  // The page's own legend of the runs, which breaks long names, replaces that of a specification.
  function withoutRunLegend(spec) {
    if (spec.encoding?.color?.field === "run") spec.encoding.color.legend = null;
    (spec.layer ?? []).forEach(withoutRunLegend);
    return spec;
  }

  // Other legends have as many columns as fit, one on a phone.
  function withLegends(config, width) {
    const columns = Math.max(1, Math.floor(width / 210));
    return { ...config, legend: { ...config.legend, columns, labelLimit: width - 100 } };
  }

  async function drawOne(place, runsShown) {
    const { spec } = structuredClone(figures[place.dataset.figure]);
    spec.params.find((parameter) => parameter.name === "runs").value = runsShown;
    const config = withLegends(isDark() ? themes.dark : themes.light, place.clientWidth);
    const tooltip = { theme: isDark() ? "dark" : "light" };
    const { view } = await vegaEmbed(place, withoutRunLegend(spec), { config, tooltip, actions: false, renderer: "svg" });
    all("svg", place).forEach((svg) => svg.setAttribute("aria-hidden", "true")); // the container has the label
    views.set(place.dataset.figure, view);
  }

  async function drawAll() {
    const shown = shownRuns();
    for (const place of all(".plot")) {
      const name = place.dataset.figure;
      const here = shownIn(name, shown);
      place.closest("figure").hidden = here.length === 0;
      if (here.length === 0) continue; // drawn when shown again; a hidden figure has no width
      if (views.has(name)) await views.get(name).signal("runs", here).runAsync();
      else await drawOne(place, here);
    }
    document.documentElement.dataset.drawn = isDark() ? "dark" : "light";
  }

  // Draws one after another, so that the last choice wins.
  function draw() {
    drawing = drawing.then(drawAll).catch(console.error);
  }

  function redraw() {
    drawing = drawing.then(() => {
      views.forEach((view) => view.finalize());
      views.clear();
    });
    draw();
  }

  function chooseRuns() {
    const shown = shownRuns();
    const known = runs.map((box) => box.value);
    for (const element of all("[data-run]")) {
      element.hidden = known.includes(element.dataset.run) && !shown.includes(element.dataset.run);
    }
    draw();
  }

  function chooseTheme() {
    if (theme.value) document.documentElement.dataset.theme = theme.value;
    else delete document.documentElement.dataset.theme;
    redraw();
  }

  // Tables: a click on a heading sorts by its column, a second click in the opposite order.
  const cellValue = (row, column) => {
    const cell = row.cells[column];
    const text = (cell.querySelector(".value") ?? cell).textContent.trim();
    const exact = cell.querySelector(".value")?.dataset.value;
    if (exact) return Number(exact);
    const number = Number(text.replaceAll(",", "").replaceAll("−", "-").replace(/[?*†]/g, ""));
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  function makeSortable(table) {
    const headings = all("thead th", table);
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const body = table.tBodies[0];
        const keyed = [...body.rows].map((row) => [cellValue(row, column), row]);
        const empty = (key) => key === null; // last in both directions
        keyed.sort(([a], [b]) => (empty(a) || empty(b) ? compare(a, b) : sign * compare(a, b)));
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }

  // Tables and the bar of sections show that they are wider than the screen, until their end is reached.
  function showScrolling(box) {
    const mark = () => {
      const hidden = box.scrollWidth - box.clientWidth;
      box.classList.toggle("scrolls", hidden > 1);
      box.classList.toggle("at-end", box.scrollLeft >= hidden - 1);
    };
    box.addEventListener("scroll", mark, { passive: true });
    new ResizeObserver(mark).observe(box);
  }

  function showSettings() {
    const box = document.getElementById("all-settings");
    const rows = all("#settings tr.same");
    const nothingDiffers = rows.length === all("#settings tbody tr").length;
    if (nothingDiffers) { box.checked = true; box.closest("p").hidden = true; }
    const apply = () => rows.forEach((row) => { row.hidden = !box.checked; });
    box.addEventListener("change", apply);
    apply();
  }

  function followSections() {
    const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-20% 0px -75% 0px" });
    all("main section").forEach((section) => observer.observe(section));
  }

  runs.forEach((box) => box.addEventListener("change", chooseRuns));
  theme.addEventListener("change", chooseTheme);
  prefersDark.addEventListener("change", () => { if (!theme.value) redraw(); });
  all("table.sortable").forEach(makeSortable);
  all(".scroll, nav").forEach(showScrolling);
  for (const box of all(".coloring")) {
    box.addEventListener("change", () => box.closest("[data-run]").classList.toggle("uncoloured", !box.checked));
  }
  showSettings();
  followSections();
  draw();
})();
