-- The to-do items, and triggers that tell their changes to the channels "todos" and "todos:ID" by
-- the table fanwire_outbox. Any program may write here: INSERT INTO todos (title) VALUES ('tea');

BEGIN IMMEDIATE;

CREATE TABLE IF NOT EXISTS todos (
    id        TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16))))
              CHECK (length(id) BETWEEN 1 AND 64 AND id NOT GLOB '*[^A-Za-z0-9_-]*'),
    title     TEXT NOT NULL
              CHECK (length(title) BETWEEN 1 AND 10000 AND instr(title, char(0)) = 0),
    completed INTEGER NOT NULL DEFAULT 0 CHECK (completed IN (0, 1)),
    created   INTEGER NOT NULL  -- milliseconds since 1970
              DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER))
) STRICT;

CREATE INDEX IF NOT EXISTS todos_in_order ON todos (created, id);

CREATE TRIGGER IF NOT EXISTS todos_insert AFTER INSERT ON todos BEGIN
    INSERT INTO fanwire_outbox (channel, payload)
    SELECT value, json_object(
        'op', 'insert', 'table', 'todos', 'key', json_object('id', NEW.id),
        'row', json_object('id', NEW.id, 'title', NEW.title, 'created', NEW.created,
                           'completed', json(iif(NEW.completed, 'true', 'false'))))
    FROM json_each(json_array('todos', 'todos:' || NEW.id));
END;

CREATE TRIGGER IF NOT EXISTS todos_update AFTER UPDATE ON todos BEGIN
    INSERT INTO fanwire_outbox (channel, payload)
    SELECT channel, json_object(
        'op', 'update', 'table', 'todos', 'key', json_object('id', NEW.id),
        'row', json_object('id', NEW.id, 'title', NEW.title, 'created', NEW.created,
                           'completed', json(iif(NEW.completed, 'true', 'false'))),
        'old', json_object('id', OLD.id, 'title', OLD.title, 'created', OLD.created,
                           'completed', json(iif(OLD.completed, 'true', 'false'))))
    FROM (SELECT 'todos' AS channel UNION SELECT 'todos:' || NEW.id UNION SELECT 'todos:' || OLD.id);
END;

CREATE TRIGGER IF NOT EXISTS todos_delete AFTER DELETE ON todos BEGIN
    INSERT INTO fanwire_outbox (channel, payload)
    SELECT value, json_object(
        'op', 'delete', 'table', 'todos', 'key', json_object('id', OLD.id),
        'old', json_object('id', OLD.id, 'title', OLD.title, 'created', OLD.created,
                           'completed', json(iif(OLD.completed, 'true', 'false'))))
    FROM json_each(json_array('todos', 'todos:' || OLD.id));
END;

COMMIT;
