/* Puts the parts together:
 *
 *   server ── rows, events ──> Feed ──> Todos ──> View
 *     ^                                   ^         |
 *     └── Api <── Outbox ── what waits ───┘         |
 *                   ^────── what is wanted ─────────┘
 */
import { connect } from "./fanwire.js";
import { Announcer } from "./announcer.js";
import { Api } from "./api.js";
import { requestOf } from "./changes.js";
import { Feed, forget } from "./feed.js";
import { Notices } from "./notices.js";
import { Outbox } from "./outbox.js";
import { Pause } from "./pause.js";
import { Status, statusOf } from "./status.js";
import { alone, openStorage } from "./storage.js";
import { Todos } from "./todos.js";
import { View } from "./view.js";

const REDRAW_MS = 16;
const SETTLE_MS = 5000; // the most that an event comes after its answer, while all is well

const $ = id => document.getElementById(id);
const storage = openStorage();
const pause = new Pause();
const api = new Api();
const todos = new Todos();
const live = connect(".");
const announcer = new Announcer($("announcer"));
const say = text => announcer.say(text);

const outbox = new Outbox({
    storage, pause,
    alone: task => alone("todos:sender", task, storage),
    send: change => api.request(...requestOf(change)),
    makeRoom: () => forget(storage),
    onchange: () => refresh(),
});
const want = change => {
    outbox.add(change);
    draw(true);
};
const view = new View({ want, say });
const notices = new Notices($("notices"), $("notice"),
    { want, say, dismiss: (...keys) => outbox.dismiss(...keys) });
const status = new Status($("status"), say);
const feed = new Feed({ live, todos, api, pause, storage, onchange: () => drawSoon() });

// ---- what is seen ----

// What the outbox holds is laid over the truth; what it held is kept there until it shows.
function refresh() {
    if (todos.pending.length && !outbox.waiting.length) api.hope(); // maybe another tab got through
    todos.sync(outbox.entries, performance.now());
    notices.show(outbox.refused);
    drawSoon();
    settleLater();
}

let drawing;

// Two hundred events are one picture. No animation frame: a hidden tab has none.
function drawSoon() {
    drawing ??= setTimeout(() => draw(false), REDRAW_MS);
}

function draw(own) {
    drawing = clearTimeout(drawing);
    view.show(todos.shown(), { known: todos.known, own });
    status.show(statusOf({
        live: live.state,
        feed: feed.state,
        reach: api.reach,
        online: navigator.onLine,
        waiting: outbox.waiting.length,
        known: todos.known,
    }));
}

// ---- what happens ----

let lively = 0; // since when events come as they should
let settling;

function settleLater() {
    if (todos.settling.length) settling ??= setTimeout(settle, SETTLE_MS);
}

function settle() {
    const before = performance.now() - SETTLE_MS;
    settling = undefined;
    if (live.state === "live" && before >= lively) {
        todos.settle(before);
        drawSoon();
    }
    settleLater();
}

live.onstate = state => {
    if (state === "live") {
        lively = performance.now();
        api.hope();
        pause.wake();
    }
    drawSoon();
};
api.onreach = drawSoon;
addEventListener("online", () => {
    pause.wake();
    drawSoon();
});
addEventListener("offline", drawSoon);
addEventListener("pagehide", () => feed.keep());
addEventListener("pageshow", ({ persisted }) => persisted && outbox.refresh());
addEventListener("storage", ({ key }) => outbox.holds(key) && outbox.refresh()); // another tab
document.addEventListener("visibilitychange", () => document.hidden || pause.wake());

refresh();
draw(true);
outbox.run();
