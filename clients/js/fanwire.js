/* The fanwire client: one connection for everything a page listens to, and for all of its tabs.
 *
 *   Subscription ─┐                   ┌─ WebSocket, fanwire.v1
 *   Subscription ─┼─ Live ─── Core ───┤
 *   Subscription ─┘                   └─ an EventSource per channel, where WebSockets are blocked
 *
 * Core owns the connection. It runs in the page, in a SharedWorker, or in the tab that holds a lock;
 * Live talks to it in messages that can be posted: [what, argument] there, {type, n, …} back. Each
 * Subscription knows its own position, so that whoever holds the connection next goes on from there.
 *
 * A channel on the wire is OFF, ASKED (subscribed, not ready: what is replayed waits in `held`),
 * READY, or LEAVING. Who joins it with a wish (`from`: a `since`, `last` or `snapshot`) that is not
 * where the channel stands is replayed alone (`solo`; together with those of the same wish), and then
 * the channel is subscribed again from where the others stand; the newcomer drops what it saw
 * already, up to the last event it saw. It may have seen none: its rows (`snapshot`) contain events
 * that nobody saw, and its `since` may be of a server that was ahead of this one. So once on each
 * connection the others go on first (`behind`), until they have passed where the newcomer is ready,
 * and from its place the newcomer is replayed once more. Positions are opaque: all of this needs no
 * more than to tell whether two are equal. */
const OFF = 0, ASKED = 1, READY = 2, LEAVING = 3;

// Full jitter: those who were cut off together do not come back together.
const backoff = n => Math.random() * Math.min(3e4, 1e3 * 2 ** n);

const failure = m => Object.assign(new Error(m.code), m);

const everyone = ({ subs, queue, solo }) => [...subs, ...queue, ...solo];

class Core {
    channels = new Map();
    publishes = new Map();
    state = "connecting";
    fails = 0;
    count = 0;

    // settings: { base, beat }; tell(tab, message): to a tab, or without one to all
    constructor(settings, sockets, tell) {
        Object.assign(this, settings, { sockets, tell });
        this.open();
    }

    // ---- what tabs say ----

    hello(tab, subs) {
        this.leave(tab);
        subs.forEach(sub => this.join(tab, sub));
        this.report(this.state);
    }

    join(tab, sub) {
        sub.tab = tab;
        if (this.denial) return this.to(sub, this.denial);
        const { channel } = sub;
        let c = this.channels.get(channel);
        if (!c) this.channels.set(channel,
            c = { channel, subs: new Set(), queue: [], solo: [], mine: [], on: OFF });
        c.queue.push(sub);
        this.step(c);
    }

    // Without n: the tab itself.
    leave(tab, n) {
        for (const c of this.channels.values()) {
            for (const sub of everyone(c)) {
                if (sub.tab !== tab || n && sub.n !== n) continue;
                sub.gone = true;
                c.subs.delete(sub);
            }
            this.step(c);
        }
    }

    publish(tab, p) {
        p.tab = tab;
        if (this.denial) return this.to(p, this.denial);
        this.publishes.set(++this.count, p);
        this.flush();
    }

    wake() {
        if (this.timer) this.open();
        else if (this.patience) {
            this.send({ type: "ping" });
            this.watch(5e3);
        }
    }

    flush() {
        if (this.up) for (const [ref, p] of this.publishes) {
            if (p.sent) continue;
            p.sent = true;
            const { channel, payload, tab } = p, c = this.channels.get(channel);
            if (!this.ws || payload.key) this.post(ref, p);
            else {
                if (c?.on === READY) c.mine.push({ ref, tab });
                this.send({ type: "publish", channel, ...payload, ref });
            }
        }
    }

    // A batch of one: no header line carries every key. With a key, once more is as good as once;
    // and it goes by HTTP in any case, as `mine` counts on one event for each publish.
    async post(ref, p) {
        const { channel, payload } = p;
        let m = { code: "connection-lost", status: 503 };
        try {
            const body = JSON.stringify([{ channel, ...payload }]);
            m = await (await fetch(this.base + "publish", { method: "POST", body })).json();
        } catch {}
        if (payload.key && m.status === 503) setTimeout(() => {
            p.sent = false;
            this.flush();
        }, backoff(2));
        else this.onok({ ...m, id: m.ids?.[0], ref });
    }

