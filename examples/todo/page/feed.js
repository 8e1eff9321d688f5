/* Keeps the truth of a Todos true: loads the list, follows its events, fetches the rows that were
 * too large for an event, and keeps it all for a reload while the server is away. */

const KEPT = "todos:known";
const KEEP_AFTER_MS = 500;

// What is kept for a reload: it can be loaded again, and may have to make room.
export const forget = storage => storage.removeItem(KEPT);

export class Feed {
    turn = 0;

    constructor({ live, todos, api, pause, storage, onchange }) {
        Object.assign(this, { todos, api, pause, storage, onchange });
        this.restore();
        live.subscribe("todos", {
            load: () => this.list(),
            onload: rows => {
                todos.load(rows, this.began);
                this.changed();
            },
            onmessage: event => {
                const fetch = todos.apply(event.data);
                if (fetch) this.fill(fetch);
                this.changed();
            },
            onerror: error => {
                this.refused = error.code;
                onchange();
            },
        });
    }

    // Asks until there is an answer, or the next load has begun.
    list() {
        const turn = ++this.turn;
        return this.pause.until(() => {
            this.began = performance.now();
            return this.api.list();
        }, () => turn === this.turn);
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
