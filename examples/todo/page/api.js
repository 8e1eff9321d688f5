/* Requests to /api/todos/, and the three ways in which they end: an answer, Refused (it will not
 * do, however often it is sent), Unreachable (it is worth trying again). */

export class Refused extends Error {
    constructor(status, message) {
        super(message);
        this.status = status;
    }
}

export class Unreachable extends Error {
    constructor(message, { retryMs = 0, away = false } = {}) {
        super(message);
        this.retryMs = retryMs; // not before
        this.away = away; // the server is there, its database is not
    }
}

// Answers that speak of now, not of the request. 4xx of a proxy among them.
const passing = status => status >= 500 || [408, 421, 425, 429].includes(status);

// Seconds, or a date.
function retryMs(text) {
    if (!text) return 0;
    const ms = /^\d+$/.test(text) ? text * 1000 : Date.parse(text) - Date.now();
    return Math.min(Math.max(ms || 0, 0), 300_000);
}

export class Api {
    reach = "ok"; // "away", "unreachable": as the last request found it
    onreach = () => {};

    constructor(url = "api/todos/", fetch = globalThis.fetch.bind(globalThis)) {
        Object.assign(this, { url, fetch });
    }

    // null: there is none.
    async item(id) {
        try {
            return await this.request("GET", encodeURIComponent(id) + "/");
        } catch (error) {
            if (error.status === 404 || error.status === 410) return null;
            throw error;
        }
    }

    async request(...what) {
        try {
            const answer = await this.attempt(...what);
            this.found("ok");
            return answer;
        } catch (error) {
            if (error instanceof Refused) this.found("ok");
            else this.found(error.away ? "away" : "unreachable");
            throw error;
        }
    }

    async attempt(method, path, body) {
        let answer, text;
        try {
            answer = await this.fetch(this.url + path, {
                method,
                body: body && JSON.stringify(body),
                headers: body ? { "Content-Type": "application/json" } : {},
                cache: "no-store",
                redirect: "error", // to the login page of some hotel
                signal: AbortSignal.timeout(20_000),
            });
            text = await answer.text();
        } catch (error) {
            throw new Unreachable(error.message);
        }
        if (passing(answer.status)) {
            throw new Unreachable("HTTP " + answer.status, {
                retryMs: retryMs(answer.headers.get("Retry-After")), away: answer.status === 503,
            });
        }
        const data = parsed(text);
        if (!answer.ok) throw new Refused(answer.status, data?.detail || "HTTP " + answer.status);
        if (text && data === undefined) throw new Unreachable("an answer that is no JSON");
        return data;
    }

    // There is reason to think that the next one arrives.
    hope() {
        this.found("ok");
    }

    found(reach) {
        if (reach === this.reach) return;
        this.reach = reach;
        this.onreach(reach);
    }
}

function parsed(text) {
    try {
        return JSON.parse(text);
    } catch {
        return undefined;
    }
}
