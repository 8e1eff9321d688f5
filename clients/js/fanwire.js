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
 * READY, or LEAVING. When somebody joins it with a `since` or `last` that is not where the channel
 * stands, that one is replayed alone (`solo`), and then the channel is subscribed again from where the
 * others stand; the newcomer drops what it saw already, up to the last event it saw. Positions are
 * opaque: all of this needs no more than to tell whether two are equal. */
const OFF = 0, ASKED = 1, READY = 2, LEAVING = 3;

// Full jitter: those who were cut off together do not come back together.
const backoff = n => Math.random() * Math.min(3e4, 1e3 * 2 ** n);

const failure = m => Object.assign(new Error(m.code), m);

const everyone = ({ subs, queue, solo }) => [...subs, ...queue, solo].filter(Boolean);

class Core {
    channels = new Map();
    publishes = new Map();
    state = "connecting";
    fails = 0;
    refs = 0;

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
        const { channel, since = "now", last } = sub;
        let c = this.channels.get(channel);
        if (!c) {
            c = { channel, subs: new Set(), queue: [], on: OFF };
            this.channels.set(channel, c);
        }
        const plain = since === "now" && !last;
        if (plain || since === c.pos) {
            const ready = c.on === READY && !c.solo;
            sub.fresh = plain && !ready; // nothing was promised to it: replays are for others
            c.subs.add(sub);
            if (ready) this.to(sub, { type: "ready", id: c.pos });
        } else c.queue.push(sub);
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
            c.queue = c.queue.filter(sub => !sub.gone);
            this.step(c);
        }
    }

    publish(tab, p) {
        p.tab = tab;
        if (this.denial) return this.to(p, this.denial);
        this.publishes.set(++this.refs, p);
        this.flush();
    }

    wake() {
        if (this.timer) this.open();
        else if (this.alive && this.ws) {
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
        const { channel, subs, queue, on } = c, wanted = subs.size || queue.length;
        if (!this.up || on === ASKED || on === LEAVING) return;
        if (on === READY) {
            if (wanted && !c.solo && !queue.length) return;
            c.on = LEAVING;
            if (this.ws) this.send({ type: "unsubscribe", channel });
            else {
                c.es.close();
                this.onunsubscribed({}, c);
            }
        } else if (wanted) {
            c.solo = queue.shift();
            const { since, last } = c.solo || { since: c.pos };
            Object.assign(c, { on: ASKED, held: [], mine: [], ref: ++this.refs });
            if (this.ws) this.send({ type: "subscribe", channel, since, last, ref: c.ref });
            else this.listen(c, since, last);
        } else this.channels.delete(channel);
    }

    onready(m, c) {
        const { solo, held, subs } = c;
        c.on = READY;
        if (solo) {
            held.forEach(one => this.toSolo(solo, one));
            this.to(solo, m);
            if (!subs.size) c.solo = c.pos = undefined;
            c.pos ??= m.id;
            if (!solo.gone) subs.add(solo);
        } else {
            for (const sub of subs) {
                // where it is not found all is new: then -1
                const at = held.findLastIndex(one => one.id && one.id === sub.seen);
                if (!sub.fresh) held.slice(at + 1).forEach(one => this.to(sub, one));
                sub.fresh = false;
                this.to(sub, m);
            }
            c.pos = m.id;
        }
        this.step(c);
    }

    onmessage(m, c) {
        if (c.on === ASKED) return c.held.push(m);
        // Answers come back in order: whose publish this is, without asking for its id.
        const mine = m.from && m.from === this.id && c.mine.shift();
        if (c.solo) this.toSolo(c.solo, m);
        else for (const sub of c.subs) this.to(sub, { ...m, mine: mine && mine.tab === sub.tab });
        if (m.id) this.onposition(m);
    }

    ongap(m, c) {
        for (const one of c ? [c] : this.channels.values()) {
            one.mine = [];
            if (one.on) this.onmessage(m, one);
        }
    }

    // What is sent live moves every channel that is not being replayed.
    onposition({ type, id }) {
        for (const c of this.channels.values()) {
            if (c.on < READY || c.solo) continue;
            c.pos = id;
            if (type === "position") c.subs.forEach(sub => this.to(sub, { type, id }));
        }
    }

    onunsubscribed(m, c) {
        c.on = OFF;
        if (m.code) this.refuse(c, m);
        else this.step(c);
    }

    refuse(c, m) {
        c.es?.close();
        this.channels.delete(c.channel);
        for (const sub of everyone(c)) this.to(sub, { ...m, type: "error" });
    }

    toSolo(sub, m) {
        sub.seen = m.id ?? sub.seen;
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
        this.up = true;
        this.channels.forEach(c => this.step(c));
        this.flush();
    }

    listen(c, since, last) {
        const { base, beat, sockets: { EventSource } } = this;
        const name = encodeURIComponent(c.channel);
        const from = since ? "&since=" + since : last ? "&last=" + last : "";
        const es = c.es = new EventSource(base + "sse?channel=" + name + from + beat);
        es.onopen = () => {
            this.alive = this.heard = true;
            this.report("live"); // "down" would follow
        };
        es.onmessage = e => es === c.es && this.receive(e, c);
        es.onerror = async () => {
            // 2: for good. Only fetch sees why.
            const answer = es.readyState === 2 &&
                await fetch(base + "history/" + name + "?last=1").catch(() => 0);
            const refused = answer && answer.status < 429 && !answer.ok && await answer.json();
            if (es !== c.es) return;
            if (refused) this.refuse(c, { ...refused, message: refused.detail });
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
        const m = JSON.parse(e.data);
        const c = this.channels.get(m.channel);
        if (this.patience && !es) this.watch(this.patience);
        if (es && m.type === "error") this.refuse(es, m);
        else if (c || m.channel == null) this["on" + m.type]?.(m, c);
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

    onerror(m) {
        for (const c of this.channels.values()) {
            if (c.ref && c.ref === m.ref) this.refuse(c, m);
            c.mine = c.mine?.filter(one => one.ref !== m.ref);
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
            c.es?.close();
            if (c.solo && !c.solo.gone && !c.subs.has(c.solo)) c.queue.unshift(c.solo);
            c.on = OFF;
            c.solo = c.es = undefined;
        }
        const final = code >= 4000 && code < 4100;
        const why = final ? "denied" : "connection-lost";
        const cause = { type: "error", code: why, message: reason };
        publishes.forEach((p, ref) =>
            (final || p.sent && !p.payload.key) && this.onok({ ...cause, ref }));
        if (final) {
            this.denial = cause;
            channels.forEach(c => this.refuse(c, cause));
            return this.report(why);
        }
        if (alive && !(code >= 4100)) this.fails = 0;
        const delay = alive && code >= 4200 && !this.fails ? 0 : backoff(this.fails);
        this.fails++;
        this.timer = setTimeout(() => this.open(), retry ?? delay);
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

    constructor(owner, n, channel, options) {
        Object.assign(this, { owner, n, channel, options, id: options.since });
        if (options.load) this.held = [];
    }

    // What Core is asked for: from where this one stands.
    wish() {
        const { n, channel, id, options: { last } } = this;
        return { n, channel, since: id, last: id ? undefined : last };
    }

    take(m) {
        const { options, held, loads } = this;
        const { load, ongap, echo, onerror = console.error } = options;
        this.id = m.id ?? this.id;
        if (m.type === "message" && !(m.mine && echo === false)) {
            if (held) held.push(m);
            else this.apply(m);
        } else if (m.type === "gap") {
            if (ongap) ongap(m);
            else if (!load) console.warn(m);
        } else if (m.type === "error") {
            this.error = failure(m);
            onerror(this.error);
            this.end();
        }
        if (load && (m.type === "ready" && !loads || m.type === "gap" && loads)) this.reload();
    }

    // What comes meanwhile waits; what came before a gap is in what is loaded after it.
    async reload() {
        const turn = ++this.loads, { load, onload } = this.options;
        this.held = [];
        for (let n = 0; turn === this.loads; n++) {
            const loaded = await (async () => [await load()])().catch(console.error);
            if (turn !== this.loads) return;
            if (loaded) {
                const { held } = this;
                this.held = undefined;
                onload?.(loaded[0]);
                return held.forEach(m => this.apply(m));
            }
            await new Promise(done => setTimeout(done, backoff(n)));
        }
    }

    apply(m) {
        const { onmessage } = this.options;
        const { base64, data, text } = m;
        m.data = base64 ? Uint8Array.from(atob(base64), one => one.charCodeAt()) : text ?? data;
        m.text = base64 ? undefined : text ?? JSON.stringify(data);
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
        this.loads = -1;
        this.owner.subs.delete(this.n);
        this.stir?.();
    }

    publish(...m) {
        return this.owner.publish(this.channel, ...m);
    }

    close() {
        if (this.ended) return;
        this.end();
        this.owner.post("leave", this.n);
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
        this.name = "fanwire1" + base + beat;
        if (document && share !== false && !options.WebSocket) this.share();
        else this.alone();
        if (!document) return;
        const wake = () => document.hidden || this.post("wake");
        addEventListener("online", wake, this.over);
        document.addEventListener("visibilitychange", wake, this.over);
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
        this.here = false;
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

    hold(name, then) {
        navigator.locks.request(name, () => this.shut || new Promise(release => {
            this.over.signal.addEventListener("abort", release);
            then();
        })).catch(() => this.core || this.alone()); // forbidden, as is all that tabs share
    }

    post(...m) {
        if (this.here) this.send(...m);
    }

    // To whoever holds the connection now: all that is wanted.
    hello() {
        this.here = true;
        this.send("hello", [...this.subs.values()].map(sub => sub.wish()));
        for (const [n, p] of this.publishes) {
            if (p.posted && !p.m.payload.key) this.receive({ n, code: "connection-lost" });
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
            const { state } = this;
            Object.assign(this, { id: m.id, state: m.state });
            if (state !== m.state) this.onstate?.(m.state);
        } else this.subs.get(m.n)?.take(m);
    }

    pass(p) {
        p.posted = this.here;
        this.post("publish", p.m);
    }

    // ---- what the page calls ----

    subscribe(channel, options = {}) {
        const sub = new Subscription(this, ++this.count, channel, options);
        this.subs.set(sub.n, sub);
        this.post("join", sub.wish());
        return sub;
    }

    publish(channel, data, { key } = {}) {
        return new Promise((resolve, reject) => {
            if (this.shut) throw failure({ code: "closed" });
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
        if (this.shut) return;
        this.post("leave");
        this.here = false;
        this.shut = true;
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
