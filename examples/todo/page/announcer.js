/* Says what has changed to those who cannot see it: politely, and once things have settled. */
const SETTLED_MS = 800;

const shape = text => text.replace(/\d+ items?/, "items");

export class Announcer {
    texts = new Set();

    constructor(element) {
        this.element = element;
    }

    say(text) {
        // of several counts only the last is of interest
        const same = other => shape(other) === shape(text);
        for (const other of this.texts) if (same(other)) this.texts.delete(other);
        this.texts.add(text);
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.speak(), SETTLED_MS);
    }

    speak() {
        this.element.textContent = [...this.texts].join(" ");
        this.texts.clear();
    }
}
