/* Keeps the truth of a Todos true: gets the rows of the table and each change after them, fetches
 * what was too large for an event, and keeps it all for a reload while the server is away. */

const KEPT = "todos:known";
const KEEP_AFTER_MS = 500;

// What is kept for a reload: it can be loaded again, and may have to make room.
export const forget = storage => storage.removeItem(KEPT);

export class Feed {
    state = "loading"; // "loaded"; or the code of the refusal
    fails = 0;

    constructor({ live, todos, api, pause, storage, onchange }) {
        Object.assign(this, { live, todos, api, pause, storage, onchange });
        this.restore();
        this.follow();
    }

    follow() {
        const { live, todos } = this;
        live.subscribe("todos", {
            snapshot: true,
            onload: rows => {
                this.state = "loaded";
                this.fails = 0;
                todos.load(rows);
                this.changed();
            },
            onmessage: event => {
                const fetch = todos.apply(event.data);
                if (fetch) this.fill(fetch);
                this.changed();
            },
            onerror: error => this.refused(error),
        });
    }

    // Where the table is not there yet, or larger than can be sent, that may pass.
    async refused({ code }) {
        this.state = code;
        this.onchange();
        if (code === "denied") return;
        await this.pause.after({}, this.fails++);
        this.follow();
    }

    async fill(fetch) {
        const { api, pause, todos } = this;
        try {
            todos.fetched(fetch, await pause.until(() => api.item(fetch.id)));
            this.changed();
        } catch (error) {
            console.warn("no item", fetch.id, error);
        }
    }

    changed() {
        this.onchange();
        this.timer ??= setTimeout(() => this.keep(), KEEP_AFTER_MS);
    }

    keep() {
        this.timer = clearTimeout(this.timer);
        if (!this.todos.known) return;
        try {
            this.storage.setItem(KEPT, JSON.stringify([...this.todos.truth.values()]));
        } catch { // no room: then it is only not there after a reload
            forget(this.storage);
        }
    }

    restore() {
        try {
            this.todos.load(JSON.parse(this.storage.getItem(KEPT)));
        } catch { // nothing was kept, or it is damaged
        }
    }
}
