// The to-do page's list: truth, and the changes that are laid over it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { add, clearCompleted, edit, remove, requestOf, toggleAll } from "./page/changes.js";
import { wordsOf } from "./page/notices.js";
import { itemOf, lengthOf, MAX_TITLE, problemOf, Todos } from "./page/todos.js";

const row = (id, title = id, completed = false, created = 1) => ({ id, title, completed, created });
const insert = one => ({ op: "insert", key: { id: one.id }, row: one });
const update = one => ({ op: "update", key: { id: one.id }, row: one });
const gone = id => ({ op: "delete", key: { id } });
const titles = todos => todos.shown().map(item => item.title);
const ticked = todos => todos.shown().filter(item => item.completed).map(item => item.id);

// A list with an outbox: sync() as main.js calls it.
function list(...rows) {
    const todos = new Todos();
    todos.load(rows);
    let entries = [], count = 0;
    const sync = (now = 0) => todos.sync(entries, now);
    return {
        todos,
        want(change) {
            entries.push({ key: String(++count), ...change });
            sync();
            return String(count);
        },
        answer(key, now = 0) {
            entries = entries.filter(entry => entry.key !== key);
            sync(now);
        },
        refuse(key) {
            entries = entries.map(entry => entry.key === key ? { ...entry, refused: {} } : entry);
            sync();
        },
    };
}

test("items are sorted by age, then by id", () => {
    const { todos } = list(row("c", "c", false, 2), row("b"), row("a", "a", false, 2), row("d"));
    assert.deepEqual(titles(todos), ["b", "d", "a", "c"]);
});

test("rows are taken as they are found", () => {
    assert.deepEqual(itemOf({ id: 7, title: null, completed: 1, created: null }),
        { id: "7", title: "", completed: true, created: 0 });
    assert.deepEqual(itemOf({ id: "x", title: 5, completed: 0, created: "12" }),
        { id: "x", title: "5", completed: false, created: 12 });
    assert.equal(itemOf({ title: "no id" }), undefined);
    assert.equal(itemOf(null), undefined);
    const { todos } = list(null, { title: "x" }, row("a"));
    assert.deepEqual(titles(todos), ["a"]);
});

test("events that are none change nothing", () => {
    const { todos } = list(row("a"));
    for (const event of [null, undefined, "text", 7, [], {}, { op: "insert", title: "tea" },
        { op: "update", key: {} }, { op: "delete" }]) {
        assert.equal(todos.apply(event), undefined);
        assert.deepEqual(titles(todos), ["a"]);
    }
});

test("inserted, updated, moved to another id, deleted, truncated", () => {
    const { todos } = list(row("a"));
    todos.apply(insert(row("b")));
    todos.apply(insert(row("b")));
    assert.deepEqual(titles(todos), ["a", "b"]);
    todos.apply(update(row("b", "B", 1)));
    assert.deepEqual(todos.shown()[1], row("b", "B", true));
    todos.apply({ ...update(row("c", "C")), old: row("b") });
    assert.deepEqual(titles(todos), ["a", "C"]);
    todos.apply(gone("a"));
    todos.apply(gone("a"));
    assert.deepEqual(titles(todos), ["C"]);
    todos.apply({ op: "truncate", table: "todos" });
    assert.deepEqual(titles(todos), []);
});

test("characters are counted, not units", () => {
    assert.equal(lengthOf("😀é"), 2);
    assert.equal(problemOf("😀".repeat(MAX_TITLE)), undefined);
    assert.match(problemOf("x".repeat(MAX_TITLE + 1)), /10,001 .* 10,000/);
});

test("each change as a request", () => {
    const one = add("tea", { created: 5 });
    assert.match(one.ids[0], /^[A-Za-z0-9_-]{8,64}$/);
    assert.notEqual(one.ids[0], add("tea").ids[0]);
    assert.deepEqual(requestOf(one),
        ["POST", "", { id: one.ids[0], title: "tea", completed: false, created: 5 }]);
    const put = requestOf(edit(row("a/b"), { completed: true }));
    assert.deepEqual(JSON.parse(JSON.stringify(put)), ["PUT", "a%2Fb/", { completed: true }]);
    assert.deepEqual(requestOf(remove(row("a"))), ["DELETE", "a/"]);
    const items = [row("a"), row("b", "b", true), row("c", "c", true)];
    assert.deepEqual(requestOf(toggleAll(items, true)), ["PUT", "", { completed: true, ids: ["a"] }]);
    assert.deepEqual(requestOf(clearCompleted(items)), ["DELETE", "", { ids: ["b", "c"] }]);
    const many = Array.from({ length: 10_001 }, (_, i) => row("i" + i));
    assert.equal(requestOf(toggleAll(many, true))[2].ids.length, 10_000);
});

test("what another version has kept is refused, not tried for ever", () => {
    const change = { op: "?", ids: [] };
    assert.throws(() => requestOf(change), error => {
        assert.ok(error.status);
        assert.match(wordsOf({ ...change, refused: error }), /kept here could not be made/);
        return true;
    });
});

