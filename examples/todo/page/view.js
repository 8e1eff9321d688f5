/* The page: the field for new todos, the filters, and a row for each item. Rows are kept by id, and
 * only what is different is touched. */
import { Row } from "./row.js";
import { problemOf } from "./todos.js";
import { add, clearCompleted, edit, remove, toggleAll } from "./changes.js";

const FILTERS = {
    "": {
        test: () => true,
        none: "Nothing to do. Add something, then look at it in a second window.",
    },
    active: { test: item => !item.completed, none: "Nothing left to do." },
    completed: { test: item => item.completed, none: "Nothing completed yet." },
};
const LOADING = "Loading. What you add meanwhile is kept.";
const FEW = 12; // rows that may move at once

const $ = id => document.getElementById(id);

export class View {
    rows = new Map(); // id → Row
    items = [];

    // want(change): what the person at the page wants. say(text): to who cannot see it.
    constructor({ want, say }) {
        Object.assign(this, { want, say });
        this.actions = {
            say,
            toggle: (item, completed) => want(edit(item, { completed })),
            rename: (item, title) => want(edit(item, { title })),
            remove: item => want(remove(item)),
            addAgain: (item, title) => want(add(title, item)),
            closed: () => this.redraw(),
            move: (row, key) => this.move(row, key),
        };
        this.listen();
        this.filter();
    }

    listen() {
        $("add").onsubmit = event => {
            event.preventDefault();
            this.add();
        };
        $("new").oninput = () => this.review();
        $("new").onkeydown = event => {
            if (event.key !== "ArrowDown" || event.isComposing) return;
            event.preventDefault();
            this.rowAt($("list").firstElementChild)?.focus();
        };
        $("all").onchange = () => this.want(toggleAll(this.items, $("all").checked));
        $("clear").onclick = () => this.want(clearCompleted(this.items));
        addEventListener("hashchange", () => this.filter());
    }

    // ---- what is asked for ----

    add() {
        const field = $("new"), title = field.value.trim();
        if (!title) return;
        if (this.review()) {
            this.say(this.review());
            return;
        }
        const change = add(title);
        field.value = "";
        if (this.name === "completed") location.hash = "#/";
        this.want(change);
        this.rows.get(change.ids[0])?.element.scrollIntoView({ block: "nearest" });
        field.focus();
    }

    review() {
        const problem = problemOf($("new").value.trim());
        $("new").setAttribute("aria-invalid", Boolean(problem));
        $("new-problem").textContent = problem ?? "";
        return problem;
    }

    filter() {
        const name = location.hash.replace(/^#\/?/, "");
        this.name = Object.hasOwn(FILTERS, name) ? name : "";
        for (const link of $("filters").children) {
            const here = link.hash === "#/" + this.name;
            if (here) link.setAttribute("aria-current", "true");
            else link.removeAttribute("aria-current");
        }
        this.redraw();
    }

    move({ element }, key) {
        const up = key === "ArrowUp";
        const other = up ? element.previousElementSibling : element.nextElementSibling;
        if (other) this.rowAt(other).focus();
        else if (up) $("new").focus();
    }

    // ---- what is shown ----

    // own: whether it is as it is because of something done here and now; else it is marked.
    show(items, { known, own }) {
        Object.assign(this, { items, known });
        const shown = items.filter(FILTERS[this.name].test);
        const focus = this.focused();
        const ids = new Set(shown.map(item => item.id));
        this.leaveOut(ids);
        this.lay(shown, ids, this.drawn && !own);
        this.drawn ||= known;
        this.summary();
        this.refocus(focus);
    }

    redraw() {
        this.show(this.items, { known: this.known, own: true });
    }

    // A row that is being edited stays, whatever has become of its item.
    leaveOut(ids) {
        for (const [id, row] of this.rows) {
            if (ids.has(id)) continue;
            const item = row.editing && this.items.find(one => one.id === id);
            if (item) row.show(item);
            else if (row.editing) row.lose();
            else {
                this.rows.delete(id);
                row.element.remove();
            }
        }
    }

    lay(shown, ids, foreign) {
        const fresh = shown.filter(item => differs(this.rows.get(item.id)?.item, item));
        const marks = foreign && fresh.length <= FEW;
        let at = $("list").firstElementChild;
        for (const item of shown) {
            const row = this.rows.get(item.id) ?? this.newRow(item.id, fresh.length);
            while (at && !ids.has(at.dataset.id)) at = at.nextElementSibling; // it stays there
            if (at === row.element) at = at.nextElementSibling;
            else $("list").insertBefore(row.element, at);
            if (differs(row.item, item) || row.gone) row.show(item, marks);
        }
    }

    newRow(id, count) {
        const row = new Row($("row"), this.actions);
        row.element.dataset.id = id;
        row.element.classList.toggle("arrived", this.drawn && count <= FEW);
        this.rows.set(id, row);
        return row;
    }

    summary() {
        const { items, known } = this;
        const left = items.filter(item => !item.completed).length;
        const text = known || items.length ? `${left} item${left === 1 ? "" : "s"} left` : "";
        if ($("count").textContent !== text) {
            if ($("count").textContent) this.say(text);
            $("count").textContent = text;
        }
        document.title = left ? `Todos (${left})` : "Todos";
        const all = $("all");
        all.disabled = !items.length;
        all.checked = items.length > 0 && !left;
        all.indeterminate = left > 0 && left < items.length;
        $("clear").classList.toggle("none", left === items.length);
        $("list").hidden = !this.rows.size;
        $("empty").hidden = this.rows.size > 0;
        const loading = !known && !items.length;
        const none = loading ? LOADING : FILTERS[this.name].none;
        $("empty").classList.toggle("loading", loading);
        if ($("empty").textContent !== none) $("empty").textContent = none;
    }

    // ---- the focus ----

    rowAt(element) {
        return element && this.rows.get(element.dataset.id);
    }

    focused() {
        const element = document.activeElement?.closest(".row, #all, #clear");
        return element && { element, index: [...$("list").children].indexOf(element) };
    }

    // Where it was; if that is gone: on what has taken its place.
    refocus(focus) {
        if (!focus) return;
        const { element, index } = focus, rows = $("list").children;
        if (index < 0) {
            if (element.disabled || element.classList.contains("none")) $("new").focus();
        } else if (!element.isConnected) {
            const row = this.rowAt(rows[Math.min(index, rows.length - 1)]);
            if (row) row.focus();
            else $("new").focus();
        }
    }
}

function differs(a, b) {
    return !a || a.title !== b.title || a.completed !== b.completed;
}
