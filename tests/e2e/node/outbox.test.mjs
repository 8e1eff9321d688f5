// The to-do page's way to the server: what is kept, what is sent, what is tried again.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Api, Refused, Unreachable } from "./page/api.js";
import { forget } from "./page/feed.js";
import { rescueOf, wordsOf } from "./page/notices.js";
import { Outbox } from "./page/outbox.js";
import { backoff, Pause } from "./page/pause.js";
import { statusOf } from "./page/status.js";
import { alone, Memory } from "./page/storage.js";

const change = (n, more) => ({ op: "edit", ids: ["id" + n], title: "t" + n, ...more });
const numbers = entries => entries.map(entry => Number(entry.title.slice(1)));

// A server that answers when it is told to, and a pause that is over when it is told to.
function world(storage = new Memory()) {
    const sent = [], pauses = [];
    const later = list => details => new Promise((resolve, reject) => {
        list.push({ ...details, resolve, reject });
    });
    const outbox = new Outbox({
        storage, send: later(sent), alone: task => task(),
        pause: { after: (error, fails) => later(pauses)({ error, fails }) },
    });
    return { storage, outbox, sent, pauses };
}

const settled = () => new Promise(done => setImmediate(done));

test("sent one after the other, in order", async () => {
    const { outbox, sent, storage } = world();
    for (let n = 0; n < 3; n++) outbox.add(change(n));
    assert.deepEqual(numbers(outbox.waiting), [0, 1, 2]);
    for (let n = 0; n < 3; n++) {
        assert.equal(sent.length, n + 1);
        assert.equal(sent[n].title, "t" + n);
        assert.equal(sent[n].key, undefined);
        sent[n].resolve();
        await settled();
    }
    assert.equal(sent.length, 3);
    assert.equal(storage.length, 0);
    outbox.add(change(3));
    assert.equal(sent.length, 4, "and goes on later");
});

