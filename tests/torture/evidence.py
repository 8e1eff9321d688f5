"""What a failed round leaves behind: a directory with the verdict, the faults, the publishers'
journals, the servers' logs, and what the subscribers in question were told around it."""
import os
import shutil
import tempfile
import time
from datetime import datetime, timezone

AROUND = 25      # notes before and after
VIOLATIONS = 300  # written out


class Evidence:
    def __init__(self, round_name, command):
        self.directory = tempfile.mkdtemp(prefix="fanwire-torture-%s-" % round_name)
        self.command = command
        self._clock = time.time() - time.monotonic()

    def when(self, monotonic):
        """As the servers' log lines have it."""
        if monotonic == float("inf"):
            return "never"
        moment = datetime.fromtimestamp(monotonic + self._clock, timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    def write(self, name, text):
        with open(os.path.join(self.directory, name), "w") as f:
            f.write(text)

    def keep_journals(self, directory):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name.endswith(".journal") or name.endswith(".errors") and os.path.getsize(path):
                shutil.copy(path, self.directory)

    def faults(self, done):
        self.write("faults.txt", "".join("%s %s\n" % (self.when(t), text) for t, text in done))

    def logs(self, hosts):
        for host in hosts:
            self.write("%s.log" % host.name, host.log + "\n")

    def lives(self, lives):
        for life in lives:
            self.write(life.name.replace("/", "~") + ".notes",
                       "".join(self._line(note) for note in life.notes))

    def _line(self, note):
        fields = " ".join(str(field) for field in note[1:])
        return "%s %s %s\n" % (self.when(note.time), type(note).__name__.lower(), fields)

    def verdict(self, judge, more):
        lines = ["replay: %s\n" % self.command]
        lines += ["%s: %d\n" % pair for pair in sorted(judge.counts.items())] if judge else []
        lines += ["%s\n" % text for text in more]
        for violation in (judge.violations if judge else [])[:VIOLATIONS]:
            lines.append("\n" + str(violation) + "\n")
            lines += self._around(judge, violation)
        self.write("verdict.txt", "".join(lines))

    def _around(self, judge, violation):
        event = judge.events.get(violation.event)
        if event:
            yield "  sent %s … %s, %s\n" % (self.when(event.began), self.when(event.ended),
                                           event.status)
            for order in judge.orders.get(event.channel, ()):
                if event.id in order:
                    i = order.index(event.id)
                    yield "  order: … %s …\n" % " ".join(order[max(0, i - 5):i + 6])
        if violation.life is None or violation.at is None:
            return
        notes = violation.life.notes
        first = max(0, violation.at - AROUND)
        for i in range(first, min(len(notes), violation.at + AROUND // 3)):
            yield ("> " if i == violation.at else "  ") + self._line(notes[i])
