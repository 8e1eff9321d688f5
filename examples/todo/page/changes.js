/* What a person can want changed, as data: it is shown at once, kept in the outbox, sent as one
 * request, and may have to wait for days in between. `ids` are the items that it touches. */

import { Refused } from "./api.js";

// crypto.randomUUID is not there on plain http.
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)),
    byte => byte.toString(16).padStart(2, "0")).join("");

// The id is made here: sent twice because an answer was lost, it is still one item.
export function add(title, { completed = false, created = Date.now() } = {}) {
    const id = newId();
    return { op: "add", ids: [id], title, completed, created };
}

// Only what was changed is sent: a title from here and a tick from elsewhere do not meet. `was` is
// for telling people, should it fail.
export function edit(item, { title, completed }) {
    return { op: "edit", ids: [item.id], title, completed, was: item };
}

export function remove(item) {
    return { op: "remove", ids: [item.id], was: item };
}

const MAX_IDS = 10_000; // of one request
const idsOf = items => items.slice(0, MAX_IDS).map(item => item.id);

// These two mean what was seen: sent days later, they leave alone what others have done since.
export function toggleAll(items, completed) {
    return { op: "toggle-all", ids: idsOf(items.filter(item => item.completed !== completed)), completed };
}

export function clearCompleted(items) {
    return { op: "clear", ids: idsOf(items.filter(item => item.completed)) };
}

// The request that makes it so: [method, path below /api/todos/, body].
export function requestOf({ op, ids, title, completed, created }) {
    const [id] = ids;
    switch (op) {
        case "add": return ["POST", "", { id, title, completed, created }];
        case "edit": return ["PUT", encodeURIComponent(id) + "/", { title, completed }];
        case "remove": return ["DELETE", encodeURIComponent(id) + "/"];
        case "toggle-all": return ["PUT", "", { completed, ids }];
        case "clear": return ["DELETE", "", { ids }];
        default: throw new Refused(400, "this version of the page does not know how.");
    }
}
