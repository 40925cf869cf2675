"use strict";

/* ---- Chat: WebSocket, with reconnect ---------------------------------------------------------- */

const CLOSE_WORDS = { 1000: "normal", 1001: "going away", 1006: "connection lost", 1012: "service restart" };
const REFUSED = 4000; // as in consumers.py: coming back would not help
const SHOWN = 200;
const tab = Math.random().toString(36).slice(2, 12); // who has lost a connection comes back as the same
const people = new Map(); // who is in the room: tab -> name and worker
let visit = null; // the room we are in or on the way to, and our name there
let socket = null;
let failures = 0;

/* Another room, or another name, is another connection: nothing of the last one can come in. */
function enter(room, name) {
  leave();
  visit = { room, name, tab };
  failures = 0;
  find("chat-log").replaceChildren();
  find("chat-error").textContent = "";
  openSocket();
}

function leave() {
  if (!socket) return;
  socket.onmessage = socket.onclose = null;
  socket.close();
}

function openSocket() {
  const mine = visit;
  showState("chat-state", "connecting");
  find("chat-send").disabled = true;
  const address = new URL(`${urls.chat}?${new URLSearchParams(visit)}`, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  socket = new WebSocket(address);
  let opened = false;
  socket.onopen = () => { opened = true; };
  socket.onmessage = ({ data }) => hear(JSON.parse(data));
  socket.onclose = ({ code, reason }) => {
    find("chat-send").disabled = true;
    if (opened) find("chat-close").textContent = `${code} ${reason || CLOSE_WORDS[code] || ""}`;
    if (code === REFUSED) return showState("chat-state", "failed", "refused");
    const delay = retryDelay(failures++);
    const words = opened ? "closed" : "not connected";
    showState("chat-state", "closed", `${words}, again in ${(delay / 1000).toFixed(1)} s`);
    setTimeout(() => { if (visit === mine) openSocket(); }, delay);
  };
}

function hear({ type, worker, tab: from, name, text }) {
  if (type === "hello") {
    failures = 0;
    people.clear();
    find("chat-send").disabled = false;
    showWorker(find("chat-worker"), worker);
    showState("chat-state", "open");
  } else if (type === "here") {
    people.set(from, { name, worker });
    showPeople();
  } else if (type === "left") {
    // Who was back on another worker before the last one has noticed is still here.
    if (people.get(from)?.worker === worker) people.delete(from);
    showPeople();
  } else if (type === "said") {
    showMessage(worker, name, text);
  } else if (type === "refused") {
    find("chat-error").textContent = text;
  }
}

function showPeople() {
  find("chat-people").replaceChildren(...[...people.values()].map(({ name, worker }) => {
    const person = document.createElement("li");
    const badge = document.createElement("b");
    badge.className = "worker";
    showWorker(badge, worker);
    person.append(`${name} `, badge);
    return person;
  }));
}

/* A message has passed two workers, its author's and ours, which may be the same. */
function showMessage(worker, name, text) {
  const author = document.createElement("b");
  author.textContent = name;
  const line = logLine(worker, author, ` ${text}`);
  const ours = find("chat-worker");
  if (ours.dataset.worker !== String(worker)) {
    const way = document.createElement("span");
    way.append(line.lastChild, " → ", ours.cloneNode(true));
    way.lastChild.removeAttribute("id");
    line.append(way);
  }
  find("chat-log").prepend(line);
  if (find("chat-log").children.length > SHOWN) find("chat-log").lastChild.remove();
}

find("chat-enter").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(find("chat-room").value, find("chat-name").value);
  history.replaceState(null, "", `#${visit.room}`); // the address leads others to the same room
});

/* What cannot be sent now stays in its field: between two connections, nothing is sent into the void. */
find("chat-say").addEventListener("submit", (event) => {
  event.preventDefault();
  if (find("chat-send").disabled || socket.readyState !== WebSocket.OPEN) return;
  socket.send(JSON.stringify({ text: find("chat-text").value }));
  find("chat-text").value = "";
  find("chat-error").textContent = "";
});

find("chat-room").value = location.hash.slice(1) || "lobby";
