/** Where a fanwire server is: "" or "/" for the page's own origin, "https://host/base-path". */
export function connect(url?: string, options?: ConnectOptions): Live;

export interface ConnectOptions {
    /** One connection for all tabs of this origin (default true). */
    share?: boolean;
    /** Seconds, 5 to 60; else the server decides. */
    heartbeat?: number;
    /** For a Node without them, and for tests; with a WebSocket given, nothing is shared. */
    WebSocket?: unknown;
    EventSource?: unknown;
}

/**
 * connecting: not yet; live; stale: the server has lost its source, events may be late;
 * offline: the connection is lost and will be tried again; denied: the server wants none like this.
 */
export type State = "connecting" | "live" | "stale" | "offline" | "denied";

export interface Live {
    readonly state: State;
    /** The connection's name at the server, `from` of what it publishes; one where tabs share it. */
    readonly id?: string;
    onstate?: (state: State) => void;
    subscribe<T = unknown, L = unknown>(
        channel: string, options?: SubscribeOptions<T, L>): Subscription<T>;
    /** Settles when the backend has accepted it: its id, null where the backend does not tell. */
    publish(channel: string, data: unknown, options?: PublishOptions): Promise<string | null>;
    close(): void;
}

export interface PublishOptions {
    /**
     * Makes a repeat harmless: what has a key that the channel's log holds is not delivered again.
     * A publish with a key is repeated by itself after a lost connection, until it is answered.
     */
    key?: string;
}

export interface SubscribeOptions<T = unknown, L = unknown> {
    /** Go on after this position; "now" (the default) or "oldest". */
    since?: string;
    /** First the newest of what is held: 1 to 1000. */
    last?: number;
    /**
     * First the rows of the channel's query at the server (`--snapshot`), by `onload`; then exactly
     * the events that they do not contain. Anew after each gap. Instead of `last` and `load`; with
     * `since` the rows come only after a gap.
     */
    snapshot?: boolean;
    /** Fetches the state that the events change: when the channel is ready, and after each gap. */
    load?: () => L | Promise<L>;
    /**
     * The result of `load`. What came meanwhile is then applied, in order: it may be in it already.
     * With `snapshot` the rows, an array of objects: no event after them is in them already.
     */
    onload?: (data: L) => void;
    /** Without it, events are kept for the iterator. */
    onmessage?: (event: Event<T>) => void;
    /** Events may be missing. */
    ongap?: (gap: Gap) => void;
    /** The channel is refused; nothing more will come. */
    onerror?: (error: FanwireError) => void;
    /** false: without what this tab has published itself. */
    echo?: boolean;
}

export interface Subscription<T = unknown> extends AsyncIterable<Event<T>> {
    readonly channel: string;
    /** Up to where it is complete: a `since` for later. */
    readonly id?: string;
    /** Anything that JSON can say; a Uint8Array is published as its bytes. */
    publish(data: unknown, options?: PublishOptions): Promise<string | null>;
    close(): void;
}

export interface Event<T = unknown> {
    channel: string;
    id: string;
    /** Milliseconds since 1970. */
    time: number;
    from?: string;
    /** Parsed where the payload is JSON; else a string, or a Uint8Array where it is not UTF-8. */
    data: T;
    /** The payload as text; JSON anew, without its white space. */
    text?: string;
}

export interface Gap {
    channel?: string;
    after: string | null;
    before: string;
    reason: string;
}

export interface FanwireError extends Error {
    code: string;
}
