// The pages are whole without this: it adds keys, and shows what a run wrote since the page was loaded.
"use strict";

const POLL_MS = 700;

function typing() {
  return document.activeElement?.matches("input, select, textarea") ?? false;
}

function step(by) {
  const items = [...document.querySelectorAll("[data-item]")];
  if (!items.length) {
    document.querySelector(by > 0 ? "a[rel=next]" : "a[rel=prev]")?.click();
    return;
  }
  const at = items.indexOf(document.activeElement);
  items[at < 0 ? 0 : Math.max(0, Math.min(items.length - 1, at + by))].focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing()) return;
  if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "/") {
    const field = document.querySelector("input[type=search]");
    if (field) field.focus();
    else location.assign("/find#main");
    event.preventDefault();
  }
});

// A form's empty fields stay out of the link.
document.addEventListener("submit", (event) => {
  for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
});

let seen = null;

async function refresh() {
  const answer = await fetch(location.href);
  if (!answer.ok || typing()) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const old = document.querySelector("main");
  const open = [...old.querySelectorAll("details")].map((one) => one.open);
  const focused = document.activeElement?.getAttribute("href");
  old.replaceWith(page.querySelector("main"));
  document.querySelectorAll("main details").forEach((one, number) => { one.open = open[number] ?? false; });
  if (focused) [...document.querySelectorAll("[data-item]")].find((one) => one.getAttribute("href") === focused)?.focus();
}

async function poll() {
  try {
    const state = await (await fetch("/state")).json();
    const progress = document.getElementById("progress");
    progress.hidden = state.read >= state.size;
    progress.textContent = `reading ${Math.floor(100 * state.read / Math.max(1, state.size))} %`;
    if (seen !== null && seen !== state.version && document.querySelector("main[data-live]")) await refresh();
    seen = state.version;
  } catch { /* the command has ended: what the page shows stays */ }
  setTimeout(poll, POLL_MS);
}
poll();
