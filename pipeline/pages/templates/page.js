"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const said = document.getElementById("said");
  const say = (text) => { said.textContent = ""; requestAnimationFrame(() => { said.textContent = text; }); };
  root.classList.add("js");

  // Colours: what the system prefers, until a person chooses.
  const theme = document.querySelector(".theme");
  theme.hidden = false;
  theme.addEventListener("change", (event) => { root.style.colorScheme = event.target.value; });

  // Sliders: a real range input lies over each pair, so mouse, touch and keys all work.
  const slide = (input) => {
    const shown = `${input.value}%`;
    input.parentElement.style.setProperty("--at", shown);
    input.setAttribute("aria-valuetext", `${shown} input, ${100 - input.value}% result`);
  };
  const enliven = (within) => all(".compare input", within).forEach((input) => {
    input.hidden = false;
    input.addEventListener("input", () => slide(input));
    slide(input);
  });
  enliven(document);

  // The sheet: order, and one viewer for all trials.
  const viewer = document.querySelector("dialog.view");
  if (!viewer) return;
  const find = (name) => viewer.querySelector(`[data-part=${name}]`);
  const facts = (trial) => trial.querySelector("button.open").dataset;
  const inOrder = (trial) => all("li", trial.parentElement);
  let current = null;

  const place = (trials, key) => trials
    .sort((a, b) => facts(a)[key] - facts(b)[key])
    .forEach((trial) => trial.parentElement.append(trial));
  const order = document.querySelector(".choice.order");
  if (order) {
    order.hidden = false;
    order.addEventListener("change", (event) => {
      const byRank = event.target.value === "rank";
      all(".trials").forEach((list) => {
        list.className = byRank ? "trials" : `trials columns-${list.dataset.columns}`;
        place(all("li", list), byRank ? "rank" : "place");
      });
      say(byRank ? "Sorted by score" : "Sorted by kernel and sigma");
    });
  }

  const show = (trial) => {
    current = trial;
    const about = facts(trial);
    const picture = trial.querySelector("img");
    const input = document.getElementById(about.input);
    for (const [name, source] of [["after", picture], ["before", input]]) {
      find(name).src = source.src;
      find(name).alt = source.alt;
    }
    find("stage").style.setProperty("--width", `${picture.naturalWidth}px`);
    find("setting").textContent = about.setting;
    find("facts").textContent = about.facts;
    find("yaml").textContent = about.yaml;
    const trials = inOrder(trial);
    find("position").textContent = `${trials.indexOf(trial) + 1} of ${trials.length}`;
  };
  const step = (by) => {
    const trials = inOrder(current);
    show(trials[(trials.indexOf(current) + by + trials.length) % trials.length]);
    say(`${find("setting").textContent}. ${find("facts").textContent}`);
  };
  const zoom = (times) => find("stage").style.setProperty("--zoom", times);

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // no permission, or a browser that gives files none
      const field = document.createElement("textarea");
      field.value = text;
      (viewer.open ? viewer : document.body).append(field);
      field.select();
      const copied = document.execCommand("copy");
      field.remove();
      if (!copied) { say("The browser does not let this page copy; mark the text and copy it"); return false; }
    }
    say("Copied the defaults");
    return true;
  };
  const confirmed = (button) => {
    const name = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = name; }, 1500);
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("open")) {
      show(button.closest("li"));
      viewer.showModal();
    } else if (button.dataset.yaml && await copy(button.dataset.yaml)) confirmed(button);
    else if (button.dataset.step) step(Number(button.dataset.step));
    else if (button.dataset.act === "copy" && await copy(find("yaml").textContent)) confirmed(button);
    else if (button.dataset.act === "close") viewer.close();
  });
  viewer.addEventListener("change", (event) => { if (event.target.name === "zoom") zoom(event.target.value); });
  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("input")) return;  // arrows there move the slider
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) { step(by); event.preventDefault(); }
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => { current.querySelector("button.open").focus(); });
})();