    // ---- a channel ----

    // Does what is due: leave it, or ask for it.
    step(c) {
        const { channel, subs, on } = c;
        if (!this.up || on === ASKED || on === LEAVING) return;
        // who cannot join the others where they stand
        const queue = [...c.solo, ...c.queue].filter(sub => {
            if (sub.gone || subs.has(sub)) return false;
            if (on === OFF || c.solo.length || sub.from && sub.from.since !== c.pos) return true;
            subs.add(sub);
            this.to(sub, { type: "ready", id: c.pos });
        });
        const first = queue.find(sub => !subs.size || sub.from && !c.behind);
        if (on === READY && subs.size && !c.solo.length && !first) c.queue = []; // all are there
        else if (on === READY) {
            c.on = LEAVING;
            if (this.ws) this.send({ type: "unsubscribe", channel });
            else this.onunsubscribed({}, c);
        } else if (first || subs.size) {
            const from = first ? first.from : { since: c.pos };
            const alike = sub => first && JSON.stringify(sub.from) === JSON.stringify(from);
            c.solo = queue.filter(alike);
            c.queue = queue.filter(sub => !alike(sub));
            Object.assign(c, { on: ASKED, held: [], rows: [], mine: [], ref: ++this.count });
            if (this.ws) this.send({ type: "subscribe", channel, ...from, ref: c.ref });
            else this.listen(c, from);
        } else this.channels.delete(channel);
    }

    onsnapshot(m, c) {
        c.rows.push(m.data);
    }

    onready(m, c) {
        const { solo, held, rows, subs } = c, others = solo.length && subs.size;
        const snapshot = solo[0]?.from?.snapshot;
        c.on = READY;
        c.behind = others && this.up !== solo[0].on;
        for (const sub of solo.length ? solo : subs) {
            if (snapshot) this.to(sub, { type: "rows", rows });
            // where it is not found all is new: then -1
            const at = held.findLastIndex(one => one.id && one.id === sub.from?.since);
            held.slice(at + 1).forEach(one => this.pass(sub, one));
            this.to(sub, m);
            if (snapshot) sub.from = { since: m.id };
            sub.on = this.up;
            if (!sub.gone && !c.behind) subs.add(sub);
        }
        c.held = c.rows = 0;
        if (!others) {
            c.solo = [];
            c.pos = m.id;
        }
        this.step(c);
    }

    onmessage(m, c) {
        if (c.on === ASKED) return c.held.push(m);
        // Answers come back in order: whose publish this is, without asking for its id.
        const mine = m.from && m.from === this.id && c.mine.shift();
        for (const sub of c.solo.length ? c.solo : c.subs)
            this.pass(sub, { ...m, mine: mine?.tab === sub.tab });
        if (m.id) this.onposition(m, c);
    }

    ongap(m, c) {
        for (const one of c ? [c] : this.channels.values()) {
            one.mine = [];
            if (one.on) this.onmessage(m, one);
        }
    }

    // What is sent live moves all channels of a connection that are not being replayed.
    onposition({ type, id }, es) {
        for (const c of this.ws ? this.channels.values() : [es]) {
            if (c.on < READY || c.solo.length) continue;
            c.pos = id;
            if (type === "position") c.subs.forEach(sub => this.to(sub, { type, id }));
        }
    }

    // With a code: refused. What concerns a newcomer need not concern the others.
    onunsubscribed(m, c) {
        c.es = c.es?.close();
        c.on = OFF;
        if (m.code) for (const sub of c.solo.length ? c.solo : c.subs) {
            this.to(sub, { ...m, type: "error" });
            sub.gone = true;
            c.subs.delete(sub);
        }
        this.step(c);
    }

    // Each knows the last event that it saw.
    pass(sub, m) {
        if (m.id) sub.from = { since: m.id };
        this.to(sub, m);
    }

    // A subscription, or who publishes.
    to({ gone, tab, n }, m) {
        if (!gone) this.tell(tab, { ...m, n });
    }

    // ---- the connection ----

    report(state) {
        this.state = state;
        this.tell(0, { type: "state", state, id: this.id });
    }

