// WebSocket and EventSource for a Node that has neither: what the client needs of them, no more.
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";

export class WebSocket {
    constructor(url, protocol) {
        this.readyState = 0;
        const key = randomBytes(16).toString("base64");
        const request = http.get(url.replace("ws", "http"), {
            headers: {
                Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": key, "Sec-WebSocket-Protocol": protocol,
            },
        });
        this.abort = () => request.destroy();
        request.on("upgrade", (response, socket, head) => {
            const accept = createHash("sha1").update(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
            const told = response.headers["sec-websocket-accept"];
            if (told !== accept.digest("base64")) socket.destroy();
            this.socket = socket;
            this.abort = () => socket.destroy();
            this.readyState = 1;
            this.onopen?.({});
            let data = Buffer.alloc(0);
            const take = more => {
                data = Buffer.concat([data, more]);
                for (let used; (used = this.frame(data)) > 0;) data = data.subarray(used);
            };
            socket.on("data", take);
            socket.on("error", () => {});
            socket.on("close", () => this.ended(1006, ""));
            take(head);
        });
        request.on("response", response => {
            response.resume();
            this.ended(1006, "");
        });
        request.on("error", () => this.ended(1006, ""));
    }

    // The length of the frame at the front; 0 when it is not complete.
    frame(data) {
        let at = 2, len = data[1] & 127;
        if (data.length < 2) return 0;
        if (len === 126) [at, len] = [4, data.length < 4 ? Infinity : data.readUInt16BE(2)];
        else if (len === 127)
            [at, len] = [10, data.length < 10 ? Infinity : Number(data.readBigUInt64BE(2))];
        if (data.length < at + len) return 0;
        const body = data.subarray(at, at + len), opcode = data[0] & 15;
        if (opcode === 1) this.onmessage?.({ data: body.toString() });
        else if (opcode === 9) this.write(10, body);
        else if (opcode === 8) {
            this.write(8, body);
            this.socket.end();
            this.ended(len >= 2 ? body.readUInt16BE(0) : 1005, body.subarray(2).toString());
        }
        return at + len;
    }

    write(opcode, body) {
        const mask = randomBytes(4), head = Buffer.alloc(10);
        head[0] = 128 | opcode;
        const short = body.length < 126;
        head[1] = 128 | (short ? body.length : 127);
        if (!short) head.writeBigUInt64BE(BigInt(body.length), 2);
        this.socket.write(Buffer.concat([head.subarray(0, short ? 2 : 10), mask,
            body.map((one, i) => one ^ mask[i & 3])]));
    }

    send(text) {
        this.write(1, Buffer.from(text));
    }

    close() {
        this.readyState = 2;
        if (this.socket) this.write(8, Buffer.from([3, 232]));
        this.abort();
    }

    ended(code, reason) {
        if (this.readyState === 3) return;
        this.readyState = 3;
        this.onclose?.({ code, reason });
    }
}

export class EventSource {
    constructor(url) {
        this.readyState = 0;
        this.request = http.get(url, { headers: { Accept: "text/event-stream" } }, response => {
            if (response.statusCode !== 200) {
                response.resume();
                return this.failed(2);
            }
            this.readyState = 1;
            this.onopen?.({});
            let text = "";
            response.setEncoding("utf8");
            response.on("data", more => {
                const blocks = (text + more).split("\n\n");
                text = blocks.pop();
                for (const block of blocks) this.block(block);
            });
            response.on("error", () => {});
            response.on("close", () => this.failed(0));
        });
        this.request.on("error", () => this.failed(0));
    }

    block(block) {
        const data = block.split("\n").filter(line => line.startsWith("data:"))
            .map(line => line.slice(5).replace(/^ /, ""));
        if (data.length && this.readyState === 1) this.onmessage?.({ data: data.join("\n") });
    }

    failed(state) {
        if (this.readyState === 2) return;
        this.readyState = state;
        this.onerror?.({});
    }

    close() {
        this.readyState = 2;
        this.request.destroy();
    }
}
