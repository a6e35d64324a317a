"use strict";
// Reading values off the charts: a cursor that follows the pointer, or the arrow keys.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";

  function nearest(xs, x) {
    let low = 0, high = xs.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
  }

  function place(x) {
    return x.toLocaleString("en", { maximumFractionDigits: 0 });
  }

  function clock(seconds) {
    const whole = Math.round(seconds), pad = (n) => String(n).padStart(2, "0");
    const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    return (h ? h + ":" + pad(m) : m) + ":" + pad(whole % 60);
  }

  function attach(figure) {
    const chart = data.charts[figure.dataset.chart];
    const frame = figure.querySelector(".frame"), plot = figure.querySelector(".plot");
    const cursor = figure.querySelector(".cursor"), tip = figure.querySelector(".tip");
    const span = chart.high - chart.low;
    const xs = [...new Set(chart.curves.flatMap((c) => c.x))].sort((a, b) => a - b);
    let at = xs.length - 1;

    function show(x) {
      const rows = [];
      let snapped = null;
      for (const curve of chart.curves) {
        const i = nearest(curve.x, x);
        if (curve.y[i] === null || Math.abs(curve.x[i] - x) > span * curve.reach) continue;
        if (snapped === null) snapped = curve.x[i];
        rows.push({ curve, x: curve.x[i], y: curve.y[i] });
      }
      cursor.replaceChildren();
      if (snapped === null) return hide();
      const left = (100 * (snapped - chart.low)) / span;
      const line = document.createElementNS(SVG, "line");
      line.setAttribute("x1", left + "%"); line.setAttribute("x2", left + "%");
      line.setAttribute("y1", "0"); line.setAttribute("y2", "100%");
      cursor.append(line);
      tip.replaceChildren();
      const head = document.createElement("b");
      head.textContent = chart.xName === "step" ? "step " + place(snapped) : clock(snapped);
      tip.append(head);
      for (const row of rows) {
        const dot = document.createElementNS(SVG, "circle");
        dot.setAttribute("cx", (100 * (row.x - chart.low)) / span + "%");
        dot.setAttribute("cy", 100 - (100 * (row.y - chart.bottom)) / (chart.top - chart.bottom) + "%");
        dot.setAttribute("r", "3.5");
        dot.setAttribute("class", row.curve.style);
        cursor.append(dot);
        const entry = document.createElement("span"), swatch = document.createElement("i");
        swatch.className = "swatch " + row.curve.style;
        const digits = chart.digits;
        const value = row.y.toLocaleString("en", { minimumFractionDigits: Math.min(digits, 3), maximumFractionDigits: digits });
        const beside = row.x === snapped || chart.xName !== "step" ? "" : " (step " + place(row.x) + ")";
        entry.append(swatch, row.curve.name + " ", Object.assign(document.createElement("em"), { textContent: value }), beside);
        tip.append(entry);
      }
      tip.hidden = false;
      const box = plot.getBoundingClientRect(), around = frame.getBoundingClientRect();
      const middle = box.left - around.left + (box.width * left) / 100;
      const right = middle + tip.offsetWidth + 14 < around.width;
      tip.style.left = Math.max(0, right ? middle + 12 : middle - tip.offsetWidth - 12) + "px";
    }

    function hide() {
      tip.hidden = true;
      cursor.replaceChildren();
    }

    frame.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const x = chart.low + (span * (event.clientX - box.left)) / box.width;
      if (x < chart.low - span * 0.02 || x > chart.high + span * 0.02) return hide();
      at = nearest(xs, x);
      show(x);
    });
    frame.addEventListener("pointerleave", hide);
    frame.addEventListener("blur", hide);
    frame.addEventListener("keydown", (event) => {
      const far = Math.max(1, Math.round(xs.length / 20));
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -far, PageDown: far, Home: -xs.length, End: xs.length }[event.key];
      if (event.key === "Escape") return hide();
      if (move === undefined) return;
      event.preventDefault();
      at = Math.min(xs.length - 1, Math.max(0, at + move));
      show(xs[at]);
    });
  }

  document.querySelectorAll("figure[data-chart]").forEach(attach);
})();