    open() {
        const { base, beat, fails, sockets: { WebSocket, EventSource } } = this;
        this.timer = clearTimeout(this.timer);
        // Somebody in between may let no WebSocket pass: every third try, until one has.
        if (!WebSocket || EventSource && !this.id && (this.heard || fails % 3 === 2))
            return this.begin();
        const ws = this.ws = new WebSocket(base.replace("http", "ws") + "ws?" + beat, "fanwire.v1");
        ws.onmessage = e => ws === this.ws && this.receive(e);
        ws.onerror = () => {};
        ws.onclose = e => ws === this.ws && this.drop(e);
        this.watch(1e4);
    }

    begin() {
        this.up = {}; // none is like another
        this.channels.forEach(c => this.step(c));
        this.flush();
    }

    listen(c, from) {
        const { base, beat, sockets: { EventSource } } = this;
        const { channel } = c, asked = "" + new URLSearchParams({ channel, ...from });
        const url = base + "sse?" + asked.replace("t=true", "t=1") + beat; // snapshot
        const es = c.es = new EventSource(url);
        es.onopen = () => {
            this.alive = this.heard = true;
            this.report("live"); // "down" would follow
        };
        es.onmessage = e => es === c.es && this.receive(e, c);
        es.onerror = async () => {
            // 2: for good. Only fetch sees why.
            const { status, code, detail } = es.readyState === 2 && await fetch(url)
                .then(answer => answer.ok ? answer.body.cancel() : answer.json())
                .catch(() => {}) || 0;
            if (es !== c.es) return;
            if (code && (status < 429 || status === 501))
                this.onerror({ code, message: detail }, c);
            else this.drop({});
        };
    }

    send(m) {
        this.ws.send(JSON.stringify(m));
    }

    // No frame for so long: the connection is dead, whatever the browser believes.
    watch(ms) {
        clearTimeout(this.watchdog);
        this.watchdog = setTimeout(() => this.drop({}), ms);
    }

    // es: the channel whose EventSource it comes from
    receive(e, es) {
        const m = JSON.parse(e.data), c = es ?? this.channels.get(m.channel);
        if (this.patience) this.watch(this.patience);
        if (c || m.channel == null) this["on" + m.type]?.(m, c);
    }

    onwelcome(m) {
        this.id = m.client;
        this.watch(this.patience = 2e3 * m.heartbeat);
        this.alive = true;
        this.report("live");
        this.begin();
    }

    ondown() {
        this.report("stale");
    }

    onup() {
        this.report("live");
    }

    onclosing(m) {
        this.retry = m.retry_ms;
    }

    onerror(m, es) {
        for (const c of this.channels.values()) {
            if (c === es || m.ref && c.ref === m.ref) this.onunsubscribed(m, c);
            c.mine = c.mine.filter(one => one.ref !== m.ref);
        }
        this.onok(m);
    }

    onok(m) {
        const p = this.publishes.get(m.ref);
        this.publishes.delete(m.ref);
        if (p) this.to(p, m);
    }

    drop({ code, reason }) {
        const { ws, alive, retry, publishes, channels } = this;
        this.ws = this.up = this.alive = this.retry = this.patience = clearTimeout(this.watchdog);
        ws?.close();
        for (const c of channels.values()) {
            c.es = c.es?.close();
            c.on = OFF;
        }
        const final = code >= 4000 && code < 4100;
        const why = final ? "denied" : "connection-lost";
        const cause = { type: "error", code: why, message: reason };
        publishes.forEach((p, ref) =>
            (final || p.sent && !p.payload.key) && this.onok({ ...cause, ref }));
        if (final) {
            this.denial = cause;
            channels.forEach(c => everyone(c).forEach(sub => this.to(sub, cause)));
            return this.report(why);
        }
        if (alive && !(code >= 4100)) this.fails = 0;
        this.timer = setTimeout(() => this.open(), retry ?? backoff(this.fails++));
        this.report("offline");
    }

    close() {
        this.drop({});
        clearTimeout(this.timer);
    }
}

/* ---- what a page sees ---- */

class Subscription {
    queue = [];
    loads = 0;
    fails = 0;

    constructor(owner, channel, options) {
        Object.assign(this, { owner, channel, options, id: options.since });
        if (options.load && !options.snapshot) this.held = [];
        owner.post("join", this.wish());
    }

