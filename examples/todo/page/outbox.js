/* The changes that the server has not answered yet, in the order in which they were made. They
 * outlive a reload, all tabs of the browser share them, and one tab at a time sends them. A lost
 * answer, or a tab that is a moment late in seeing what another has sent, may still send one twice:
 * each request says how things shall be, and is no different the second time.
 *
 * Each is one key of the storage, so that two tabs never overwrite each other's; the keys sort by
 * time. A change that was refused stays, with the reason, until somebody has read it. */

const PREFIX = "todos:change:";

export class Outbox {
    entries = []; // [{ key, op, ids, …, refused? }], in order
    unkept = new Map(); // key → text: those for which the storage had no room
    texts = new Map();
    last = 0;

    // send(change) resolves when it is answered; it rejects with a `status` when it is refused.
    // alone(task): see storage.js. pause: see pause.js. makeRoom(): gives up what matters less.
    constructor({ storage, send, alone, pause, onchange = () => {}, makeRoom = () => {} }) {
        Object.assign(this, { storage, send, alone, pause, onchange, makeRoom });
        this.read();
    }

    get waiting() {
        return this.entries.filter(entry => !entry.refused);
    }

    get refused() {
        return this.entries.filter(entry => entry.refused);
    }

    add(change) {
        this.write(this.newKey(), change);
        this.refresh();
    }

    // Whether that key of the storage (null: all of it) is one of these.
    holds(key) {
        return key === null || key.startsWith(PREFIX);
    }

    // Refused ones were read.
    dismiss(...keys) {
        keys.forEach(key => this.erase(key));
        this.refresh();
    }

    // Something may have changed: here, or in another tab.
    refresh() {
        this.read();
        this.onchange();
        this.run();
    }

    // ---- sending ----

    async run() {
        if (this.running) return;
        this.running = true;
        for (let fails = 0; this.next(); fails++) {
            const error = await this.alone(() => this.sendAll()).catch(error => error);
            // Not while it is this tab's turn: a hidden tab may sleep for minutes.
            if (error) await this.pause.after(error, fails);
        }
        this.running = false;
    }

    // Returns what was in the way, if anything.
    async sendAll() {
        for (let one = this.next(); one; one = this.next()) {
            const { key, ...change } = one;
            try {
                await this.send(change);
                this.erase(key);
            } catch (error) {
                const { status, message } = error;
                if (!status) return error;
                this.write(key, { ...change, refused: { status, message } });
            }
            this.read();
            this.onchange();
        }
        return undefined;
    }

    // Read anew: another tab may have sent it while this one waited for its turn.
    next() {
        this.read();
        return this.waiting[0];
    }

    // ---- keeping ----

    newKey() {
        // One after the other even when the clock stands still, or goes back.
        const newest = Number(this.entries.at(-1)?.key.slice(PREFIX.length).split("-")[0]) || 0;
        this.last = Math.max(Date.now(), this.last + 1, newest + 1);
        const random = Math.random().toString(36).slice(2); // two tabs in the same millisecond
        return PREFIX + String(this.last).padStart(16, "0") + "-" + random;
    }

    write(key, change) {
        const text = JSON.stringify(change);
        this.unkept.delete(key);
        if (this.keep(key, text)) return;
        this.makeRoom();
        if (this.keep(key, text)) return;
        this.unkept.set(key, text); // better until the tab is closed than not at all
    }

    keep(key, text) {
        try {
            this.storage.setItem(key, text);
            return true;
        } catch { // full
            return false;
        }
    }

    erase(key) {
        this.unkept.delete(key);
        this.storage.removeItem(key);
    }

    read() {
        const texts = new Map(this.unkept);
        for (let i = 0; i < this.storage.length; i++) {
            const key = this.storage.key(i);
            if (!key.startsWith(PREFIX) || texts.has(key)) continue;
            texts.set(key, this.storage.getItem(key));
        }
        const known = new Map(this.entries.map(entry => [entry.key, entry]));
        const entryOf = key => this.texts.get(key) === texts.get(key)
            ? known.get(key) ?? [] : parsed(key, texts.get(key));
        this.entries = [...texts.keys()].sort().flatMap(entryOf);
        this.texts = texts;
    }
}

// [] for what somebody else has left there.
function parsed(key, text) {
    try {
        const change = JSON.parse(text);
        return Array.isArray(change.ids) ? { key, ...change } : [];
    } catch {
        return [];
    }
}
