/* What could not be done, and why: one at a time, each stays until it has been read. */
import { add } from "./changes.js";
import { brief, nameOf } from "./row.js";

// What a refused change of the outbox is about, in words.
export function wordsOf({ op, title, was, refused: { status, message } }) {
    const gone = status === 404 || status === 410;
    const name = `“${nameOf(was?.title ?? title ?? "")}”`;
    const why = message.replace(/\.?$/, ".");
    switch (op) {
        case "add": return `${name} could not be added: ${why}`;
        case "edit":
            if (!gone) return `${name} could not be changed: ${why}`;
            return `${name} was deleted by someone else`
                + (title === undefined ? "." : `; you had made it “${brief(title)}”.`);
        case "remove": return `${name} could not be deleted: ${why}`;
        case "clear": return `The completed ones could not be cleared: ${why}`;
        case "toggle-all": return `Not all could be marked: ${why}`;
        default: return `A change that was kept here could not be made: ${why}`;
    }
}

// The change that brings back what was typed, if anything was.
export function rescueOf({ op, title, completed, created, was }) {
    if (title === undefined) return undefined;
    return add(title, op === "add" ? { completed, created } : was);
}

export class Notices {
    constructor(element, template, { want, dismiss, say }) {
        Object.assign(this, { element, template, want, dismiss, say });
    }

    show(refused) {
        const [change] = refused, more = refused.length - 1;
        if (change?.key !== this.key) this.turn(change);
        if (!change) return;
        const count = more ? ` (and ${more} more)` : "";
        if (this.count.textContent !== count) this.count.textContent = count;
        this.all.hidden = !more;
        this.all.onclick = () => this.dismiss(...refused.map(({ key }) => key));
    }

    turn(change) {
        const focused = this.element.contains(document.activeElement);
        this.key = change?.key;
        this.element.replaceChildren(...change ? [this.notice(change)] : []);
        const next = this.element.querySelector(".dismiss") ?? document.getElementById("new");
        if (focused) next.focus();
    }

    notice(change) {
        const element = this.template.content.firstElementChild.cloneNode(true);
        const [text, again, dismiss, all] = element.children, rescue = rescueOf(change);
        text.firstElementChild.textContent = wordsOf(change);
        Object.assign(this, { count: text.lastElementChild, all });
        again.hidden = !rescue;
        again.textContent = change.op === "add" ? "Try again" : "Add it again";
        again.onclick = () => {
            this.want(rescue);
            this.dismiss(change.key);
        };
        dismiss.onclick = () => this.dismiss(change.key);
        this.say(wordsOf(change));
        return element;
    }
}
