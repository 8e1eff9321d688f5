/* How things stand between this page and the database, in words. */

const WORDS = {
    live: "Live", connecting: "Connecting", offline: "Offline", away: "Database away",
    denied: "Not allowed", broken: "Cannot load",
};

// live: the client's state; feed: the list's; reach: the last request's end; waiting: how many
// changes are not sent.
export function statusOf({ live, feed, reach, online, waiting, known }) {
    const kind = kindOf(live, feed, reach, online);
    return { kind, word: WORDS[kind], more: more(kind, feed, waiting, known), waiting };
}

function kindOf(live, feed, reach, online) {
    if (live === "denied") return "denied";
    if (!online || live === "offline") return "offline";
    if (live === "stale" || reach === "away") return "away";
    if (live === "connecting" || feed === "loading") return "connecting";
    if (feed !== "loaded") return "broken";
    return reach === "ok" ? "live" : "offline";
}

function more(kind, feed, waiting, known) {
    if (kind === "broken" && feed === "too-large") return "The list is larger than 16 MiB";
    if (waiting) return waiting === 1 ? "1 change waiting" : waiting + " changes waiting";
    if (kind === "live") return "All changes saved";
    if (kind === "connecting") return "One moment";
    return known ? "Showing the last known" : "Trying again";
}

const SOON_MS = 600; // what is sent at once is not worth a word
const SURE_MS = 1500; // nor is a connection that is back at once worth saying

export class Status {
    said = WORDS.live;

    constructor(element, say) {
        [this.word, this.more] = element.children;
        Object.assign(this, { element, say });
    }

    show(status) {
        this.status = status;
        const calm = status.kind === "live" && this.element.dataset.kind === "live";
        if (calm && status.waiting) this.timer ??= setTimeout(() => this.write(), SOON_MS);
        else this.write();
    }

    write() {
        const { kind, word, more } = this.status;
        this.timer = clearTimeout(this.timer);
        this.element.dataset.kind = kind;
        for (const [part, text] of [[this.word, word], [this.more, more]]) {
            if (part.textContent !== text) part.textContent = text;
        }
        clearTimeout(this.saying);
        if (word !== this.said) this.saying = setTimeout(() => this.speak(word, more), SURE_MS);
    }

    speak(word, more) {
        this.said = word;
        this.say(`${word}. ${more}.`);
    }
}
