// Runs JavaScript that a test sends, one JSON string per line, and answers with its value.
import { createInterface } from "node:readline";
import { connect } from "fanwire";
import { EventSource, WebSocket } from "./sockets.mjs";

globalThis.connect = (url, options) => connect(url, { WebSocket, EventSource, ...options });
console.error = console.warn = () => {};

for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
        answer = { value: await (0, eval)(JSON.parse(line)) };
    } catch (error) {
        answer = { error: String(error.stack ?? error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
}