    // What Core is asked for: from where this one stands. Under another number each time: what is
    // under way for the last one is for nobody.
    wish() {
        const { owner, channel, id, options: { last, snapshot } } = this;
        owner.subs.delete(this.n);
        const n = this.n = ++owner.count;
        owner.subs.set(n, this);
        const from = id ? { since: id } : snapshot ? { snapshot } : last && { last };
        return { n, channel, from };
    }

    // Anew: from where it stands, or with its rows.
    again(ms) {
        this.owner.post("leave", this.n);
        const wish = this.wish();
        setTimeout(() => wish.n === this.n && this.owner.post("join", wish), ms);
    }

    receive(m) {
        // with rows there is no place to go on from before `ready`, not even an event's
        if (!this.options.snapshot || this.id || m.type === "ready") this.id = m.id ?? this.id;
        this["on" + m.type]?.(m, this.options);
    }

    onmessage(m, { echo }) {
        if (m.mine && echo === false) return;
        if (this.held) this.held.push(m);
        else this.apply(m);
    }

    onrows({ rows }, { onload }) {
        onload?.(rows);
    }

    onready() {
        this.fails = 0;
        if (this.held && !this.loads) this.reload();
    }

    ongap(m, { load, snapshot, ongap }) {
        if (ongap) ongap(m);
        else if (!load && !snapshot) console.warn(m);
        if (snapshot) {
            this.id = undefined;
            this.again(this.fails++ && backoff(this.fails));
        } else if (load && this.loads) this.reload();
    }

    onerror(m, { onerror = console.error }) {
        if (/^(source-down|overloaded)$/.test(m.code)) return this.again(backoff(this.fails++));
        this.error = failure(m);
        onerror(this.error);
        this.end();
    }

    // What comes meanwhile waits; what came before is in what is loaded.
    reload() {
        const turn = ++this.loads, { load, onload } = this.options, held = this.held = [];
        (async () => load())().then(data => {
            if (turn !== this.loads) return;
            this.held = undefined;
            onload?.(data);
            held.forEach(m => this.apply(m));
        }, error => {
            console.error(error);
            setTimeout(() => turn === this.loads && this.reload(), backoff(this.fails++));
        });
    }

    apply(m) {
        const { onmessage } = this.options, { base64, data, text } = m;
        if (base64) m.data = Uint8Array.from(atob(base64), one => one.charCodeAt());
        else if (text == null) m.text = JSON.stringify(data);
        else m.data = text;
        if (onmessage) return onmessage(m);
        this.queue.push(m);
        this.stir?.();
    }

    async *[Symbol.asyncIterator]() {
        try {
            for (;;) {
                if (this.queue.length) yield this.queue.shift();
                else if (this.error) throw this.error;
                else if (this.ended) return;
                else await new Promise(done => this.stir = done);
            }
        } finally {
            this.close();
        }
    }

    end() {
        this.ended = true;
        this.owner.subs.delete(this.n);
        this.loads = this.n = -1;
        this.stir?.();
    }

    publish(...m) {
        return this.owner.publish(this.channel, ...m);
    }

    close() {
        if (this.ended) return;
        this.owner.post("leave", this.n);
        this.end();
    }
}

class Live {
    state = "connecting";
    subs = new Map();
    publishes = new Map();
    count = 0;
    tab = "fanwire" + Math.random();
    over = new AbortController();

    constructor(url, options) {
        const { location, document } = globalThis, { heartbeat, share } = options;
        const base = new URL(url.replace(/\/?$/, "/"), location).href;
        const beat = heartbeat ? "&heartbeat=" + heartbeat : "";
        this.options = options;
        this.settings = { base, beat };
        this.name = "fanwire2" + base + beat;
        if (!document || share === false || options.WebSocket) this.alone();
        else this.share();
        const wake = () => document.hidden || this.post("wake");
        globalThis.addEventListener?.("online", wake, this.over);
        document?.addEventListener("visibilitychange", wake, this.over);
    }

    // ---- who holds the connection ----

    alone() {
        const { WebSocket, EventSource } = globalThis;
        this.lead({ WebSocket, EventSource, ...this.options });
    }

    lead(sockets, others) {
        const { tab } = this;
        this.core = new Core(this.settings, sockets, (to, m) => {
            if (to !== tab) others?.(to, m);
            if (!to || to === tab) queueMicrotask(() => this.receive(m));
        });
        this.send = (what, argument) => this.core[what](tab, argument);
        this.hello();
    }

