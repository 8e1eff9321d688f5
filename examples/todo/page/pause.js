/* The wait before another try: random and growing, never shorter than the server asked for, and cut
 * short when there is reason to hope. */

// Full jitter: those who were cut off together do not come back together.
export const backoff = fails => Math.random() * Math.min(30_000, 1000 * 2 ** fails);

export class Pause {
    waits = new Set();

    after({ retryMs = 0 }, fails) {
        const earliest = performance.now() + retryMs;
        return new Promise(done => {
            const wait = { earliest, over: () => this.waits.delete(wait) && done() };
            this.waits.add(wait);
            wait.timer = setTimeout(wait.over, retryMs + backoff(fails));
        });
    }

    // The network or the server is back, or somebody looks at the page.
    wake() {
        for (const wait of this.waits) {
            clearTimeout(wait.timer);
            const left = wait.earliest - performance.now();
            if (left > 0) wait.timer = setTimeout(wait.over, left);
            else wait.over(); // no timer: a hidden tab's are slow
        }
    }

    // Calls until it works, or is refused for good.
    async until(call) {
        for (let fails = 0; ; fails++) {
            try {
                return await call();
            } catch (error) {
                if (error.status) throw error;
                await this.after(error, fails);
            }
        }
    }
}
