-- fanwire for SQLite, version 1.
--
-- Install:  fanwire sql sqlite | sqlite3 app.db     (fanwire serve sqlite:app.db does it by itself)
-- Publish:  INSERT INTO fanwire_outbox (channel, payload) VALUES ('todos', '{"op":"insert","id":7}');
--
-- An event is delivered when the transaction commits, and never if it does not. Rows are removed by
-- fanwire (?keep=, ?keep-for=); ids only ever rise. Run it again at will.

BEGIN IMMEDIATE;

CREATE TABLE IF NOT EXISTS fanwire_outbox (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,  -- the event's position: leave it out
    channel TEXT NOT NULL
            CHECK (typeof(channel) = 'text'
                   AND length(CAST(channel AS BLOB)) BETWEEN 1 AND 255
                   AND channel NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || ']*'
                   AND substr(channel, 1, 9) <> '$fanwire/'),
    payload NOT NULL,                           -- text (JSON or not) or a blob
    created INTEGER NOT NULL                    -- milliseconds since 1970
            DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)),
    key     TEXT,
    client  TEXT                                -- arrives as "from"
);

-- Which stream the ids belong to. After restoring an older copy in place, tell fanwire by
-- UPDATE fanwire_meta SET value = lower(hex(randomblob(16))) WHERE name = 'id';
CREATE TABLE IF NOT EXISTS fanwire_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT OR IGNORE INTO fanwire_meta VALUES ('version', 1), ('id', lower(hex(randomblob(16))));

COMMIT;