test("changes show at once, in order", () => {
    const { todos, want } = list(row("a"), row("b", "b", true));
    want(add("tea", { created: 2 }));
    want(edit(row("a"), { title: "A" }));
    want(edit(row("a"), { completed: true }));
    want(remove(row("b")));
    assert.deepEqual(titles(todos), ["A", "tea"]);
    assert.deepEqual(ticked(todos), ["a"]);
    want(toggleAll(todos.shown(), true));
    assert.equal(ticked(todos).length, 2);
    want(clearCompleted(todos.shown()));
    assert.deepEqual(titles(todos), []);
    assert.deepEqual([...todos.truth.keys()], ["a", "b"], "the truth is untouched");
});

test("to toggle or clear all does not touch what comes later", () => {
    const { todos, want } = list(row("a"), row("b", "b", true));
    want(toggleAll(todos.shown(), true));
    want(clearCompleted([row("b", "b", true)]));
    todos.apply(insert(row("late")));
    todos.apply(insert(row("later", "later", true)));
    assert.deepEqual(titles(todos), ["a", "late", "later"]);
    assert.deepEqual(ticked(todos), ["a", "later"]);
});

test("the answer before the event: nothing jumps back", () => {
    const { todos, want, answer } = list(row("a"));
    const key = want(edit(row("a"), { title: "B" }));
    answer(key);
    assert.deepEqual(titles(todos), ["B"]);
    todos.apply(update(row("a", "by another, before")));
    assert.deepEqual(titles(todos), ["B"]);
    todos.apply(update(row("a", "B")));
    assert.deepEqual(titles(todos), ["B"]);
    assert.equal(todos.settling.length, 0);
    todos.apply(update(row("a", "by another, after")));
    assert.deepEqual(titles(todos), ["by another, after"]);
});

test("the event before the answer: what others do then is seen at once", () => {
    const { todos, want, answer } = list(row("a"));
    const key = want(edit(row("a"), { title: "B" }));
    todos.apply(update(row("a", "B")));
    todos.apply(update(row("a", "C")));
    assert.deepEqual(titles(todos), ["C"]);
    answer(key);
    assert.deepEqual(titles(todos), ["C"]);
    assert.equal(todos.settling.length, 0);
});

test("there and back: the first event is not taken for the second", () => {
    const { todos, want, answer } = list(row("a"));
    const on = want(edit(row("a"), { completed: true }));
    const off = want(edit(row("a"), { completed: false }));
    answer(on);
    answer(off);
    todos.apply(update(row("a", "a", true)));
    assert.deepEqual(ticked(todos), [], "no flicker");
    todos.apply(update(row("a", "a", false)));
    assert.deepEqual(ticked(todos), []);
    assert.equal(todos.settling.length, 0);
});

test("a tick from elsewhere and a title from here", () => {
    const { todos, want, answer } = list(row("a"));
    const key = want(edit(row("a"), { title: "B" }));
    todos.apply(update(row("a", "a", true)));
    assert.deepEqual(todos.shown(), [row("a", "B", true)]);
    answer(key);
    todos.apply(update(row("a", "B", true)));
    assert.deepEqual(todos.shown(), [row("a", "B", true)]);
});

test("an item is added once, whichever comes first", () => {
    for (const order of ["event", "answer"]) {
        const { todos, want, answer } = list();
        const change = add("tea", { created: 1 }), [id] = change.ids;
        const key = want(change);
        if (order === "answer") answer(key);
        todos.apply(insert(row(id, "tea")));
        if (order === "event") answer(key);
        assert.deepEqual(titles(todos), ["tea"]);
        todos.apply(gone(id));
        assert.deepEqual(titles(todos), [], "and stays deleted");
    }
});

test("deleted elsewhere while a change to it waits", () => {
    const { todos, want, refuse } = list(row("a"), row("b"));
    const key = want(edit(row("a"), { title: "A" }));
    todos.apply(gone("a"));
    assert.deepEqual(titles(todos), ["b"]);
    refuse(key);
    assert.deepEqual(titles(todos), ["b"]);
    assert.equal(todos.settling.length, 0);
});

test("refused: the truth is back at once", () => {
    const { todos, want, refuse, answer } = list(row("a"));
    const key = want(edit(row("a"), { title: "B" }));
    refuse(key);
    assert.deepEqual(titles(todos), ["a"]);
    answer(key); // it was read, and is out of the outbox
    assert.deepEqual(titles(todos), ["a"]);
    const bad = want(add("bad"));
    assert.deepEqual(titles(todos).length, 2);
    refuse(bad);
    assert.deepEqual(titles(todos), ["a"]);
});

test("rows bring what shows in them, and the events the rest", () => {
    const { todos, want, answer } = list(row("a"), row("b"), row("c"));
    answer(want(edit(row("b"), { title: "B" })));
    answer(want(edit(row("c"), { title: "C" })));
    want(remove(row("c")));
    todos.load([row("a", "changed"), row("b"), row("c", "C")]);
    assert.deepEqual(titles(todos), ["changed", "B"]);
    assert.equal(todos.settling.length, 1, "c is in what was loaded");
    todos.apply(update(row("b", "B")));
    assert.equal(todos.settling.length, 0);
});

