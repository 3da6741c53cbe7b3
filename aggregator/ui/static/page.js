// Keeps the page as the fleet is: takes sections from the stream, and tells times as ages.
"use strict";

const live = document.getElementById("live");
const shown = new Map();
let heard = false;

function age(seconds) {
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function tellAges() {
  const now = Date.now();
  for (const element of document.querySelectorAll("time[datetime]")) {
    const text = age(Math.max(0, (now - Date.parse(element.dateTime)) / 1000));
    if (element.textContent !== text) element.textContent = text;
  }
}

function put(name, html) {
  const element = document.getElementById(name);
  if (!element || shown.get(name) === html) return;
  const open = new Set([...element.querySelectorAll("details[open]")].map((each) => each.id));
  shown.set(name, html);
  element.innerHTML = html;
  for (const each of element.querySelectorAll("details")) each.open = open.has(each.id);
}

function say(text, tone) {
  live.textContent = text;
  live.className = `live ${tone}`;
}

const stream = new EventSource("/page/stream");
stream.addEventListener("sections", (event) => {
  for (const [name, html] of Object.entries(JSON.parse(event.data))) put(name, html);
  tellAges();
  heard = true;
  say("live", "good");
});
stream.addEventListener("open", () => say("live", "good"));
stream.addEventListener("error", () => {
  if (stream.readyState === EventSource.CLOSED) {
    say(heard ? "signed out" : "no stream", "bad");
    setTimeout(() => location.reload(), 5000);
  } else {
    say("connection lost, trying again", "bad");
  }
});

tellAges();
setInterval(tellAges, 1000);