    // The server's own copy is the worker: a bundler may have put this module anywhere. Of another
    // origin it is refused, as an exception or as an event.
    share() {
        const { name, tab, settings } = this;
        try {
            const worker = new SharedWorker(settings.base + "fanwire.js", { type: "module", name });
            const { port } = worker;
            worker.onerror = () => this.elect();
            port.onmessage = e => this.receive(e.data);
            this.send = (...m) => port.postMessage([settings, tab, ...m]);
            this.present();
        } catch {
            this.elect();
        }
    }

    // No SharedWorker: the tab that has the lock serves the others.
    elect() {
        this.up = false;
        if (!navigator.locks) return this.alone();
        const { tab, name } = this, wire = new BroadcastChannel(name);
        wire.onmessage = ({ data: [to, m, from] }) => {
            if (to === name) this.core && attend(this.core, from, ...m);
            else if (!m) this.hello();
            else if (!to || to === tab) this.receive(m);
        };
        this.over.signal.onabort = () => wire.close();
        this.send = (...m) => wire.postMessage([name, m, tab]);
        this.present();
        this.hold(name, () => {
            wire.postMessage([]); // all say hello to the new one
            this.lead(globalThis, (...m) => wire.postMessage(m));
        });
    }

    // Whoever waits for this tab's lock learns of its end, however it ends.
    present() {
        if (navigator.locks) this.hold(this.tab, () => this.hello());
        else this.hello();
    }

    hold(name, task) {
        navigator.locks.request(name, () => this.ended || new Promise(release => {
            this.over.signal.addEventListener("abort", release);
            task();
        })).catch(() => this.core || this.alone()); // forbidden, as is all that tabs share
    }

    post(...m) {
        if (this.up) this.send(...m);
    }

    // To whoever holds the connection now: all that is wanted.
    hello() {
        this.up = true;
        this.send("hello", [...this.subs.values()].map(sub => sub.wish()));
        for (const [n, p] of this.publishes) {
            if (p.sent && !p.m.payload.key) this.receive({ n, code: "connection-lost" });
            else this.pass(p);
        }
    }

    receive(m) {
        const p = this.publishes.get(m.n);
        if (p) {
            this.publishes.delete(m.n);
            if (m.code) p.reject(failure(m));
            else p.resolve(m.id);
        } else if (m.type === "state") {
            this.id = m.id;
            if (this.state !== m.state) {
                this.state = m.state;
                this.onstate?.(m.state);
            }
        } else this.subs.get(m.n)?.receive(m);
    }

    pass(p) {
        p.sent = this.up;
        this.post("publish", p.m);
    }

    // ---- what the page calls ----

    subscribe(channel, options = {}) {
        return new Subscription(this, channel, options);
    }

    publish(channel, data, { key } = {}) {
        return new Promise((resolve, reject) => {
            if (this.ended) throw failure({ code: "closed" });
            const n = ++this.count;
            const payload = data instanceof Uint8Array
                ? { key, base64: btoa(String.fromCharCode(...data)) }
                : { key, data: JSON.parse(JSON.stringify(data)) };
            const p = { m: { n, channel, payload }, resolve, reject };
            this.publishes.set(n, p);
            this.pass(p);
        });
    }

    close() {
        if (this.ended) return;
        this.post("leave");
        this.up = false;
        this.ended = true;
        this.core?.close();
        this.over.abort();
        this.subs.forEach(sub => sub.end());
        this.publishes.forEach((p, n) => this.receive({ n, code: "closed" }));
        this.receive({ type: "state", state: "offline" });
    }
}

function attend(core, tab, what, argument) {
    if (what === "hello") navigator.locks?.request(tab, () => core.leave(tab));
    core[what](tab, argument);
}

// In a SharedWorker this same module is the other end.
if (globalThis.SharedWorkerGlobalScope) {
    const ports = new Map();
    let core;
    globalThis.onconnect = ({ ports: [port] }) => {
        port.onmessage = ({ data: [settings, tab, ...m] }) => {
            ports.set(tab, port);
            core ??= new Core(settings, globalThis,
                (to, m) => ports.forEach((one, tab) => to && to !== tab || one.postMessage(m)));
            attend(core, tab, ...m);
        };
    };
}

export const connect = (url = "", options = {}) => new Live(url, options);