test("there and back: rows that show the second have had the first", () => {
    const { todos, want, answer } = list(row("a"), row("b"));
    const keys = ["A", "a", "A again"].map(title => want(edit(row("a"), { title })));
    answer(want(edit(row("b"), { title: "B" })));
    answer(keys[0]);
    answer(keys[1]);
    todos.load([row("a"), row("b")]);
    assert.deepEqual(titles(todos), ["A again", "B"], "what is not answered or not shown stays");
    answer(keys[2]);
    todos.apply(update(row("a", "A again")));
    todos.apply(update(row("a", "by another")));
    assert.deepEqual(titles(todos), ["by another", "B"]);
});

test("what never gets an event is given up", () => {
    const { todos, want, answer } = list(row("a", "a", true));
    answer(want(edit(row("a"), { title: "B" })), 10);
    todos.settle(9);
    assert.deepEqual(titles(todos), ["B"]);
    todos.settle(10);
    assert.deepEqual(titles(todos), ["a"]);
});

test("all toggled: an event for each, in any order", () => {
    const rows = Array.from({ length: 200 }, (_, i) => row("id" + i));
    const { todos, want, answer } = list(...rows);
    answer(want(toggleAll(todos.shown(), true)));
    for (const one of rows.toReversed?.() ?? [...rows].reverse()) {
        assert.equal(ticked(todos).length, 200);
        todos.apply(update({ ...one, completed: true }));
    }
    assert.equal(ticked(todos).length, 200);
    assert.equal(todos.settling.length, 0);
});

test("a row too large for its event is fetched", () => {
    const { todos } = list();
    const fetch = todos.apply({ op: "insert", key: { id: "a" }, partial: true });
    assert.equal(fetch.id, "a");
    assert.deepEqual(titles(todos), []);
    todos.fetched(fetch, row("a", "large"));
    assert.deepEqual(titles(todos), ["large"]);
    const again = todos.apply({ op: "update", key: { id: "a" }, partial: true });
    todos.fetched(again, null);
    assert.deepEqual(titles(todos), [], "none there any more");
    assert.equal(todos.fetches.size, 0);
});

test("a fetch that comes too late is dropped", () => {
    const { todos } = list(row("a"));
    const partial = { op: "update", key: { id: "a" }, partial: true };
    const first = todos.apply(partial), second = todos.apply(partial);
    todos.fetched(second, row("a", "second"));
    todos.fetched(first, row("a", "first"));
    assert.deepEqual(titles(todos), ["second"]);
    const third = todos.apply(partial);
    todos.apply(gone("a"));
    todos.fetched(third, row("a", "third"));
    assert.deepEqual(titles(todos), []);
    const fourth = todos.apply(partial);
    todos.load([row("a", "loaded")]);
    todos.fetched(fourth, row("a", "fourth"));
    assert.deepEqual(titles(todos), ["loaded"]);
    const fifth = todos.apply(partial);
    todos.apply({ op: "truncate" });
    todos.fetched(fifth, row("a", "fifth"));
    assert.deepEqual(titles(todos), []);
});

test("a large title of one's own: the fetch is its event", () => {
    const { todos, want, answer } = list(row("a"));
    answer(want(edit(row("a"), { title: "large" })));
    const fetch = todos.apply({ op: "update", key: { id: "a" }, partial: true });
    assert.deepEqual(titles(todos), ["large"]);
    todos.fetched(fetch, row("a", "large"));
    assert.equal(todos.settling.length, 0);
});

// Any order of events and answers, others' writes in between: in the end it is the database's.
test("every interleaving ends with the truth", () => {
    let seed = 7;
    const random = n => (seed = seed * 48271 % 2147483647) % n;
    for (let round = 0; round < 300; round++) {
        const database = new Map(), events = [], keys = [];
        const { todos, want, answer } = list();
        const write = (id, one) => {
            const before = database.get(id);
            if (one) database.set(id, one);
            else database.delete(id);
            if (one || before) events.push(one ? update(one) : gone(id));
        };
        for (let step = 0; step < 40; step++) {
            const id = "id" + random(3), now = database.get(id);
            switch (random(5)) {
                case 0: write(id, row(id, "other" + step, random(2) === 1)); break;
                case 1: write(id, undefined); break;
                case 2: {
                    const key = want(edit(row(id), { title: "mine" + step }));
                    if (now) write(id, { ...now, title: "mine" + step });
                    keys.push(key);
                    break;
                }
                case 3: if (events.length) todos.apply(events.shift()); break;
                default: if (keys.length) answer(keys.shift(), step);
            }
        }
        keys.forEach(key => answer(key, 40));
        events.forEach(event => todos.apply(event));
        todos.settle(40);
        const wanted = [...database.values()].sort((a, b) => a.id < b.id ? -1 : 1);
        assert.deepEqual(todos.shown(), wanted);
    }
});
