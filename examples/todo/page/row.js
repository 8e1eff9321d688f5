/* One item of the list: its checkbox, its title, its buttons, and its editor.
 *
 * The editor's text belongs to who types it. What happens to the item meanwhile is said beside. */
import { problemOf } from "./todos.js";

const LONG = 240; // characters, or lines: then only the beginning is shown
const LONG_LINES = 8;

// Its elements, by their classes in the template.
const PARTS = ["check", "text", "title", "more", "editor", "edit", "problem", "start", "delete",
    "save", "leave"];

let count = 0;

// Cut for a label or a message; whole characters.
export function brief(title, length = 60) {
    const text = visible(title).replace(/\s+/g, " ").trim();
    const characters = [...text.slice(0, 4 * length)];
    return characters.length <= length ? text : characters.slice(0, length - 1).join("") + "…";
}

export const nameOf = title => brief(title) || "no title";

// Control characters as their pictures: else a title could consist of nothing to see.
const visible = title =>
    title.replace(/[\0-\x08\x0b-\x1f]/g, c => String.fromCharCode(0x2400 + c.charCodeAt()));

export class Row {
    constructor(template, actions) {
        this.element = template.content.firstElementChild.cloneNode(true);
        this.actions = actions; // what view.js does about it
        for (const name of PARTS) this[name] = this.element.querySelector("." + name);
        this.title.id = "title-" + ++count;
        this.problem.id = "problem-" + count;
        this.check.setAttribute("aria-labelledby", this.title.id);
        this.edit.setAttribute("aria-describedby", this.problem.id);
        this.listen();
    }

    listen() {
        const { actions, element, check, title, more, edit } = this;
        check.onchange = () => actions.toggle(this.item, check.checked);
        title.ondblclick = () => this.open();
        this.start.onclick = () => this.open();
        this.delete.onclick = () => actions.remove(this.item);
        more.onclick = () => this.expand(more.getAttribute("aria-expanded") === "false");
        this.save.onclick = () => this.commit();
        this.leave.onclick = () => this.close();
        this.editor.onsubmit = event => event.preventDefault();
        edit.oninput = () => this.review();
        element.onkeydown = event => this.key(event);
        element.addEventListener("focusout", event => this.left(event));
    }

    get editing() {
        return !this.editor.hidden;
    }

    // ---- what it shows ----

    // Touches only what is different.
    show(item, foreign) {
        const { item: before } = this;
        this.item = item;
        this.gone = this.check.disabled = false;
        if (before?.title !== item.title) this.showTitle(item.title);
        if (this.check.checked !== item.completed) this.check.checked = item.completed;
        this.element.classList.toggle("done", item.completed);
        if (this.editing) this.review();
        if (foreign) this.flash();
    }

    // Deleted, while it is being edited.
    lose() {
        if (this.gone) return;
        this.gone = this.check.disabled = true;
        this.review();
        this.actions.say("This item was deleted by someone else.");
    }

    showTitle(title) {
        const name = nameOf(title);
        this.title.textContent = visible(title).trim() || "No title";
        this.title.classList.toggle("untitled", !title.trim());
        this.start.setAttribute("aria-label", "Edit " + name);
        this.delete.setAttribute("aria-label", "Delete " + name);
        this.more.hidden = title.length <= LONG && title.split("\n").length <= LONG_LINES;
        this.expand(false);
    }

    expand(all) {
        this.element.classList.toggle("cut", !all && !this.more.hidden);
        this.more.setAttribute("aria-expanded", all);
        this.more.textContent = all ? "Show less" : "Show all";
    }

    flash() {
        this.element.classList.remove("changed");
        void this.element.offsetWidth; // so that it starts anew
        this.element.classList.add("changed");
    }

    focus() {
        (this.editing ? this.edit : this.check).focus();
    }

    // ---- its editor ----

    open() {
        if (this.editing) return;
        this.was = this.edit.value = this.item.title;
        this.base = this.edit.value; // line ends as the browser has them
        this.swap(true);
        this.review();
        this.edit.focus();
        this.edit.setSelectionRange(this.base.length, this.base.length);
        this.edit.scrollIntoView({ block: "nearest" });
    }

    // What was typed is forgotten.
    close() {
        this.leaveEditor();
        this.actions.closed();
    }

    leaveEditor(focus = true) {
        this.swap(false);
        this.check.disabled = false;
        if (focus) this.check.focus();
    }

    swap(editing) {
        const { element, text, edit, editor, start, save, leave } = this;
        element.classList.toggle("editing", editing);
        text.hidden = start.hidden = this.delete.hidden = editing;
        editor.hidden = save.hidden = leave.hidden = !editing;
        if (editing) edit.setAttribute("aria-label", "Edit " + nameOf(this.was));
    }

    commit(focus = true) {
        const { actions, item, gone, edit, base } = this;
        const title = edit.value.trim(), problem = problemOf(title);
        if (problem) {
            actions.say(problem);
            if (focus) edit.focus();
            return;
        }
        this.leaveEditor(focus);
        if (gone && title) actions.addAgain(item, title);
        else if (gone || edit.value === base || title === item.title) actions.closed();
        else if (title) actions.rename(item, title);
        else actions.remove(item);
    }

    // The hint beside it, and its height.
    review() {
        const { edit, item, was, gone, problem, save } = this;
        const tooLong = problemOf(edit.value.trim());
        const foreign = item.title !== was && item.title !== edit.value;
        const text = tooLong
            ?? (gone ? "Deleted by someone else. Enter (✓) adds it again, Esc (✕) lets it go."
                : foreign ? `Changed elsewhere to “${brief(item.title, 200)}”. `
                    + "Enter (✓) saves yours, Esc (✕) takes theirs." : "");
        if (problem.textContent !== text) {
            problem.textContent = text;
            if (foreign && !gone && !tooLong) this.actions.say(text);
        }
        edit.setAttribute("aria-invalid", Boolean(tooLong));
        save.title = gone ? "Add it again (Enter)" : "Save (Enter)";
        for (const button of [save, this.leave]) button.setAttribute("aria-label", button.title);
        edit.style.height = "auto";
        edit.style.height = edit.scrollHeight + "px";
    }

    // ---- keys, and leaving it ----

    key(event) {
        const { key, target } = event;
        if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
        if (target === this.edit) {
            if (key === "Enter" && !event.shiftKey) this.commit();
            else if (key === "Escape") this.close();
            else return;
        } else if (this.editing) {
            if (key !== "Escape") return;
            this.close();
        } else if (key === "F2" || key === "Enter" && target === this.check) this.open();
        else if (key === "Delete") this.actions.remove(this.item);
        else if (key === "ArrowUp" || key === "ArrowDown") this.actions.move(this, key);
        else return;
        event.preventDefault();
    }

    // Going elsewhere in the page saves; going to another window does not, and what somebody has
    // deleted comes back only when it is asked for.
    left({ relatedTarget }) {
        if (!this.editing || this.gone || !document.hasFocus()) return;
        if (this.element.contains(relatedTarget)) return;
        this.commit(false);
    }
}
