"use strict";

/* ---- Shared -------------------------------------------------------------------------------- */

const find = (id) => document.getElementById(id);

/* Wait longer after each failure, at most 10 s, and never as long as the next browser: when a
   server comes back, its visitors should not all return in the same instant. */
const retryDelay = (failures) => Math.min(10_000, 250 * 2 ** failures) * (0.5 + Math.random() / 2);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function showState(id, state, words = state) {
  find(id).dataset.state = state;
  find(id).textContent = words;
}

function showWorker(element, worker) {
  element.dataset.worker = worker;
  element.style.setProperty("--worker", worker);
  element.textContent = `worker ${worker}`;
  element.hidden = false;
}

function logLine(worker, ...content) {
  const line = document.createElement("li");
  const words = line.appendChild(document.createElement("span"));
  words.append(...content);
  const badge = line.appendChild(document.createElement("b"));
  badge.className = "worker";
  showWorker(badge, worker);
  return line;
}

/* ---- Clock: server-sent events. The browser reconnects by itself. ---------------------------- */

let clock = null;
let ticks = 0;

function startClock() {
  showState("clock-state", "connecting");
  const mine = clock = new EventSource(urls.clock);
  mine.onmessage = ({ data }) => {
    const { worker, time, clocks } = JSON.parse(data);
    showState("clock-state", "open");
    showWorker(find("clock-worker"), worker);
    find("clock-time").textContent = time;
    find("clock-count").textContent = clocks;
    find("clock-ticks").textContent = ++ticks;
  };
  mine.onerror = () => {
    showState("clock-state", "connecting", "reconnecting");
    // After an answer that is no event stream (a proxy's 502) the browser gives up; we do not.
    if (mine.readyState === EventSource.CLOSED) {
      setTimeout(() => { if (clock === mine) startClock(); }, retryDelay(2));
    }
  };
}

function stopClock() {
  clock.close();
  clock = null;
  showState("clock-state", "idle", "stopped");
}

find("clock-toggle").addEventListener("click", (event) => {
  if (clock) stopClock(); else startClock();
  event.target.textContent = clock ? "Stop" : "Start";
});

/* ---- Upload: XMLHttpRequest, because fetch() reports no upload progress ----------------------- */

find("upload-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const request = new XMLHttpRequest();
  request.upload.onprogress = ({ loaded, total }) => showProgress(loaded / total);
  request.onload = () => showUpload(request);
  request.onerror = () => failUpload("The connection was lost.");
  request.open("POST", urls.upload);
  find("upload-answer").hidden = true;
  find("upload-error").textContent = "";
  showProgress(0);
  showState("upload-state", "sending");
  request.send(new FormData(event.target)); // with the CSRF token, as any form has it
});

function showProgress(share) {
  find("upload-progress").value = share;
  find("upload-percent").textContent = `${Math.floor(share * 100)} %`;
}

function showUpload(request) {
  if (request.status !== 200) return failUpload(`The server answered ${request.status}.`);
  const answer = JSON.parse(request.responseText);
  showProgress(1);
  showState("upload-state", "done");
  find("upload-size").textContent = answer.size;
  find("upload-digest").textContent = answer.sha256;
  showWorker(find("upload-worker"), answer.worker);
  find("upload-answer").hidden = false;
}

function failUpload(words) {
  showState("upload-state", "failed");
  find("upload-error").textContent = words;
}

/* ---- Guest book: a form, and a long poll for what others write ------------------------------- */

const noteList = find("note-list");
const newestNote = () => Math.max(0, ...[...noteList.children].map((line) => Number(line.dataset.note)));

function showNote({ id, name, text, worker }) {
  if (noteList.querySelector(`[data-note="${id}"]`)) return; // our own, back through the long poll
  const author = document.createElement("b");
  author.textContent = name;
  const line = logLine(worker, author, ` ${text}`);
  line.dataset.note = id;
  noteList.prepend(line);
}

find("note-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  find("note-error").textContent = "";
  try {
    const answer = await fetch(urls.notes, { method: "POST", body: new FormData(event.target) });
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
    showNote((await answer.json()).note);
    find("note-text").value = "";
  } catch (error) {
    find("note-error").textContent = `Not signed: ${error.message}`;
  }
});

async function askForNotes() {
  const answer = await fetch(`${urls.nextNotes}?after=${newestNote()}`);
  if (!answer.ok) throw new Error(`answered ${answer.status}`);
  const { worker, notes } = await answer.json();
  notes.forEach(showNote);
  find("poll-outcome").textContent = notes.length ? `${notes.length} new, from` : "nothing new, says";
  showWorker(find("poll-worker"), worker);
}

async function pollForever() {
  for (let failures = 0; ;) {
    showState("poll-state", "open", "waiting");
    try {
      await askForNotes();
      failures = 0;
    } catch {
      showState("poll-state", "closed", "retrying");
      await pause(retryDelay(failures++));
    }
  }
}

startClock();
pollForever();