test("a reload goes on where it was", async () => {
    const one = world();
    for (let n = 0; n < 12; n++) one.outbox.add(change(n));
    const two = world(one.storage);
    assert.deepEqual(numbers(two.outbox.waiting), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    two.outbox.add(change(12));
    assert.equal(two.outbox.waiting.at(-1).title, "t12", "after those of before");
});

test("order holds though the clock goes back", t => {
    const { outbox, storage } = world();
    const real = Date.now;
    t.after(() => Date.now = real);
    outbox.add(change(0));
    Date.now = () => real() - 3600_000;
    outbox.add(change(1));
    world(storage).outbox.add(change(2));
    outbox.refresh();
    assert.deepEqual(numbers(outbox.waiting), [0, 1, 2]);
});

test("what fails is tried again, first", async () => {
    const { outbox, sent, pauses } = world();
    outbox.add(change(0));
    outbox.add(change(1));
    for (let n = 0; n < 3; n++) {
        sent[n].reject(new Unreachable("away"));
        await settled();
        assert.deepEqual([pauses[n].error.message, pauses[n].fails], ["away", n]);
        assert.equal(sent.length, n + 1, "not before the pause is over");
        pauses[n].resolve();
        await settled();
        assert.equal(sent[n + 1].title, "t0");
    }
    sent[3].resolve();
    await settled();
    assert.equal(sent[4].title, "t1");
});

test("what is refused stays until it is read, and holds up nothing", async () => {
    const { outbox, sent, storage } = world();
    outbox.add(change(0));
    outbox.add(change(1));
    sent[0].reject(new Refused(400, "no such title"));
    await settled();
    assert.equal(sent[1].title, "t1");
    sent[1].resolve();
    await settled();
    assert.deepEqual(outbox.waiting, []);
    const [refused] = world(storage).outbox.refused;
    assert.deepEqual(refused.refused, { status: 400, message: "no such title" });
    outbox.dismiss(refused.key);
    assert.equal(storage.length, 0);
    assert.deepEqual(outbox.refused, []);
});

test("two tabs send each change once", async () => {
    const storage = new Memory(), sent = [];
    let turn = Promise.resolve();
    const locked = task => turn = turn.then(task);
    const send = async one => {
        sent.push(one.title);
        await settled();
    };
    const options = { storage, send, alone: locked, pause: new Pause() };
    const tabs = [new Outbox(options), new Outbox(options)];
    for (let n = 0; n < 20; n++) {
        tabs[n % 2].add(change(n));
        tabs[1 - n % 2].refresh(); // the storage event
    }
    while (storage.length) await settled();
    await turn;
    assert.deepEqual(sent, Array.from({ length: 20 }, (_, n) => "t" + n));
});

test("a storage that is full, and one with other things in it", async () => {
    const storage = new Memory();
    storage.setItem("todos:change:0000000000000001-x", "{damaged");
    storage.setItem("todos:change:0000000000000002-x", "null");
    storage.setItem("somebody else's", "1");
    const { outbox, sent } = world(storage);
    assert.deepEqual(outbox.entries, []);
    storage.setItem = () => {
        throw new Error("QuotaExceededError");
    };
    outbox.add(change(0));
    assert.deepEqual(numbers(outbox.waiting), [0]);
    sent[0].resolve();
    await settled();
    assert.deepEqual(outbox.waiting, []);
});

test("what can be loaded again makes room", () => {
    const storage = new Memory(), setItem = storage.setItem.bind(storage);
    setItem("todos:known", "x".repeat(1000));
    storage.setItem = (key, text) => {
        if (storage.getItem("todos:known")) throw new Error("QuotaExceededError");
        setItem(key, text);
    };
    const options = { storage, send: () => new Promise(() => {}), alone: task => task() };
    new Outbox({ ...options, makeRoom: () => forget(storage) }).add(change(0));
    assert.deepEqual(numbers(new Outbox(options).waiting), [0], "it outlives a reload");
});

test("without locks, one at a time still", async () => {
    const storage = new Memory(), log = [];
    const task = name => async () => {
        log.push("+" + name);
        for (let i = 0; i < 5; i++) await settled();
        log.push("-" + name);
        return name;
    };
    const all = ["a", "b"].map(name => alone("lease", task(name), storage, undefined));
    assert.deepEqual(await Promise.all(all), ["a", "b"]);
    assert.match(log.join(""), /^\+(.)-\1\+(.)-\2$/);
    assert.equal(storage.length, 0);
    storage.setItem("lease", JSON.stringify({ me: "dead", until: Date.now() - 1 }));
    assert.equal(await alone("lease", task("c"), storage, undefined), "c");
    storage.setItem("lease", JSON.stringify({ me: "of a clock ahead", until: Date.now() + 1e9 }));
    assert.equal(await alone("lease", task("d"), storage, undefined), "d");
});

test("without locks nor room, or with a damaged lease, it is done all the same", async () => {
    const storage = new Memory(), task = async () => "done";
    const forbidden = { request: async () => {
        throw new DOMException("The request was denied.", "SecurityError");
    } };
    assert.equal(await alone("lease", task, storage, forbidden), "done");
    storage.setItem("lease", "{damaged");
    assert.equal(await alone("lease", task, storage, undefined), "done");
    storage.setItem = () => {
        throw new Error("QuotaExceededError");
    };
    assert.equal(await alone("lease", task, storage, undefined), "done");
    const locks = { request: async (name, begin) => begin() };
    let tries = 0;
    await assert.rejects(alone("lease", async () => {
        tries++;
        throw new Error("its own");
    }, storage, locks), /its own/);
    assert.equal(tries, 1);
});

test("whatever goes wrong with its turn, it tries again", async () => {
    const storage = new Memory(), sent = [];
    let broken = true;
    const outbox = new Outbox({
        storage, send: async one => sent.push(one.title), pause: { after: settled },
        alone: async task => {
            if (!broken) return task();
            broken = false;
            throw new Error("no turn");
        },
    });
    outbox.add(change(0));
    while (outbox.running) await settled();
    assert.deepEqual(sent, ["t0"]);
});

test("pauses are random, grow, and honour the server", async () => {
    for (let i = 0; i < 100; i++) {
        assert.ok(backoff(0) <= 1000);
        assert.ok(backoff(1000) <= 30_000);
    }
    const pause = new Pause(), log = [], began = performance.now();
    pause.after({}, 30).then(() => log.push("any"));
    const asked = pause.after({ retryMs: 30 }, 30).then(() => log.push("asked"));
    pause.wake();
    await settled();
    assert.deepEqual(log, ["any"]);
    await asked;
    assert.ok(performance.now() - began >= 28);
    assert.equal(pause.waits.size, 0);
});

test("until it works, or is refused", async () => {
    const pause = new Pause();
    let calls = 0;
    const failing = async () => {
        setImmediate(() => pause.wake());
        if (++calls < 3) throw new Unreachable("away");
        return "here";
    };
    assert.equal(await pause.until(failing), "here");
    assert.equal(calls, 3);
    await assert.rejects(pause.until(async () => {
        throw new Refused(403, "no");
    }), { status: 403 });
});

// ---- requests ----

function answering(status, body = "", headers = {}) {
    const requests = [];
    const api = new Api("/api/todos/", async (url, options) => {
        requests.push([options.method, url, options.body]);
        if (status === "lost") throw new TypeError("Failed to fetch");
        return new Response(status === 204 ? null : body, { status, headers });
    });
    return { api, requests };
}

test("a request and its answer", async () => {
    const { api, requests } = answering(200, '{"id":"a b"}');
    const reached = [];
    api.onreach = reach => reached.push(reach);
    api.found("away");
    assert.deepEqual(await api.item("a b"), { id: "a b" });
    await api.request("PUT", "a/", { completed: true });
    assert.deepEqual(requests, [["GET", "/api/todos/a%20b/", undefined],
        ["PUT", "/api/todos/a/", '{"completed":true}']]);
    assert.deepEqual(reached, ["away", "ok"]);
    assert.equal(await answering(204).api.request("DELETE", "a/"), undefined);
});

test("refused, with the server's words", async () => {
    const problem = JSON.stringify({ detail: "The title is too long." });
    await assert.rejects(answering(400, problem).api.request("POST", "", {}),
        { status: 400, message: "The title is too long." });
    await assert.rejects(answering(405, "<html>").api.item("a"), { status: 405, message: "HTTP 405" });
    assert.equal(await answering(404).api.item("a"), null);
});

test("unreachable, and for how long", async () => {
    const cases = [["lost", "", {}, "unreachable", 0], [500, "", {}, "unreachable", 0],
        [503, "{}", { "Retry-After": "7" }, "away", 7000], [429, "", {}, "unreachable", 0],
        [503, "", { "Retry-After": "nonsense" }, "away", 0],
        [503, "", { "Retry-After": "86400" }, "away", 300_000],
        [200, "<html>log in to this hotel", {}, "unreachable", 0]];
    for (const [status, body, headers, reach, retryMs] of cases) {
        const { api } = answering(status, body, headers);
        const error = await api.item("a").catch(error => error);
        assert.ok(error instanceof Unreachable, `${status} ${body}`);
        assert.deepEqual([api.reach, error.retryMs, error.status], [reach, retryMs, undefined]);
    }
    const date = new Date(Date.now() + 60_000).toUTCString();
    const error = await answering(503, "", { "Retry-After": date }).api.item("a").catch(e => e);
    assert.ok(error.retryMs > 50_000 && error.retryMs <= 60_000, error.retryMs);
});

// ---- words ----

test("how things stand, in words", () => {
    const calm = { live: "live", feed: "loaded", reach: "ok", online: true, waiting: 0, known: true };
    const words = more => {
        const { kind, word, more: rest } = statusOf({ ...calm, ...more });
        return [kind, word, rest].join("/");
    };
    assert.equal(words({}), "live/Live/All changes saved");
    assert.equal(words({ waiting: 1 }), "live/Live/1 change waiting");
    assert.equal(words({ live: "stale", waiting: 3 }), "away/Database away/3 changes waiting");
    assert.equal(words({ reach: "away" }), "away/Database away/Showing the last known");
    assert.equal(words({ live: "offline", known: false }), "offline/Offline/Trying again");
    assert.equal(words({ online: false }), "offline/Offline/Showing the last known");
    assert.equal(words({ reach: "unreachable" }), "offline/Offline/Showing the last known");
    assert.equal(words({ live: "connecting" }), "connecting/Connecting/One moment");
    assert.equal(words({ feed: "loading" }), "connecting/Connecting/One moment");
    assert.equal(words({ feed: "source-refused" }), "broken/Cannot load/Showing the last known");
    assert.equal(words({ feed: "too-large" }), "broken/Cannot load/The list is larger than 16 MiB");
    assert.equal(words({ live: "offline", feed: "too-large" }),
        "offline/Offline/Showing the last known");
    assert.equal(words({ live: "denied", feed: "denied" }), "denied/Not allowed/Showing the last known");
});

test("what was refused, in words, and what can be saved of it", () => {
    const was = { id: "a", title: "Milk", completed: true, created: 5 };
    const gone = { status: 404, message: "no" }, bad = { status: 400, message: "Too long" };
    const renamed = { op: "edit", ids: ["a"], title: "Oat milk", was, refused: gone };
    assert.equal(wordsOf(renamed),
        "“Milk” was deleted by someone else; you had made it “Oat milk”.");
    const { ids, ...rescue } = rescueOf(renamed);
    assert.deepEqual(rescue, { op: "add", title: "Oat milk", completed: true, created: 5 });
    assert.notEqual(ids[0], "a");
    const ticked = { op: "edit", ids: ["a"], completed: true, was, refused: gone };
    assert.equal(wordsOf(ticked), "“Milk” was deleted by someone else.");
    assert.equal(rescueOf(ticked), undefined);
    assert.equal(wordsOf({ ...renamed, refused: bad }), "“Milk” could not be changed: Too long.");
    assert.equal(wordsOf({ op: "add", ids: ["b"], title: "x".repeat(100), refused: bad }),
        `“${"x".repeat(59)}…” could not be added: Too long.`);
});
