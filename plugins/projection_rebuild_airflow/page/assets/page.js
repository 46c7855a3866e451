// Keeps the page up to date, in Airflow's colours and in its frame. The server renders all content.
"use strict";

// The window of Airflow's UI, if it is our parent and allows access; otherwise null.
const airflow = (() => {
  try {
    return window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null;
  }
})();

function followTheme() {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const root = airflow?.document.documentElement;
  const apply = () => {
    const dark = root ? root.classList.contains("dark") || root.dataset.theme === "dark" : system.matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
  };
  apply();
  system.addEventListener("change", apply);
  if (root) new MutationObserver(apply).observe(root, { attributes: true, attributeFilter: ["class", "data-theme"] });
}

// Opens a link to Airflow in Airflow's window, not in our frame. The frame itself may not navigate its parent, so the
// parent's own document follows the link.
function followLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.airflow");
    if (!link || !airflow || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const copy = airflow.document.createElement("a");
    copy.href = link.href;
    airflow.document.body.append(copy);
    copy.click();
    copy.remove();
  });
}

// Replaces the parts that have changed. Details that the user has opened stay open, and the focus stays where it was.
function show(article, parts) {
  for (const [name, html] of Object.entries(parts)) {
    const part = article.querySelector(`[data-part="${name}"]`);
    if (!part || part.shown === html) continue;
    const open = [...part.querySelectorAll("details[open]")].map((details) => details.id);
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.innerHTML = part.shown = html;
    for (const details of part.querySelectorAll("details")) details.open ||= open.includes(details.id);
    if (focused) document.getElementById(focused)?.focus();
  }
}

async function look(article) {
  let seconds = 5;
  const problem = article.querySelector("[data-problem]");
  try {
    const answer = await fetch(article.dataset.now, { headers: { Accept: "application/json" } });
    const body = await answer.json().catch(() => ({}));
    if (answer.ok) {
      show(article, body.parts);
      seconds = body.again_in;
    }
    problem.textContent = answer.ok ? body.problem : explain(answer.status, body);
  } catch {
    problem.textContent = "Airflow does not answer; trying again.";
  }
  problem.hidden = !problem.textContent;
  article.classList.toggle("stale", !problem.hidden);
  clearTimeout(article.timer);
  // A hidden page needs no updates.
  article.timer = setTimeout(() => (document.hidden ? null : look(article)), seconds * 1000);
}

function explain(status, body) {
  if (status === 401) return "You are no longer logged in; load Airflow anew.";
  if (status === 403) return "You may not do this.";
  return typeof body.detail === "string" ? body.detail : `Airflow answered with ${status}; trying again.`;
}

function say(words) {
  const message = document.getElementById("said");
  message.textContent = words;
  message.hidden = false;
  clearTimeout(message.timer);
  message.timer = setTimeout(() => (message.hidden = true), 8000);
}

function sure(question) {
  const dialog = document.getElementById("sure");
  dialog.querySelector("p").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((answer) => dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true }));
}

function followButtons() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-post]");
    if (!button || !(await sure(button.dataset.sure))) return;
    button.disabled = true;
    try {
      const answer = await fetch(button.dataset.post, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Projection-Rebuilds": "page" },
        body: JSON.stringify({ run_id: button.dataset.run }),
      });
      const body = await answer.json().catch(() => ({}));
      say(answer.ok ? body.said : explain(answer.status, body));
    } catch {
      say("Airflow does not answer; it is not known whether this was done.");
    }
    button.disabled = false;
    document.querySelectorAll("article.rebuild").forEach(look);
  });
}

followTheme();
followLinks();
followButtons();
document.querySelectorAll("article.rebuild").forEach(look);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) document.querySelectorAll("article.rebuild").forEach(look);
});
