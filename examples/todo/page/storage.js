/* Where the page keeps things over a reload: localStorage, which all tabs share; a Map where the
 * browser does not allow that. And one tab at a time: alone(). */

const LEASE_MS = 5000;

export class Memory {
    map = new Map();

    get length() {
        return this.map.size;
    }

    key(n) {
        return [...this.map.keys()][n] ?? null;
    }

    getItem(key) {
        return this.map.get(key) ?? null;
    }

    setItem(key, text) {
        this.map.set(key, text);
    }

    removeItem(key) {
        this.map.delete(key);
    }
}

export function openStorage() {
    try {
        return globalThis.localStorage ?? new Memory();
    } catch { // the user has forbidden it
        return new Memory();
    }
}

export const sleep = ms => new Promise(done => setTimeout(done, ms));

// Runs a task while no other tab runs one under this name.
export async function alone(name, task, storage, locks = globalThis.navigator?.locks) {
    let began = false;
    const begin = () => {
        began = true;
        return task();
    };
    try {
        if (locks) return await locks.request(name, begin);
    } catch (error) { // locks are forbidden with the storage
        if (began) throw error;
    }
    return byLease(name, task, storage);
}

// On plain http there are no locks. A tab that is put to sleep may outstay its lease, and where the
// storage is full there is none: then two run, which must do no more harm than work done twice.
async function byLease(name, task, storage) {
    const me = String(Math.random());
    const holder = () => parsed(storage.getItem(name));
    const take = () => {
        try {
            storage.setItem(name, JSON.stringify({ me, until: Date.now() + LEASE_MS }));
            return true;
        } catch { // no room
            return false;
        }
    };
    for (;;) {
        const { until = 0 } = holder();
        const left = until - Date.now();
        if (left <= 0 || left > LEASE_MS) { // free, or the clock was set back
            if (!take()) break;
            await sleep(50 + Math.random() * 50); // whoever wrote last has it
            if (holder().me === me) break;
        } else await sleep(Math.min(left, 500));
    }
    const renewal = setInterval(take, LEASE_MS / 3);
    try {
        return await task();
    } finally {
        clearInterval(renewal);
        if (holder().me === me) storage.removeItem(name);
    }
}

// {} for what is not there, or damaged.
function parsed(text) {
    try {
        return Object(JSON.parse(text));
    } catch {
        return {};
    }
}
