// What a page gains from scripts: the choice of theme, copy buttons, and nothing that a page needs to be read.
"use strict";

(() => {
  const names = { "": "auto", light: "light", dark: "dark" };
  const order = ["", "light", "dark"];

  function theme() {
    const button = document.getElementById("theme");
    if (!button) return;
    const root = document.documentElement;
    const label = button.querySelector("[data-name]");
    const show = () => { label.textContent = names[root.dataset.theme || ""]; };
    button.addEventListener("click", () => {
      const next = order[(order.indexOf(root.dataset.theme || "") + 1) % order.length];
      if (next) root.dataset.theme = next; else delete root.dataset.theme;
      // The server reads the choice and writes it into the page, so that no page flashes in the other one.
      const life = next ? 31536000 : 0;
      document.cookie = `freehold_theme=${next}; Path=${button.dataset.path}; Max-Age=${life}; SameSite=Strict`;
      show();
    });
    show();
    button.hidden = false;
  }

  function copyButtons(within) {
    for (const figure of within.querySelectorAll(".snippet:not([data-copies])")) {
      figure.dataset.copies = "";
      const button = document.createElement("button");
      const what = figure.querySelector("figcaption").textContent;
      button.type = "button";
      button.className = "quiet copy";
      button.textContent = "Copy";
      button.setAttribute("aria-label", `Copy: ${what}`);
      button.addEventListener("click", async () => {
        const done = await copy(figure.querySelector("pre"));
        button.textContent = done ? "Copied" : "Press Ctrl+C";
        setTimeout(() => { button.textContent = "Copy"; }, 2500);
      });
      figure.querySelector("figcaption").append(button);
    }
  }

  // The clipboard is closed to pages that came without TLS from another machine: then the text is selected instead.
  async function copy(node) {
    try {
      await navigator.clipboard.writeText(node.textContent);
      return true;
    } catch {
      const range = document.createRange();
      range.selectNodeContents(node);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      return document.execCommand("copy");
    }
  }

  document.addEventListener("DOMContentLoaded", () => { theme(); copyButtons(document); });
  document.addEventListener("htmx:load", (event) => copyButtons(event.detail.elt));
})();
