/* The list: what the database says, with what this browser wants changed laid over it.
 *
 *   shown = truth + settling + pending
 *
 * truth     what was loaded, and the events since
 * pending   changes that the server has not answered, in order: the outbox's
 * settling  answered, but their events are not here yet. Without them a row would jump back for a
 *           moment whenever the answer overtakes the event
 *
 * A change names the items that it touches, and waits for each of them in `awaiting` until an event
 * shows it as wanted. From then on the truth knows best about that item: what others do to it is
 * seen at once. Events carry no mark of who caused them, so a change of the same kind by somebody
 * else counts as well: it makes no difference to what is shown.
 *
 * No DOM, no network, no clock in here. */

// What a title may have; the server counts characters as this does, not UTF-16 units.
export const MAX_TITLE = 10_000;
export const lengthOf = title => [...title].length;

export function problemOf(title) {
    const length = lengthOf(title);
    if (length <= MAX_TITLE) return undefined;
    const [is, may] = [length, MAX_TITLE].map(n => n.toLocaleString("en"));
    return `This is ${is} characters long; up to ${may} fit.`;
}

// A row of the database as an item; undefined where it is none. Whoever writes the table may have
// put anything into it.
export function itemOf(row) {
    if (row?.id == null) return undefined;
    return {
        id: String(row.id),
        title: String(row.title ?? ""),
        completed: row.completed === true || row.completed === 1,
        created: Number(row.created) || 0,
    };
}

const byAge = (a, b) => a.created - b.created || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

// Whether an item (undefined: it is gone) is as the change wants it, or is past wanting.
function conforms({ op, title, completed }, item) {
    if (!item) return op !== "add";
    return op === "add"
        || (op === "edit" || op === "toggle-all")
        && (title === undefined || title === item.title)
        && (completed === undefined || completed === item.completed);
}

function overlay(items, change) {
    const { op, title, completed, created } = change;
    for (const id of change.awaiting) {
        const item = items.get(id);
        if (op === "remove" || op === "clear") items.delete(id);
        else if (op === "add") items.set(id, item ?? { id, title, completed, created });
        else if (item) {
            items.set(id, {
                ...item, title: title ?? item.title, completed: completed ?? item.completed,
            });
        }
    }
}

export class Todos {
    truth = new Map();
    pending = [];
    settling = [];
    fetches = new Map(); // id → what is waited for: the latest fetch of that item
    known = false; // false: nobody has told yet what there is

    // ---- what the server says ----

    // The table as it is, in the middle of its events: those that follow are not in it. Requests are
    // sent in their order, so that the newest change which shows in a row has all before it with it.
    load(rows) {
        const items = rows.map(itemOf).filter(Boolean);
        this.truth = new Map(items.map(item => [item.id, item]));
        this.known = true;
        this.fetches.clear();
        const shown = new Set();
        for (const change of [...this.settling].reverse()) {
            for (const id of change.awaiting) {
                if (!shown.has(id) && !conforms(change, this.truth.get(id))) continue;
                shown.add(id);
                change.awaiting.delete(id);
            }
        }
        this.sweep();
    }

    // A row event. Returns { id } where the row was too large to be in it: fetch the item, and hand
    // it to fetched() with this very object.
    apply(event) {
        const { op, key, row, old, partial } = Object(event);
        if (op === "truncate") return this.truncate();
        const id = key?.id ?? row?.id ?? old?.id;
        if (id == null) return undefined;
        if (old?.id != null && String(old.id) !== String(id)) this.put(String(old.id), undefined);
        if (op === "delete") return this.put(String(id), undefined);
        const item = partial ? undefined : itemOf({ ...row, id });
        if (item && row) return this.put(item.id, item);
        const fetch = { id: String(id) };
        this.fetches.set(fetch.id, fetch);
        return fetch;
    }

    // False when a later event has told more than this fetch could.
    wants(fetch) {
        return this.fetches.get(fetch.id) === fetch;
    }

    fetched(fetch, row) {
        if (this.wants(fetch)) this.put(fetch.id, itemOf(row));
    }

    put(id, item) {
        this.fetches.delete(id);
        if (item) this.truth.set(id, item);
        else this.truth.delete(id);
        const waiting = this.changes().filter(change => change.awaiting.has(id));
        // An event is the oldest change's; the later ones have theirs still to come.
        for (const change of item ? waiting.slice(0, 1) : waiting) {
            if (conforms(change, item)) change.awaiting.delete(id);
        }
        this.sweep();
    }

    truncate() {
        this.truth.clear();
        this.fetches.clear();
        for (const change of this.changes()) {
            if (conforms(change, undefined)) change.awaiting.clear();
        }
        this.sweep();
    }

    // ---- what this browser wants ----

    // All that the outbox holds now. What it held before was answered meanwhile, or refused.
    sync(changes, now) {
        const before = new Map(this.pending.map(change => [change.key, change]));
        this.pending = changes.filter(change => !change.refused).map(change =>
            before.get(change.key) ?? { ...change, awaiting: new Set(change.ids) });
        changes.forEach(change => before.delete(change.key));
        for (const change of before.values()) this.settling.push({ ...change, answered: now });
        this.sweep();
    }

    // What was answered before that time is in the truth by now, or was overtaken by others.
    settle(time) {
        this.settling = this.settling.filter(change => change.answered > time);
    }

    sweep() {
        this.settling = this.settling.filter(change => change.awaiting.size);
    }

    changes() {
        return [...this.settling, ...this.pending];
    }

    // ---- what is seen ----

    shown() {
        const items = new Map(this.truth);
        for (const change of this.changes()) overlay(items, change);
        return [...items.values()].sort(byAge);
    }
}
